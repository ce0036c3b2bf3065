"""A pool of disks in memory: images are bytes, clones are what was written over them."""

import hashlib
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from malleable.domain.errors import Refused
from malleable.domain.ids import DiskId, ImageId
from malleable.domain.ports import Capacity, DiskHandle, StoredThings
from malleable.sim.faults import Faults

TOTAL_BYTES = 1 << 40
BLOCK_BYTES = 4096


class _Clone:
    """The blocks written since the clone was made; all else is the image, then zeros."""

    def __init__(self, image: bytes, size_bytes: int) -> None:
        self.image = image
        self.size_bytes = size_bytes
        self.written: dict[int, bytes] = {}

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


class SimDisks:
    """``Disks`` without a filesystem. Knobs: ``faults``, ``total_bytes``, ``damage_image``, ``read``, ``write``."""

    def __init__(self, *, total_bytes: int = TOTAL_BYTES, reserve_bytes: int = 0, faults: Faults | None = None) -> None:
        """Make an empty pool that stops cloning when fewer than ``reserve_bytes`` are free."""
        self.faults = faults or Faults()
        self.total_bytes = total_bytes
        self.reserve_bytes = reserve_bytes
        self._lock = threading.RLock()
        self._images: dict[ImageId, tuple[bytes, str]] = {}
        self._damaged: set[ImageId] = set()
        self._disks: dict[DiskId, _Clone] = {}
        #: files beside images must be real: they are served by path
        self._files = Path(tempfile.mkdtemp(prefix="malleable-sim-disks-"))
        weakref.finalize(self, shutil.rmtree, self._files, ignore_errors=True)

    @contextmanager
    def _call(self, method: str, key: object = None) -> Iterator[None]:
        name = None if key is None else str(key)
        self.faults.before(method, name)
        with self._lock:
            yield
        self.faults.after(method, name)

    def check(self) -> None:
        """Do as ``Disks.check``."""
        with self._call("check"):
            return

    def capacity(self) -> Capacity:
        """Do as ``Disks.capacity``: images count whole, clones what was written to them."""
        with self._call("capacity"):
            return Capacity(total_bytes=self.total_bytes, free_bytes=self._free_bytes())

    def _free_bytes(self) -> int:
        images = sum(len(content) for content, _ in self._images.values())
        return self.total_bytes - images - BLOCK_BYTES * sum(len(d.written) for d in self._disks.values())

    def _want_free(self, size_bytes: int) -> None:
        if self._free_bytes() - size_bytes < self.reserve_bytes:
            raise Refused("The simulated pool is full.", code="pool-full", fix="Delete images or disks.")

    def seal(self, image_id: ImageId, source: Path, *, sha256: str, files: Mapping[str, Path] = {}) -> int:
        """Do as ``Disks.seal``."""
        with self._call("seal", image_id):
            if image_id in self._images:
                return len(self._images[image_id][0])
            content = source.read_bytes()
            found = hashlib.sha256(content).hexdigest()
            if found != sha256:
                raise Refused(f"The source's SHA-256 is {found}, not {sha256}.", code="checksum", fix="Copy it again.")
            self._want_free(len(content))
            folder = self._files / str(image_id)
            folder.mkdir(exist_ok=True)
            for name, path in files.items():
                shutil.copyfile(path, folder / name)
            self._images[image_id] = (content, sha256)
            return len(content)

    def file(self, image_id: ImageId, name: str) -> Path:
        """Do as ``Disks.file``."""
        with self._call("file", image_id):
            path = self._files / str(image_id) / name
            if image_id not in self._images or Path(name).name != name or not path.is_file():
                raise Refused(f"Image {image_id} has no file {name!a}.", code="no-such-file")
            return path

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
            self._want_free(0)
            self._disks[disk_id] = _Clone(content, max(size_bytes, len(content)))

    def delete_disk(self, disk_id: DiskId) -> None:
        """Do as ``Disks.delete_disk``."""
        with self._call("delete_disk", disk_id):
            self._disks.pop(disk_id, None)

    def delete_image(self, image_id: ImageId) -> None:
        """Do as ``Disks.delete_image``."""
        with self._call("delete_image", image_id):
            self._images.pop(image_id, None)
            self._damaged.discard(image_id)
            shutil.rmtree(self._files / str(image_id), ignore_errors=True)

    def has_disk(self, disk_id: DiskId) -> bool:
        """Do as ``Disks.has_disk``."""
        with self._call("has_disk", disk_id):
            return disk_id in self._disks

    def handle(self, disk_id: DiskId) -> DiskHandle:
        """Do as ``Disks.handle``; the path only names the disk, no file is there."""
        with self._call("handle", disk_id):
            if disk_id not in self._disks:
                raise Refused(f"The pool holds no disk {disk_id}.", code="no-such-disk")
            return DiskHandle(path=f"/sim/disks/{disk_id}")

    def list(self) -> StoredThings:
        """Do as ``Disks.list``."""
        with self._call("list"):
            return StoredThings(images=frozenset(self._images), disks=frozenset(self._disks))

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

    def damage_image(self, image_id: ImageId) -> None:
        """Let an image have lost its tail, as a failing pool would."""
        with self._lock:
            self._damaged.add(image_id)
