"""m2 snapshot: what a disk was at one moment."""

from typing import TYPE_CHECKING, Annotated

import typer

from malleable.cli import completion
from malleable.cli.command import group, register
from malleable.cli.formats import age, size
from malleable.cli.options import DiskArgument, NewName, SnapshotArgument, Watch, Yes
from malleable.cli.output import Column, done, show_list, show_one
from malleable.cli.progress import finish
from malleable.cli.session import Session
from malleable.domain.disks import Consistency

if TYPE_CHECKING:
    from malleable.wire.snapshots import SnapshotView

_TAKEN = {
    Consistency.QUIESCED: "a node had the disk, and its system wrote nothing meanwhile: its filesystems are clean",
    Consistency.CRASH: "a node had the disk, so this is what a power cut at that moment would have left",
    Consistency.IDLE: "no node had the disk, so this is all that was written",
}


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    noun = group(app, "snapshot", "Snapshots: what a disk was at one moment, to clone or to go back to.")
    register(
        noun,
        {
            "list": snapshot_list,
            "show": snapshot_show,
            "create": snapshot_create,
            "rename": snapshot_rename,
            "promote": snapshot_promote,
            "delete": snapshot_delete,
        },
    )


def snapshot_list(
    session: Session,
    *,
    disk: Annotated[
        str | None, typer.Option(metavar="DISK", autocompletion=completion.disks, help="Only of this disk.")
    ] = None,
) -> None:
    """List snapshots and the disks they are of."""
    now = session.now()
    columns: list[Column[SnapshotView]] = [
        Column(title="name", cell=lambda snapshot: snapshot.name),
        Column(title="project", cell=lambda snapshot: snapshot.project, is_minor=True),
        Column(title="disk", cell=lambda snapshot: snapshot.disk or "-"),
        Column(title="state", cell=lambda snapshot: snapshot.state),
        Column(title="taken", cell=lambda snapshot: snapshot.consistency or "-", is_minor=True),
        Column(title="size", cell=lambda snapshot: size(snapshot.size_bytes), is_number=True),
        Column(title="age", cell=lambda snapshot: age(snapshot.created_at, now), is_number=True),
    ]
    nothing = "No snapshots; `m2 snapshot create DISK NAME` takes one."
    show_list(session, session.m2.snapshot_list(disk=disk, project=session.project), columns, nothing=nothing)


def snapshot_show(session: Session, snapshot: SnapshotArgument) -> None:
    """Show a snapshot."""
    found = session.m2.snapshot_get(snapshot, project=session.project)
    facts = {
        "name": found.name,
        "project": found.project,
        "disk": found.disk or "gone",
        "boots as": found.image or "nothing: its disk was made blank",
        "state": found.state,
        "taken": f"{found.consistency}: {_TAKEN[found.consistency]}" if found.consistency else "",
        "not quiesced": found.consistency_reason if found.consistency else "",
        "size": size(found.size_bytes),
        "age": age(found.created_at, session.now()),
        "id": str(found.id),
    }
    show_one(session, found, facts)


def snapshot_create(
    session: Session,
    disk: DiskArgument,
    name: NewName,
    *,
    quiesce: Annotated[
        bool | None,
        typer.Option(
            "--quiesce/--no-quiesce",
            help="Have the system that writes to it stop meanwhile, or fail; or do not ask it. Else: if it can.",
        ),
    ] = None,
    watch: Watch = True,
) -> None:
    """Keep what a disk is now, also while it runs: clean if its system has the agent, else as a power cut would."""
    from malleable.wire.snapshots import SnapshotRequest

    request = SnapshotRequest(name=name, disk=disk, project=session.project, quiesce=quiesce)
    operation = session.m2.snapshot_create(request)
    ended = finish(session, operation, is_watching=watch, what=f"snapshot {name} of disk {disk}")
    if ended is not None and ended.result.get("consistency") in list(Consistency):
        consistency = Consistency(str(ended.result["consistency"]))
        session.hint(f"Taken {consistency}: {_TAKEN[consistency]}.")
        if reason := ended.result.get("consistency_reason"):
            session.hint(f"Not quiesced: {reason}.")


def snapshot_rename(session: Session, snapshot: SnapshotArgument, name: NewName) -> None:
    """Give a snapshot another name; what was made of it goes on."""
    found = session.m2.snapshot_rename(snapshot, name, project=session.project)
    done(session, found, f"Snapshot {snapshot} is named {found.name} now.")


def snapshot_promote(
    session: Session,
    snapshot: SnapshotArgument,
    name: Annotated[str, typer.Argument(metavar="IMAGE", help="The image's name.", show_default=False)],
    *,
    golden: Annotated[bool, typer.Option("--golden", help="For everybody; admins only. Else for the project.")] = False,
    watch: Watch = True,
) -> None:
    """Make an image of a snapshot: a full copy that stands alone and boots as its disk did."""
    from malleable.wire.snapshots import PromoteRequest

    request = PromoteRequest(name=name, golden=golden)
    operation = session.m2.snapshot_promote(snapshot, request, project=session.project)
    finish(session, operation, is_watching=watch, what=f"image {name} of snapshot {snapshot}")


def snapshot_delete(session: Session, snapshot: SnapshotArgument, yes: Yes = False, watch: Watch = True) -> None:
    """Remove a snapshot; what was cloned from it stays."""
    session.confirm(f"Remove snapshot {snapshot}?", is_sure=yes)
    operation = session.m2.snapshot_delete(snapshot, project=session.project)
    finish(session, operation, is_watching=watch, what=f"delete snapshot {snapshot}")
