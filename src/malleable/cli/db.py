"""m2 db ls: every image, disk and snapshot in one list, as M2's database had them in one table."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from malleable.cli.formats import size
from malleable.cli.output import Column, show_table
from malleable.cli.session import Session

if TYPE_CHECKING:
    from malleable.wire.disks import DiskView
    from malleable.wire.images import ImageView
    from malleable.wire.snapshots import SnapshotView


@dataclass(frozen=True, slots=True)
class _Kept:
    """A line of the list."""

    kind: str
    made_of: str
    it: "ImageView | DiskView | SnapshotView"


def db_ls(
    session: Session,
    *,
    snapshots: Annotated[bool, typer.Option("-s", "--snapshots", help="Only snapshots.")] = False,
    clones: Annotated[bool, typer.Option("-c", "--clones", help="Only disks.")] = False,
    public: Annotated[bool, typer.Option("--public", help="Only golden images.")] = False,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Only what has this name.")] = None,
) -> None:
    """List images, disks and snapshots, and what each was made of; `--project` leaves out what is not that one's.

    Whether the pool has them all, and nothing else: `m2 pool audit`.
    """
    is_all = not (snapshots or clones or public)
    found: list[_Kept] = []
    if is_all or public:
        found += [_Kept("image", "", image) for image in session.m2.image_list(project=session.project)]
    if public:
        found = [row for row in found if row.it.project is None]
    if is_all or clones:
        disks = session.m2.disk_list(project=session.project)
        found += [_Kept("disk", disk.snapshot or disk.image or "", disk) for disk in disks]
    if is_all or snapshots:
        kept = session.m2.snapshot_list(project=session.project)
        found += [_Kept("snapshot", snapshot.disk or "", snapshot) for snapshot in kept]
    _show(session, [row for row in found if name in (None, row.it.name)])


def _show(session: Session, found: list[_Kept]) -> None:
    if session.is_json:
        session.write_json([{"kind": row.kind, **row.it.model_dump(mode="json")} for row in found])
    elif not found:
        session.hint("Nothing of that kind.")
    else:
        columns: list[Column[_Kept]] = [
            Column(title="kind", cell=lambda row: row.kind),
            Column(title="name", cell=lambda row: row.it.name),
            Column(title="project", cell=lambda row: row.it.project or "all (golden)"),
            Column(title="made of", cell=lambda row: row.made_of or "-"),
            Column(title="state", cell=lambda row: row.it.state),
            Column(title="size", cell=lambda row: size(row.it.size_bytes), is_number=True),
            Column(title="id", cell=lambda row: str(row.it.id), is_minor=True),
        ]
        show_table(session, found, columns)
