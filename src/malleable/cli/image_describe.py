"""m2 image describe: what is told of an image."""

from typing import Annotated

import typer

from malleable.cli.options import ImageArgument
from malleable.cli.output import done
from malleable.cli.session import Session, usage
from malleable.domain.images import BootWay, UpProof
from malleable.domain.nodes import Firmware


def image_describe(
    session: Session,
    image: ImageArgument,
    *,
    os: Annotated[str | None, typer.Option(metavar="TEXT", help="Its operating system.")] = None,
    architecture: Annotated[str | None, typer.Option(metavar="NAME", help="E.g. x86_64, aarch64.")] = None,
    user: Annotated[str | None, typer.Option(metavar="NAME", help="Whom people log in as.")] = None,
    firmware: Annotated[list[Firmware] | None, typer.Option(help="What it boots on; may be repeated.")] = None,
    boot_way: Annotated[list[BootWay] | None, typer.Option(help="How, best first; may be repeated.")] = None,
    cmdline: Annotated[str | None, typer.Option(metavar="TEXT", help="Of its kernel, for boot way kernel.")] = None,
    up_proof: Annotated[UpProof | None, typer.Option(help="What shows that it runs.")] = None,
    seed: Annotated[
        bool | None,
        typer.Option("--seed/--no-seed", help="Its system gets its seed on a small disk, too, whoever provisions it."),
    ] = None,
    multipath: Annotated[
        bool | None,
        typer.Option("--multipath/--no-multipath", help="Its system makes one disk of both portals of a network."),
    ] = None,
    in_use: Annotated[
        bool, typer.Option("--in-use", help="Also how a golden image boots that projects use; admins only.")
    ] = False,
) -> None:
    """Correct what is told of an image; what is not named stays. Machines hear of it when they next boot it."""
    from malleable.wire.images import DescribeRequest

    told: dict[str, object] = {
        "os": os,
        "architecture": architecture,
        "default_user": user,
        "firmwares": firmware or None,
        "boot_ways": boot_way or None,
        "cmdline": cmdline,
        "up_proof": up_proof,
        "wants_seed_disk": seed,
        "has_multipath": multipath,
    }
    changes = {name: value for name, value in told.items() if value is not None}
    if not changes:
        usage("Nothing of the image is named.", "Give for example --os 'Debian 12' --user debian.")
    request = DescribeRequest.model_validate({**changes, **({"in_use": True} if in_use else {})})
    found = session.m2.image_describe(image, request, project=session.project)
    done(session, found, f"Image {found.name} is described anew: `m2 image show {found.name}`.")
