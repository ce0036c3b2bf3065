"""m2 disk: what outlives every node it runs on."""

from typing import TYPE_CHECKING, Annotated

import typer

from malleable.cli import completion
from malleable.cli.attachment import NicOption
from malleable.cli.command import group, register
from malleable.cli.disk_offer import disk_accept, disk_give, disk_keep, disk_offers
from malleable.cli.formats import age, parse_size, size
from malleable.cli.options import DiskArgument, NewName, NewNames, NodeArgument, SnapshotArgument, Watch, Yes
from malleable.cli.output import Column, done, show_list, show_one
from malleable.cli.progress import finish
from malleable.cli.provision import (
    HostnameOption,
    KeyOption,
    NetworkConfigOption,
    SeedOption,
    UserDataOption,
    WayOption,
    boot_options,
    tell_where,
)
from malleable.cli.session import Session
from malleable.domain.disks import DiskUse

if TYPE_CHECKING:
    from malleable.wire.disks import DiskView


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    noun = group(app, "disk", "Disks: clones of images, and blank ones for data, that outlive the node they are on.")
    register(
        noun,
        {
            "list": disk_list,
            "show": disk_show,
            "create": disk_create,
            "attach": disk_attach,
            "detach": disk_detach,
            "move": disk_move,
            "rename": disk_rename,
            "grow": disk_grow,
            "roll-back": disk_roll_back,
            "flatten": disk_flatten,
            "give": disk_give,
            "accept": disk_accept,
            "keep": disk_keep,
            "offers": disk_offers,
            "delete": disk_delete,
        },
    )


def disk_list(session: Session) -> None:
    """List disks and where each runs."""
    now = session.now()
    columns: list[Column[DiskView]] = [
        Column(title="name", cell=lambda disk: disk.name),
        Column(title="project", cell=lambda disk: disk.project, is_minor=True),
        Column(title="state", cell=lambda disk: disk.state),
        Column(title="on", cell=_place),
        Column(title="from", cell=lambda disk: disk.snapshot or disk.image or "blank", is_minor=True),
        Column(title="size", cell=lambda disk: size(disk.size_bytes), is_number=True),
        Column(title="age", cell=lambda disk: age(disk.created_at, now), is_number=True, is_minor=True),
    ]
    nothing = "No disks; `m2 provision --image IMAGE --network NETWORK` makes one and boots it."
    show_list(session, session.m2.disk_list(project=session.project), columns, nothing=nothing)


def _place(disk: "DiskView") -> str:
    return f"{disk.node} (data)" if disk.use is DiskUse.DATA else disk.node or "-"


def disk_show(session: Session, disk: DiskArgument) -> None:
    """Show a disk."""
    found = session.m2.disk_get(disk, project=session.project)
    facts = {
        "name": found.name,
        "project": found.project,
        "state": found.state,
        "on": _place(found) if found.node else "no node",
        "image": found.image or "none: it was made blank",
        "snapshot": found.snapshot or "",
        "size": size(found.size_bytes),
        "age": age(found.created_at, session.now()),
        "id": str(found.id),
    }
    show_one(session, found, facts)


def disk_create(
    session: Session,
    names: NewNames,
    *,
    image: Annotated[
        str | None, typer.Option(metavar="IMAGE", autocompletion=completion.images, help="What to clone.")
    ] = None,
    snapshot: Annotated[
        str | None,
        typer.Option(metavar="SNAPSHOT", autocompletion=completion.snapshots, help="What to clone instead."),
    ] = None,
    capacity: Annotated[
        str | None,
        typer.Option("--size", metavar="SIZE", help="Of a blank disk, or larger than what is cloned: 20G."),
    ] = None,
    watch: Watch = True,
) -> None:
    """Clone a disk from an image or a snapshot, or make a blank one; no size makes it take longer.

    Several at once are made all or none: shells write `web-{1..32}` out as 32 names.
    """
    from malleable.wire.disks import DiskBatchRequest, DiskOrigin, DiskRequest

    size_bytes = parse_size(capacity) if capacity else None
    origin = DiskOrigin(project=session.project, image=image, snapshot=snapshot, size_bytes=size_bytes).model_dump()
    if len(names) == 1:
        begun, what = session.m2.disk_create(DiskRequest(name=names[0], **origin)), f"create disk {names[0]}"
    else:
        batch = DiskBatchRequest(names=tuple(names), **origin)
        begun, what = session.m2.disk_create_batch(batch), f"create {len(names)} disks"
    finish(session, begun, is_watching=watch, what=what)


def disk_attach(session: Session, disk: DiskArgument, node: NodeArgument, watch: Watch = True) -> None:
    """Give a running node one more disk, for data; its system finds it by the metadata service."""
    operation = session.m2.disk_attach(disk, node, project=session.project)
    finish(session, operation, is_watching=watch, what=f"attach of {disk} to {node}")


def disk_detach(session: Session, disk: DiskArgument, watch: Watch = True) -> None:
    """Take a disk for data from its node; unmount it and log out there first: what is left is cut."""
    operation = session.m2.disk_detach(disk, project=session.project)
    finish(session, operation, is_watching=watch, what=f"detach of {disk}")


def disk_move(
    session: Session,
    disk: DiskArgument,
    *,
    node: Annotated[str, typer.Option(metavar="NODE", autocompletion=completion.nodes, help="Where to.")],
    network: Annotated[
        str | None,
        typer.Option(metavar="NETWORK", autocompletion=completion.networks, help="Else the one it runs on now."),
    ] = None,
    nic: NicOption = None,
    way: WayOption = None,
    hostname: HostnameOption = None,
    ssh_key: KeyOption = None,
    user_data: UserDataOption = None,
    network_config: NetworkConfigOption = None,
    seed: SeedOption = False,
    watch: Watch = True,
) -> None:
    """Have a disk on another node, everything on it as it was; the node that boots it is stopped."""
    from malleable.wire.disks import DiskMoveRequest

    options = boot_options(
        nic=nic,
        way=way,
        hostname=hostname,
        ssh_key=ssh_key,
        user_data=user_data,
        network_config=network_config,
        seed=seed,
    )
    request = DiskMoveRequest(node=node, network=network, **options.model_dump())
    before = session.m2.disk_get(disk, project=session.project)
    operation = session.m2.disk_move(disk, request, project=session.project)
    ended = finish(session, operation, is_watching=watch, what=f"move of {disk} to {node}")
    if ended is not None and before.use is not DiskUse.DATA:
        tell_where(session, ended)
        if before.node and before.node != ended.node:
            left = before.node
            session.hint(f"{left} is switched off and still yours. Give it back: `m2 node release {left}`.")


def disk_rename(session: Session, disk: DiskArgument, name: NewName) -> None:
    """Give a disk another name; whatever runs it goes on."""
    found = session.m2.disk_rename(disk, name, project=session.project)
    done(session, found, f"Disk {disk} is named {found.name} now.")


def disk_grow(
    session: Session,
    disk: DiskArgument,
    capacity: Annotated[str, typer.Argument(metavar="SIZE", help="The new size, e.g. 40G.", show_default=False)],
    watch: Watch = True,
) -> None:
    """Enlarge a disk that runs nowhere; its partitions and filesystems stay as they are."""
    operation = session.m2.disk_grow(disk, parse_size(capacity), project=session.project)
    finish(session, operation, is_watching=watch, what=f"grow disk {disk}")


def disk_roll_back(
    session: Session, disk: DiskArgument, snapshot: SnapshotArgument, yes: Yes = False, watch: Watch = True
) -> None:
    """Make a disk that runs nowhere what one of its snapshots is; what it was since is lost."""
    session.confirm(f"Lose everything that changed on disk {disk} since snapshot {snapshot}?", is_sure=yes)
    operation = session.m2.disk_roll_back(disk, snapshot, project=session.project)
    finish(session, operation, is_watching=watch, what=f"roll back disk {disk}")


def disk_flatten(session: Session, disk: DiskArgument, watch: Watch = True) -> None:
    """Copy into a disk what it reads from others, while its node runs or not; `m2 operation cancel` stops it.

    Disks in Ceph that are cloned from one another, or rolled back, are read through all of these; only so many are
    allowed. In a pool of files a disk only shares blocks with others; flattened, it has its own.
    """
    operation = session.m2.disk_flatten(disk, project=session.project)
    ended = finish(session, operation, is_watching=watch, what=f"flatten disk {disk}")
    if ended is not None and not ended.result.get("copied_bytes"):
        session.hint(f"Disk {disk} has all its own; nothing was copied.")


def disk_delete(session: Session, disk: DiskArgument, yes: Yes = False, watch: Watch = True) -> None:
    """Destroy a disk and everything on it."""
    session.confirm(f"Destroy disk {disk} and everything on it?", is_sure=yes)
    operation = session.m2.disk_delete(disk, project=session.project)
    finish(session, operation, is_watching=watch, what=f"delete disk {disk}")
