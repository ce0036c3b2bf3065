"""When what is written to a SQLite file is safe from a power cut.

SQLite can sync its write-ahead log within the commit, and then every other writer stands behind the disk. Here a commit
ends in the page cache, the next writer begins, and one sync beside them serves all who wait for one. Nobody sees the
difference: whoever wrote returns when that is on the disk, and whoever read what others wrote returns no earlier.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from malleable.domain.errors import Unavailable

#: macOS has no other.
_sync = getattr(os, "fdatasync", os.fsync)


class WriteAheadLog:
    """The log of one SQLite file, whose commits do not sync it (``synchronous=NORMAL``). Safe in any thread."""

    def __init__(self, database: Path) -> None:
        """Name the log; it need not be there yet."""
        self._path = database.with_name(f"{database.name}-wal")
        self._committing = threading.Lock()
        self._syncing = threading.Lock()
        self._committed = self._durable = 0  #: commits since the start
        # One descriptor for the log's whole life: the kernel tells each of a failed write once, and a new one never.
        self._fd = -1
        self._inode = 0
        self._has_failed = False

    @contextmanager
    def commit(self) -> Iterator[None]:
        """Hold the place of a commit: who reads it meanwhile awaits it. Errors: Unavailable; nothing is done then."""
        with self._committing:
            if self._has_failed:
                raise _lost()
            self._open()
            yield
            self._committed += 1

    def settle(self) -> None:
        """Return when every commit that could be read until now is on the disk. Errors: Unavailable, for good."""
        with self._committing:
            awaited = self._committed
        if self._durable >= awaited:
            return
        with self._syncing:  # whoever stood here during a sync is mostly served by the next one's
            if self._durable >= awaited:
                return
            reaches = self._committed
            try:
                # After a sync that failed, the kernel calls the next one a success whatever became of the pages.
                if self._has_failed:
                    raise _lost()
                _sync(self._fd)
            except OSError as e:
                self._has_failed = True
                raise _lost() from e
            self._durable = reaches

    def close(self) -> None:
        """Let go of the log."""
        with self._syncing:
            if self._fd >= 0:
                os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        """Have the log open that the commit at hand is written to; its name is durable, too."""
        try:
            if self._fd >= 0 and self._path.stat().st_ino == self._inode:
                return
            directory = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
            self.close()  # of a log that was removed: all of it is in the database, synced
            self._fd = os.open(self._path, os.O_RDONLY)
            self._inode = os.fstat(self._fd).st_ino
        except OSError as e:
            raise Unavailable(f"The database's log cannot be opened: {e.strerror}.", fix="Try again.") from e


def _lost() -> Unavailable:
    return Unavailable(
        "The disk under the database failed: what was written last may be lost.",
        fix="Look at the disk, then start the server again.",
    )
