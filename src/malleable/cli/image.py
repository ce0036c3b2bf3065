"""m2 image: golden images."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from malleable.cli.command import group, register
from malleable.cli.formats import age, parse_size, size
from malleable.cli.image_describe import image_describe
from malleable.cli.image_share import image_accept, image_share, image_shares, image_unshare
from malleable.cli.image_tree import image_tree
from malleable.cli.options import ImageArgument, NewName, PasswordFile, Watch, Yes, read_password
from malleable.cli.output import Column, done, show_list, show_one
from malleable.cli.progress import finish
from malleable.cli.session import Session, usage
from malleable.cli.signer import read_small
from malleable.domain.images import ImageFormat

if TYPE_CHECKING:
    from malleable.wire.images import ImageView


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    noun = group(app, "image", "Golden images: sealed, cloned in no time.")
    register(
        noun,
        {
            "list": image_list,
            "show": image_show,
            "import": image_import,
            "export": image_export,
            "delete": image_delete,
            "copy": image_copy,
            "rename": image_rename,
            "describe": image_describe,
            "tree": image_tree,
            "share": image_share,
            "accept": image_accept,
            "unshare": image_unshare,
            "shares": image_shares,
        },
    )


def image_list(session: Session) -> None:
    """List golden images, and your projects' own."""
    now = session.now()
    columns: list[Column[ImageView]] = [
        Column(title="name", cell=lambda image: image.name),
        Column(title="of", cell=lambda image: image.project or "all (golden)"),
        Column(title="state", cell=lambda image: image.state),
        Column(title="size", cell=lambda image: size(image.size_bytes), is_number=True),
        Column(title="os", cell=lambda image: image.os or "-", is_minor=True),
        Column(title="firmware", cell=lambda image: ", ".join(image.firmwares), is_minor=True),
        Column(title="boots by", cell=lambda image: ", ".join(image.boot_ways), is_minor=True),
        Column(title="signed by", cell=lambda image: image.signed_by or "-", is_minor=True),
        Column(title="age", cell=lambda image: age(image.created_at, now), is_number=True, is_minor=True),
    ]
    nothing = "No images; bring one with `m2 image import FILE|URL --project NAME`."
    show_list(session, session.m2.image_list(project=session.project), columns, nothing=nothing)


def image_show(session: Session, image: ImageArgument) -> None:
    """Show an image."""
    found = session.m2.image_get(image, project=session.project)
    show_one(session, found, _facts(session, found))


def _facts(session: Session, image: "ImageView") -> dict[str, str]:
    return {
        "name": image.name,
        "of": image.project or "all (golden)",
        "state": image.state,
        "size": size(image.size_bytes),
        "sha256": image.sha256,
        "os": f"{image.os} {image.architecture}".strip(),
        "firmware": ", ".join(image.firmwares),
        "boots by": ", ".join(image.boot_ways),
        "up when": image.up_proof,
        "kernel": image.kernel,
        "initrd": image.initrd,
        "cmdline": image.cmdline,
        "user": image.default_user,
        "signed by": f"{image.signed_by} (key {image.signing_key})" if image.signed_by else "",
        "age": age(image.created_at, session.now()),
        "id": str(image.id),
    }


def image_import(
    session: Session,
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE|-|URL|oci://…",
            help="A disk (raw, qcow2, vmdk, vhd, vhdx, zstd) or its manifest; - is standard input; a URL; an artifact.",
            show_default=False,
        ),
    ],
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
        Path | None, typer.Option(metavar="FILE", help="What `minisign -S` wrote for the disk.", exists=True)
    ] = None,
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
    from malleable.cli.image_upload import from_here, read_source, upload

    if source == "-" and name is None and manifest is None:
        usage("What comes by standard input has no name.", "Give --name NAME.")
    if not golden and session.project is None:
        usage("Whose image shall it be?", "Give --project NAME, or --golden for everybody's (admins only).")
    project = None if golden else session.project
    signed = None if signature is None else read_small(signature, "a signature of minisign")
    if "://" in source:
        from malleable.cli.image_fetch import described

        size_bytes = None if size_wanted is None else parse_size(size_wanted)
        wish = described(source, manifest, name=name, sha256=sha256, size_bytes=size_bytes, project=project)
        password = None if username is None else read_password(password_file, f"Password of {username}")
        told = {"signature": signed, "username": username, "password": password}
        operation = session.m2.image_fetch(wish.model_copy(update=told))
        finish(session, operation, is_watching=watch, what=f"import of {operation.arguments['name']}")
        return
    if size_wanted is not None or username is not None:
        usage("--size and --username are for what the server reads.", "Leave them out: a file here is as it is.")
    with from_here(session, source) as path:
        read = read_source(path, manifest, name, sha256)
        if signed is not None and read.files:
            usage("A signature covers the disk alone.", "Import it by a manifest without kernel and initrd.")
        image = upload(session, read, project)
    finish(session, session.m2.image_seal(str(image.id), signed), is_watching=watch, what=f"import of {image.name}")


def image_export(
    session: Session,
    image: ImageArgument,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Where to; it must not be there yet.", show_default=False)
    ],
    *,
    image_format: Annotated[
        ImageFormat,
        typer.Option("--format", help="What to write; zstd needs zstd here, all others but raw need qemu-img."),
    ] = ImageFormat.RAW,
) -> None:
    """Bring an image from the server here, and prove that it came whole."""
    from malleable.cli.image_export import export

    export(session, image, file, image_format)


def image_copy(
    session: Session,
    image: ImageArgument,
    *,
    to: Annotated[str | None, typer.Option("--to", metavar="PROJECT", help="Whose the copy shall be.")] = None,
    golden: Annotated[bool, typer.Option("--golden", help="For everybody; admins only.")] = False,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Else the same.")] = None,
    watch: Watch = True,
) -> None:
    """Make a copy of an image that depends on nothing."""
    from malleable.wire.images import ImageCopyRequest

    if golden == (to is not None):
        usage("Whose shall the copy be?", "Give either --to PROJECT, or --golden for everybody's (admins only).")
    operation = session.m2.image_copy(image, ImageCopyRequest(project=to, name=name), project=session.project)
    finish(session, operation, is_watching=watch, what=f"copy of image {image}")


def image_rename(session: Session, image: ImageArgument, name: NewName) -> None:
    """Give an image another name; its disks go on."""
    found = session.m2.image_rename(image, name, project=session.project)
    done(session, found, f"Image {image} is named {found.name} now.")


def image_delete(session: Session, image: ImageArgument, yes: Yes = False, watch: Watch = True) -> None:
    """Remove an image that no disk depends on."""
    session.confirm(f"Remove image {image}?", is_sure=yes)
    operation = session.m2.image_delete(image, project=session.project)
    finish(session, operation, is_watching=watch, what=f"delete image {image}")
