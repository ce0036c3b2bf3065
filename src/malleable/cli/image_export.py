"""Bring an image here: sparse, proven by its checksum, in the format that was asked for."""

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from malleable.cli.formats import size
from malleable.cli.image_upload import transfer_bar
from malleable.cli.session import Session, usage
from malleable.domain.errors import Invalid, Unavailable
from malleable.domain.images import ImageFormat

if TYPE_CHECKING:
    from malleable.wire.images import ImageView

#: What qemu-img calls a format that it does not call as we do.
_NAMES = {ImageFormat.VHD: "vpc"}
#: How the file of a disk ends, by its format.
_ENDINGS = {image_format: f".{image_format}" for image_format in ImageFormat} | {ImageFormat.ZSTD: ".raw.zst"}
#: What a manifest tells of an image as the server does.
_FACTS = (
    "os",
    "architecture",
    "firmwares",
    "boot_ways",
    "up_proof",
    "cmdline",
    "default_user",
    "wants_seed_disk",
    "has_multipath",
)
BLOCK_BYTES = 64 * 1024
#: How often it is looked how far a program is, and what `qemu-img -p` says of that.
LOOK_S, _SHARE = 0.2, re.compile(rb"\((\d{1,3}\.\d\d)/100%\)")
_ZEROS = bytes(BLOCK_BYTES)


def format_of(target: Path) -> ImageFormat:
    """Say what a file is to be by how its name ends, for `m2 image import` takes it by that; a folder gets raw."""
    endings = {Path(f"disk{ending}").suffix: image_format for image_format, ending in _ENDINGS.items()}
    return ImageFormat.RAW if target.is_dir() else endings.get(target.suffix.lower(), ImageFormat.RAW)


def export(session: Session, ref: str, target: Path, image_format: ImageFormat) -> None:
    """Write an image to a file, or all of it into a folder; what is written appears only when it is whole.

    Errors: Invalid, Unavailable, OSError.
    """
    program, package = ("zstd", "zstd") if image_format is ImageFormat.ZSTD else ("qemu-img", "qemu-utils")
    if image_format is not ImageFormat.RAW and shutil.which(program) is None:
        usage(f"There is no {program} here to write {image_format}.", f"Install {package}, or export as raw.")
    if target.is_dir():
        _export_whole(session, session.m2.image_get(ref, project=session.project), target, image_format)
        return
    _want_absent(target)
    image = session.m2.image_get(ref, project=session.project)
    _bring_disk(session, image, target, image_format)
    if image.kernel or image.initrd:
        session.hint(f"This is the disk alone. All of it comes into a folder: `m2 image export {image.name} FOLDER`.")


def _export_whole(session: Session, image: "ImageView", folder: Path, image_format: ImageFormat) -> None:
    """Bring the disk, the kernel and the initrd, and last of all the manifest that `m2 image import` reads."""
    beside = {part: name for part, name in (("kernel", image.kernel), ("initrd", image.initrd)) if name}
    names = [f"{image.name}{_ENDINGS[image_format]}", *dict.fromkeys(beside.values()), f"{image.name}.json"]
    disk, *others, manifest = names
    for name in names:
        if Path(name).name != name or name == ".." or names.count(name) > 1:
            raise Invalid(f"{name[:200]!a} cannot lie beside {disk}.", fix="Export the disk alone, to a file.")
        _want_absent(folder / name)
    with TemporaryDirectory(prefix=".m2-export-", dir=folder) as work:
        here = Path(work)
        sha256 = {disk: _bring_disk(session, image, here / disk, image_format)}
        sha256 |= {name: _bring_file(session, image, name, here / name) for name in others}
        facts = {
            "name": image.name,
            "file": disk,
            "format": image_format,
            "size_bytes": (here / disk).stat().st_size,
            "sha256": sha256[disk],
            **image.model_dump(mode="json", include={*_FACTS}),
            **beside,
            **{f"{part}_sha256": sha256[name] for part, name in beside.items()},
        }
        (here / manifest).write_text(json.dumps(facts, indent=2) + "\n")
        for name in names:
            os.link(here / name, folder / name)  # unlike a rename it never replaces a file that appeared meanwhile
    session.say(f"All of it is in {folder}: `m2 image import {folder / manifest}`.")
    if image.signed_by:
        session.hint(f"The signature of {image.signed_by} does not come along: sign it anew.")


def _want_absent(path: Path) -> None:
    if os.path.lexists(path):
        raise Invalid(f"{path} is there already.", fix="Choose another name, or remove it.")


def _bring_disk(session: Session, image: "ImageView", target: Path, image_format: ImageFormat) -> str:
    """Write an image's disk, proven; return its file's SHA-256."""
    part = target.with_name(f".{target.name}.part")
    try:
        with session.m2.image_content(str(image.id)) as chunks:
            found = _write(part, _metered(session, chunks, f"export {image.name}", image.size_bytes))
        _want_same(found, image.sha256)
        _finish(session, part, target, image_format)
    finally:
        part.unlink(missing_ok=True)
    session.say(f"{target.name}: {image_format}, {size(image.size_bytes)}, proven by SHA-256 {image.sha256}")
    if image_format is ImageFormat.RAW:
        return found
    found = _sha256_of(target)
    session.say(f"The file itself has SHA-256 {found}.")
    return found


def _bring_file(session: Session, image: "ImageView", name: str, target: Path) -> str:
    """Write a file beside an image, proven; return its SHA-256."""
    with session.m2.image_file(str(image.id), name) as chunks:
        found = _write(target, chunks)
    _want_same(found, image.kernel_sha256 if name == image.kernel else image.initrd_sha256)
    session.say(f"{name}: {size(target.stat().st_size)}, proven by SHA-256 {found}")
    return found


def _want_same(found: str, wanted: str) -> None:
    if wanted and found != wanted:
        raise Unavailable("What came is not what was sent.", code="checksum", fix="Export it again.")


def _write(part: Path, chunks: Iterator[bytes]) -> str:
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
        file.truncate(position)
        os.fsync(file.fileno())
    return digest.hexdigest()


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _metered(session: Session, chunks: Iterator[bytes], what: str, size_bytes: int) -> Iterator[bytes]:
    done_bytes = 0
    with _shown(session, what, size_bytes) as tell:
        for chunk in chunks:
            done_bytes += len(chunk)
            tell(done_bytes)
            yield chunk


@contextmanager
def _shown(session: Session, what: str, size_bytes: int) -> Iterator[Callable[[int], None]]:
    """Show how far something is that is told, in bytes, where somebody looks."""
    console = session.err if session.is_json else session.out
    if not console.is_terminal or console.is_dumb_terminal:
        yield lambda _: None
        return
    with transfer_bar(session) as bar:
        task = bar.add_task(what, total=size_bytes)
        yield lambda done_bytes: bar.update(task, completed=done_bytes)


def _finish(session: Session, part: Path, target: Path, image_format: ImageFormat) -> None:
    if image_format is ImageFormat.RAW:
        os.link(part, target)  # unlike a rename it never replaces a file that appeared meanwhile
        return
    packed = target.with_name(f".{target.name}.packed")
    try:
        with _shown(session, f"pack as {image_format}", part.stat().st_size) as tell:
            failed = _pack(part, packed, image_format, tell)
        if failed:
            raise Invalid(f"{target} could not be written: {failed}", fix="Export as raw.")
        os.link(packed, target)
    finally:
        packed.unlink(missing_ok=True)


def _pack(part: Path, packed: Path, image_format: ImageFormat, tell: Callable[[int], None]) -> str:
    """Have a program write a raw disk in another format; return why it failed, or ""."""
    words, share = _packer(part, packed, image_format), 0.0
    with (
        part.open("rb") as raw,
        subprocess.Popen(words, stdin=raw, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run,
    ):
        assert run.stdout is not None
        assert run.stderr is not None
        os.set_blocking(run.stdout.fileno(), False)
        try:
            while run.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    run.wait(LOOK_S)
                if said := _SHARE.findall(run.stdout.read() or b""):
                    share = float(said[-1]) / 100
                # Who reads what it was given has moved on in it: it was opened once.
                tell(max(int(share * part.stat().st_size), os.lseek(raw.fileno(), 0, os.SEEK_CUR)))
            return run.stderr.read().decode(errors="replace").strip() or "?" if run.returncode else ""
        finally:
            run.kill()


def _packer(part: Path, packed: Path, image_format: ImageFormat) -> list[str]:
    if image_format is ImageFormat.ZSTD:
        size = f"--stream-size={part.stat().st_size}"
        return ["zstd", "--quiet", "--force", "--threads=0", "--check", size, "-o", str(packed)]
    name = _NAMES.get(image_format, image_format.value)
    # Else a VHD is made larger, to fit a geometry: its disk would be another one when it is imported again.
    exact = ["-o", "force_size=on"] if image_format is ImageFormat.VHD else []
    return ["qemu-img", "convert", "-p", *exact, "-f", "raw", "-O", name, str(part), str(packed)]
