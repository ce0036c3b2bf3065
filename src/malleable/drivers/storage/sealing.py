"""Sealed copies: sequential, proven by SHA-256, durable, immutable, described by a manifest."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from malleable.domain.errors import Malformed, Refused
from malleable.domain.progress import Counted, OnProgress, counted
from malleable.drivers.storage import blocks

BUFFER_BYTES = 4 << 20
#: A clone costs time per extent, and each kept hole splits one: smaller holes are filled with zeros.
HOLE_MIN_BYTES = 16 << 20
#: 1,000 extents clone in about 20 ms on XFS; a dense image on a healthy pool has one or two, and one more per 8 GiB
EXTENTS_MAX = 1_000
MANIFEST = "manifest.json"
IMAGE = "image.raw"
#: So much is made durable at a time: the last sync of all is not the longest part, of which nobody could tell or cancel
#: anything.
SYNC_BYTES = 128 << 20
_ZEROS = bytes(BUFFER_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What was sealed. It is the marker too: a folder without one is not an image."""

    sha256: str
    size_bytes: int
    mtime_ns: int  #: of the sealed file: any later write changes it
    extents: int
    files: Mapping[str, str]  #: SHA-256 by name


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write a folder's manifest durably."""
    with (folder / MANIFEST).open("w") as out:
        json.dump(asdict(manifest), out, indent=1)
        out.flush()
        os.fsync(out.fileno())


def read_manifest(folder: Path) -> Manifest:
    """Read a folder's manifest. Errors: FileNotFoundError, Malformed."""
    text = (folder / MANIFEST).read_text()
    try:
        return Manifest(**json.loads(text))
    except (ValueError, TypeError) as e:
        raise Malformed(f"{folder / MANIFEST} is not a manifest.", fix="Import the image again.") from e


def runs(fd: int, size_bytes: int) -> Iterator[tuple[int, int]]:
    """Walk a file's data as (begin, end), joining what lies closer than ``HOLE_MIN_BYTES``."""
    begin = end = 0
    position = 0
    while position < size_bytes:
        try:
            data = os.lseek(fd, position, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole follows
            break
        if data - end >= HOLE_MIN_BYTES:
            if end > begin:
                yield begin, end
            begin = data
        end = position = os.lseek(fd, data, os.SEEK_HOLE)
    if end > begin:
        yield begin, min(end, size_bytes)


class _Seen:
    """What was copied of a file: hashed and counted."""

    def __init__(self, count: Counted) -> None:
        self.digest, self._count = hashlib.sha256(), count

    def take(self, chunk: bytes) -> None:
        self.digest.update(chunk)
        self._count(len(chunk))

    def take_zeros(self, count: int) -> None:
        while count > 0:
            self.take(_ZEROS[:count])
            count -= BUFFER_BYTES


def copy(source: Path, target: Path, count: Counted) -> tuple[str, int]:
    """Copy a file in one sequential pass, keeping large holes; return its SHA-256 and extents. Durable on return."""
    seen = _Seen(count)
    with source.open("rb", buffering=0) as reader, target.open("xb", buffering=0) as writer:
        size_bytes = os.fstat(reader.fileno()).st_size
        os.ftruncate(writer.fileno(), size_bytes)
        position = 0
        for begin, end in runs(reader.fileno(), size_bytes):
            seen.take_zeros(begin - position)
            os.posix_fallocate(writer.fileno(), begin, end - begin)
            _copy_run(reader.fileno(), writer.fileno(), begin, end, seen)
            position = end
        seen.take_zeros(size_bytes - position)
        os.fsync(writer.fileno())
        extents = blocks.extent_count(writer.fileno())
        # Clones are read past this cache, so it would only hold the memory twice.
        os.posix_fadvise(writer.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return seen.digest.hexdigest(), extents


def _copy_run(reader: int, writer: int, begin: int, end: int, seen: _Seen) -> None:
    durable_to = begin
    while begin < end:
        chunk = os.pread(reader, min(BUFFER_BYTES, end - begin), begin)
        if not chunk:
            raise Refused("The source became shorter while it was read.", code="checksum", fix="Copy it again.")
        written = os.pwrite(writer, chunk, begin)
        while written < len(chunk):
            written += os.pwrite(writer, chunk[written:], begin + written)
        begin += len(chunk)
        if begin - durable_to >= SYNC_BYTES:
            os.fdatasync(writer)
            durable_to = begin
        seen.take(chunk)


def sha256_of(path: Path) -> str:
    """Hash a file."""
    with path.open("rb") as reader:
        return hashlib.file_digest(reader, "sha256").hexdigest()


def seal(
    folder: Path,
    source: Path,
    sha256: str | None,
    files: Mapping[str, Path],
    *,
    on_progress: OnProgress,
    extents_max: int | None = EXTENTS_MAX,
) -> Manifest:
    """Fill an empty folder with an image, its files and its manifest, all proven and durable.

    ``extents_max``: in so many pieces the image may lie; None for any number.

    Errors: Refused with code "checksum" or "pool-fragmented"; OSError.
    """
    image = folder / IMAGE
    count = counted(on_progress, sum(path.stat().st_size for path in (source, *files.values())))
    found, extents = copy(source, image, count)
    if sha256 not in (None, found):
        raise Refused(f"The source's SHA-256 is {found}, not {sha256}.", code="checksum", fix="Import it again.")
    if extents_max is not None and extents > extents_max:
        raise Refused(
            f"The image lies in {extents} pieces, clones of it would be slow.",
            code="pool-fragmented",
            fix="Free space in the pool and seal it again.",
        )
    sums = {name: copy(path, folder / name, count)[0] for name, path in files.items()}
    for name in (IMAGE, *files):
        (folder / name).chmod(0o444)
    stat = image.stat()
    manifest = Manifest(sha256=found, size_bytes=stat.st_size, mtime_ns=stat.st_mtime_ns, extents=extents, files=sums)
    write_manifest(folder, manifest)
    blocks.sync_folder(folder)
    return manifest
