"""Sealed images in Ceph: copied in one pass, proven by SHA-256, kept by a snapshot, read again as files."""

import hashlib
import io
import os
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol, TypeAlias

from malleable.domain.disks import whole_sectors
from malleable.domain.errors import Refused
from malleable.domain.ids import ImageId
from malleable.domain.ports import Sealed
from malleable.domain.progress import OnProgress
from malleable.drivers.storage import rbd_rubbish, refusals
from malleable.drivers.storage.rbd_cluster import FEATURES, RbdPool
from malleable.drivers.storage.rbd_index import Entry
from malleable.drivers.storage.rbd_library import mapped, rados, rbd

#: an RBD object: a chunk of zeros is one that is never made
CHUNK_BYTES = 4 << 20
SNAPSHOT = "sealed"
_ZEROS = bytes(CHUNK_BYTES)


#: A copy that is made piece by piece, as each is asked for: tells before it how many bytes of how many are done. Closed
#: before its end, it leaves nothing.
Copying: TypeAlias = Generator[tuple[int, int], None, Sealed]


class Asked(Protocol):
    """A ``Copying``, here or in another process."""

    def __next__(self) -> tuple[int, int]:
        """Copy a piece. Errors: StopIteration, whose value is what was sealed; the driver's."""

    def close(self) -> None:
        """Give it up."""


def followed(copying: Asked, on_progress: OnProgress) -> Sealed:
    """Copy to the end, telling how far it is. Errors: the driver's; what ``on_progress`` raises ends it."""
    try:
        while True:
            try:
                told = next(copying)
            except StopIteration as end:
                sealed: Sealed = end.value
                return sealed
            on_progress(*told)
    finally:
        copying.close()


def seal(
    pool: RbdPool, new_name: Callable[[str], str], source: BinaryIO, *, sha256: str | None, files: Mapping[str, Path]
) -> Generator[tuple[int, int], None, Entry]:
    """Copy an image and its files into RBD images of their own; nothing is left of them if it fails or is given up.

    ``new_name`` makes the name of one, an "image" or a "file".

    Errors: Refused with code "checksum"; the libraries'.
    """
    made = _Made(of_bytes=source.seek(0, os.SEEK_END) + sum(path.stat().st_size for path in files.values()))
    try:
        image = yield from _copy(pool, new_name, "image", source, made)
        if sha256 not in (None, image.sha256):
            raise Refused(
                f"The source's SHA-256 is {image.sha256}, not {sha256}.", code="checksum", fix="Import it again."
            )
        beside = {}
        for name, path in files.items():
            with path.open("rb") as file:
                beside[name] = yield from _copy(pool, new_name, "file", file, made)
    except BaseException:
        # What cannot be removed now, the next sweep finds.
        with suppress(rados().Error, rbd().Error):
            for name in made.names:
                rbd_rubbish.drop_snapshot(pool, name, SNAPSHOT)
                rbd_rubbish.discard(pool, name)
        raise
    return Entry(
        rbd=image.rbd,
        snapshot=SNAPSHOT,
        snapshot_number=image.snapshot_number,
        size_bytes=image.size_bytes,
        sha256=image.sha256,
        files=beside,
    )


@dataclass(slots=True, kw_only=True)
class _Made:
    """How far a copy has come."""

    of_bytes: int
    done_bytes: int = 0
    names: list[str] = field(default_factory=list)  #: of the RBD images that there may be


def _copy(
    pool: RbdPool, new_name: Callable[[str], str], kind: str, source: BinaryIO, made: _Made
) -> Generator[tuple[int, int], None, Entry]:
    """Copy a stream into a new RBD image and snapshot it if it shall be cloned; its name is added to ``made`` first."""
    size_bytes = source.seek(0, os.SEEK_END)
    source.seek(0)
    name = new_name(kind)
    made.names.append(name)
    room_bytes = whole_sectors(size_bytes) if kind == "image" else size_bytes
    rbd().RBD().create(*pool.place(name), room_bytes, features=FEATURES, old_format=False)
    digest = hashlib.sha256()
    number = position = 0
    with pool.image(name, is_read_only=False) as image:
        while position < size_bytes:
            yield made.done_bytes, made.of_bytes
            chunk = source.read(min(CHUNK_BYTES, size_bytes - position))
            if not chunk:
                raise Refused("The source became shorter while it was read.", code="checksum", fix="Copy it again.")
            digest.update(chunk)
            if chunk != _ZEROS[: len(chunk)]:
                image.write(chunk, position)
            position += len(chunk)
            made.done_bytes += len(chunk)
        image.flush()
        if kind == "image":
            image.create_snap(SNAPSHOT)
            number = image.snap_get_id(SNAPSHOT)
    return Entry(rbd=name, size_bytes=size_bytes, sha256=digest.hexdigest(), snapshot_number=number)


def want_intact(pool: RbdPool, image_id: ImageId, entry: Entry) -> None:
    """Prove in constant time that an image's snapshot is the one that was sealed. Errors: Refused "image-corrupt"."""
    try:
        with pool.image(entry.rbd, entry.snapshot) as image:
            found = (image.snap_get_id(entry.snapshot), image.size())
    except rbd().ImageNotFound as e:
        raise refusals.corrupt(image_id, "its snapshot is gone") from e
    if found != (entry.snapshot_number, whole_sectors(entry.size_bytes)):
        raise refusals.corrupt(image_id, "its snapshot is another")


class RbdFile(io.RawIOBase):
    """An RBD image as a file to be read."""

    def __init__(self, pool: RbdPool, entry: Entry) -> None:
        """Open it. Errors: rbd.ImageNotFound."""
        super().__init__()
        self._pool = pool  # it ends with the last who has it
        self._image = pool.image(entry.rbd, entry.snapshot or None)
        self._size_bytes = entry.size_bytes or int(self._image.size())
        self._position = 0

    def readable(self) -> bool:
        """Do as ``io.RawIOBase``."""
        return True

    def seekable(self) -> bool:
        """Do as ``io.RawIOBase``."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Do as ``io.RawIOBase``."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size_bytes}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """Do as ``io.RawIOBase``."""
        return self._position

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]  # the stub's Buffer has no len()
        """Do as ``io.RawIOBase``. Errors: the driver's."""
        length = max(0, min(len(buffer), self._size_bytes - self._position))
        if length:
            with mapped("read the image"):
                buffer[:length] = self._image.read(self._position, length)
            self._position += length
        return length

    def close(self) -> None:
        """Do as ``io.RawIOBase``."""
        if not self.closed:
            self._image.close()
        super().close()


def opened(pool: RbdPool, entry: Entry) -> BinaryIO:
    """Open what an entry names as a buffered file, without what fills an image's last sector.

    Errors: rbd.ImageNotFound.
    """
    return io.BufferedReader(RbdFile(pool, entry), CHUNK_BYTES)


def verify(pool: RbdPool, image_id: ImageId, entry: Entry) -> None:
    """Read an image and its files whole. Errors: Refused with code "image-corrupt"."""
    want_intact(pool, image_id, entry)
    for name, one in {"": entry, **entry.files}.items():
        try:
            with opened(pool, one) as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
        except rbd().ImageNotFound as e:
            raise refusals.corrupt(image_id, f"{name or 'it'} is gone") from e
        if found != one.sha256:
            raise refusals.corrupt(image_id, f"{name or 'it'} has another SHA-256")
