"""A real tgtd in a network namespace of its own."""

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from malleable.domain import portals
from malleable.domain.ids import NetworkId
from malleable.domain.portals import Place, port_of
from malleable.drivers.target import tgt_process
from malleable.gateway.portal import environment, tgtd

#: Both are on the namespace's loopback: who connects to an address there comes from that address.
NODE, STRANGER = "10.77.0.1", "10.77.0.2"
#: Who connects to this one comes from NODE.
GATEWAY = "10.77.0.3"
PROGRAMS = ("ip", "nsenter", "tgtd", "iscsi-inq")
DEADLINE_S = 10.0

_numbers = itertools.count()


def missing_for_room() -> str:
    """Say what the room lacks; "" when nothing."""
    if os.geteuid() != 0:
        return "needs root"
    return ", ".join(f"no {program}" for program in PROGRAMS if not shutil.which(program))


def wait_until(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Wait for a condition; fail after the deadline."""
    end_s = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end_s, f"not within {deadline_s} s: {what}"
        os.sched_yield()


class TgtRoom:
    """One namespace and its tgtd, or several of them."""

    def __init__(self, folder: Path, threads: int = 1, daemons: int = 1) -> None:
        """Make the namespace and start the daemons, with so many threads for each disk."""
        self.folder = folder
        self.threads = threads
        self.daemons = range(daemons)
        self.namespace = f"mtgt{os.getpid()}-{next(_numbers)}"
        self.socket = folder / "tgtd.0"
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self._ip("netns", "add", self.namespace)
        for address in (NODE, STRANGER, GATEWAY):
            self._ip("-n", self.namespace, "address", "add", f"{address}/32", "dev", "lo")
        self._connect()
        self.start()

    def _connect(self) -> None:
        self._ip("-n", self.namespace, "link", "set", "lo", "up")
        route = ["local", GATEWAY, "dev", "lo", "src", NODE, "table", "local"]
        self._ip("-n", self.namespace, "route", "replace", *route)

    @contextlib.contextmanager
    def silence(self) -> Iterator[None]:
        """Let nothing through meanwhile, as if every node had lost its power."""
        self._ip("-n", self.namespace, "link", "set", "lo", "down")
        try:
            yield
        finally:
            self._connect()

    def _ip(self, *arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

    @property
    def places(self) -> tuple[Place, ...]:
        """Tell of the daemons as a gateway does."""
        return portals.read(portals.tell([str(number) for number in self.daemons]))

    def socket_of(self, network_id: NetworkId) -> Path:
        """Find the daemon, for any network."""
        return self.socket

    def start(self) -> None:
        """Start every daemon that does not run."""
        for number in self.daemons:
            if number not in self.processes:
                self.start_one(number)

    def start_one(self, number: int) -> None:
        """Start a daemon and wait for its control socket and its portal."""
        command = ["nsenter", f"--net=/run/netns/{self.namespace}"]
        command += tgtd(number, self.threads, f"0.0.0.0:{port_of(number)}")
        path = self.socket.with_suffix(f".{number}")
        path.unlink(missing_ok=True)
        with (self.folder / "log").open("ab") as log:
            told = {**os.environ, **environment(self.folder / "tgtd")}
            self.processes[number] = subprocess.Popen(command, env=told, stdout=log, stderr=log)
        wait_until(lambda: _listens(path), "tgtd starts")

    @property
    def pid(self) -> int:
        """The first daemon's process."""
        return self.processes[0].pid

    def stop(self) -> None:
        """Kill every daemon."""
        for number in self.daemons:
            self.stop_one(number)

    def stop_one(self, number: int) -> None:
        """Kill a daemon, as a crash would: its socket and lock file stay."""
        if process := self.processes.pop(number, None):
            process.kill()
            process.wait()
        assert tgt_process.owner(self.socket.with_suffix(f".{number}")) is None

    def freeze(self) -> None:
        """Stop the daemon without ending it."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen daemon go on."""
        os.kill(self.pid, signal.SIGCONT)

    def run(self, *command: str) -> str:
        """Run a program inside the namespace."""
        entered = ["nsenter", f"--net=/run/netns/{self.namespace}", *command]
        return subprocess.run(entered, check=True, capture_output=True, text=True).stdout

    def close(self) -> None:
        """Remove everything."""
        self.stop()
        self._ip("netns", "delete", self.namespace)


def _listens(control_socket: Path) -> bool:
    """Say whether a control socket answers: its file is there a moment before."""
    with socket.socket(socket.AF_UNIX) as control:
        return control.connect_ex(str(control_socket)) == 0


@contextlib.contextmanager
def tgt_room(threads: int = 1, daemons: int = 1) -> Iterator[TgtRoom]:
    """Run a room of its own; pytest's folders are too long for a socket's name."""
    with (
        tempfile.TemporaryDirectory(prefix="mtgt") as folder,
        contextlib.closing(TgtRoom(Path(folder), threads, daemons)) as room,
    ):
        yield room
