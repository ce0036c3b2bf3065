"""The storage daemon: qemu-storage-daemon, which shows each disk's layers as one raw file that target daemons open.

One for a pool. It outlives us, as target daemons do, and ends only when it is killed or the pool is closed. Its files:

    <exports>/<life>/<id>.raw

of which ``life`` is another one every time it is started: so a target made for the file of a dead one is seen to be
another target. Which files there are says what it showed, after its death too.
"""

import ctypes
import os
import resource
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import UUID

from malleable.cores import anywhere
from malleable.domain.errors import Refused, Unreachable
from malleable.drivers.storage.qcow2_layers import Layer, Layers
from malleable.drivers.storage.qcow2_monitor import Denied, Monitor

PROGRAM = "qemu-storage-daemon"
START_TIMEOUT_S = 30.0
EXPORT_TIMEOUT_S = 10.0
POLL_S = 0.005
MNT_DETACH = 2
SUFFIX = ".raw"
SOCKET = "storage.sock"
SOCKET_PATH_LIMIT = 107  #: bytes of sun_path without its final zero, unix(7)


class StorageDaemon:
    """The daemon of one pool. Whoever asks it holds the lock of the pool's layers."""

    def __init__(self, run_dir: Path, layers: Layers, exports_dir: Path, on_start: "Restore") -> None:
        """Do no I/O. ``on_start`` is told, of one that was started, what the one before it showed."""
        self._run_dir, self._layers, self._exports_dir = run_dir, layers, exports_dir
        self._on_start = on_start
        self._socket = run_dir / SOCKET
        self._pid_file = run_dir / "storage.pid"

    @contextmanager
    def monitor(self) -> Iterator[Monitor]:
        """Speak to the daemon, which is started if need be. Errors: Refused, Unreachable."""
        dead = None
        if not self.is_running():
            dead = self._bury()
            self._start()
        with Monitor(self._socket) as monitor:
            if dead:
                self._on_start(monitor, dead)
            yield monitor

    @contextmanager
    def if_running(self) -> Iterator[Monitor | None]:
        """Speak to the daemon; None where none runs and none showed anything."""
        if not self.shown() and not self.is_running():
            yield None
            return
        with self.monitor() as monitor:
            yield monitor

    def is_running(self) -> bool:
        """Say whether the daemon runs."""
        return self.pid() is not None

    def pid(self) -> int | None:
        """Name the daemon's process."""
        with suppress(FileNotFoundError, ValueError):
            pid = int(self._pid_file.read_text())
            if Path(f"/proc/{pid}/exe").readlink().name.startswith(PROGRAM):  # a dead one has none
                return pid
        return None

    def shown(self) -> frozenset[UUID]:
        """Name what the daemon shows, or showed when it died."""
        return frozenset(UUID(path.stem) for path in self._exports_dir.glob(f"*/*{SUFFIX}"))

    def path(self, shown_id: UUID) -> Path:
        """Name the file of a thing that is shown."""
        (life,) = self._exports_dir.iterdir()
        return life / f"{shown_id}{SUFFIX}"

    def stop(self) -> None:
        """End the daemon in order; what it shows is forgotten."""
        pid = self.pid()
        if pid is not None:
            fd = os.pidfd_open(pid)
            try:
                signal.pidfd_send_signal(fd, signal.SIGTERM)
                wait_until(lambda: not self.is_running(), "The storage daemon does not end.")
            finally:
                os.close(fd)
        self._bury()
        shutil.rmtree(self._exports_dir, ignore_errors=True)

    # -- what it shows ------------------------------------------------------------------------------------------------

    def show(self, monitor: Monitor, shown_id: UUID, chain: Sequence[Layer], *, is_writable: bool) -> Path:
        """Show layers, from the top, as one file; nothing to do if they are shown."""
        path = self.path(shown_id)
        if self.shows(monitor, shown_id) is None:
            self.open(monitor, chain, is_writable=is_writable)
            path.touch(mode=0o600)
            monitor.ask(
                "block-export-add",
                type="fuse",
                id=_export(shown_id),
                node_name=chain[0].node,
                mountpoint=str(path),
                writable=is_writable,
            )
        return path

    def shows(self, monitor: Monitor, shown_id: UUID) -> str | None:
        """Name the node on top of what is shown; None if it is not."""
        exports: Mapping[str, str] = {e["id"]: e["node-name"] for e in monitor.ask("query-block-exports")}
        return exports.get(_export(shown_id))

    def open(self, monitor: Monitor, chain: Sequence[Layer], *, is_writable: bool) -> None:
        """Have layers open, each once however many use it. No job may have ended and be there (``qcow2_merge``)."""
        known = {node["node-name"] for node in monitor.ask("query-named-block-nodes", flat=True)}
        for depth, layer in reversed(list(enumerate(chain))):
            self._layers.way(layer)
            if layer.node not in known:
                below = chain[depth + 1].node if layer.below else None
                self.add(monitor, layer, below, is_writable=is_writable and depth == 0)

    def is_settled(self, monitor: Monitor, layer: Layer) -> bool:
        """Say whether all that was written to a layer is in its file, as once it is only read. No job may be there."""
        nodes = monitor.ask("query-named-block-nodes", flat=True)
        return all(node["ro"] for node in nodes if node["node-name"] == layer.node)

    def add(self, monitor: Monitor, layer: Layer, below: str | None, *, is_writable: bool) -> None:
        """Open one layer."""
        # Through the page cache: it holds what clones share once, for its own file is opened past the cache.
        file = {"driver": "file", "filename": str(self._layers.way(layer)), "discard": "unmap"}
        common = {"node_name": layer.node, "read_only": not is_writable, "discard": "unmap", "file": file}
        # So that what was discarded in a layer takes no room in those it is copied to.
        common["detect_zeroes"] = "unmap"
        if layer.is_raw:
            monitor.ask("blockdev-add", driver="raw", **common)
        else:
            monitor.ask("blockdev-add", driver="qcow2", backing=below, **common)

    def put_on(self, monitor: Monitor, node: str, chain: Sequence[Layer]) -> None:
        """Let what is shown from ``node`` go on in the empty layer on top of it: all that comes is written there."""
        self.add(monitor, chain[0], None, is_writable=True)
        monitor.ask("blockdev-snapshot", node=node, overlay=chain[0].node)

    def hide(self, monitor: Monitor, shown_id: UUID, chain: Sequence[Layer]) -> None:
        """Show it no more, whoever has it open, and close the layers that nobody else uses."""
        if self.shows(monitor, shown_id) is not None:
            monitor.ask("block-export-del", id=_export(shown_id), mode="hard")
            wait_until(lambda: self.shows(monitor, shown_id) is None, "The storage daemon does not let go of a disk.")
        self.path(shown_id).unlink(missing_ok=True)
        self.close(monitor, chain)

    def close(self, monitor: Monitor, chain: Sequence[Layer]) -> None:
        """Close layers that nobody uses, from the top."""
        self._close(monitor, [layer.node for layer in chain])

    def close_unused(self, monitor: Monitor) -> None:
        """Close all that nobody uses."""
        nodes = [node["node-name"] for node in monitor.ask("query-named-block-nodes", flat=True)]
        self._close(monitor, [name for name in nodes if not name.startswith("#")])

    def _close(self, monitor: Monitor, nodes: Iterable[str]) -> None:
        for node in nodes:
            with suppress(Denied):  # in use by others, or not open: the next one down may still be
                monitor.ask("blockdev-del", node_name=node)

    # -- its life -----------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        for folder in (self._run_dir, self._exports_dir / secrets.token_hex(4)):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        chardev = f"socket,id=monitor,path={str(self._socket).replace(',', ',,')},server=on,wait=off"
        command = [PROGRAM, "--daemonize", "--pidfile", str(self._pid_file)]
        command += ["--chardev", chardev, "--monitor", "chardev=monitor"]
        try:
            with anywhere():
                subprocess.run(command, check=True, capture_output=True, text=True, timeout=START_TIMEOUT_S)
        except FileNotFoundError as e:
            raise Refused(f"There is no {PROGRAM}.", code="no-qemu", fix="apt-get install qemu-system-common") from e
        except subprocess.TimeoutExpired as e:
            raise Unreachable(f"{PROGRAM} did not start within {START_TIMEOUT_S:.0f} s.") from e
        except subprocess.CalledProcessError as e:
            raise Refused(f"{PROGRAM} does not start: {e.stderr.strip()}.", code="pool-broken") from e
        if pid := self.pid():
            _, most = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, most))  # some three files for each disk

    def _bury(self) -> frozenset[UUID]:
        """Put away what a dead daemon left; return what it showed."""
        dead = self.shown()
        _end_readers(self._exports_dir)
        for path in _mounted_below(self._exports_dir):
            ctypes.CDLL(None, use_errno=True).umount2(os.fsencode(path), MNT_DETACH)
        for life in self._exports_dir.glob("*"):
            shutil.rmtree(life)
        return dead


#: Shows again, in a daemon just started, what the one before it showed.
Restore = Callable[[Monitor, frozenset[UUID]], object]


def _export(shown_id: UUID) -> str:
    return f"e{shown_id.hex}"


def _mounted_below(folder: Path) -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    paths = [line.split()[1].encode().decode("unicode_escape") for line in lines]
    return [path for path in paths if path.startswith(f"{folder}/")]


def _end_readers(folder: Path) -> None:
    """End the target daemons that have a dead daemon's files open: every answer of theirs would be an error for ever.

    Nodes wait for a target daemon that is gone, and the gateway starts it anew.
    """
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "comm").read_text().strip() == "tgtd" and _has_open(process, folder):
                os.kill(int(process.name), signal.SIGKILL)


def _has_open(process: Path, folder: Path) -> bool:
    return any(str(fd.readlink()).startswith(f"{folder}/") for fd in (process / "fd").iterdir())


def wait_until(condition: Callable[[], bool], trouble: str) -> None:
    """Wait for the daemon. Errors: Unreachable."""
    deadline_s = time.monotonic() + EXPORT_TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline_s:
            raise Unreachable(trouble, fix=f"Look at the {PROGRAM} of the pool.")
        time.sleep(POLL_S)
