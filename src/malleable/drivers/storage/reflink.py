"""A pool of raw files that share blocks: golden images and their clones on XFS or btrfs.

    <root>/images/<image id>/   image.raw  manifest.json  and the files beside the image
    <root>/disks/<disk id>.raw
    <root>/work/                what is being made or removed; whatever nobody holds a lock on is rubbish

``<root>`` is the pool's folder where its filesystem can share blocks, otherwise an XFS of our own (xfs_loop) mounted
in it. That must be mounted before a portal starts if portals have mount namespaces of their own.
"""

import errno
import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from malleable.domain.errors import Refused
from malleable.domain.ids import DiskId, ImageId, parse_id
from malleable.domain.ports import Capacity, DiskHandle, StoredThings
from malleable.drivers.storage import blocks, sealing, xfs_loop

GIB = 1 << 30
MARKER = ".malleable-pool"
DISK_SUFFIX = ".raw"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReflinkSettings:
    """Where the pool is and how full it may get."""

    pool_dir: Path
    size_bytes: int = 64 * GIB  #: of the sparse file, where we make our own XFS; it takes what is used
    reserve_bytes: int = GIB  #: no clone or image once less is free: clones in use must be able to grow
    shared_cache: bool = True  #: on our own XFS: one cache for all clones; False is faster with much memory


class ReflinkDisks:
    """``Disks`` on files. Safe from many threads and processes."""

    def __init__(self, settings: ReflinkSettings) -> None:
        """Do no I/O: the first call mounts or makes the pool."""
        self._settings = settings
        self._lock = threading.Lock()
        self._file = settings.pool_dir / "pool.xfs"
        self._mount = settings.pool_dir / "pool"
        self._root: Path | None = None

    def _open(self) -> Path:
        """Return the pool's root, mounting or making it. The marker tells an unmounted pool from an empty one."""
        root = self._root
        if root is not None and (root / MARKER).exists():
            return root
        with self._lock, _mapped("open the pool"):
            self._settings.pool_dir.mkdir(parents=True, exist_ok=True)
            with _locked(self._settings.pool_dir):
                self._root = self._prepare()
            return self._root

    def _prepare(self) -> Path:
        root = self._settings.pool_dir
        if self._file.exists() or not blocks.can_clone(root):
            root = self._mount
            if not xfs_loop.is_mounted(root):
                xfs_loop.mount(self._file, root, self._settings.size_bytes)
        for name in ("images", "disks", "work"):
            (root / name).mkdir(mode=0o700, exist_ok=True)
        (root / MARKER).touch()
        return root

    def close(self) -> None:
        """Unmount the pool if it is our own XFS; all stays in its file. Errors: Busy while a disk is exported."""
        with self._lock:
            self._root = None
            xfs_loop.unmount(self._file, self._mount)

    def check(self) -> None:
        """Do as ``Disks.check``."""
        root = self._open()
        with _mapped("write to the pool"):
            if not blocks.can_clone(root / "work"):
                raise Refused(
                    f"The pool {root} cannot share blocks.", code="no-reflink", fix="Put it on XFS with reflink=1."
                )

    def capacity(self) -> Capacity:
        """Do as ``Disks.capacity``. Our own XFS has no more free than the host under its sparse file."""
        root = self._open()
        with _mapped("measure the pool"):
            mine, host = os.statvfs(root), os.statvfs(self._settings.pool_dir)
        return Capacity(
            total_bytes=mine.f_blocks * mine.f_frsize,
            free_bytes=min(mine.f_bavail * mine.f_frsize, host.f_bavail * host.f_frsize),
        )

    def _want_free(self, size_bytes: int) -> None:
        free_bytes = self.capacity().free_bytes
        if free_bytes - size_bytes < self._settings.reserve_bytes:
            raise Refused(
                f"The pool has {free_bytes / GIB:.1f} GiB free and keeps"
                f" {self._settings.reserve_bytes / GIB:.1f} GiB for the disks in use.",
                code="pool-full",
                fix="Delete images or disks, or enlarge the pool.",
            )

    def seal(self, image_id: ImageId, source: Path, *, sha256: str, files: Mapping[str, Path] = {}) -> int:
        """Do as ``Disks.seal``: minutes for tens of GiB. Holes of 16 MiB and more stay holes."""
        for name in files:
            _refuse_odd_name(name)
        for path in (source, *files.values()):
            if not path.is_file():
                raise Refused(f"There is no file {path}.", code="no-such-file")
        final = self._open() / "images" / str(image_id)
        with _mapped("seal the image"):
            if final.exists():
                return self._sealed_before(final, sha256)
            self._want_free(sum(p.stat().st_blocks * 512 for p in (source, *files.values())))
            with self._workplace(str(image_id)) as folder:
                manifest = sealing.seal(folder, source, sha256, files)
                try:
                    folder.rename(final)
                except OSError as e:
                    if e.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                        raise
                    return self._sealed_before(final, sha256)
            for name in (sealing.IMAGE, *files):
                blocks.set_immutable(final / name, on=True)
            blocks.sync_folder(final.parent)
        return manifest.size_bytes

    def _sealed_before(self, folder: Path, sha256: str) -> int:
        manifest = sealing.read_manifest(folder)
        if manifest.sha256 != sha256:
            raise Refused(
                f"Image {folder.name} was sealed with SHA-256 {manifest.sha256}, not {sha256}.", code="checksum"
            )
        return manifest.size_bytes

    @contextmanager
    def _workplace(self, name: str) -> Iterator[Path]:
        """Give a locked folder for work; what is still there at the end, or after a crash, goes."""
        work = self._open() / "work"
        with _locked(work):
            _sweep(work)
            folder = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=work))
            fd = _lock_folder(folder)
        try:
            yield folder
        finally:
            _remove(folder)
            os.close(fd)

    def _manifest(self, image_id: ImageId) -> tuple[Path, sealing.Manifest]:
        folder = self._open() / "images" / str(image_id)
        try:
            return folder, sealing.read_manifest(folder)
        except FileNotFoundError as e:
            raise Refused(f"The pool holds no image {image_id}.", code="no-such-image", fix="Import it.") from e

    def file(self, image_id: ImageId, name: str) -> Path:
        """Do as ``Disks.file``."""
        _refuse_odd_name(name)
        path = self._open() / "images" / str(image_id) / name
        if not path.is_file():
            raise Refused(f"Image {image_id} has no file {name!a}.", code="no-such-file")
        return path

    def image_path(self, image_id: ImageId) -> Path:
        """Locate a sealed image's bytes. Errors: Refused with code "no-such-image"."""
        return self._manifest(image_id)[0] / sealing.IMAGE

    def verify(self, image_id: ImageId) -> None:
        """Read an image and its files whole and compare their SHA-256; takes as long as reading them.

        Errors: Refused with code "no-such-image" or "image-corrupt".
        """
        folder, manifest = self._manifest(image_id)
        with _mapped("read the image"):
            for name, sha256 in {sealing.IMAGE: manifest.sha256, **manifest.files}.items():
                if not (folder / name).is_file() or sealing.sha256_of(folder / name) != sha256:
                    raise _corrupt(image_id, f"{name} has another SHA-256")

    def clone(self, image_id: ImageId, disk_id: DiskId, *, size_bytes: int) -> None:
        """Do as ``Disks.clone``.

        Not synced, for speed: the first flush of the node makes the disk durable, its entry here included (XFS
        writes its log in order). A disk that a power cut takes was never flushed to.
        """
        disk = self._disk(disk_id)
        if disk.exists():
            return
        folder, manifest = self._manifest(image_id)
        self._want_free(0)
        with _mapped("clone the image"):
            try:
                source = os.open(folder / sealing.IMAGE, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError as e:
                raise _corrupt(image_id, "its file is gone") from e
            try:
                stat = os.fstat(source)
                if (stat.st_size, stat.st_mtime_ns) != (manifest.size_bytes, manifest.mtime_ns):
                    raise _corrupt(image_id, "it was written to")
                _clone_to(source, disk, max(size_bytes, manifest.size_bytes))
            finally:
                os.close(source)

    def _disk(self, disk_id: DiskId) -> Path:
        return self._open() / "disks" / f"{disk_id}{DISK_SUFFIX}"

    def delete_disk(self, disk_id: DiskId) -> None:
        """Do as ``Disks.delete_disk``."""
        with _mapped("delete the disk"):
            self._disk(disk_id).unlink(missing_ok=True)

    def delete_image(self, image_id: ImageId) -> None:
        """Do as ``Disks.delete_image``; it vanishes at once, then its bytes go. Clones keep theirs."""
        folder = self._open() / "images" / str(image_id)
        with _mapped("delete the image"), self._workplace(str(image_id)) as work, suppress(FileNotFoundError):
            folder.rename(work / "gone")

    def has_disk(self, disk_id: DiskId) -> bool:
        """Do as ``Disks.has_disk``."""
        return self._disk(disk_id).exists()

    def handle(self, disk_id: DiskId) -> DiskHandle:
        """Do as ``Disks.handle``."""
        disk = self._disk(disk_id)
        if not disk.exists():
            raise Refused(f"The pool holds no disk {disk_id}.", code="no-such-disk")
        is_ours = self._mount in disk.parents
        return DiskHandle(path=str(disk), direct=is_ours and self._settings.shared_cache)

    def list(self) -> StoredThings:
        """Do as ``Disks.list``."""
        root = self._open()
        with _mapped("list the pool"):
            images = [parse_id(path.name) for path in (root / "images").iterdir()]
            disks = [parse_id(path.stem) for path in (root / "disks").iterdir()]
        return StoredThings(
            images=frozenset(ImageId(i) for i in images if i), disks=frozenset(DiskId(d) for d in disks if d)
        )


def _clone_to(source: int, disk: Path, size_bytes: int) -> None:
    """Make the clone without a name, and name it once it is whole; if the name is there, it was made before."""
    folder = os.open(disk.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        target = os.open(disk.parent, os.O_TMPFILE | os.O_RDWR, 0o600)
        try:
            blocks.clone(source, target)
            os.truncate(target, size_bytes)
            os.link(f"/proc/self/fd/{target}", disk.name, dst_dir_fd=folder, follow_symlinks=True)
        except FileExistsError:
            return
        finally:
            os.close(target)
    finally:
        os.close(folder)


def _corrupt(image_id: ImageId, why: str) -> Refused:
    return Refused(
        f"Image {image_id} is not what was sealed: {why}.",
        code="image-corrupt",
        fix="Delete it and import it again; its disks are not affected.",
    )


def _refuse_odd_name(name: str) -> None:
    if Path(name).name != name or name.startswith(".") or name in (sealing.IMAGE, sealing.MANIFEST):
        raise Refused(f"{name!a} is no name of a file beside an image.", code="no-such-file")


@contextmanager
def _mapped(what: str) -> Iterator[None]:
    """Turn what the filesystem says into our words: the one place."""
    try:
        yield
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Refused(
                f"Cannot {what}: the pool is full.", code="pool-full", fix="Delete images or disks, or enlarge it."
            ) from e
        raise Refused(f"Cannot {what}: {e.strerror}.", code="pool-broken", details={"path": str(e.filename)}) from e


def _lock_folder(folder: Path) -> int:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock against other processes and threads."""
    fd = _lock_folder(folder)
    try:
        yield
    finally:
        os.close(fd)


def _sweep(work: Path) -> None:
    """Remove what crashed work left."""
    for folder in work.iterdir():
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(folder)
        except BlockingIOError:
            continue
        finally:
            os.close(fd)


def _remove(folder: Path) -> None:
    if folder.exists():
        for path in folder.rglob("*"):
            blocks.set_immutable(path, on=False)
        shutil.rmtree(folder)
