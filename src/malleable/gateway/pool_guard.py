"""Looks after the pool whose disks this host's target daemons open: a node waits rather than sees that it is full.

Below half the reserve every target daemon that has written since the last look is stopped (SIGSTOP), below a quarter
all are. To its nodes a stopped one is one that does not answer: they wait and try again. Once the pool has its reserve
again they go on. What is held is noted beside the daemon's socket: whoever comes after us, or a worker, knows it.
"""

import logging
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from malleable.domain.errors import MalleableError, Unavailable
from malleable.domain.gateways import held_note
from malleable.domain.ports import Capacity
from malleable.gateway import process
from malleable.gateway.layout import known_networks
from malleable.gateway.preflight import Trouble
from malleable.gateway.process import ProcessId
from malleable.gateway.settings import LocalPool

log = logging.getLogger(__name__)
#: Faster than what disks and networks of one host write: how soon the next look must be follows from it.
FASTEST_BYTES_S = 4 << 30
LOOK_MIN_S, LOOK_MAX_S = 0.02, 0.5
_FIX = (
    "Delete disks, snapshots or images, or enlarge the pool. They go on by themselves once the reserve is free again."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A target daemon that runs here, and where it is noted that it is held."""

    daemon: ProcessId
    note: Path


def portals_in(run_dir: Path) -> Sequence[Held]:
    """Find the target daemons that run on this host."""
    return [
        Held(daemon=daemon, note=held_note(layout.portal_socket(number)))
        for layout in known_networks(run_dir)
        for number, daemon in layout.running_portals().items()
    ]


class PoolGuard:
    """``run`` in one thread; ``troubles`` in any."""

    def __init__(self, pool: LocalPool | None, portals: Callable[[], Sequence[Held]]) -> None:
        """None: the pool is not on this host, and there is nothing to do."""
        self._pool, self._portals = pool, portals
        self._trouble: MalleableError | None = None
        self._written: dict[ProcessId, int] = {}
        self.held = 0  #: target daemons

    def run(self, stop: threading.Event) -> None:
        """Look until ``stop``; what is held stays so."""
        wait_s = 0.0
        while not stop.wait(wait_s):
            wait_s = self.look()

    def look(self) -> float:
        """Look once, and hold or let go; return in how many seconds to look again."""
        if self._pool is None:
            if not self._written:
                self._let_go(0, 0)  # what another one held, when the pool was here
            return LOOK_MAX_S
        try:
            self._pool.tend()
            wait_s = self._weigh(self._pool.capacity())
            self._trouble = None
        except (MalleableError, OSError) as e:
            if self._trouble is None:
                log.warning("the pool is in trouble: %s", e)
            self._trouble = e if isinstance(e, MalleableError) else Unavailable(f"{e}.", fix="Read the gateway's log.")
            return LOOK_MAX_S
        return min(wait_s, LOOK_MAX_S, self._pool.tend_every_s)

    def _weigh(self, capacity: Capacity) -> float:
        free, reserve = capacity.free_bytes, capacity.reserve_bytes
        some, every = reserve // 2, reserve // 4
        if free < some:
            self._hold(is_every=free < every)
        elif free >= reserve or not self.held:
            self._let_go(free, some)
        ahead = free - (some if free >= some else every)
        return max(ahead / FASTEST_BYTES_S, LOOK_MIN_S)

    def _hold(self, *, is_every: bool) -> None:
        """Stop those that write, or all; those that a worker woke for a moment, too."""
        portals = self._portals()
        written = {portal.daemon: _written_bytes(portal.daemon) for portal in portals}
        for portal in portals:
            before = self._written.get(portal.daemon, 0)
            if is_every or portal.note.exists() or written[portal.daemon] > before:
                if not portal.note.exists():
                    log.warning("a target daemon is held, for the pool is nearly full: pid %d", portal.daemon.pid)
                    with suppress(FileNotFoundError):  # the network is gone at this moment
                        portal.note.touch()
                process.send(portal.daemon, signal.SIGSTOP)
        self._written = written
        self.held = sum(portal.note.exists() for portal in portals)

    def _let_go(self, free: int, some: int) -> None:
        """Let all go on that are held, by us or by one before us; note what was written while it may matter soon."""
        if not self.held and free > 4 * some and self._written:
            return
        portals = self._portals()
        for portal in portals:
            if portal.note.exists():
                log.warning("a target daemon goes on: pid %d", portal.daemon.pid)
                process.send(portal.daemon, signal.SIGCONT)
                portal.note.unlink(missing_ok=True)
        self._written = {portal.daemon: _written_bytes(portal.daemon) for portal in portals}
        self.held = 0

    def troubles(self) -> list[Trouble]:
        """Say what is wrong."""
        found, trouble = [], self._trouble
        if trouble is not None:
            found.append(Trouble(what=f"The pool: {trouble.message}", fix=trouble.fix))
        if self.held:
            what = f"The pool is nearly full: {self.held} target daemon(s) are held, and their nodes wait."
            found.append(Trouble(what=what, fix=_FIX, holds_writers=True))
        return found


def _written_bytes(daemon: ProcessId) -> int:
    """Read what a process has written to files; 0 when it is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{daemon.pid}/io").read_text().splitlines():
            if line.startswith("write_bytes:"):
                return int(line.split()[1])
    return 0
