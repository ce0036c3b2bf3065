"""m2 provision: a disk on a node on a network, in one command."""

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from malleable.cli import completion
from malleable.cli.attachment import NicOption
from malleable.cli.command import register
from malleable.cli.formats import parse_size
from malleable.cli.options import Watch
from malleable.cli.progress import finish
from malleable.cli.session import Session, usage
from malleable.domain.disks import DiskUse
from malleable.domain.errors import Invalid
from malleable.domain.images import BootWay
from malleable.domain.user_data import USER_DATA_MAX_BYTES

if TYPE_CHECKING:
    from malleable.wire.nodes import BootOptions
    from malleable.wire.operations import OperationDetail

WayOption = Annotated[BootWay | None, typer.Option(help="How to boot; else the image's first way.")]
HostnameOption = Annotated[str | None, typer.Option(metavar="NAME", help="Else the node's name.")]
KeyOption = Annotated[
    list[Path] | None, typer.Option(metavar="FILE", help="Public SSH keys that may log in; repeat.", exists=True)
]
UserDataOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="For the system's first start (cloud-init), of any kind, up to 1 MiB.", exists=True
    ),
]
NetworkConfigOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="For cloud-init; else it follows from the machine's networks.", exists=True),
]

ImageOption = Annotated[
    str | None, typer.Option(metavar="IMAGE", autocompletion=completion.images, help="Boot a new disk cloned from it.")
]
FirstBootOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="A script to run once; the command waits for its end, and shows it.", exists=True
    ),
]
SeedOption = Annotated[
    bool, typer.Option("--seed", help="Also on a small disk labelled CIDATA, for systems that look nowhere else.")
]


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    register(app, {"provision": provision}, panel="The main job")


def provision(
    session: Session,
    *,
    network: Annotated[
        str, typer.Option(metavar="NETWORK", autocompletion=completion.networks, help="Where the machine is to be.")
    ],
    image: ImageOption = None,
    disk: Annotated[
        str | None, typer.Option(metavar="DISK", autocompletion=completion.disks, help="Boot a disk you have.")
    ] = None,
    node: Annotated[
        str | None,
        typer.Option(metavar="NODE", autocompletion=completion.nodes, help="Else any free one that fits."),
    ] = None,
    stateless: Annotated[
        bool, typer.Option("--stateless", help="No disk: the image itself, read only; writes stay in memory.")
    ] = False,
    disk_name: Annotated[str | None, typer.Option(metavar="NAME", help="Of the new disk.")] = None,
    disk_size: Annotated[str | None, typer.Option(metavar="SIZE", help="Of the new disk, e.g. 20G.")] = None,
    data_disk: Annotated[
        list[str] | None,
        typer.Option(metavar="DISK", autocompletion=completion.disks, help="A disk you have, for data; repeat."),
    ] = None,
    nic: NicOption = None,
    way: WayOption = None,
    hostname: HostnameOption = None,
    ssh_key: KeyOption = None,
    user_data: UserDataOption = None,
    network_config: NetworkConfigOption = None,
    first_boot: FirstBootOption = None,
    seed: SeedOption = False,
    watch: Watch = True,
) -> None:
    """Boot a machine, diskless, from a new clone of an image or a disk you have; any free node will do."""
    from malleable.wire.nodes import ProvisionRequest

    _check(image=image, disk=disk, of_new_disk=disk_name or disk_size, stateless=stateless)
    options = boot_options(
        nic=nic,
        way=way,
        hostname=hostname,
        ssh_key=ssh_key,
        user_data=user_data,
        network_config=network_config,
        seed=seed,
    )
    request = ProvisionRequest(
        project=session.project,
        node=node,
        disk=disk,
        image=image,
        stateless=stateless,
        disk_name=disk_name,
        disk_size_bytes=parse_size(disk_size) if disk_size else None,
        data_disks=tuple(data_disk or ()),
        network=network,
        **options.model_copy(update={"first_boot": _text(first_boot) if first_boot else ""}).model_dump(),
    )
    tell_where(session, finish(session, session.m2.provision(request), is_watching=watch))


def _check(*, image: str | None, disk: str | None, of_new_disk: str | None, stateless: bool) -> None:
    if bool(image) == bool(disk):
        usage("A machine boots either a new disk or one you have.", "Give --image or --disk.")
    if disk and of_new_disk:
        usage("A disk you have keeps its name and size.", "Leave --disk-name and --disk-size out.")
    if stateless and (disk or of_new_disk):
        usage("A stateless machine has no disk of its own.", "Give --image, and nothing of a disk.")


def boot_options(
    *,
    nic: str | None,
    way: BootWay | None,
    hostname: str | None,
    ssh_key: list[Path] | None,
    user_data: Path | None,
    network_config: Path | None,
    seed: bool,
) -> "BootOptions":
    """Gather what provisioning and moving have in common."""
    from malleable.wire.nodes import BootOptions

    keys = [line.strip() for file in ssh_key or [] for line in _text(file).splitlines() if line.strip()]
    if any("PRIVATE KEY" in key for key in keys):
        usage("That is a private key.", "Give the public one: the file that ends in .pub.")
    return BootOptions(
        nic=nic,
        way=way,
        hostname=hostname,
        ssh_keys=tuple(keys),
        user_data_base64=base64.b64encode(_bytes(user_data)).decode() if user_data else "",
        network_config=_text(network_config) if network_config else "",
        seed_disk=seed,
    )


def tell_where(session: Session, ended: "OperationDetail | None") -> None:
    """Say where the disk now runs and what to try next."""
    if ended is None or session.is_json or ended.node is None:
        return
    for attachment in session.m2.attachment_list(node=ended.node):
        session.say(f"{ended.node} has {attachment.address} in {attachment.network}.")
    for target in session.m2.target_list(node=ended.node):
        if target.disk is None:
            session.say(f"It runs image {target.image} itself; what it writes is gone when it stops.")
            continue
        does = "runs" if target.use is DiskUse.BOOT else "has"
        session.say(f"It {does} disk {target.disk}, which stays when the node is given back.")
    session.hint(f"Look: `m2 node console {ended.node}`. Give it back: `m2 node release {ended.node}`.")


def _bytes(file: Path) -> bytes:
    """Read a file of user-data. Errors: Invalid."""
    if file.stat().st_size > USER_DATA_MAX_BYTES:
        raise Invalid(f"{file} is larger than 1 MiB.", fix="Compress it with gzip, or let it fetch the rest.")
    return file.read_bytes()


def _text(file: Path) -> str:
    """Read a file as text. Errors: Invalid."""
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as e:
        raise Invalid(f"{file} is not text in UTF-8.", fix="Name a text file; compressed ones are not taken.") from e
