"""What is said of an image, disk or snapshot that is not in the state it is wanted in, and what to do then."""

from malleable.domain.disks import Disk, DiskState, Snapshot, SnapshotState
from malleable.domain.errors import Conflict
from malleable.domain.images import Image, ImageState

_WAIT = "Wait until that has ended (`m2 operation list`), then repeat this."


def unsealed(image: Image) -> Conflict:
    """Refuse to use an image that is not sealed; one that is was changed by somebody after it was read."""
    if image.state is ImageState.SEALED:
        return _changed(f"Image {image.name}", "image-state")
    command = f"`m2 image import FILE --name {image.name}`"
    fix = f"Import it again: {command}."
    if image.state is ImageState.IMPORTING:
        fix = f"Wait while `m2 operation list` shows its import; if it does not, finish it: {command}."
    return Conflict(f"Image {image.name} is {image.state}, not sealed.", code="image-not-sealed", fix=fix)


def unready_disk(disk: Disk) -> Conflict:
    """Refuse to use a disk that is not ready; one that is was changed by somebody after it was read."""
    return _unready(f"Disk {disk.name}", disk.state, "disk-state", is_ready=disk.state is DiskState.READY)


def unready_snapshot(snapshot: Snapshot) -> Conflict:
    """Refuse to use a snapshot that is not ready; one that is was changed by somebody after it was read."""
    is_ready = snapshot.state is SnapshotState.READY
    return _unready(f"Snapshot {snapshot.name}", snapshot.state, "snapshot-state", is_ready=is_ready)


def _unready(what: str, state: DiskState | SnapshotState, code: str, *, is_ready: bool) -> Conflict:
    if is_ready:
        return _changed(what, code)
    fix = "It will be gone: choose another one." if state in (DiskState.DELETING, SnapshotState.DELETING) else _WAIT
    return Conflict(f"{what} is {state}.", code=code, fix=fix)


def _changed(what: str, code: str) -> Conflict:
    fix = "Look at it again, then repeat this if it is still what you want."
    return Conflict(f"{what} was changed by somebody else at this moment.", code=code, fix=fix)
