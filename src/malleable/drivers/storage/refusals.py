"""What every kind of pool refuses, in the same words."""

from pathlib import Path
from uuid import UUID

from malleable.domain.errors import Refused
from malleable.domain.ids import DiskId, ImageId, SnapshotId

GIB = 1 << 30
_LOST = "`m2 pool audit` tells all that is lost. Bring it back with a backup of the pool, or delete it."


def no_image(image_id: ImageId) -> Refused:
    """Say that an image is not there."""
    return Refused(f"The pool holds no image {image_id}.", code="no-such-image", fix="Import it.")


def no_file(image_id: ImageId, name: str) -> Refused:
    """Say that an image has no such file beside it."""
    return Refused(f"Image {image_id} has no file {name!a}.", code="no-such-file")


def no_disk(disk_id: DiskId) -> Refused:
    """Say that a disk is not there."""
    return Refused(f"The pool holds no disk {disk_id}.", code="no-such-disk", fix=_LOST)


def no_snapshot(snapshot_id: SnapshotId) -> Refused:
    """Say that a snapshot is not there."""
    return Refused(f"The pool holds no snapshot {snapshot_id}.", code="no-such-snapshot", fix=_LOST)


def nothing(stored_id: UUID) -> Refused:
    """Say that neither an image nor a disk nor a snapshot has this id."""
    return Refused(f"The pool holds nothing with the id {stored_id}.", code="no-such-thing")


def corrupt(image_id: ImageId, why: str) -> Refused:
    """Say that an image is not what was sealed."""
    return Refused(
        f"Image {image_id} is not what was sealed: {why}.",
        code="image-corrupt",
        fix="Delete it and import it again; its disks are not affected.",
    )


def other_content(image_id: ImageId, sealed: str, wanted: str) -> Refused:
    """Say that an image was sealed before with other content."""
    return Refused(f"Image {image_id} was sealed with SHA-256 {sealed}, not {wanted}.", code="checksum")


def shrinks(disk_id: DiskId, now_bytes: int) -> Refused:
    """Say that a disk is larger already."""
    return Refused(
        f"Disk {disk_id} has {now_bytes} bytes already.",
        code="disk-shrinks",
        fix="Disks only grow: clone a smaller one and copy.",
    )


def too_deep(depth: int, max_chain: int) -> Refused:
    """Say that a clone would be read through more others than it may be."""
    return Refused(
        f"It would be read through {depth} others, one after the other; {max_chain} are allowed.",
        code="chain-too-deep",
        fix="Run `m2 disk flatten` for the disk that the snapshot is of; if that is gone, promote the snapshot.",
    )


def one_place(pool: str) -> Refused:
    """Say that this kind of pool keeps all projects in one place."""
    return Refused(
        f"There is no pool {pool!a}: this site keeps the disks of all projects in one place.",
        code="no-such-pool",
        fix="Leave `--pool` away. Disks in Ceph can have a pool for each project: docs/howto/ceph.md.",
    )


def elsewhere(what: str) -> Refused:
    """Say that something is in the pool of another project."""
    return Refused(f"{what} is in the pool of another project.", code="in-another-pool", fix="Copy it.")


def full(free_bytes: int, reserve_bytes: int) -> Refused:
    """Say that the pool is past its watermark."""
    return Refused(
        f"The pool has {free_bytes / GIB:.1f} GiB free and keeps {reserve_bytes / GIB:.1f} GiB for the disks in use.",
        code="pool-full",
        fix="Delete images or disks, or enlarge the pool.",
    )


def want_source(path: Path) -> None:
    """Refuse a file to import that is not there."""
    if not path.is_file():
        raise Refused(f"There is no file {path}.", code="no-such-file")


def want_plain_name(name: str) -> None:
    """Refuse a name that is not one of a file in the image's own folder."""
    if Path(name).name != name or name.startswith("."):
        raise Refused(f"{name!a} is no name of a file beside an image.", code="no-such-file")
