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

from malleable.domain.ids import NetworkId
from malleable.drivers.target import tgt_process

#: Both are on the namespace's loopback: who connects to an address there comes from that address.
NODE, STRANGER = "10.77.0.1", "10.77.0.2"
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
    """One namespace and its tgtd."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        """Make the namespace and start the daemon, with so many threads for each disk."""
        self.folder = folder
        self.threads = threads
        self.namespace = f"mtgt{os.getpid()}-{next(_numbers)}"
        self.socket = folder / "tgtd.0"
        self.process: subprocess.Popen[bytes] | None = None
        self._ip("netns", "add", self.namespace)
        for address in (NODE, STRANGER):
            self._ip("-n", self.namespace, "address", "add", f"{address}/32", "dev", "lo")
        self._ip("-n", self.namespace, "link", "set", "lo", "up")
        self.start()

    def _ip(self, *arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

    def socket_of(self, network_id: NetworkId) -> Path:
        """Find the daemon, for any network."""
        return self.socket

    def start(self) -> None:
        """Start the daemon and wait for its control socket and its portal."""
        command = ["nsenter", f"--net=/run/netns/{self.namespace}"]
        command += ["tgtd", "-f", "-C", "0", "-t", str(self.threads), "--iscsi", "portal=0.0.0.0:3260"]
        self.socket.unlink(missing_ok=True)
        with (self.folder / "log").open("ab") as log:
            environment = os.environ | {"TGT_IPC_SOCKET": str(self.folder / "tgtd")}
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        wait_until(self._listens, "tgtd starts")

    def _listens(self) -> bool:
        """Say whether the control socket answers: its file is there a moment before."""
        with socket.socket(socket.AF_UNIX) as control:
            return control.connect_ex(str(self.socket)) == 0

    @property
    def pid(self) -> int:
        """The daemon's process."""
        assert self.process is not None
        return self.process.pid

    def stop(self) -> None:
        """Kill the daemon, as a crash would: its socket and lock file stay."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        assert tgt_process.owner(self.socket) is None

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


@contextlib.contextmanager
def tgt_room(threads: int = 1) -> Iterator[TgtRoom]:
    """Run a room of its own; pytest's folders are too long for a socket's name."""
    with (
        tempfile.TemporaryDirectory(prefix="mtgt") as folder,
        contextlib.closing(TgtRoom(Path(folder), threads)) as room,
    ):
        yield room
