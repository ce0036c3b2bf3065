"""A skeleton of a storage array's driver, and an array of files to try it on; not shipped. See docs/howto."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, Self
from uuid import UUID

from malleable.domain.errors import Refused, Unreachable
from malleable.domain.ids import DiskId, ImageId, ProjectId, SnapshotId, parse_id
from malleable.domain.ports import Capacity, DiskHandle, FlattenCall, Flattening, Sealed, StoredThings, Usage
from malleable.domain.progress import OnProgress, counted, unheard
from malleable.drivers.storage import refusals

IMAGE, DISK, SNAPSHOT, NEW = "m2-image-", "m2-disk-", "m2-snapshot-", "m2-new-"
KINDS = (IMAGE, DISK, SNAPSHOT)


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A volume as the array tells of it."""

    size_bytes: int
    own_bytes: int
    note: str  #: arrays keep a comment with a volume; ours is what an image was sealed as


class Array(Protocol):
    """What the vendor's REST client can do. Each is one request, made once; errors are ArrayError."""

    def capacity(self) -> tuple[int, int]:
        """Return total and free bytes."""

    def volumes(self) -> Mapping[str, Volume]:
        """Read all volumes."""

    def create(self, name: str, size_bytes: int) -> None:
        """Make a thin volume. Errors: Taken."""

    def clone(self, source: str, name: str) -> None:
        """Make a copy-on-write clone in constant time. Errors: Taken, Missing."""

    def restore(self, name: str, source: str) -> None:
        """Give a volume the content and size of another, all or nothing. Errors: Missing."""

    def seal(self, name: str, final: str, note: str) -> None:
        """Rename a volume, note what it is and write-protect it, all at once. Errors: Taken."""

    def resize(self, name: str, size_bytes: int) -> None:
        """Change a volume's size. Errors: Missing."""

    def delete(self, name: str) -> None:
        """Delete a volume; nothing to do if it is gone."""

    def device(self, name: str) -> Path:
        """Map a volume to this host, once, and return its stable block device. Errors: Missing."""


class ArrayError(Exception):
    """The array did not answer, or answered with an error."""


class Taken(ArrayError):
    """There is a volume of that name."""


class Missing(ArrayError):
    """There is no volume of that name."""


@contextmanager
def mapped(what: str, missing: Refused | None = None) -> Iterator[None]:
    """Turn what the array says into our words: the one place."""
    try:
        yield
    except Taken:
        return  # made by an earlier try, or by another thread: our ids are never used twice
    except Missing as e:
        raise missing or Refused(f"Cannot {what}: a volume is gone.", code="pool-broken") from e
    except (ArrayError, OSError) as e:
        raise Unreachable(f"Cannot {what}: {e}", fix="Look at the array's own status.") from e


class ArrayDisks:
    """``Disks`` on an array: every image, disk and snapshot is a volume named by our id."""

    def __init__(self, array: Array, *, reserve_bytes: int, files_dir: Path) -> None:
        """Keep kernels and initrds below ``files_dir``, which all workers share."""
        self._array, self._reserve_bytes, self._files = array, reserve_bytes, files_dir

    def within(self, pool: str) -> Self:
        if pool:
            raise refusals.one_place(pool)
        return self

    def check(self) -> None:
        with mapped("ask the array"):
            self._array.volumes()

    def capacity(self) -> Capacity:
        with mapped("ask the array"):
            total, free = self._array.capacity()
        return Capacity(total_bytes=total, free_bytes=free, reserve_bytes=self._reserve_bytes)

    def _want_free(self, size_bytes: int = 0) -> None:
        free_bytes = self.capacity().free_bytes
        if free_bytes - size_bytes < self._reserve_bytes:
            raise refusals.full(free_bytes, self._reserve_bytes)

    def _volume(self, name: str) -> Volume | None:
        with mapped("ask the array"):
            return self._array.volumes().get(name)

    def seal(
        self,
        image_id: ImageId,
        source: Path,
        *,
        sha256: str | None,
        files: Mapping[str, Path] = {},
        on_progress: OnProgress = unheard,
    ) -> Sealed:
        refusals.want_source(source)
        self._copy(image_id, source, source.stat().st_size, sha256, files, on_progress)
        sealed = self._sealed(image_id)
        if sha256 not in (None, sealed.sha256):
            raise refusals.other_content(image_id, sealed.sha256, str(sha256))
        return sealed

    def _copy(
        self,
        image_id: ImageId,
        source: Path,
        size_bytes: int,
        sha256: str | None,
        files: Mapping[str, Path],
        on_progress: OnProgress,
    ) -> None:
        """Make an image of a file, or of a device, whose size no ``stat`` tells; nothing to do if it is there."""
        for name, path in files.items():
            refusals.want_source(path)
            refusals.want_plain_name(name)
        final, work = f"{IMAGE}{image_id}", f"{NEW}{image_id}"
        if self._volume(final) is None:
            self._want_free(size_bytes)
            with mapped("copy the image"), self._begun(work, size_bytes):
                found = self._fill(work, source, counted(on_progress, size_bytes))
                if sha256 not in (None, found):
                    fix = "Copy it again."
                    raise Refused(f"The source's SHA-256 is {found}, not {sha256}.", code="checksum", fix=fix)
                self._keep(image_id, files)
                self._array.seal(work, final, json.dumps({"sha256": found, "size_bytes": size_bytes}))

    @contextmanager
    def _begun(self, name: str, size_bytes: int) -> Iterator[None]:
        """Make a volume to work on. It goes again, also when the copy is ended, unless it was renamed."""
        self._array.delete(name)
        self._array.create(name, size_bytes)
        try:
            yield
        finally:
            self._array.delete(name)

    def _fill(self, name: str, source: Path, count: Callable[[int], None]) -> str:
        digest = hashlib.sha256()
        with source.open("rb") as file, self._array.device(name).open("r+b") as device:
            while chunk := file.read(1 << 20):
                device.write(chunk)
                digest.update(chunk)
                count(len(chunk))
            # On the array, not in this host's memory, before it is called an image.
            device.flush()
            os.fsync(device.fileno())
        return digest.hexdigest()

    def _keep(self, image_id: ImageId, files: Mapping[str, Path]) -> None:
        folder = self._files / str(image_id)
        for name, path in files.items():
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / name)

    def _sealed(self, image_id: ImageId) -> Sealed:
        volume = self._volume(f"{IMAGE}{image_id}")
        if volume is None:
            raise refusals.no_image(image_id)
        sealed = Sealed(**json.loads(volume.note))
        if volume.size_bytes != sealed.size_bytes:
            raise refusals.corrupt(image_id, "its size changed")
        return sealed

    def promote(
        self,
        snapshot_id: SnapshotId,
        image_id: ImageId,
        *,
        files: Mapping[str, Path] = {},
        on_progress: OnProgress = unheard,
    ) -> Sealed:
        name, missing = f"{SNAPSHOT}{snapshot_id}", refusals.no_snapshot(snapshot_id)
        volume = self._volume(name)
        if volume is None:
            raise missing
        with mapped("read the snapshot", missing):
            device = self._array.device(name)
        self._copy(image_id, device, volume.size_bytes, None, files, on_progress)
        return self._sealed(image_id)

    def file(self, image_id: ImageId, name: str) -> Path:
        refusals.want_plain_name(name)
        path = self._files / str(image_id) / name
        if not path.is_file():
            raise refusals.no_file(image_id, name)
        return path

    def open_image(self, image_id: ImageId) -> BinaryIO:
        return Path(self.image_handle(image_id).path).open("rb")

    def clone(self, image_id: ImageId, disk_id: DiskId, *, size_bytes: int) -> None:
        if not self.has_disk(disk_id):
            self._sealed(image_id)
            self._clone(f"{IMAGE}{image_id}", disk_id, refusals.no_image(image_id))
        self._grow(disk_id, size_bytes)

    def clone_snapshot(self, snapshot_id: SnapshotId, disk_id: DiskId, *, size_bytes: int) -> None:
        if not self.has_disk(disk_id):
            self._clone(f"{SNAPSHOT}{snapshot_id}", disk_id, refusals.no_snapshot(snapshot_id))
        self._grow(disk_id, size_bytes)

    def _clone(self, source: str, disk_id: DiskId, missing: Refused) -> None:
        self._want_free()
        with mapped("clone", missing):
            self._array.clone(source, f"{DISK}{disk_id}")

    def _grow(self, disk_id: DiskId, size_bytes: int) -> None:
        """Give a clone the size that was asked for, also one whose maker died before it did."""
        volume = self._volume(f"{DISK}{disk_id}")
        if volume is not None and volume.size_bytes < size_bytes:
            with mapped("grow the clone"):
                self._array.resize(f"{DISK}{disk_id}", size_bytes)

    def make_blank(self, disk_id: DiskId, *, size_bytes: int) -> None:
        if not self.has_disk(disk_id):
            self._want_free()
            with mapped("make the disk"):
                self._array.create(f"{DISK}{disk_id}", size_bytes)

    def snapshot(self, disk_id: DiskId, snapshot_id: SnapshotId) -> None:
        name = f"{SNAPSHOT}{snapshot_id}"
        if self._volume(name) is None:
            self._want_free()
            with mapped("snapshot the disk", refusals.no_disk(disk_id)):
                self._array.clone(f"{DISK}{disk_id}", name)

    def roll_back(self, disk_id: DiskId, snapshot_id: SnapshotId) -> None:
        if not self.has_disk(disk_id):
            raise refusals.no_disk(disk_id)
        with mapped("roll the disk back", refusals.no_snapshot(snapshot_id)):
            self._array.restore(f"{DISK}{disk_id}", f"{SNAPSHOT}{snapshot_id}")

    def grow(self, disk_id: DiskId, *, size_bytes: int) -> None:
        volume = self._volume(f"{DISK}{disk_id}")
        if volume is None:
            raise refusals.no_disk(disk_id)
        if size_bytes < volume.size_bytes:
            raise refusals.shrinks(disk_id, volume.size_bytes)
        with mapped("grow the disk"):
            self._array.resize(f"{DISK}{disk_id}", size_bytes)

    def flatten(self, disk_id: DiskId, *, seconds: float, call: FlattenCall = FlattenCall.FIRST) -> Flattening:
        """Do nothing: this array's clones share blocks. One that reads through chains splits the clone here."""
        if not self.has_disk(disk_id):
            raise refusals.no_disk(disk_id)
        return Flattening(copied_bytes=0, left_bytes=0, is_done=True)

    def delete_disk(self, disk_id: DiskId) -> None:
        self._delete(f"{DISK}{disk_id}")

    def delete_snapshot(self, snapshot_id: SnapshotId) -> None:
        self._delete(f"{SNAPSHOT}{snapshot_id}")

    def delete_image(self, image_id: ImageId) -> None:
        self._delete(f"{IMAGE}{image_id}")
        shutil.rmtree(self._files / str(image_id), ignore_errors=True)

    def _delete(self, name: str) -> None:
        with mapped("delete a volume"):
            self._array.delete(name)

    def has_disk(self, disk_id: DiskId) -> bool:
        return self._volume(f"{DISK}{disk_id}") is not None

    def usage(self, stored_id: ImageId | DiskId | SnapshotId) -> Usage:
        with mapped("ask the array"):
            volumes = self._array.volumes()
        for kind in (DISK, SNAPSHOT, IMAGE):
            if volume := volumes.get(f"{kind}{stored_id}"):
                shared_bytes = max(volume.size_bytes - volume.own_bytes, 0)
                return Usage(own_bytes=volume.own_bytes, shared_bytes=shared_bytes, pieces=1)
        raise refusals.nothing(stored_id)

    def taken_bytes(self, groups: Mapping[ProjectId, Collection[UUID]]) -> Mapping[ProjectId, int]:
        with mapped("ask the array"):
            volumes = self._array.volumes()
        return {
            owner: sum(volumes[name].own_bytes for one in ids for kind in KINDS if (name := f"{kind}{one}") in volumes)
            for owner, ids in groups.items()
        }

    def handle(self, disk_id: DiskId) -> DiskHandle:
        with mapped("map the disk", refusals.no_disk(disk_id)):
            # The array has its own cache: tgtd opens the device past this host's.
            return DiskHandle(path=str(self._array.device(f"{DISK}{disk_id}")), direct=True)

    def image_handle(self, image_id: ImageId) -> DiskHandle:
        with mapped("map the image", refusals.no_image(image_id)):
            return DiskHandle(path=str(self._array.device(f"{IMAGE}{image_id}")), direct=True)

    def list(self) -> StoredThings:
        with mapped("ask the array"):
            names = self._array.volumes().keys()
        return StoredThings(
            images=frozenset(map(ImageId, _ids(names, IMAGE))),
            disks=frozenset(map(DiskId, _ids(names, DISK))),
            snapshots=frozenset(map(SnapshotId, _ids(names, SNAPSHOT))),
        )


def _ids(names: Iterable[str], kind: str) -> Iterator[UUID]:
    for name in names:
        id = parse_id(name.removeprefix(kind)) if name.startswith(kind) else None
        if id is not None:
            yield id


class FolderArray:
    """An array whose volumes are files; its clones are copies."""

    def __init__(self, folder: Path) -> None:
        """Begin empty."""
        self._folder, self._notes, self._origins = folder, dict[str, str](), dict[str, bytes]()
        folder.mkdir()

    def capacity(self) -> tuple[int, int]:
        return 1 << 40, 1 << 39

    def volumes(self) -> Mapping[str, Volume]:
        found = {}
        for path in self._folder.glob("m2-*"):
            with suppress(FileNotFoundError):
                note, own_bytes = self._notes.get(path.name, ""), self._own_bytes(path)
                found[path.name] = Volume(size_bytes=path.stat().st_size, own_bytes=own_bytes, note=note)
        return found

    def _own_bytes(self, path: Path) -> int:
        """Count the blocks of 4 KiB that are not its origin's."""
        content, origin = path.read_bytes(), self._origins.get(path.name, b"")
        starts = range(0, len(content), 4096) if content != origin else ()
        return 4096 * sum(content[at : at + 4096] != origin[at : at + 4096] for at in starts)

    def create(self, name: str, size_bytes: int) -> None:
        with tempfile.NamedTemporaryFile(dir=self._folder) as work:
            work.truncate(size_bytes)
            self._link(Path(work.name), name)

    def clone(self, source: str, name: str) -> None:
        with tempfile.NamedTemporaryFile(dir=self._folder) as work:
            shutil.copyfile(self.device(source), work.name)
            self._link(Path(work.name), name)
        self._origins[name] = self.device(source).read_bytes()

    def _link(self, work: Path, name: str) -> None:
        try:
            (self._folder / name).hardlink_to(work)
        except FileExistsError as e:
            raise Taken(name) from e

    def restore(self, name: str, source: str) -> None:
        shutil.copyfile(self.device(source), self.device(name))

    def seal(self, name: str, final: str, note: str) -> None:
        self._notes[final] = note
        (self._folder / name).rename(self._folder / final)

    def resize(self, name: str, size_bytes: int) -> None:
        with self.device(name).open("r+b") as file:
            file.truncate(size_bytes)

    def delete(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)

    def device(self, name: str) -> Path:
        path = self._folder / name
        if not path.exists():
            raise Missing(name)
        return path
