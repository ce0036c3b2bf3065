"""Import an image: prove an upload, unpack it, and seal it in the pool."""

from datetime import datetime
from pathlib import Path
from uuid import UUID

from malleable.domain.errors import Conflict, Refused
from malleable.domain.ids import UserId
from malleable.domain.images import Image, ImageFormat, ImageState
from malleable.domain.operations import Operation, Retry
from malleable.domain.projects import Holdings
from malleable.domain.store import Transaction
from malleable.workflows import presenting
from malleable.workflows.progress import Progress, cancellable
from malleable.workflows.quotas import want_within_quota
from malleable.workflows.requests import begin
from malleable.workflows.steps import Context, Done, Step, Workflow
from malleable.workflows.storage import (
    DROP_UPLOAD,
    SEAL_DEADLINE_S,
    check_unsealing,
    ended,
    image_id_of,
    is_sealed,
    unseal,
)
from malleable.workflows.verify import FILES, MANIFEST, RAW, SIGNATURE, UNTRUSTED, UPLOAD, VERIFY, taken, want_known


def request(
    tx: Transaction,
    now: datetime,
    *,
    image: Image,
    spool: Path,
    actor_id: UserId | None,
    signature: str = "",
    manifest: str = "",
) -> Operation:
    """Begin to seal an uploaded image; the signature is of the manifest if there is one, else of the disk.

    Errors: Conflict when it is not waiting for that, or signed by a stranger.
    """
    if not tx.images.change(image.id, expect={"state": ImageState.IMPORTING}):
        raise Conflict(f"Image {image.name} is {image.state} already.", code="image-state")
    check_unsealing(tx, image)
    arguments = {
        "name": image.name,
        "image_id": str(image.id),
        "spool": str(spool),
        "format": image.upload_format.value,
    }
    if signature:
        want_known(tx, image.project_id, signature)
        arguments[SIGNATURE] = signature
    if manifest:
        arguments[MANIFEST] = manifest
    return begin(tx, now, "import-image", project_id=image.project_id, actor_id=actor_id, arguments=arguments)


def _is_packed(operation: Operation) -> bool:
    return operation.arguments.get("format", ImageFormat.RAW) != ImageFormat.RAW


def _convert(context: Context, progress: Progress) -> Done:
    """Make the raw disk that a proven upload holds."""
    spool = taken(context)
    with context.store.reading() as tx:
        image = tx.images.get(image_id_of(context))
    if image.upload_format is ImageFormat.RAW:
        return Done(evidence={"image": "is raw"})
    if (spool / RAW).exists():
        return _unpacked(image, (spool / RAW).stat().st_size)
    if context.drivers.converter is None:
        raise Refused(
            f"This server reads no {image.upload_format} images.", code="no-converter", fix="Upload the image as raw."
        )
    max_bytes = context.drivers.disks.within(image.pool).capacity().total_bytes
    size_bytes = context.drivers.converter.convert(
        spool / UPLOAD, image.upload_format, spool / RAW, max_bytes=max_bytes, on_progress=progress
    )
    return _unpacked(image, size_bytes)


def _unpacked(image: Image, size_bytes: int) -> Done:
    """Take what it unpacked to from the quota."""

    def write(tx: Transaction) -> None:
        tx.images.change(image.id, size_bytes=size_bytes)
        want_within_quota(tx, image.project_id, Holdings(image_bytes=max(size_bytes - image.size_bytes, 0)))

    return Done(evidence={"upload_sha256": image.sha256, "size_bytes": size_bytes}, write=write)


def _seal(context: Context, progress: Progress) -> Done:
    """Copy the upload into the pool, prove its checksum, make it immutable."""
    image_id = image_id_of(context)
    with context.store.reading() as tx:
        image = tx.images.get(image_id)
    spool = taken(context)
    files = {name: spool / FILES / name for name in image.files}
    is_packed = image.upload_format is not ImageFormat.RAW
    source, sha256 = (spool / RAW, None) if is_packed else (spool / UPLOAD, image.sha256 or None)
    files_bytes = sum(path.stat().st_size for path in files.values())
    pool = context.drivers.disks.within(image.pool)
    sealed = pool.seal(image_id, source, sha256=sha256, files=files, on_progress=progress)

    def write(tx: Transaction) -> None:
        tx.images.change(image_id, size_bytes=sealed.size_bytes, sha256=sealed.sha256, files_bytes=files_bytes)
        # Two files that came at once may each have been counted without the other.
        want_within_quota(tx, image.project_id, Holdings(image_bytes=max(files_bytes - image.files_bytes, 0)))

    return Done(evidence={"sha256": sealed.sha256, "size_bytes": sealed.size_bytes}, write=write)


def _imported(tx: Transaction, operation: Operation, now: datetime) -> None:
    is_sealed(tx, operation)
    ended("image.imported")(tx, operation, now)


def not_imported(tx: Transaction, operation: Operation, now: datetime) -> None:
    """Nothing can be done with a failed image but to delete it; one whose signature is wrong goes at once.

    Its upload is gone, so it has no bytes any more, and takes none of its project's quota.
    """
    image_id = UUID(str(operation.arguments["image_id"]))
    if (operation.error or {}).get("code") == UNTRUSTED:
        tx.images.remove(image_id)
    else:
        tx.images.change(image_id, state=ImageState.FAILED, size_bytes=0, files_bytes=0)
    ended("image.import-failed")(tx, operation, now)


CONVERT = Step(
    name="convert",
    do=cancellable(_convert),
    # No undo: what was unpacked goes with the upload.
    deadline_s=SEAL_DEADLINE_S,
    sla_s=120.0,
    retry=Retry(attempts=2),
    resource=presenting.copy_resource,
    needed=_is_packed,
    device=presenting.POOL,
    is_laborious=True,
)
IMPORT_IMAGE = Workflow(
    name="import-image",
    steps=(
        VERIFY,
        CONVERT,
        Step(
            name="seal",
            do=cancellable(_seal),
            undo=unseal,
            deadline_s=SEAL_DEADLINE_S,
            sla_s=120.0,
            retry=presenting.COPY_RETRY,
            resource=presenting.copy_resource,
            device=presenting.POOL,
            is_laborious=True,
        ),
        # No undo: the upload is of no use once it is sealed.
        DROP_UPLOAD,
    ),
    on_done=_imported,
    on_undone=not_imported,
)
