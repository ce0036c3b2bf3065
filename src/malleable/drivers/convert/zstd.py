"""Raw disks compressed by Zstandard (RFC 8878): unpacked in the sandbox, counted and written here.

What a few bytes unpack to has no limit of its own. So every block is counted as it comes, zeros become holes, and
nothing is believed that the file says of its size.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

from malleable.domain.errors import Busy
from malleable.domain.images import ImageFormat, format_of
from malleable.domain.progress import OnProgress
from malleable.drivers.convert.sandbox import malformed, refused, running, sandbox, want_programs, want_room

UNPACK_MAX_S = 3600
READ_BYTES = 1 << 20
BLOCK_BYTES = 64 * 1024
_ZEROS = bytes(BLOCK_BYTES)
#: The room that is left is looked at again after so many bytes.
ROOM_BYTES = 64 << 20


def unpack(source: Path, target: Path, *, max_bytes: int, reserve_bytes: int, on_progress: OnProgress) -> int:
    """Do as ``Converter.convert`` for ``ImageFormat.ZSTD``."""
    programs = (("zstd", "zstd"), ("bwrap", "bubblewrap"), ("prlimit", "util-linux"))
    want_programs(ImageFormat.ZSTD, programs)
    part = target.with_name(f".{target.name}.part")
    command = [*sandbox(source, UNPACK_MAX_S), "zstd", "--decompress", "--stdout", "--quiet"]
    try:
        with part.open("wb") as file:
            with source.open("rb") as upload, running(command, stdin=upload) as run:
                assert run.stdout is not None
                assert run.stderr is not None
                of_bytes = source.stat().st_size
                blocks = _told(run.stdout, lambda: on_progress(min(_position(upload), of_bytes), of_bytes))
                size_bytes = _write(blocks, file, part, max_bytes, reserve_bytes)
                errors = run.stderr.read()
            if run.returncode:
                raise malformed(ImageFormat.ZSTD, errors)
            if not size_bytes:
                raise malformed(ImageFormat.ZSTD, b"there is nothing in it")
            file.truncate(size_bytes)
            os.fsync(file.fileno())
        _want_raw(part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return size_bytes


def _told(packer: IO[bytes], tell: Callable[[], None]) -> Iterator[bytes]:
    tell()
    while chunk := packer.read(READ_BYTES):
        yield chunk
        tell()


def _position(upload: IO[bytes]) -> int:
    """Say how far the program has read: its standard input is this very file, opened once."""
    return os.lseek(upload.fileno(), 0, os.SEEK_CUR)


def _write(blocks: Iterable[bytes], file: IO[bytes], part: Path, max_bytes: int, reserve_bytes: int) -> int:
    """Write what comes, without its zeros; return its size. Errors: Refused, Busy."""
    ends_s, size_bytes = time.monotonic() + UNPACK_MAX_S, 0
    for chunk in blocks:
        if size_bytes % ROOM_BYTES == 0:
            want_room(part, reserve_bytes)
            if time.monotonic() > ends_s:
                raise Busy("The unpacking took too long.", code="conversion-slow")
        if size_bytes + len(chunk) > max_bytes:
            raise refused(
                f"The image unpacks to more than {max_bytes} bytes, which are possible here.",
                code="image-too-large",
                fix="Check which file this is, or make its disk smaller.",
            )
        for begin in range(0, len(chunk), BLOCK_BYTES):
            block = chunk[begin : begin + BLOCK_BYTES]
            if block != _ZEROS[: len(block)]:
                os.pwrite(file.fileno(), block, size_bytes + begin)
        size_bytes += len(chunk)
    return size_bytes


def _want_raw(part: Path) -> None:
    """Refuse what is packed twice: it would be sealed as if its headers were a disk's."""
    with part.open("rb") as file:
        found = format_of(file.read(8))
    if found is not ImageFormat.RAW:
        raise refused(
            f"What is compressed is no raw disk but {found}.", code="image-malformed", fix="Upload it uncompressed."
        )
