"""m2 image import: bring an image to the server."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from malleable.cli.formats import parse_size
from malleable.cli.options import PasswordFile, Watch, read_password
from malleable.cli.progress import finish
from malleable.cli.session import Session, usage
from malleable.cli.signer import read_small

if TYPE_CHECKING:
    from malleable.wire.operations import OperationView


SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="FILE|-|URL|oci://…",
        help="A disk (raw, qcow2, vmdk, vhd, vhdx, zstd) or its manifest; - is standard input; a URL; an artifact.",
        show_default=False,
    ),
]
CosignOption = Annotated[
    bool, typer.Option("--cosign", help="An artifact must be signed in its registry, by one of `m2 signer list`.")
]
ArchitectureOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="E.g. aarch64; of an artifact for several, which. Else x86_64.")
]


def image_import(
    session: Session,
    source: SourceArgument,
    *,
    manifest: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What the image is; else NAME.json beside the disk.")
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Else the manifest's, or the file's.")] = None,
    sha256: Annotated[str | None, typer.Option(metavar="HEX", help="What the file must be.")] = None,
    size_wanted: Annotated[
        str | None, typer.Option("--size", metavar="SIZE", help="What a URL's file must have.")
    ] = None,
    signature: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What `minisign -S` wrote for the disk, or a manifest with a kernel."),
    ] = None,
    cosign: CosignOption = False,
    architecture: ArchitectureOption = None,
    username: Annotated[str | None, typer.Option(metavar="NAME", help="Who asks the registry.")] = None,
    password_file: PasswordFile = None,
    golden: Annotated[
        bool, typer.Option("--golden", help="For everybody; admins only. Else --project owns it.")
    ] = False,
    watch: Watch = True,
) -> None:
    """Bring an image to the server: described, uploaded from here or read from the web there, checked and sealed.

    An upload that broke is taken up again by the same command. Of a URL, the server goes on by itself.
    """
    if source == "-" and name is None and manifest is None:
        usage("What comes by standard input has no name.", "Give --name NAME.")
    if not golden and session.project is None:
        usage("Whose image shall it be?", "Give --project NAME, or --golden for everybody's (admins only).")
    project = None if golden else session.project
    told = {
        "name": name,
        "project": project,
        "sha256": sha256,
        "signature": None if signature is None else read_small(signature, "a signature of minisign"),
        "architecture": architecture,
    }
    if "://" in source:
        password = None if username is None else read_password(password_file, f"Password of {username}")
        size_bytes = None if size_wanted is None else parse_size(size_wanted)
        read = {"username": username, "password": password, "size_bytes": size_bytes, "cosign": cosign}
        operation, name = _fetch(session, source, manifest, {**told, **read})
    elif size_wanted is not None or username is not None or cosign:
        usage("--size, --username and --cosign are for what the server reads.", "Leave them out for a file here.")
    else:
        operation, name = _send(session, source, manifest, told)
    finish(session, operation, is_watching=watch, what=f"import of {name}")


def _fetch(
    session: Session, source: str, manifest: Path | None, told: Mapping[str, object]
) -> tuple["OperationView", str]:
    """Have the server read a URL; return the image's name, too."""
    from malleable.cli.image_fetch import described

    operation = session.m2.image_fetch(described(source, manifest, told))
    return operation, str(operation.arguments["name"])


def _send(
    session: Session, source: str, manifest: Path | None, told: Mapping[str, str | None]
) -> tuple["OperationView", str]:
    """Upload what lies here; return the image's name, too."""
    from malleable.cli.image_upload import from_here, read_source, upload

    signature = told["signature"]
    with from_here(session, source) as path:
        read = read_source(path, manifest, told["name"], told["sha256"])
        if told["architecture"] is not None:
            read = replace(read, facts={**read.facts, "architecture": told["architecture"]})
        signed = read.manifest if signature is not None and read.files else None
        text = None if signed is None else read_small(signed, "the manifest of an image")
        image = upload(session, read, told["project"])
    return session.m2.image_seal(str(image.id), signature, text), image.name
