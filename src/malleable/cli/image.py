"""m2 image: golden images."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from malleable.cli.command import group, register
from malleable.cli.formats import age, size
from malleable.cli.image_describe import image_describe
from malleable.cli.image_import import image_import
from malleable.cli.image_share import image_accept, image_share, image_shares, image_unshare
from malleable.cli.image_tree import image_tree
from malleable.cli.options import ImageArgument, NewName, Watch, Yes
from malleable.cli.output import Column, done, show_list, show_one
from malleable.cli.progress import finish
from malleable.cli.session import Session, usage
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
        "kernel": f"{image.kernel} {image.kernel_sha256}".strip(),
        "initrd": f"{image.initrd} {image.initrd_sha256}".strip(),
        "cmdline": image.cmdline,
        "user": image.default_user,
        "seed": "on a disk, too" if image.wants_seed_disk else "",
        "portals": "both, as one disk" if image.has_multipath else "",
        "signed by": f"{image.signed_by} (key {image.signing_key})" if image.signed_by else "",
        "age": age(image.created_at, session.now()),
        "id": str(image.id),
    }


def image_export(
    session: Session,
    image: ImageArgument,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE|FOLDER", help="A file that is not there yet, or a folder that is.", show_default=False
        ),
    ],
    *,
    image_format: Annotated[
        ImageFormat | None,
        typer.Option(
            "--format",
            help="What to write, else what FILE ends in, else raw; zstd needs zstd here, others but raw need qemu-img.",
        ),
    ] = None,
) -> None:
    """Bring an image from the server here, and prove that it came whole.

    To a file comes the disk alone; into a folder come its kernel, its initrd and a manifest to import it by, too.
    """
    from malleable.cli.image_export import export, format_of

    export(session, image, file, image_format or format_of(file))


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
