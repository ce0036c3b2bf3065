"""``RbdDisks`` in a process of its own.

librbd ends its process when it finds itself in a state it does not know (version 16.2.15 of Debian 12; see
``RbdCluster`` for what avoids it). Apart, that costs one call that is made again, and never a server with all its
requests and workers.
"""

import io
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import asdict
from functools import partial
from multiprocessing.managers import BaseManager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, Self, TypeVar, cast

from malleable.cores import anywhere
from malleable.domain.errors import Refused, Unreachable
from malleable.domain.ids import ImageId, SnapshotId
from malleable.domain.ports import DiskHandle, Disks, Sealed
from malleable.domain.progress import OnProgress, unheard
from malleable.drivers.storage.rbd import RbdDisks
from malleable.drivers.storage.rbd_cluster import RbdSettings
from malleable.drivers.storage.rbd_library import CREDENTIALS
from malleable.drivers.storage.rbd_sealing import followed

T = TypeVar("T")

#: What is made piece by piece there, as it is asked for here: so that it is told here how far it is.
COPIES = {"sealing": "copying", "promoting": "copying"}
APART = {"seal", "promote", "open_image", "within", "close", *COPIES}
METHODS = tuple(name for name in vars(RbdDisks) if not name.startswith("_") and name not in APART)
#: What a call returns that stays there.
STAYING = {"open_image": "file", **COPIES}
#: how a call to a process that ended comes back
GONE = (EOFError, ConnectionError)


class DisksApart(Disks, Protocol):
    """What of ``RbdDisks`` can be had from afar: all."""

    def verify(self, image_id: ImageId) -> None:
        """Do as ``RbdDisks.verify``."""

    def shut_out(self, handle: DiskHandle) -> None:
        """Do as ``RbdDisks.shut_out``."""

    def close(self) -> None:
        """End the process; the next call starts another."""


class _Door(BaseManager):
    """The way to the process, the same on both sides. Each of our threads has a thread of its own there."""


_Door.register("file", create_method=False, exposed=("read", "seek", "tell", "close"))
_Door.register("copying", create_method=False, exposed=("__next__", "close"))
_Door.register("disks", exposed=(*METHODS, *STAYING), method_to_typeid=STAYING)


class _Process:
    """One process, running. It ends with us, however we end: its standard input closes then."""

    def __init__(self, settings: RbdSettings) -> None:
        """Start it; 0.3 s. Errors: Unreachable."""
        # A folder that is ours alone: whoever could connect could hold up everybody, even without the key.
        self._folder = tempfile.mkdtemp(prefix="m2-rbd-")
        address, key = f"{self._folder}/socket", secrets.token_bytes(32)
        with anywhere():
            self._running = subprocess.Popen(
                [sys.executable, "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,  # who types Ctrl-C means us
            )
        assert self._running.stdin is not None
        assert self._running.stdout is not None
        said = {"address": address, "key": key.hex(), "settings": asdict(settings)}
        try:
            self._running.stdin.write(json.dumps(said, default=str).encode() + b"\n")
            self._running.stdin.flush()
            if not self._running.stdout.readline():
                raise EOFError
            door: Any = _Door(address=address, authkey=key)
            door.connect()
            self._door, self._disks = door, {"": door.disks("")}
        except GONE as e:
            self.end()
            raise Unreachable("The program that speaks to Ceph does not start.", fix="Read the server's log.") from e

    def disks(self, pool: str) -> Any:
        """Give the disks there, with a pool as the place of what is new."""
        if pool not in self._disks:
            self._disks[pool] = self._door.disks(pool)
        return self._disks[pool]

    def end(self) -> None:
        self._running.kill()
        self._running.communicate()
        shutil.rmtree(self._folder, ignore_errors=True)


class _Held:
    """The process, started when it is needed, and another when it ended. Safe from many threads."""

    def __init__(self, settings: RbdSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._process: _Process | None = None

    def ask(self, ask: Callable[[_Process], T]) -> T:
        """Ask the process, once more a new one if it ended meanwhile: every change is idempotent by our id."""
        process = self.started()
        try:
            return ask(process)
        except GONE:
            self._forget(process)
        process = self.started()
        try:
            return ask(process)
        except GONE as e:
            self._forget(process)
            raise Unreachable("The program that speaks to Ceph ended.", fix="Read the server's log.") from e

    def started(self) -> _Process:
        with self._lock:
            if self._process is None:
                self._process = _Process(self._settings)
            return self._process

    def _forget(self, process: _Process) -> None:
        with self._lock:
            if self._process is process:
                self._process = None
        process.end()

    def end(self) -> None:
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            process.end()


class RbdProcess:
    """All calls of ``RbdDisks``, made in another process. Safe from many threads."""

    def __init__(self, settings: RbdSettings) -> None:
        """Do no I/O: the first call starts the process."""
        self.process = _Held(settings)
        self._within = ""

    def within(self, pool: str) -> Self:
        """Do as ``Disks.within``: in the same process."""
        there = copy(self)
        there._within = pool
        return there

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Give the call ``name``."""
        if name not in METHODS:
            raise AttributeError(name)
        return partial(self._call, name)

    def seal(
        self,
        image_id: ImageId,
        source: Path,
        *,
        sha256: str | None,
        files: Mapping[str, Path] = {},
        on_progress: OnProgress = unheard,
    ) -> Sealed:
        """Do as ``Disks.seal``."""
        return cast(
            Sealed,
            self._asked(
                lambda disks: followed(disks.sealing(image_id, source, sha256=sha256, files=files), on_progress)
            ),
        )

    def promote(
        self,
        snapshot_id: SnapshotId,
        image_id: ImageId,
        *,
        files: Mapping[str, Path] = {},
        on_progress: OnProgress = unheard,
    ) -> Sealed:
        """Do as ``Disks.promote``."""
        return cast(
            Sealed,
            self._asked(lambda disks: followed(disks.promoting(snapshot_id, image_id, files=files), on_progress)),
        )

    def open_image(self, image_id: ImageId) -> BinaryIO:
        """Do as ``Disks.open_image``."""
        return cast(BinaryIO, io.BufferedReader(_File(self._call("open_image", image_id))))

    def close(self) -> None:
        """End the process; the next call starts another."""
        self.process.end()

    def _call(self, name: str, *args: object, **named: object) -> Any:
        """Call ``name``."""
        return self._asked(lambda disks: getattr(disks, name)(*args, **named))

    def _asked(self, ask: Callable[[Any], Any]) -> Any:
        try:
            return self.process.ask(lambda process: ask(process.disks(self._within)))
        except Refused as e:
            if e.code != CREDENTIALS:
                raise
        # The connection may be older than the user's rights; the next call has a new one.
        return self.process.ask(lambda process: ask(process.disks(self._within)))


class _File(io.RawIOBase):
    """An image that the process has open, as a file here."""

    def __init__(self, there: Any) -> None:
        """Read what is open ``there``."""
        super().__init__()
        self._there = there

    def readable(self) -> bool:
        """Do as ``io.RawIOBase``."""
        return True

    def seekable(self) -> bool:
        """Do as ``io.RawIOBase``."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Do as ``io.RawIOBase``. Errors: Unreachable when the process ended."""
        read: bytes = self._ask("read", len(buffer))
        buffer[: len(read)] = read
        return len(read)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Do as ``io.RawIOBase``."""
        return int(self._ask("seek", offset, whence))

    def close(self) -> None:
        """Close it there too, if there still is somebody."""
        if not self.closed:
            super().close()
            try:
                self._there.close()
            except GONE:
                return

    def _ask(self, name: str, *args: object) -> Any:
        try:
            return getattr(self._there, name)(*args)
        except GONE as e:
            raise Unreachable("The program that speaks to Ceph ended amid a read.", fix="Try again.") from e


def apart(settings: RbdSettings) -> DisksApart:
    """Make the pool of ``settings``, to be used from afar. Does no I/O."""
    return cast(DisksApart, RbdProcess(settings))


def main() -> None:
    """Be the process: told on standard input where to listen, with what key, for which pool; ends with that input."""
    said = json.loads(sys.stdin.readline())
    settings = said["settings"]
    paths = {name: Path(settings[name]) for name in ("conf", "cache_dir")}
    disks = RbdDisks(RbdSettings(**{**settings, **paths}))
    _Door.register("disks", disks.within, exposed=(*METHODS, *STAYING), method_to_typeid=STAYING)
    server = _Door(address=said["address"], authkey=bytes.fromhex(said["key"])).get_server()
    threading.Thread(target=_end_with_input, args=(Path(said["address"]).parent,), daemon=True).start()
    print("listening", flush=True)
    server.serve_forever()


def _end_with_input(folder: Path) -> None:
    sys.stdin.read()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


if __name__ == "__main__":
    main()
