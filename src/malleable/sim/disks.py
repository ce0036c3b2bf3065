"""A pool of disks in memory: images are bytes, clones are what was written over them."""

import hashlib
import io
import shutil
import tempfile
import threading
import weakref
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Self
from uuid import UUID

from malleable.domain.errors import Refused
from malleable.domain.ids import DiskId, ImageId, ProjectId, SnapshotId
from malleable.domain.ports import Capacity, DiskHandle, FlattenCall, Flattening, Sealed, StoredThings, Usage
from malleable.domain.progress import OnProgress, counted, unheard
from malleable.sim.faults import Faults

TOTAL_BYTES = 1 << 40
BLOCK_BYTES = 4096
PROJECT_POOLS = ("pool-a", "pool-b")


class _Clone:
    """The blocks written since the clone was made; all else is the image, then zeros."""

    def __init__(self, image: bytes, size_bytes: int, written: Mapping[int, bytes] = {}, depth: int = 0) -> None:
        self.image = image
        self.size_bytes = size_bytes
        self.written = dict(written)
        self.depth = depth  #: through how many others it is read

    def copy(self, size_bytes: int = 0, *, deeper: int = 0) -> "_Clone":
        return _Clone(self.image, max(size_bytes, self.size_bytes), self.written, self.depth + deeper)

    def foreign(self) -> list[int]:
        """Number the blocks that are only the image's."""
        return [n for n in range(-(-len(self.image) // BLOCK_BYTES)) if n not in self.written]

    def block(self, number: int) -> bytes:
        mine = self.written.get(number)
        if mine is not None:
            return mine
        return self.image[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES].ljust(BLOCK_BYTES, b"\0")

    def read(self, offset: int, length: int) -> bytes:
        end = min(offset + length, self.size_bytes)
        first = offset // BLOCK_BYTES
        blocks = b"".join(self.block(n) for n in range(first, -(-end // BLOCK_BYTES)))
        return blocks[offset - first * BLOCK_BYTES : end - first * BLOCK_BYTES]

    def write(self, offset: int, data: bytes) -> None:
        if offset + len(data) > self.size_bytes:
            raise ValueError("Past the end of the disk.")
        first = offset // BLOCK_BYTES
        last = (offset + len(data) - 1) // BLOCK_BYTES
        whole = bytearray(b"".join(self.block(n) for n in range(first, last + 1)))
        at = offset - first * BLOCK_BYTES
        whole[at : at + len(data)] = data
        for n in range(first, last + 1):
            self.written[n] = bytes(whole[(n - first) * BLOCK_BYTES : (n - first + 1) * BLOCK_BYTES])


class _Folders(dict[ImageId, Path]):
    """Where the files beside images are; they go with it."""


#: What a pool goes on with that takes no writes.
_READS = frozenset(
    {"capacity", "open_image", "file", "verify", "has_disk", "usage", "taken_bytes", "handle", "image_handle", "list"}
)


class SimDisks:
    """``Disks`` without a filesystem; clones of clones form chains, as in Ceph.

    Projects may have ``PROJECT_POOLS``, all of one room. Knobs: ``faults``, ``total_bytes``, ``is_read_only``,
    ``max_chain``, ``strays``, ``flatten_blocks`` (for one call), ``copy_bytes`` (for each "copy" that faults strike),
    ``damage_image``, ``read``, ``write``, ``pool_of``.
    """

    def __init__(self, *, total_bytes: int = TOTAL_BYTES, reserve_bytes: int = 0, faults: Faults | None = None) -> None:
        """Make an empty pool that stops cloning when fewer than ``reserve_bytes`` are free."""
        self.faults = faults or Faults()
        self.strays = dict[str, datetime]()  #: what lies in it and is nothing of it
        self.total_bytes = total_bytes
        self.reserve_bytes = reserve_bytes
        self.is_read_only = False
        self.max_chain = 8
        self.flatten_blocks = 1 << 18
        self.copy_bytes = 4 << 20
        self._lock = threading.RLock()
        self._within = ""  #: the pool for what is new
        self._pools: dict[UUID, str] = {}  #: of what is in a project's
        self._images: dict[ImageId, tuple[bytes, str]] = {}
        self._damaged: set[ImageId] = set()
        self._disks: dict[DiskId, _Clone] = {}
        self._snapshots: dict[SnapshotId, _Clone] = {}
        self._snapshots_of: dict[DiskId, set[SnapshotId]] = {}
        #: files beside images must be real: they are served by path
        self._folders = _Folders()

    @contextmanager
    def _call(self, method: str, key: object = None) -> Iterator[None]:
        name = None if key is None else str(key)
        self.faults.before(method, name)
        if self.is_read_only and method not in _READS:
            raise Refused("The simulated pool is read-only.", code="pool-broken", fix="Mount it for writing again.")
        with self._lock:
            yield
        self.faults.after(method, name)

    def within(self, pool: str) -> Self:
        """Do as ``Disks.within``."""
        if pool == self._within:
            return self
        if pool and pool not in PROJECT_POOLS:
            known = " and ".join(PROJECT_POOLS)
            raise Refused(f"There is no pool {pool!a}.", code="no-such-pool", fix=f"The simulated ones are {known}.")
        there = copy(self)
        there._within = pool
        return there

    def _want_near(self, stored_id: UUID) -> None:
        """Refuse to clone what is in the pool of another project."""
        if self._pools.get(stored_id, "") not in ("", self._within):
            raise Refused(f"{stored_id} is in another project's pool.", code="in-another-pool", fix="Copy it.")

    def _place(self, stored_id: UUID, pool: str | None = None) -> None:
        if name := self._within if pool is None else pool:
            self._pools[stored_id] = name

    def check(self) -> None:
        """Do as ``Disks.check``."""
        with self._call("check"):
            return

    def capacity(self) -> Capacity:
        """Do as ``Disks.capacity``: images count whole, clones what was written to them."""
        with self._call("capacity"):
            return Capacity(
                total_bytes=self.total_bytes,
                free_bytes=self._free_bytes(),
                reserve_bytes=self.reserve_bytes,
                is_read_only=self.is_read_only,
            )

    def _free_bytes(self) -> int:
        images = sum(len(content) for content, _ in self._images.values())
        clones = (*self._disks.values(), *self._snapshots.values())
        return self.total_bytes - images - BLOCK_BYTES * sum(len(clone.written) for clone in clones)

    def _want_free(self, size_bytes: int) -> None:
        if self._free_bytes() - size_bytes < self.reserve_bytes:
            raise Refused("The simulated pool is full.", code="pool-full", fix="Delete images or disks.")

    def seal(
        self,
        image_id: ImageId,
        source: Path,
        *,
        sha256: str | None,
        files: Mapping[str, Path] = {},
        on_progress: OnProgress = unheard,
    ) -> Sealed:
        """Do as ``Disks.seal``."""
        self._copy(image_id, source.stat().st_size, on_progress)
        with self._call("seal", image_id):
            return self._seal(image_id, source.read_bytes(), sha256, files)

    def _copy(self, image_id: ImageId, size_bytes: int, on_progress: OnProgress) -> None:
        """Be as long about it as was ordered, while other calls go on; nothing of it is there before the end."""
        if image_id in self._images:
            return
        count, left_bytes = counted(on_progress, size_bytes), size_bytes
        while left_bytes > 0:
            self.faults.before("copy", str(image_id))
            piece_bytes = min(self.copy_bytes, left_bytes)
            left_bytes -= piece_bytes
            self.faults.after("copy", str(image_id))
            count(piece_bytes)

    def _seal(self, image_id: ImageId, content: bytes, sha256: str | None, files: Mapping[str, Path]) -> Sealed:
        if image_id in self._images:
            content, before = self._images[image_id]
            if sha256 not in (None, before):
                raise Refused(f"Image {image_id} was sealed with SHA-256 {before}, not {sha256}.", code="checksum")
            return Sealed(size_bytes=len(content), sha256=before)
        found = hashlib.sha256(content).hexdigest()
        if sha256 not in (None, found):
            raise Refused(f"The source's SHA-256 is {found}, not {sha256}.", code="checksum", fix="Import it again.")
        self._want_free(len(content))
        if files:
            self._keep(image_id, files)
        self._images[image_id] = (content, found)
        self._place(image_id)
        return Sealed(size_bytes=len(content), sha256=found)

    def _keep(self, image_id: ImageId, files: Mapping[str, Path]) -> None:
        folder = Path(tempfile.mkdtemp(prefix="malleable-sim-disks-"))
        weakref.finalize(self._folders, shutil.rmtree, folder, ignore_errors=True)
        self._folders[image_id] = folder
        for name, path in files.items():
            shutil.copyfile(path, folder / name)

    def promote(
        self,
        snapshot_id: SnapshotId,
        image_id: ImageId,
        *,
        files: Mapping[str, Path] = {},
        on_progress: OnProgress = unheard,
    ) -> Sealed:
        """Do as ``Disks.promote``."""
        with self._lock:
            size_bytes = self._frozen(snapshot_id).size_bytes
        self._copy(image_id, size_bytes, on_progress)
        with self._call("promote", image_id):
            frozen = self._frozen(snapshot_id)
            return self._seal(image_id, frozen.read(0, frozen.size_bytes), None, files)

    def open_image(self, image_id: ImageId) -> BinaryIO:
        """Do as ``Disks.open_image``."""
        with self._call("open_image", image_id):
            return io.BytesIO(self._sound(image_id))

    def file(self, image_id: ImageId, name: str) -> Path:
        """Do as ``Disks.file``."""
        with self._call("file", image_id):
            folder = self._folders.get(image_id)
            if folder is None or Path(name).name != name or not (folder / name).is_file():
                raise Refused(f"Image {image_id} has no file {name!a}.", code="no-such-file")
            return folder / name

    def verify(self, image_id: ImageId) -> None:
        """Read a whole image and compare its SHA-256. Errors: Refused with code "no-such-image" or "image-corrupt"."""
        with self._call("verify", image_id):
            self._sound(image_id)

    def _sound(self, image_id: ImageId) -> bytes:
        if image_id not in self._images:
            raise Refused(f"The pool holds no image {image_id}.", code="no-such-image")
        if image_id in self._damaged:
            raise Refused(f"Image {image_id} is not what was sealed.", code="image-corrupt", fix="Import it again.")
        return self._images[image_id][0]

    def clone(self, image_id: ImageId, disk_id: DiskId, *, size_bytes: int) -> None:
        """Do as ``Disks.clone``."""
        with self._call("clone", disk_id):
            if disk_id in self._disks:
                return
            content = self._sound(image_id)
            self._want_near(image_id)
            self._want_free(0)
            self._disks[disk_id] = _Clone(content, max(size_bytes, len(content)), depth=1)
            self._place(disk_id)

    def clone_snapshot(self, snapshot_id: SnapshotId, disk_id: DiskId, *, size_bytes: int) -> None:
        """Do as ``Disks.clone_snapshot``."""
        with self._call("clone_snapshot", disk_id):
            if disk_id in self._disks:
                return
            frozen = self._frozen(snapshot_id)
            self._want_near(snapshot_id)
            self._want_free(0)
            self._disks[disk_id] = self._deeper(frozen, size_bytes)
            self._place(disk_id)

    def make_blank(self, disk_id: DiskId, *, size_bytes: int) -> None:
        """Do as ``Disks.make_blank``."""
        with self._call("make_blank", disk_id):
            if disk_id not in self._disks:
                self._want_free(0)
                self._disks[disk_id] = _Clone(b"", size_bytes)
                self._place(disk_id)

    def snapshot(self, disk_id: DiskId, snapshot_id: SnapshotId) -> None:
        """Do as ``Disks.snapshot``."""
        with self._call("snapshot", snapshot_id):
            if snapshot_id not in self._snapshots:
                disk = self._known(disk_id)
                self._want_free(0)
                self._snapshots[snapshot_id] = disk.copy()
                self._snapshots_of.setdefault(disk_id, set()).add(snapshot_id)
                self._place(snapshot_id, self._pools.get(disk_id, ""))

    def roll_back(self, disk_id: DiskId, snapshot_id: SnapshotId) -> None:
        """Do as ``Disks.roll_back``."""
        with self._call("roll_back", disk_id):
            self._known(disk_id)
            self._disks[disk_id] = self._deeper(self._frozen(snapshot_id))

    def _deeper(self, frozen: _Clone, size_bytes: int = 0) -> _Clone:
        if frozen.depth >= self.max_chain:
            raise Refused("The chain of clones is too deep.", code="chain-too-deep", fix="Flatten the disk.")
        return frozen.copy(size_bytes, deeper=1)

    def grow(self, disk_id: DiskId, *, size_bytes: int) -> None:
        """Do as ``Disks.grow``."""
        with self._call("grow", disk_id):
            disk = self._known(disk_id)
            if size_bytes < disk.size_bytes:
                raise Refused(
                    f"Disk {disk_id} has {disk.size_bytes} bytes already.", code="disk-shrinks", fix="Disks only grow."
                )
            disk.size_bytes = size_bytes

    def flatten(self, disk_id: DiskId, *, seconds: float, call: FlattenCall = FlattenCall.FIRST) -> Flattening:  # noqa: ARG002  it copies by blocks
        """Do as ``Disks.flatten``, ``flatten_blocks`` at a time; snapshots follow with the disk's last block."""
        with self._call("flatten", disk_id):
            disk = self._known(disk_id)
            missing = disk.foreign()
            self._want_free(BLOCK_BYTES * len(missing))
            copied = missing[: self.flatten_blocks]
            disk.written |= {number: disk.block(number) for number in copied}
            left = len(missing) - len(copied)
            if not left:
                disk.image, disk.depth = b"", 0
                for snapshot in self._snapshots_of.get(disk_id, ()):
                    if snapshot in self._snapshots:
                        self._snapshots[snapshot].depth = 0
            return Flattening(copied_bytes=BLOCK_BYTES * len(copied), left_bytes=BLOCK_BYTES * left, is_done=not left)

    def _known(self, disk_id: DiskId) -> _Clone:
        if disk_id not in self._disks:
            raise Refused(f"The pool holds no disk {disk_id}.", code="no-such-disk")
        return self._disks[disk_id]

    def _frozen(self, snapshot_id: SnapshotId) -> _Clone:
        if snapshot_id not in self._snapshots:
            raise Refused(f"The pool holds no snapshot {snapshot_id}.", code="no-such-snapshot")
        return self._snapshots[snapshot_id]

    def delete_disk(self, disk_id: DiskId) -> None:
        """Do as ``Disks.delete_disk``."""
        with self._call("delete_disk", disk_id):
            self._disks.pop(disk_id, None)
            self._pools.pop(disk_id, None)

    def delete_snapshot(self, snapshot_id: SnapshotId) -> None:
        """Do as ``Disks.delete_snapshot``."""
        with self._call("delete_snapshot", snapshot_id):
            self._snapshots.pop(snapshot_id, None)
            self._pools.pop(snapshot_id, None)

    def delete_image(self, image_id: ImageId) -> None:
        """Do as ``Disks.delete_image``."""
        with self._call("delete_image", image_id):
            self._images.pop(image_id, None)
            self._pools.pop(image_id, None)
            self._damaged.discard(image_id)
            if image_id in self._folders:
                shutil.rmtree(self._folders.pop(image_id), ignore_errors=True)

    def has_disk(self, disk_id: DiskId) -> bool:
        """Do as ``Disks.has_disk``."""
        with self._call("has_disk", disk_id):
            return disk_id in self._disks

    def usage(self, stored_id: ImageId | DiskId | SnapshotId) -> Usage:
        """Do as ``Disks.usage``: each block a disk wrote is a piece, and its own also while a snapshot shares it."""
        with self._call("usage", stored_id):
            if stored_id in self._images:
                return Usage(own_bytes=len(self._images[ImageId(stored_id)][0]), shared_bytes=0, pieces=1)
            clone = self._disks.get(DiskId(stored_id)) or self._snapshots.get(SnapshotId(stored_id))
            if clone is None:
                raise Refused(f"The pool holds nothing with the id {stored_id}.", code="no-such-thing")
            own_bytes, shared_bytes = BLOCK_BYTES * len(clone.written), BLOCK_BYTES * len(clone.foreign())
            return Usage(own_bytes=own_bytes, shared_bytes=shared_bytes, pieces=1 + len(clone.written))

    def taken_bytes(self, groups: Mapping[ProjectId, Collection[UUID]]) -> Mapping[ProjectId, int]:
        """Do as ``Disks.taken_bytes``."""
        with self._call("taken_bytes"):
            return {owner: self._taken_bytes(ids) for owner, ids in groups.items()}

    def _taken_bytes(self, ids: Collection[UUID]) -> int:
        clones = [self._disks.get(DiskId(one)) or self._snapshots.get(SnapshotId(one)) for one in ids]
        blocks = {id(block) for clone in clones if clone for block in clone.written.values()}
        images = (self._images[ImageId(one)][0] for one in ids if one in self._images)
        return BLOCK_BYTES * len(blocks) + sum(map(len, images))

    def handle(self, disk_id: DiskId) -> DiskHandle:
        """Do as ``Disks.handle``; the path only names the disk, no file is there."""
        with self._call("handle", disk_id):
            self._known(disk_id)
            return DiskHandle(path=f"/sim/disks/{disk_id}")

    def image_handle(self, image_id: ImageId) -> DiskHandle:
        """Do as ``Disks.image_handle``; the path only names the image, no file is there."""
        with self._call("image_handle", image_id):
            self._sound(image_id)
            self._want_near(image_id)
            return DiskHandle(path=f"/sim/images/{image_id}")

    def list(self) -> StoredThings:
        """Do as ``Disks.list``."""
        with self._call("list"):
            return StoredThings(
                images=frozenset(self._images),
                disks=frozenset(self._disks),
                snapshots=frozenset(self._snapshots),
                sizes={id: clone.size_bytes for id, clone in (*self._disks.items(), *self._snapshots.items())},
                strays=dict(self.strays),
            )

    def pool_of(self, stored_id: ImageId | DiskId | SnapshotId) -> str:
        """Name the pool that something is in; "": the site's."""
        with self._lock:
            return self._pools.get(stored_id, "")

    def read(self, disk_id: DiskId, offset: int, length: int) -> bytes:
        """Read a disk as a node would; shorter at its end. Faults do not touch it."""
        with self._lock:
            return self._disks[disk_id].read(offset, length)

    def write(self, disk_id: DiskId, offset: int, data: bytes) -> None:
        """Write a disk as a node would. Faults do not touch it."""
        with self._lock:
            if data:
                self._disks[disk_id].write(offset, data)

    def size_bytes(self, disk_id: DiskId) -> int:
        """Return a disk's size."""
        with self._lock:
            return self._disks[disk_id].size_bytes

    def cut_disk(self, disk_id: DiskId, size_bytes: int) -> None:
        """Let a disk have lost its tail, as a file that somebody truncated."""
        with self._lock:
            self._disks[disk_id].size_bytes = size_bytes

    def damage_image(self, image_id: ImageId) -> None:
        """Let an image have lost its tail, as a failing pool would."""
        with self._lock:
            self._damaged.add(image_id)
