"""A disk's history: snapshots, rolling back, promotion to an image, growth."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from malleable.domain.disks import Consistency, Disk, DiskState, Snapshot, SnapshotState
from malleable.domain.errors import Conflict, Invalid, Public, Refused
from malleable.domain.ids import DiskId, ImageId, SnapshotId, UserId
from malleable.domain.images import Image, ImageState
from malleable.domain.operations import Operation
from malleable.domain.store import Transaction
from malleable.domain.unready import unready_disk, unready_snapshot
from malleable.workflows import presenting, storage
from malleable.workflows import quiesce as quiesced
from malleable.workflows.progress import Progress, cancellable
from malleable.workflows.requests import begin, reasons, record
from malleable.workflows.steps import Context, Done, Ending, Step, Workflow

#: A snapshot takes time for each piece of its disk: seconds for a badly worn one.
SNAPSHOT_SLA_S = 30.0


def request_snapshot(
    tx: Transaction,
    now: datetime,
    *,
    snapshot: Snapshot,
    disk: Disk,
    actor_id: UserId | None,
    quiesce: bool | None = None,
) -> Operation:
    """Add the snapshot and begin to take it; the disk may be running.

    ``quiesce``: whether its system is to stop writing meanwhile; None: if it has an agent. Errors: Conflict.
    """
    # Locked, so that somebody who deletes or rolls back the disk at this moment is seen, or sees the snapshot.
    if not tx.disks.change(disk.id, expect={"state": DiskState.READY, "project_id": disk.project_id}):
        raise unready_disk(disk)
    how, reason = quiesced.plan(tx, disk, quiesce)
    tx.snapshots.add(replace(snapshot, consistency_reason=reason))
    arguments = {"name": snapshot.name, "disk_id": str(disk.id), "snapshot_id": str(snapshot.id), **how}
    return begin(tx, now, "snapshot-disk", project_id=disk.project_id, actor_id=actor_id, arguments=arguments)


def request_delete(tx: Transaction, now: datetime, *, snapshot: Snapshot, actor_id: UserId | None) -> Operation:
    """Begin to delete a snapshot that nobody is using at this moment. Errors: Conflict."""
    expect = {"state": SnapshotState.READY, "project_id": snapshot.project_id}
    if not tx.snapshots.change(snapshot.id, expect=expect, state=SnapshotState.DELETING):
        raise unready_snapshot(snapshot)
    wanted = {"snapshot_id": str(snapshot.id)}
    storage.want_unused(tx, f"snapshot {snapshot.name}", wanted, project_id=snapshot.project_id)
    arguments = {"name": snapshot.name, "snapshot_id": str(snapshot.id)}
    return begin(tx, now, "delete-snapshot", project_id=snapshot.project_id, actor_id=actor_id, arguments=arguments)


def request_roll_back(
    tx: Transaction, now: datetime, *, disk: Disk, snapshot: Snapshot, actor_id: UserId | None
) -> Operation:
    """Begin to give a disk that runs nowhere the content of one of its snapshots. Errors: Conflict, Invalid."""
    storage.want_ready(tx, snapshot)
    if snapshot.disk_id != disk.id:
        raise Invalid(
            f"Snapshot {snapshot.name} is not one of disk {disk.name}.",
            code="other-disk",
            fix=f"Clone it instead: `m2 disk create NAME --snapshot {snapshot.name}`.",
        )
    # As large as it may become from now on: whoever counts the project's bytes meanwhile counts these.
    storage.take_idle(tx, disk, DiskState.ROLLING_BACK, size_bytes=max(disk.size_bytes, snapshot.size_bytes))
    arguments = {
        "name": disk.name,
        "disk_id": str(disk.id),
        "snapshot_id": str(snapshot.id),
        "size_before_bytes": disk.size_bytes,
    }
    return begin(tx, now, "roll-back-disk", project_id=disk.project_id, actor_id=actor_id, arguments=arguments)


def request_promote(
    tx: Transaction, now: datetime, *, snapshot: Snapshot, image: Image, actor_id: UserId | None
) -> Operation:
    """Add an image and begin to fill it from a snapshot. Errors: Conflict."""
    storage.want_ready(tx, snapshot)
    tx.images.add(image)
    arguments = {"name": image.name, "image_id": str(image.id), "snapshot_id": str(snapshot.id)}
    return begin(tx, now, "promote-snapshot", project_id=snapshot.project_id, actor_id=actor_id, arguments=arguments)


def request_grow(tx: Transaction, now: datetime, *, disk: Disk, size_bytes: int, actor_id: UserId | None) -> Operation:
    """Begin to enlarge a disk that runs nowhere. Errors: Conflict, Invalid."""
    if size_bytes <= disk.size_bytes:
        raise Invalid(
            f"Disk {disk.name} has {disk.size_bytes} bytes already.", code="disk-shrinks", fix="Disks only grow."
        )
    storage.take_idle(tx, disk, DiskState.GROWING, size_bytes=size_bytes)
    arguments = {
        "name": disk.name,
        "disk_id": str(disk.id),
        "size_bytes": size_bytes,
        "size_before_bytes": disk.size_bytes,
    }
    return begin(tx, now, "grow-disk", project_id=disk.project_id, actor_id=actor_id, arguments=arguments)


def _disk_id(context: Context) -> DiskId:
    return DiskId(UUID(context.argument("disk_id")))


def _snapshot_id(context: Context) -> SnapshotId:
    return SnapshotId(UUID(context.argument("snapshot_id")))


def _image_id(context: Context) -> ImageId:
    return ImageId(UUID(context.argument("image_id")))


def _take(context: Context) -> Done:
    """Keep the disk's content of this moment."""
    disk_id, snapshot_id = _disk_id(context), _snapshot_id(context)
    # An earlier try may have taken it, and what was true then is not known any more.
    was_used = context.is_repeat or _is_used(context, disk_id)
    context.drivers.disks.snapshot(disk_id, snapshot_id)
    if quiesced.is_under_way(context):
        # What it is comes out once the system has said that it stayed frozen.
        return Done(evidence={"snapshot": "taken"})
    if not (was_used or _is_used(context, disk_id)):
        return quiesced.taken(snapshot_id, Consistency.IDLE, "")
    if quiesced.is_must(context.operation):
        raise quiesced.not_quiesced(quiesced.why_not(context.operation))
    with context.store.reading() as tx:
        reason = tx.snapshots.get(snapshot_id).consistency_reason
    return quiesced.taken(snapshot_id, Consistency.CRASH, reason or quiesced.why_not(context.operation))


def _is_used(context: Context, disk_id: DiskId) -> bool:
    """Say whether a node has the disk, or still may have."""
    with context.store.reading() as tx:
        return tx.targets.find(disk_id=disk_id) is not None


def _drop(context: Context) -> Done:
    snapshot_id = _snapshot_id(context)
    context.drivers.disks.delete_snapshot(snapshot_id)
    return Done(evidence={"snapshot": "removed"}, write=lambda tx: _forget(tx, snapshot_id))


def _forget(tx: Transaction, snapshot_id: SnapshotId) -> None:
    tx.snapshots.remove(snapshot_id)


def _roll_back(context: Context) -> Done:
    disk_id, snapshot_id = _disk_id(context), _snapshot_id(context)
    with context.store.reading() as tx:
        size_bytes = tx.snapshots.get(snapshot_id).size_bytes
    context.drivers.disks.roll_back(disk_id, snapshot_id)

    def write(tx: Transaction) -> None:
        tx.disks.change(disk_id, state=DiskState.READY, size_bytes=size_bytes)

    return Done(evidence={"disk": "rolled back"}, write=write)


def _grow(context: Context) -> Done:
    disk_id, size_bytes = _disk_id(context), int(str(context.operation.arguments["size_bytes"]))
    context.drivers.disks.grow(disk_id, size_bytes=size_bytes)

    def write(tx: Transaction) -> None:
        tx.disks.change(disk_id, state=DiskState.READY, size_bytes=size_bytes)

    return Done(evidence={"size_bytes": size_bytes}, write=write)


def _promote(context: Context, progress: Progress) -> Done:
    """Copy the snapshot into an image of its own, with its parent's kernel and initrd."""
    image_id, snapshot_id = _image_id(context), _snapshot_id(context)
    with context.store.reading() as tx:
        image = tx.images.get(image_id)
        snapshot = tx.snapshots.get(snapshot_id)
    disks, parent_id = context.drivers.disks.within(image.pool), snapshot.image_id
    if snapshot.size_bytes > disks.capacity().total_bytes:
        # Holes are read too: a copy of what can never be full would take days.
        told = Public("The disk is larger than all disk storage.", "Promote a smaller one.")
        raise Refused(told.message, fix=told.fix, code="image-too-large", public=told)
    files = {name: disks.file(parent_id, name) for name in image.files} if parent_id else {}
    sealed = disks.promote(snapshot_id, image_id, files=files, on_progress=progress)

    def write(tx: Transaction) -> None:
        if not tx.images.change(image_id, size_bytes=sealed.size_bytes, sha256=sealed.sha256):
            raise Conflict("The image is gone.", code="image-state")

    evidence = {"sha256": sealed.sha256, "size_bytes": sealed.size_bytes}
    return Done(evidence=evidence, write=write, result={"image_id": str(image_id)})


def _unpromote(context: Context) -> Done:
    image_id = _image_id(context)
    # First the row: nobody begins to clone from bytes on their way out.
    context.write(lambda tx: tx.images.remove(image_id))
    context.drivers.disks.delete_image(image_id)
    return Done(evidence={"image": "removed"})


def _ended(kind: str, *changes: Callable[[Transaction, Operation], object]) -> Ending:
    """Record the end, after ``changes`` to the rows."""

    def end(tx: Transaction, operation: Operation, now: datetime) -> None:
        for change in changes:
            change(tx, operation)
        keys = ("name", "disk_id", "snapshot_id", "image_id")
        data = {key: operation.arguments[key] for key in keys if key in operation.arguments}
        record(tx, now, kind, operation=operation, data={**data, **reasons(operation)})

    return end


def _never_taken(tx: Transaction, operation: Operation) -> None:
    """Drop the row of a snapshot whose taking never began; the undo has dropped any other."""
    snapshot_id = UUID(str(operation.arguments["snapshot_id"]))
    tx.snapshots.remove(snapshot_id, expect={"state": SnapshotState.CREATING})


def _never_promoted(tx: Transaction, operation: Operation) -> None:
    tx.images.remove(UUID(str(operation.arguments["image_id"])), expect={"state": ImageState.IMPORTING})


def _idle_again(tx: Transaction, operation: Operation) -> None:
    """Give a disk its old size back; one that was changed before the cancel keeps the new one."""
    disk_id, size_bytes = UUID(str(operation.arguments["disk_id"])), operation.arguments["size_before_bytes"]
    expect = {"state": [DiskState.ROLLING_BACK, DiskState.GROWING]}
    tx.disks.change(disk_id, expect=expect, state=DiskState.READY, size_bytes=size_bytes)


SNAPSHOT_DISK = Workflow(
    name="snapshot-disk",
    steps=(
        quiesced.FREEZE_DISK,
        replace(presenting.pool_step("snapshot-disk", _take, _drop), sla_s=SNAPSHOT_SLA_S, resource=quiesced.pool_turn),
        quiesced.THAW_DISK,
    ),
    on_done=_ended("snapshot.created"),
    on_undone=_ended("snapshot.create-failed", _never_taken),
)
DELETE_SNAPSHOT = Workflow(
    name="delete-snapshot",
    # No undo: bytes do not come back.
    steps=(presenting.pool_step("delete-snapshot", _drop),),
    on_done=_ended("snapshot.deleted"),
    on_undone=None,
)
ROLL_BACK_DISK = Workflow(
    name="roll-back-disk",
    # No undo: the pool does all of it or nothing; either way the disk is whole.
    steps=(presenting.pool_step("roll-back-disk", _roll_back),),
    on_done=_ended("disk.rolled-back"),
    on_undone=_ended("disk.roll-back-failed", _idle_again),
)
GROW_DISK = Workflow(
    name="grow-disk",
    # No undo: bytes past the disk's recorded size are of no harm.
    steps=(presenting.pool_step("grow-disk", _grow),),
    on_done=_ended("disk.grown"),
    on_undone=_ended("disk.grow-failed", _idle_again),
)
PROMOTE_SNAPSHOT = Workflow(
    name="promote-snapshot",
    steps=(
        Step(
            name="promote",
            do=cancellable(_promote),
            undo=_unpromote,
            deadline_s=storage.SEAL_DEADLINE_S,
            sla_s=120.0,
            retry=presenting.COPY_RETRY,
            resource=presenting.copy_resource,
            device=presenting.POOL,
            is_laborious=True,
        ),
    ),
    on_done=_ended("image.promoted", storage.is_sealed),
    on_undone=_ended("image.promote-failed", _never_promoted),
)
