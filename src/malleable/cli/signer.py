"""m2 signer: whose signatures on images are trusted."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from malleable.cli.command import group, register
from malleable.cli.options import NewName, ProjectArgument, Yes
from malleable.cli.output import Column, done, show_list
from malleable.cli.session import Session, usage

if TYPE_CHECKING:
    from malleable.wire.signers import SignerView

#: minisign's keys have 113 bytes, its signatures up to 9 KiB, which are comments.
TEXT_MAX_BYTES = 16 * 1024
#: How the other halves of keys begin.
SECRETS = ("minisign encrypted secret key", "PRIVATE KEY-----")
SiteOption = Annotated[bool, typer.Option("--site", help="Of the site, for everybody; admins only.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    noun = group(app, "signer", "Whose signatures on images are trusted.")
    register(noun, {"list": signer_list, "add": signer_add, "delete": signer_delete, "require": signer_require})


def signer_list(session: Session) -> None:
    """List the site's signers, and your projects' own."""
    columns: list[Column[SignerView]] = [
        Column(title="name", cell=lambda signer: signer.name),
        Column(title="of", cell=lambda signer: signer.project or "all (site)"),
        Column(title="key", cell=lambda signer: signer.key_number),
        Column(title="public key", cell=lambda signer: signer.key, is_minor=True),
    ]
    nothing = "No signers; `m2 signer add NAME minisign.pub|cosign.pub --project NAME` adds one."
    show_list(session, session.m2.signer_list(project=session.project), columns, nothing=nothing)


def signer_add(
    session: Session,
    name: NewName,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A public key of minisign or cosign, e.g. minisign.pub.", exists=True)
    ],
    *,
    site: SiteOption = False,
) -> None:
    """Trust whoever has the other half of a key: a project's images, or everybody's, may be signed by them."""
    from malleable.wire.signers import SignerRequest

    if not site and session.project is None:
        usage("Who shall trust them?", "Give --project NAME, or --site for everybody (admins only).")
    key = read_small(file, "a public key of minisign or cosign")
    signer = session.m2.signer_add(SignerRequest(name=name, project=None if site else session.project, key=key))
    done(session, signer, f"Images signed with key {signer.key_number} are trusted as signed by {name}.")


def signer_delete(
    session: Session,
    signer: Annotated[str, typer.Argument(metavar="SIGNER", show_default=False)],
    yes: Yes = False,
) -> None:
    """Trust somebody no longer; where signed images are required, theirs do not boot any more."""
    session.confirm(f"Trust {signer} no longer?", is_sure=yes)
    session.m2.signer_remove(signer, project=session.project)
    done(session, None, f"{signer} is trusted no longer.")


def signer_require(
    session: Session,
    project: ProjectArgument,
    *,
    off: Annotated[bool, typer.Option("--off", help="Take all images again.")] = False,
) -> None:
    """Have a project import and boot only what was signed by somebody whom it or the site trusts."""
    found = session.m2.signing_set(project, is_needed=not off)
    what = "takes signed images only" if found.needs_signed_images else "takes all images"
    done(session, found, f"Project {found.name} {what}.")


def read_small(file: Path, what: str) -> str:
    """Read a key or a signature. Errors: OSError."""
    with file.open("rb") as opened:
        raw = opened.read(TEXT_MAX_BYTES + 1)
    text = raw.decode(errors="replace")
    if len(raw) > TEXT_MAX_BYTES or "\0" in text or any(secret in text for secret in SECRETS):
        usage(f"{file} is not {what}.", "Give the file that was written for others; never the secret key.")
    return text
