"""Many disks of one origin: one transaction for all their rows, one operation for all their clones."""

from collections.abc import Sequence
from datetime import datetime

from malleable.domain.disks import Disk, DiskState
from malleable.domain.ids import UserId
from malleable.domain.operations import Operation
from malleable.domain.store import Transaction
from malleable.workflows import presenting
from malleable.workflows.requests import begin, reasons, record
from malleable.workflows.steps import Context, Done, Workflow
from malleable.workflows.storage import want_origin


def request(
    tx: Transaction, now: datetime, *, disks: Sequence[Disk], actor_id: UserId | None, adds: bool = True
) -> Operation:
    """Add disks of one origin and what makes them all, or none; ``adds`` as ``requests.begin``.

    Errors: Conflict when a name is taken or the origin is not ready.
    """
    arguments: dict[str, object] = {"name": f"{len(disks)} disks", **want_origin(tx, disks[0])}
    arguments["disk_ids"] = [str(disk.id) for disk in disks]
    for disk in disks:
        tx.disks.add(disk)
    owner = disks[0].project_id
    return begin(tx, now, "create-disks", project_id=owner, actor_id=actor_id, arguments=arguments, adds=adds)


def _clone(context: Context) -> Done:
    """Make the disks; those that a try before has made stay as they are."""
    ids = presenting.told_disks(context.operation)
    with context.store.reading() as tx:
        disks = tx.disks.list(id=ids)
    for disk in disks:
        presenting.make(context.drivers.disks, disk)

    def write(tx: Transaction) -> None:
        for disk in disks:
            tx.disks.change(disk.id, state=DiskState.READY)

    return Done(evidence={"disks": len(disks)}, write=write, result={"disk_ids": [str(disk_id) for disk_id in ids]})


def _discard(context: Context) -> Done:
    ids = presenting.told_disks(context.operation)
    for disk_id in ids:
        context.drivers.disks.delete_disk(disk_id)

    def write(tx: Transaction) -> None:
        for disk_id in ids:
            tx.disks.remove(disk_id)

    return Done(evidence={"disks": "removed"}, write=write)


def _created(tx: Transaction, operation: Operation, now: datetime) -> None:
    for disk in tx.disks.list(id=presenting.told_disks(operation)):
        record(tx, now, "disk.created", operation=operation, data={"name": disk.name, "disk_id": str(disk.id)})


def _not_created(tx: Transaction, operation: Operation, now: datetime) -> None:
    """Take back the rows too of what was cancelled before it began."""
    for disk_id in presenting.told_disks(operation):
        tx.disks.remove(disk_id, expect={"state": DiskState.CREATING})
    data = {"name": operation.arguments["name"], **reasons(operation)}
    record(tx, now, "disk.create-failed", operation=operation, data=data)


CREATE_DISKS = Workflow(
    name="create-disks",
    steps=(presenting.pool_step("clone-disks", _clone, _discard),),
    on_done=_created,
    on_undone=_not_created,
)
