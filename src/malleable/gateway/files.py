"""What nodes are given that never changes, fetched once: kernels and initrds per image, documents per boot."""

import contextlib
import hashlib
import os
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from uuid import UUID

from malleable.domain.errors import MalleableError, Refused, Unavailable

NOT_AS_SEALED = "not-as-sealed"  #: the code of a file's error that no other try mends
#: An image or a boot, and the name of something it has.
FileKey = tuple[UUID, str]
#: Opens what the control plane has.
Source = Callable[[UUID, str], AbstractContextManager[Iterator[bytes]]]
_PARTIAL = ".partial-"


class FileCache:
    """Copies on the gateway's own disk. Safe in any thread; one file is fetched once however many ask."""

    def __init__(self, directory: Path, source: Source, limit_bytes: int) -> None:
        """Keep copies under ``directory``; pieces that an earlier gateway left are removed."""
        self._directory = directory
        self._source = source
        self._limit_bytes = limit_bytes
        self._guard = threading.Lock()
        self._locks: dict[FileKey, threading.Lock] = {}
        self.trouble: MalleableError | None = None  #: why the last copy could not be kept, or be served
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for piece in directory.glob(f"*/{_PARTIAL}*"):
            piece.unlink()

    def path(self, owner: UUID, name: str, sha256: str = "") -> Path:
        """Return where the file is, whole; fetch it if need be, and prove that it is what it must be, if that is known.

        Errors: those of the control plane; Unavailable when the disk does not take it; Refused when it is another file.
        """
        copy = self._directory / str(owner) / name
        with self._lock((owner, name)), self._writing():
            if not copy.exists():
                self._fetch(owner, name, copy, sha256)
                self.trouble = None
        return copy

    def shrink(self, in_use: Collection[FileKey]) -> None:
        """Remove the oldest copies beyond the limit; none that a boot may ask for. Errors: Unavailable."""
        with self._guard:
            self._locks = {key: lock for key, lock in self._locks.items() if key in in_use or lock.locked()}
        kept = {self._directory / str(owner) / name for owner, name in in_use}
        copies = [(copy, copy.stat()) for copy in self._directory.glob("*/[!.]*")]
        excess = sum(stat.st_size for _, stat in copies) - self._limit_bytes
        for copy, stat in sorted(copies, key=lambda pair: pair[1].st_mtime):
            if excess > 0 and copy not in kept:
                with self._writing():
                    copy.unlink()
                excess -= stat.st_size
                with contextlib.suppress(OSError):
                    copy.parent.rmdir()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Tell what keeps the disk from being written to. Errors: Unavailable."""
        try:
            yield
        except OSError as e:
            self.trouble = Unavailable(
                f"Nothing can be kept in {self._directory}: {e.strerror}.", fix="Make room there, or make it writable."
            )
            raise self.trouble from e

    def _lock(self, key: FileKey) -> threading.Lock:
        with self._guard:
            return self._locks.setdefault(key, threading.Lock())

    def _fetch(self, owner: UUID, name: str, copy: Path, sha256: str) -> None:
        digest = hashlib.sha256()
        copy.parent.mkdir(exist_ok=True, mode=0o700)
        fd, piece = tempfile.mkstemp(dir=copy.parent, prefix=_PARTIAL)
        try:
            with os.fdopen(fd, "wb") as out:
                with self._source(owner, name) as chunks:
                    for chunk in chunks:
                        out.write(chunk)
                        digest.update(chunk)
                out.flush()
                os.fsync(out.fileno())
            if sha256 not in ("", digest.hexdigest()):
                self.trouble = Refused(
                    f"File {name} of image {owner} is not what was sealed: its SHA-256 is {digest.hexdigest()}.",
                    code=NOT_AS_SEALED,
                    fix="It was changed or damaged in the pool: import the image again.",
                )
                raise self.trouble
            Path(piece).replace(copy)
        except BaseException:
            Path(piece).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                copy.parent.rmdir()
            raise
