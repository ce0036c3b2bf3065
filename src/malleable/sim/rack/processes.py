"""Processes that outlive us: started detached, found again by a pid file, never mistaken for another.

A pid alone is not an identity: the kernel hands it out again. A record is the pid, the moment the process started
and the boot it belongs to; signals go through a pidfd, so no pid is reused between the check and the kill.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from malleable.domain.errors import Unavailable
from malleable.sim.rack.private_file import write_private

_START_TIME_FIELD = 19  #: field 22 of proc_pid_stat(5), counted after the command's closing parenthesis
_DEAD_STATES = ("Z", "X")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessId:
    """One process, for ever."""

    pid: int
    start_ticks: int  #: clock ticks from boot to its start
    boot: str  #: the kernel's boot id


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


def record(path: Path, process: ProcessId) -> None:
    """Write the pid file of ``process``."""
    write_private(path, json.dumps(asdict(process)))


def recorded(path: Path) -> ProcessId | None:
    """Read a pid file; None unless that very process is alive."""
    try:
        process = ProcessId(**json.loads(path.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return process if is_alive(process) else None


def is_alive(process: ProcessId) -> bool:
    """Say whether ``process`` runs; a new process with its pid does not count."""
    return identify(process.pid) == process


def spawn(
    argv: Sequence[str | Path], *, log: Path, env: Mapping[str, str] | None = None, pass_fds: Sequence[int] = ()
) -> ProcessId:
    """Start a process of its own session that outlives us; what it prints goes to the end of ``log``.

    Errors: Unavailable if it ended before it could be identified.
    """
    with log.open("ab") as output:
        child = subprocess.Popen(
            [str(part) for part in argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(env) if env is not None else None,
            pass_fds=pass_fds,
            start_new_session=True,
            cwd="/",
        )
    process = identify(child.pid)
    # Somebody must collect it if it ends before us; a thread of its own may die with us at any time.
    threading.Thread(target=child.wait, name=f"collect-{child.pid}", daemon=True).start()
    if process is None:
        raise Unavailable(f"{argv[0]} ended at once.", fix=f"Read the end of {log}.")
    return process


def send(process: ProcessId, number: signal.Signals) -> bool:
    """Signal ``process``; False if it is gone."""
    with _pidfd(process) as fd:
        if fd is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(fd, number)
        return True


def stop(process: ProcessId, *, term_s: float, kill_s: float = 10.0) -> None:
    """End ``process`` and wait until it is gone: SIGTERM, and SIGKILL after ``term_s`` (0 = at once).

    Errors: Unavailable if it survives SIGKILL for ``kill_s`` (it hangs in the kernel).
    """
    with _pidfd(process) as fd:
        if fd is None:
            return
        with contextlib.suppress(ProcessLookupError):
            if term_s > 0:
                signal.pidfd_send_signal(fd, signal.SIGTERM)
                if _ended(fd, term_s):
                    return
            signal.pidfd_send_signal(fd, signal.SIGKILL)
        if not _ended(fd, kill_s):
            raise Unavailable(
                f"Process {process.pid} does not end.", fix="It hangs in the kernel: read the kernel log."
            )


def wait_until(condition: Callable[[], bool], *, deadline_s: float, what: str, fix: str) -> None:
    """Wait until ``condition`` holds. Errors: Unavailable after ``deadline_s``."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise Unavailable(f"{what} within {deadline_s:g} s.", fix=fix)
        time.sleep(0.02)


@contextlib.contextmanager
def _pidfd(process: ProcessId) -> Iterator[int | None]:
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        yield None
        return
    try:
        # Checked after opening: from here on the descriptor means this process and no other.
        yield fd if is_alive(process) else None
    finally:
        os.close(fd)


def _ended(pidfd: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))
