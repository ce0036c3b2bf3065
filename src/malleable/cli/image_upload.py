"""Read an image's manifest, and send the image and its kernel to the server."""

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Protocol

from malleable.cli.formats import size, span
from malleable.cli.session import Session
from malleable.domain.errors import Conflict, Invalid, NotFound
from malleable.domain.images import ImageFormat, ImageState, format_of, misnamed

if TYPE_CHECKING:
    from rich.progress import Progress

    from malleable.wire.images import ImageView

CHUNK_BYTES = 1 << 20
#: Facts of a manifest that the server takes as they are.
_PLAIN = (
    "os",
    "architecture",
    "boot_ways",
    "up_proof",
    "kernel_sha256",
    "initrd_sha256",
    "cmdline",
    "default_user",
    "wants_seed_disk",
    "has_multipath",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An image as it lies here."""

    name: str
    file: Path
    image_format: ImageFormat
    size_bytes: int
    sha256: str  #: of the file; "" when no manifest tells it
    facts: Mapping[str, object]
    files: Mapping[str, Path]  #: "kernel" and "initrd", as far as there are any
    manifest: Path | None  #: which told of these


@contextmanager
def from_here(session: Session, source: str) -> Iterator[Path]:
    """Name the file; what comes by standard input is one until the end: its size must be known first."""
    if source != "-":
        yield Path(source)
        return
    with TemporaryDirectory(prefix="m2-import-") as folder:
        path, began = Path(folder) / "stdin", time.monotonic()
        with path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file, CHUNK_BYTES)
        session.say(f"{span(time.monotonic() - began):>9}  read standard input ({size(path.stat().st_size)})")
        yield path


def read_source(file: Path, manifest: Path | None, name: str | None, sha256: str | None = None) -> Source:
    """Find the disk and what is told of it. Errors: Invalid, OSError."""
    if file.is_dir():
        raise Invalid(f"{file} is a folder.", fix="Name the disk in it, or its manifest.")
    if file.suffix == ".json":
        file, manifest = _raw_of(file), file
    elif manifest is None and os.path.lexists(file.with_suffix(".json")):
        manifest = _beside(file, file.with_suffix(".json").name)
    told = read_manifest(manifest) if manifest else {}
    image_format = _format_of(file, told)
    size_bytes = file.stat().st_size
    if not size_bytes:
        raise Invalid(f"{file} is empty.", fix="Check which file this is.")
    if told.get("size_bytes", size_bytes) != size_bytes:
        raise Invalid(
            f"{file} has {size_bytes} bytes, its manifest says {told['size_bytes']}.",
            fix="Build or fetch the image again; it is not the one the manifest describes.",
        )
    return Source(
        name=name or str(told.get("name") or file.stem),
        file=file,
        image_format=image_format,
        size_bytes=size_bytes,
        sha256=sha256 or str(told.get("sha256") or ""),
        facts=facts_of(told),
        files={part: _beside(manifest or file, str(told[part])) for part in ("kernel", "initrd") if told.get(part)},
        manifest=manifest,
    )


def facts_of(told: Mapping[str, object]) -> Mapping[str, object]:
    """Take what a manifest says of an image, as the server takes it."""
    facts = {key: told[key] for key in _PLAIN if key in told}
    firmwares = told.get("firmwares", told.get("firmware"))
    return facts if firmwares is None else {**facts, "firmwares": firmwares}


def _format_of(file: Path, told: Mapping[str, object]) -> ImageFormat:
    """Read a file's format off its first bytes; a manifest that says otherwise is wrong. Errors: Invalid."""
    with file.open("rb") as opened:
        found = format_of(opened.read(8))
    if told.get("format", found) != found:
        raise Invalid(
            f"{file} is {found}, its manifest says {told['format']}.", fix="Correct the manifest, or take it away."
        )
    if wrong := misnamed(file.name, found):
        raise Invalid(f"{file}: {wrong.message}", fix=wrong.fix)
    return found


def _raw_of(manifest: Path) -> Path:
    return _beside(manifest, str(read_manifest(manifest).get("file") or f"{manifest.stem}.raw"))


def _beside(manifest: Path, name: str) -> Path:
    """Find a file that a manifest names, which a stranger may have written: beside it alone. Errors: Invalid.

    A link, as an archive can bring one, leads to another file of the same folder or is refused. A manifest that is
    itself a link brings no other folder in: it may lead to any JSON of this machine.
    """
    if Path(name).name != name or name == "..":
        raise Invalid(
            f"{manifest} names a file that does not lie beside it: {name[:200]!a}.",
            fix="Put the image's files into one folder, and name them without it.",
        )
    path = manifest.parent / name
    if path.is_symlink() and Path(os.path.realpath(path)).parent != manifest.parent.resolve():
        raise Invalid(f"{path} leads to a file that lies elsewhere.", fix="Put the file itself there.")
    return path


def read_manifest(path: Path) -> dict[str, object]:
    """Read what is told of an image. Errors: Invalid, OSError."""
    try:
        told = json.loads(path.read_text())
    except ValueError as e:
        raise Invalid(f"{path} is not JSON: {e}.", fix="Give the manifest of an image with --manifest.") from e
    if not isinstance(told, dict):
        raise Invalid(f"{path} is not the manifest of an image.", fix="A manifest is a JSON object.")
    return told


def upload(session: Session, source: Source, project: str | None) -> "ImageView":
    """Describe the image to the server and send all of it; takes up an upload that broke before."""
    for path in source.files.values():
        path.stat()  # a missing kernel is told before anything is sent
    sha256 = source.sha256 or _hash(session, source)
    image = _unfinished(session, source, sha256, project) or _announce(session, source, sha256, project)
    m2, id = session.m2, str(image.id)
    offset = m2.image_uploaded(id).received_bytes
    if offset < source.size_bytes:
        with _meter(session, f"upload {source.file.name}", source.file, source.size_bytes, offset) as chunks:
            m2.image_upload(id, chunks, source.size_bytes - offset, offset)
    for path in source.files.values():
        with _meter(session, f"upload {path.name}", path, path.stat().st_size) as chunks:
            m2.image_upload_file(id, path.name, chunks, path.stat().st_size)
    return image


def _announce(session: Session, source: Source, sha256: str, project: str | None) -> "ImageView":
    from malleable.wire.images import ImageRequest

    described = {
        **source.facts,
        **{part: path.name for part, path in source.files.items()},
        "name": source.name,
        "project": project,
        "format": source.image_format,
        "sha256": sha256,
        "size_bytes": source.size_bytes,
    }
    return session.m2.image_create(ImageRequest.model_validate(described))


def _unfinished(session: Session, source: Source, sha256: str, project: str | None) -> "ImageView | None":
    """Find the same image, announced before and never sealed; one whose import failed is none.

    Errors: Conflict when the name is another's.
    """
    try:
        found = session.m2.image_get(source.name, project=project)
    except NotFound:
        return None
    is_same = project in (found.project, str(found.project_id)) if found.project_id else project is None
    if not is_same or found.state is ImageState.FAILED:
        return None
    if found.state is ImageState.SEALED and found.sha256 == sha256:
        raise Conflict(
            f"Image {source.name} is there already, with this very content.",
            code="image-exists",
            fix=f"Use it, or give another name: `m2 image show {source.name}`.",
        )
    if found.state is not ImageState.IMPORTING or found.sha256 != sha256:
        raise Conflict(
            f"There is another image {source.name} ({found.state}).",
            fix=f"Choose a name with --name, or remove it: `m2 image delete {source.name}`.",
            code="name-taken",
        )
    return found


def _hash(session: Session, source: Source) -> str:
    digest = hashlib.sha256()
    with _meter(session, f"checksum {source.file.name}", source.file, source.size_bytes) as chunks:
        for chunk in chunks:
            digest.update(chunk)
    return digest.hexdigest()


class _Readable(Protocol):
    def read(self, count: int, /) -> bytes: ...


@contextmanager
def _meter(session: Session, what: str, path: Path, size_bytes: int, offset: int = 0) -> Iterator[Iterator[bytes]]:
    """Open a file as chunks and show how far they have been taken; one line at the end where there is no terminal."""
    if offset:
        session.hint(f"Going on with {what} after {size(offset)}.")
    began = time.monotonic()
    console = session.err if session.is_json else session.out
    with path.open("rb") as file:
        file.seek(offset)
        if console.is_terminal and not console.is_dumb_terminal:
            with transfer_bar(session) as progress:
                task = progress.add_task(what, total=size_bytes, completed=offset)
                yield _chunks(file, progress, task)
            return
        yield _chunks(file)
    session.say(f"{span(time.monotonic() - began):>9}  {what} ({size(size_bytes)})")


def _chunks(file: _Readable, progress: "Progress | None" = None, task: int = 0) -> Iterator[bytes]:
    from rich.progress import TaskID

    while chunk := file.read(CHUNK_BYTES):
        yield chunk
        if progress is not None:
            progress.advance(TaskID(task), len(chunk))


def transfer_bar(session: Session) -> "Progress":
    """Make the bar of a transfer."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=session.err if session.is_json else session.out,
    )
