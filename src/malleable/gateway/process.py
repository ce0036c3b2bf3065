"""Daemons that outlive the gateway: started detached, found again by a pid file, never mistaken for another process.

A pid alone is no identity: the kernel hands it out again. A record is the pid, the moment the process started and the
boot of the machine. Signals and death notices go through a pidfd, which means one process for ever.
"""

import contextlib
import json
import os
import select
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from malleable.domain.errors import Unavailable
from malleable.gateway.command import search_path
from malleable.gateway.private_file import replace_file

_START_TIME_FIELD = 19  #: field 22 of proc_pid_stat(5), counted after the command's closing parenthesis
_DEAD_STATES = ("Z", "X")
#: The child waits until its pid file is written, and gives up if we die first: no daemon ever runs unrecorded.
_GATE = 'read -r go || exit 1; cd /; exec "$@" </dev/null'


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessId:
    """One process, for ever."""

    pid: int
    start_ticks: int  #: clock ticks from boot to its start
    boot: str  #: the kernel's boot id

    @property
    def epoch(self) -> str:
        """Name this life of a daemon."""
        return f"{self.boot}:{self.start_ticks}:{self.pid}"


def identify(pid: int) -> ProcessId | None:
    """Tell which process has ``pid`` now; None if none has, or it is dead and waits to be reaped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    if fields[0] in _DEAD_STATES:
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ProcessId(pid=pid, start_ticks=int(fields[_START_TIME_FIELD]), boot=boot)


def recorded(pid_file: Path) -> ProcessId | None:
    """Read a pid file; None unless that very process is alive."""
    try:
        process = ProcessId(**json.loads(pid_file.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return process if identify(process.pid) == process else None


def spawn(argv: Sequence[str], *, pid_file: Path, log: Path, env: Mapping[str, str] | None = None) -> ProcessId:
    """Start a process of its own session and record it; what it prints goes to the end of ``log``.

    Errors: Unavailable if it could not be started.
    """
    gate_out, gate_in = os.pipe()
    actions = [
        (os.POSIX_SPAWN_DUP2, gate_out, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    try:
        pid = os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", _GATE, "gate", *argv],
            {"PATH": search_path(), "LC_ALL": "C", **(env or {})},
            file_actions=actions,
            setsid=True,
            setsigdef=[signal.SIGPIPE, signal.SIGHUP, signal.SIGINT, signal.SIGTERM],
        )
        process = identify(pid)
        if process is None:
            raise Unavailable(f"{argv[0]} could not be started.", fix=f"Read the end of {log}.")
        replace_file(pid_file, json.dumps(asdict(process)))
        os.write(gate_in, b"go\n")
    finally:
        os.close(gate_out)
        os.close(gate_in)
    return process


@contextlib.contextmanager
def pidfd(process: ProcessId) -> Iterator[int | None]:
    """Hold a descriptor that means ``process``; None if it is gone."""
    fd = open_pidfd(process)
    try:
        yield fd
    finally:
        if fd is not None:
            os.close(fd)


def open_pidfd(process: ProcessId) -> int | None:
    """Open a descriptor that becomes readable when ``process`` ends; None if it has ended. The caller closes it."""
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    # Checked after opening: from here on the descriptor means this process and no other with its pid.
    if identify(process.pid) != process:
        os.close(fd)
        reap(process.pid)
        return None
    return fd


def send(process: ProcessId, number: signal.Signals) -> bool:
    """Signal ``process``; False if it is gone."""
    with pidfd(process) as fd:
        if fd is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(fd, number)
        return True


def kill(process: ProcessId, *, timeout_s: float = 10.0) -> None:
    """End ``process`` at once and wait until it is gone; nothing to do if it is.

    Errors: Unavailable if it survives SIGKILL for ``timeout_s`` (it hangs in the kernel).
    """
    with pidfd(process) as fd:
        if fd is None:
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(fd, signal.SIGKILL)
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        if not poll.poll(timeout_s * 1000):
            raise Unavailable(f"Process {process.pid} does not end.", fix="It hangs in the kernel: read its log.")
    reap(process.pid)


def reap(pid: int) -> None:
    """Collect a child of ours; a process that an earlier gateway started is init's to collect."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
