"""Bring an image here: sparse, proven by its checksum, in the format that was asked for."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from malleable.cli.formats import size
from malleable.cli.image_upload import transfer_bar
from malleable.cli.session import Session, usage
from malleable.domain.errors import Invalid, Unavailable
from malleable.domain.images import ImageFormat

#: What qemu-img calls a format that it does not call as we do.
_NAMES = {ImageFormat.VHD: "vpc"}
BLOCK_BYTES = 64 * 1024
_ZEROS = bytes(BLOCK_BYTES)


def export(session: Session, ref: str, target: Path, image_format: ImageFormat) -> None:
    """Write an image to a file that appears only when it is whole. Errors: Invalid, Unavailable, OSError."""
    program, package = ("zstd", "zstd") if image_format is ImageFormat.ZSTD else ("qemu-img", "qemu-utils")
    if image_format is not ImageFormat.RAW and shutil.which(program) is None:
        usage(f"There is no {program} here to write {image_format}.", f"Install {package}, or export as raw.")
    if target.exists():
        raise Invalid(f"{target} is there already.", fix="Choose another name, or remove it.")
    image = session.m2.image_get(ref, project=session.project)
    part = target.with_name(f".{target.name}.part")
    try:
        with session.m2.image_content(str(image.id)) as chunks:
            found = _write(part, _metered(session, chunks, f"export {image.name}", image.size_bytes), image.size_bytes)
        if found != image.sha256:
            raise Unavailable("What came is not what was sent.", code="checksum", fix="Export it again.")
        _finish(part, target, image_format)
    finally:
        part.unlink(missing_ok=True)
    session.say(f"{target}: {image_format}, {size(image.size_bytes)}, proven by SHA-256 {image.sha256}")
    if image_format is not ImageFormat.RAW:
        session.say(f"The file itself has SHA-256 {_sha256_of(target)}.")
    if image.kernel or image.initrd:
        session.hint("This is the disk alone: the kernel and the initrd that lie beside it stay on the server.")


def _write(part: Path, chunks: Iterator[bytes], size_bytes: int) -> str:
    """Write a file whose blocks of zeros stay holes; return its SHA-256."""
    digest, position = hashlib.sha256(), 0
    with part.open("wb") as file:
        for chunk in chunks:
            digest.update(chunk)
            for begin in range(0, len(chunk), BLOCK_BYTES):
                block = chunk[begin : begin + BLOCK_BYTES]
                if block != _ZEROS[: len(block)]:
                    os.pwrite(file.fileno(), block, position + begin)
            position += len(chunk)
        file.truncate(size_bytes)
        os.fsync(file.fileno())
    return digest.hexdigest()


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _metered(session: Session, chunks: Iterator[bytes], what: str, size_bytes: int) -> Iterator[bytes]:
    """Show how far it is, where somebody looks."""
    console = session.err if session.is_json else session.out
    if not console.is_terminal or console.is_dumb_terminal:
        yield from chunks
        return
    with transfer_bar(session) as shown:
        task = shown.add_task(what, total=size_bytes)
        for chunk in chunks:
            shown.advance(task, len(chunk))
            yield chunk


def _finish(part: Path, target: Path, image_format: ImageFormat) -> None:
    if image_format is ImageFormat.RAW:
        os.link(part, target)  # unlike a rename it never replaces a file that appeared meanwhile
        return
    words = _packer(part, target, image_format)
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        target.unlink(missing_ok=True)
        raise Invalid(f"{words[0]} could not write {target}: {done.stderr.strip()}", fix="Export as raw.")


def _packer(part: Path, target: Path, image_format: ImageFormat) -> list[str]:
    if image_format is ImageFormat.ZSTD:
        return ["zstd", "--quiet", "--threads=0", "--check", str(part), "-o", str(target)]
    name = _NAMES.get(image_format, image_format.value)
    return ["qemu-img", "convert", "-f", "raw", "-O", name, str(part), str(target)]
