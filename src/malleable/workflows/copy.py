"""Copy an image: to another project, or for everybody."""

from datetime import datetime
from uuid import UUID

from malleable.domain.errors import Public, Refused
from malleable.domain.ids import DiskId, ImageId, SnapshotId, UserId, new_id
from malleable.domain.images import Image, ImageState
from malleable.domain.operations import Operation
from malleable.domain.store import Transaction
from malleable.domain.unready import unsealed
from malleable.workflows import presenting, storage
from malleable.workflows.progress import Progress, cancellable
from malleable.workflows.requests import begin, reasons, record
from malleable.workflows.steps import Context, Done, Step, Workflow


def request(tx: Transaction, now: datetime, *, source: Image, image: Image, actor_id: UserId | None) -> Operation:
    """Add an image and begin to fill it from another one. Errors: Conflict when that is not sealed."""
    # Locked: who deletes it at this moment is seen, or sees the operation.
    if not tx.images.change(source.id, expect={"state": ImageState.SEALED}):
        raise unsealed(source)
    tx.images.add(image)
    arguments = {
        "name": image.name,
        "image_id": str(image.id),
        storage.SOURCE: str(source.id),
        # What a pool can copy is a snapshot of a disk: both are there for as long as the copy takes.
        "through_disk_id": str(new_id()),
        "through_snapshot_id": str(new_id()),
    }
    return begin(tx, now, "copy-image", project_id=image.project_id, actor_id=actor_id, arguments=arguments)


def _id(context: Context, name: str) -> UUID:
    return UUID(context.argument(name))


def _copy(context: Context, progress: Progress) -> Done:
    """Clone the image, keep that, and seal a full copy of it."""
    image_id, source_id = ImageId(_id(context, "image_id")), ImageId(_id(context, storage.SOURCE))
    disk_id, snapshot_id = DiskId(_id(context, "through_disk_id")), SnapshotId(_id(context, "through_snapshot_id"))
    with context.store.reading() as tx:
        source, image = tx.images.get(source_id), tx.images.get(image_id)
    disks = context.drivers.disks
    disks.within(source.pool).clone(source_id, disk_id, size_bytes=0)
    disks.snapshot(disk_id, snapshot_id)
    files = {name: disks.file(source_id, name) for name in image.files}
    sealed = disks.within(image.pool).promote(snapshot_id, image_id, files=files, on_progress=progress)
    if sealed.sha256 != source.sha256:
        told = Public("The image is damaged: its SHA-256 is another.", "Import it again.")
        raise Refused(told.message, fix=told.fix, code="image-corrupt", public=told)

    def write(tx: Transaction) -> None:
        tx.images.change(image_id, size_bytes=sealed.size_bytes, sha256=sealed.sha256)

    evidence = {"sha256": sealed.sha256, "size_bytes": sealed.size_bytes}
    return Done(evidence=evidence, write=write, result={"image_id": str(image_id)})


def _uncopy(context: Context) -> Done:
    image_id = ImageId(_id(context, "image_id"))
    # First the row: nobody begins to clone from bytes on their way out.
    context.write(lambda tx: tx.images.remove(image_id))
    context.drivers.disks.delete_image(image_id)
    _tidy(context)
    return Done(evidence={"image": "removed"})


def _tidy(context: Context) -> Done:
    """Take away what the copy went through."""
    context.drivers.disks.delete_snapshot(SnapshotId(_id(context, "through_snapshot_id")))
    context.drivers.disks.delete_disk(DiskId(_id(context, "through_disk_id")))
    return Done()


def _copied(tx: Transaction, operation: Operation, now: datetime) -> None:
    storage.is_sealed(tx, operation)
    data = {key: operation.arguments[key] for key in ("name", "image_id")}
    record(tx, now, "image.copied", operation=operation, data=data)


def _not_copied(tx: Transaction, operation: Operation, now: datetime) -> None:
    tx.images.remove(UUID(str(operation.arguments["image_id"])), expect={"state": ImageState.IMPORTING})
    data = {"name": operation.arguments["name"], **reasons(operation)}
    record(tx, now, "image.copy-failed", operation=operation, data=data)


COPY_IMAGE = Workflow(
    name="copy-image",
    steps=(
        Step(
            name="copy",
            do=cancellable(_copy),
            undo=_uncopy,
            deadline_s=storage.SEAL_DEADLINE_S,
            sla_s=120.0,
            retry=presenting.COPY_RETRY,
            resource=presenting.copy_resource,
            device=presenting.POOL,
            is_laborious=True,
        ),
        Step(
            name="tidy",
            do=_tidy,
            # No undo: what it takes away is of no more use.
            resource=presenting.pool_resource,
            device=presenting.POOL,
        ),
    ),
    on_done=_copied,
    on_undone=_not_copied,
)
