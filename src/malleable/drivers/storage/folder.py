"""A pool's folder: opened or made, locked, measured, swept, and what its filesystem says in our words.

    images/<image id>/   image.raw  manifest.json  and the files beside the image
    disks/<disk id>.raw
    snapshots/<snapshot id>.raw
    work/                what is being made or removed; whatever nobody holds a lock on is rubbish

The root of these is the pool's folder where its filesystem can share blocks, otherwise an XFS of our own (xfs_loop)
mounted in it. That must be mounted before a portal starts if portals have mount namespaces of their own.
"""

import errno
import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from malleable.domain.errors import Refused
from malleable.domain.ports import Capacity
from malleable.drivers.storage import blocks, refusals, xfs_loop

GIB = 1 << 30
MARKER = ".malleable-pool"
POOL_FILE = "pool.xfs"  #: the sparse file of an XFS of our own
LAYERS = "layers"  #: a folder that only pools of layers have
OPENED = "opened"  #: another: layers as the storage daemon opens them


@dataclass(frozen=True, slots=True, kw_only=True)
class ReflinkSettings:
    """Where the pool is and how full it may get."""

    pool_dir: Path
    size_bytes: int = 64 * GIB  #: of the sparse file, where we make our own XFS; it takes what is used
    reserve_bytes: int = GIB  #: no clone or image once less is free: clones in use must be able to grow
    shared_cache: bool = True  #: on our own XFS: one cache for all clones; False is faster with much memory


class PoolFolder:
    """The pool's folder. Safe from many threads and processes."""

    folders: tuple[str, ...] = ("images", "disks", "snapshots", "work")

    def __init__(self, settings: ReflinkSettings) -> None:
        """Do no I/O: the first call mounts or makes the pool."""
        self._settings = settings
        self._lock = threading.Lock()
        self._file = settings.pool_dir / POOL_FILE
        self._mount = settings.pool_dir / "pool"
        self._root: Path | None = None

    def root(self) -> Path:
        """Return the pool's root, mounting or making it. The marker tells an unmounted pool from an empty one."""
        root = self._root
        if root is not None and (root / MARKER).exists():
            return root
        with self._lock, mapped("open the pool"):
            self._settings.pool_dir.mkdir(parents=True, exist_ok=True)
            with locked(self._settings.pool_dir):
                self._root = self._prepare()
            return self._root

    def _prepare(self) -> Path:
        root = self._found()
        for name in self.folders:
            (root / name).mkdir(mode=0o700, exist_ok=True)
        (root / MARKER).touch()
        return root

    def _found(self) -> Path:
        """Name the folder that can share blocks, with our own XFS mounted in it if need be."""
        root = self._settings.pool_dir
        if self._file.exists() or not blocks.can_clone(root):
            root = self._mount
            if not xfs_loop.is_mounted(root):
                xfs_loop.mount(self._file, root, self._settings.size_bytes)
        return root

    def is_mounted(self) -> bool:
        """Say whether our own XFS is mounted."""
        return xfs_loop.is_mounted(self._mount)

    def close(self) -> None:
        """Unmount the pool if it is our own XFS; all stays in its file. Errors: Busy while a disk is exported."""
        with self._lock:
            self._root = None
            xfs_loop.unmount(self._file, self._mount)

    def check(self) -> None:
        """Prove that the pool can be written and shares blocks."""
        root = self.root()
        with mapped("write to the pool"):
            if not blocks.can_clone(root / "work"):
                raise Refused(
                    f"The pool {root} cannot share blocks.", code="no-reflink", fix="Put it on XFS with reflink=1."
                )

    def reads_past_cache(self) -> bool:
        """Say whether disks shall be opened past the page cache, because the pool caches below all clones."""
        return self._settings.shared_cache and self.root() == self._mount

    def capacity(self) -> Capacity:
        """Return the pool's size. Our own XFS has no more free than the host under its sparse file."""
        root = self.root()
        with mapped("measure the pool"):
            mine, host = os.statvfs(root), os.statvfs(self._settings.pool_dir)
        return Capacity(
            total_bytes=mine.f_blocks * mine.f_frsize,
            free_bytes=min(mine.f_bavail * mine.f_frsize, host.f_bavail * host.f_frsize),
            reserve_bytes=self._settings.reserve_bytes,
            is_read_only=bool((mine.f_flag | host.f_flag) & os.ST_RDONLY),
        )

    def want_free(self, size_bytes: int) -> None:
        """Be sure that this much more fits beside the reserve. Errors: Refused."""
        free_bytes = self.capacity().free_bytes
        if free_bytes - size_bytes < self._settings.reserve_bytes:
            raise refusals.full(free_bytes, self._settings.reserve_bytes)

    def sweep(self) -> None:
        """Remove what crashed work left, where that can be at once: who asks may have more urgent things to do."""
        work = self.root() / "work"
        with suppress(OSError):
            fd = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _sweep(work)
            finally:
                os.close(fd)

    @contextmanager
    def workplace(self, name: str) -> Iterator[Path]:
        """Give a locked folder for work; what is still there at the end, or after a crash, goes."""
        work = self.root() / "work"
        with locked(work):
            _sweep(work)
            folder = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=work))
            fd = lock_folder(folder)
        try:
            yield folder
        finally:
            _remove(folder)
            os.close(fd)


class PlainFolder(PoolFolder):
    """A pool's folder on whatever filesystem there is; what shares blocks are layers (qcow2_layers)."""

    folders = (*PoolFolder.folders, LAYERS, OPENED)

    def _found(self) -> Path:
        return self._settings.pool_dir


@contextmanager
def mapped(what: str) -> Iterator[None]:
    """Turn what the filesystem says into our words: the one place."""
    try:
        yield
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Refused(
                f"Cannot {what}: the pool is full.", code="pool-full", fix="Delete images or disks, or enlarge it."
            ) from e
        fix = "See what the kernel says of the pool's file system (`dmesg`)"
        fix += " and mount it for writing again." if e.errno == errno.EROFS else "; `m2d doctor` tries the pool."
        details = {"path": str(e.filename)}
        raise Refused(f"Cannot {what}: {e.strerror}.", code="pool-broken", fix=fix, details=details) from e


def lock_folder(folder: Path) -> int:
    """Lock a folder against other processes and threads; closing the descriptor ends that."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock against other processes and threads."""
    fd = lock_folder(folder)
    try:
        yield
    finally:
        os.close(fd)


def _sweep(work: Path) -> None:
    """Remove what crashed work left, and what else got there. Hold the lock of ``work``: whoever begins has that."""
    for path in work.iterdir():
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:  # who ends removes it without the lock
            continue
        except NotADirectoryError:  # nobody works in a file or a link
            blocks.set_immutable(path, on=False)
            path.unlink()
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(path)
        except BlockingIOError:
            continue
        finally:
            os.close(fd)


def _remove(folder: Path) -> None:
    if folder.exists():
        unseal(folder)
        shutil.rmtree(folder)


def unseal(folder: Path) -> None:
    """Let all in a folder be changed and removed again; nothing to do if it is gone."""
    for path in folder.rglob("*"):
        blocks.set_immutable(path, on=False)
