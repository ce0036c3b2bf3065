"""A pool of raw files that share blocks: golden images, their clones and the clones' snapshots, on XFS or btrfs."""

import errno
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from uuid import UUID

from malleable.domain.disks import whole_sectors
from malleable.domain.errors import Refused
from malleable.domain.ids import DiskId, ImageId, ProjectId, SnapshotId
from malleable.domain.ports import DiskHandle, FlattenCall, Flattening, Sealed, StoredThings, Usage
from malleable.domain.progress import OnProgress, unheard
from malleable.drivers.storage import blocks, refusals, sealing
from malleable.drivers.storage.contents import Contents
from malleable.drivers.storage.file_pool import FilePool
from malleable.drivers.storage.folder import PoolFolder, ReflinkSettings, mapped

#: Beside an image: its clone that many nodes read. No name that a file of an image can have.
SHARED = ".shared"

SUFFIX = ".raw"


class ReflinkDisks(FilePool):
    """``Disks`` on files. Safe from many threads and processes."""

    def __init__(self, settings: ReflinkSettings) -> None:
        """Do no I/O: the first call mounts or makes the pool."""
        super().__init__(PoolFolder(settings))

    def check(self) -> None:
        """Do as ``Disks.check``."""
        self._pool.check()

    def promote(
        self,
        snapshot_id: SnapshotId,
        image_id: ImageId,
        *,
        files: Mapping[str, Path] = {},
        on_progress: OnProgress = unheard,
    ) -> Sealed:
        """Do as ``Disks.promote``. A worn disk lies in many pieces; its copy in few."""
        source = self._snapshot(snapshot_id)
        if not source.exists():
            raise refusals.no_snapshot(snapshot_id)
        return self.seal(image_id, source, sha256=None, files=files, on_progress=on_progress)

    def clone(self, image_id: ImageId, disk_id: DiskId, *, size_bytes: int) -> None:
        """Do as ``Disks.clone``.

        Not synced, for speed: the first flush of the node makes the disk durable, its entry here included (XFS
        writes its log in order). A disk that a power cut takes was never flushed to.
        """
        disk = self._disk(disk_id)
        if disk.exists():
            return
        folder, manifest = self._manifest(image_id)
        self._pool.want_free(0)
        with mapped("clone the image"):
            try:
                source = os.open(folder / sealing.IMAGE, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError as e:
                raise refusals.corrupt(image_id, "its file is gone") from e
            try:
                stat = os.fstat(source)
                if (stat.st_size, stat.st_mtime_ns) != (manifest.size_bytes, manifest.mtime_ns):
                    raise refusals.corrupt(image_id, "it was written to")
                blocks.clone_to(source, disk, max(size_bytes, manifest.size_bytes))
            finally:
                os.close(source)

    def clone_snapshot(self, snapshot_id: SnapshotId, disk_id: DiskId, *, size_bytes: int) -> None:
        """Do as ``Disks.clone_snapshot``. Not synced, as ``clone``."""
        disk = self._disk(disk_id)
        if disk.exists():
            return
        self._pool.want_free(0)
        with (
            mapped("clone the snapshot"),
            _opened(self._snapshot(snapshot_id), refusals.no_snapshot(snapshot_id)) as source,
        ):
            blocks.clone_to(source, disk, max(size_bytes, os.fstat(source).st_size))

    def make_blank(self, disk_id: DiskId, *, size_bytes: int) -> None:
        """Do as ``Disks.make_blank``."""
        disk = self._disk(disk_id)
        if disk.exists():
            return
        self._pool.want_free(0)
        with mapped("make the disk"):
            blocks.clone_to(None, disk, size_bytes)

    def snapshot(self, disk_id: DiskId, snapshot_id: SnapshotId) -> None:
        """Do as ``Disks.snapshot``. Durable on return; writers wait while the pieces are shared."""
        snapshot = self._snapshot(snapshot_id)
        if snapshot.exists():
            return
        self._pool.want_free(0)
        with mapped("snapshot the disk"):
            with _opened(self._disk(disk_id), refusals.no_disk(disk_id)) as source:
                blocks.clone_to(source, snapshot, None, mode=0o400, is_durable=True)
            blocks.set_immutable(snapshot, on=True)

    def roll_back(self, disk_id: DiskId, snapshot_id: SnapshotId) -> None:
        """Do as ``Disks.roll_back``: a new clone of the snapshot takes the disk's name."""
        disk = self._disk(disk_id)
        if not disk.exists():
            raise refusals.no_disk(disk_id)
        with mapped("roll the disk back"):
            with (
                self._pool.workplace(str(disk_id)) as work,
                _opened(self._snapshot(snapshot_id), refusals.no_snapshot(snapshot_id)) as source,
            ):
                blocks.clone_to(source, work / "disk", None, is_durable=True)
                (work / "disk").replace(disk)
            blocks.sync_folder(disk.parent)

    def grow(self, disk_id: DiskId, *, size_bytes: int) -> None:
        """Do as ``Disks.grow``. Durable on return."""
        with mapped("grow the disk"), _opened(self._disk(disk_id), refusals.no_disk(disk_id), os.O_RDWR) as disk:
            now_bytes = os.fstat(disk).st_size
            if size_bytes < now_bytes:
                raise refusals.shrinks(disk_id, now_bytes)
            os.ftruncate(disk, size_bytes)
            os.fsync(disk)

    def flatten(self, disk_id: DiskId, *, seconds: float, call: FlattenCall = FlattenCall.FIRST) -> Flattening:  # noqa: ARG002  all are alike
        """Do as ``Disks.flatten``: what it shares is copied in place, also while it is written.

        Its snapshots are left alone, for a file whose blocks others share is whole without them. So is the disk where
        the filesystem cannot (btrfs).
        """
        with (
            mapped("flatten the disk"),
            _opened(self._disk(disk_id), refusals.no_disk(disk_id), os.O_RDWR) as disk,
        ):
            self._pool.want_free(blocks.shared_bytes(disk))
            try:
                copied_bytes, left_bytes = blocks.unshare(disk, seconds)
            except OSError as e:
                if e.errno != errno.EOPNOTSUPP:
                    raise
                return Flattening(copied_bytes=0, left_bytes=0, is_done=True)
        return Flattening(copied_bytes=copied_bytes, left_bytes=left_bytes, is_done=not left_bytes)

    def _disk(self, disk_id: DiskId) -> Path:
        return self._pool.root() / "disks" / f"{disk_id}{SUFFIX}"

    def _snapshot(self, snapshot_id: SnapshotId) -> Path:
        return self._pool.root() / "snapshots" / f"{snapshot_id}{SUFFIX}"

    def delete_disk(self, disk_id: DiskId) -> None:
        """Do as ``Disks.delete_disk``."""
        with mapped("delete the disk"):
            self._disk(disk_id).unlink(missing_ok=True)

    def delete_snapshot(self, snapshot_id: SnapshotId) -> None:
        """Do as ``Disks.delete_snapshot``."""
        snapshot = self._snapshot(snapshot_id)
        with mapped("delete the snapshot"):
            blocks.set_immutable(snapshot, on=False)
            snapshot.unlink(missing_ok=True)

    def has_disk(self, disk_id: DiskId) -> bool:
        """Do as ``Disks.has_disk``."""
        return self._disk(disk_id).exists()

    def usage(self, stored_id: ImageId | DiskId | SnapshotId) -> Usage:
        """Do as ``Disks.usage``. Bytes of an image or snapshot count as shared as long as one clone has them."""
        for path in self._paths(stored_id):
            with mapped("measure the pool"), suppress(FileNotFoundError), path.open("rb") as file:
                own_bytes, shared_bytes, pieces = blocks.measured(file.fileno())
                return Usage(own_bytes=own_bytes, shared_bytes=shared_bytes, pieces=pieces)
        raise refusals.nothing(stored_id)

    def _paths(self, stored_id: UUID) -> tuple[Path, ...]:
        """Name the places where something with this id would be."""
        root = self._pool.root()
        image = root / "images" / str(stored_id) / sealing.IMAGE
        return root / "disks" / f"{stored_id}{SUFFIX}", root / "snapshots" / f"{stored_id}{SUFFIX}", image

    def taken_bytes(self, groups: Mapping[ProjectId, Collection[UUID]]) -> Mapping[ProjectId, int]:
        """Do as ``Disks.taken_bytes``: of what is shared, each block counts once in a group."""
        with mapped("measure the pool"):
            images = list(Contents(self._pool.root()).images())
            pieces = cache(self._pieces)  # each image's are read once, however many groups may share with it
            return {owner: self._taken_bytes(set(ids), images, pieces) for owner, ids in groups.items()}

    def _taken_bytes(
        self, ids: Collection[UUID], images: Sequence[UUID], pieces: Callable[[UUID], Sequence[tuple[int, int]]]
    ) -> int:
        own, shared = 0, list[tuple[int, int]]()
        for at, length_bytes, is_shared in (extent for stored_id in ids for extent in self._extents(stored_id)):
            if is_shared:
                shared.append((at, length_bytes))
            else:
                own += length_bytes
        if not shared:
            return own
        foreign = [piece for image in images if image not in ids for piece in pieces(image)]
        return own + blocks.covered_bytes(shared + foreign) - blocks.covered_bytes(foreign)

    def _pieces(self, image: UUID) -> Sequence[tuple[int, int]]:
        return [(at, length_bytes) for at, length_bytes, _ in self._extents(image)]

    def _extents(self, stored_id: UUID) -> Iterator[tuple[int, int, bool]]:
        for path in self._paths(stored_id):
            with suppress(FileNotFoundError), path.open("rb") as file:
                yield from blocks.extents(file.fileno())

    def handle(self, disk_id: DiskId) -> DiskHandle:
        """Do as ``Disks.handle``."""
        disk = self._disk(disk_id)
        if not disk.exists():
            raise refusals.no_disk(disk_id)
        return DiskHandle(path=str(disk), direct=self._pool.reads_past_cache())

    def image_handle(self, image_id: ImageId) -> DiskHandle:
        """Do as ``Disks.image_handle``: of a clone beside the image, for tgtd cannot open what is immutable."""
        image = self.image_path(image_id)
        shared = image.with_name(SHARED)
        if not shared.exists():
            with _opened(image, refusals.no_image(image_id)) as source, mapped("share the image"):
                blocks.clone_to(source, shared, whole_sectors(os.fstat(source).st_size), mode=0o400)
        return DiskHandle(path=str(shared), direct=self._pool.reads_past_cache())

    def list(self) -> StoredThings:
        """Do as ``Disks.list``."""
        found = Contents(self._pool.root())
        with mapped("list the pool"):
            return StoredThings(
                images=frozenset(found.images()),
                disks=frozenset(map(DiskId, found.files("disks", SUFFIX))),
                snapshots=frozenset(map(SnapshotId, found.files("snapshots", SUFFIX))),
                sizes=found.sizes,
                strays=found.strays,
            )


@contextmanager
def _opened(path: Path, absent: Refused, how: int = os.O_RDONLY) -> Iterator[int]:
    """Open a file, to be cloned if nothing else is said. Errors: ``absent`` when it is not there."""
    try:
        fd = os.open(path, how | os.O_CLOEXEC)
    except FileNotFoundError:
        raise absent from None
    try:
        yield fd
    finally:
        os.close(fd)
