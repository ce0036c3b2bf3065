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
        self._inode = 0  #: of the log whose name is durable
        self._has_failed = False

    @contextmanager
    def commit(self) -> Iterator[None]:
        """Hold the place of a commit: who reads it meanwhile awaits it."""
        with self._committing:
            yield
            self._committed += 1

    def settle(self) -> None:
        """Return when every commit that could be read until now is on the disk. Errors: Unavailable for good."""
        with self._committing:
            awaited = self._committed
        if self._durable >= awaited:
            return
        with self._syncing:  # whoever stood here during a sync is mostly served by the next one's
            if self._durable < awaited:
                reaches = self._committed
                self._sync()
                self._durable = reaches

    def _sync(self) -> None:
        # After a sync that failed, the kernel calls the next one a success whatever became of the pages.
        if self._has_failed:
            raise self._lost()
        try:
            fd = os.open(self._path, os.O_RDONLY)
        except FileNotFoundError:
            return  # the last connection is closed: all is in the database, synced
        try:
            _sync(fd)
            inode = os.fstat(fd).st_ino
            if inode != self._inode:
                self._sync_name()
                self._inode = inode
        except OSError as e:
            self._has_failed = True
            raise self._lost() from e
        finally:
            os.close(fd)

    def _sync_name(self) -> None:
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _lost(self) -> Unavailable:
        return Unavailable(
            "The disk under the database failed: what was written last may be lost.",
            fix="Look at the disk, then start the server again.",
        )
