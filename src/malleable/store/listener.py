"""LISTEN and NOTIFY on a connection of its own, in a thread of its own.

A transaction that notifies holds one lock of the whole server until its commit is on the disk: such commits come one
after the other. So ours announce nothing themselves. What they changed is announced here once they are done: to this
process at once, to the others in one statement for all that came meanwhile, which waits for no disk. A process that
dies between the two has told nobody; whoever takes its operations over does.
"""

import select
import socket
import threading

import psycopg
from psycopg import sql

from malleable.store.connections import ALIVE
from malleable.store.libpq import prepare, run
from malleable.store.signals import CHANNEL, Signals

_RECONNECT_DELAYS_S = (0.1, 0.5, 1.0, 2.0, 5.0)
_OPTIONS = {
    **ALIVE,
    # It writes nothing but announcements, by a statement of which there is one plan.
    "options": "-c synchronous_commit=off -c plan_cache_mode=force_generic_plan",
}
_ANNOUNCING = b"announce"
_ANNOUNCE = b"SELECT pg_notify($1, channel) FROM unnest(string_to_array($2, ' ')) AS channel"


class Listener:
    """Listens from ``start`` until ``stop``, through restarts of the server."""

    def __init__(self, conninfo: str, signals: Signals) -> None:
        self._conninfo = conninfo
        self._signals = signals
        self._stopping, self._stop = socket.socketpair()
        self._unannounced: set[str] = set()
        self._wake, self._waking = socket.socketpair()  #: a byte per set that was empty
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run, name="store-listener", daemon=True)
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start once; return when LISTEN is in force (or after a while, when the server does not answer)."""
        if not self._listening.is_set():
            self._begin()
            self._listening.wait(timeout=5.0)

    def announce(self, channels: set[str]) -> None:
        """Tell this process now and the others soon."""
        for channel in channels:
            self._signals.notify(channel)
        with self._lock:
            is_first = not self._unannounced
            self._unannounced |= channels
        if is_first:
            self._waking.send(b"!")
        if self._thread.ident is None:
            self._begin()

    def _begin(self) -> None:
        with self._lock:
            if self._thread.ident is None:
                self._thread.start()

    def stop(self) -> None:
        """Announce what is left, then end the thread and its connection."""
        self._stop.close()
        if self._thread.ident is not None:
            self._thread.join(timeout=15.0)
        if self._thread.is_alive():
            return  # PostgreSQL hangs: the thread ends when it speaks again, and needs them until then
        for end in (self._stopping, self._wake, self._waking):
            end.close()

    def _run(self) -> None:
        failures = 0
        while self._unannounced or not self._stop_within(0.0):
            try:
                with psycopg.connect(self._conninfo, autocommit=True, **_OPTIONS) as connection:  # type: ignore[arg-type]
                    connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL)))
                    prepare(connection, _ANNOUNCING, _ANNOUNCE)
                    failures = 0
                    # Whoever waits may have missed something until now: let everybody look once.
                    self._signals.notify_all()
                    self._listening.set()
                    self._listen(connection)
            except psycopg.Error:  # also what libpq says of a connection that broke
                if self._stop_within(_RECONNECT_DELAYS_S[min(failures, len(_RECONNECT_DELAYS_S) - 1)]):
                    return
                failures += 1

    def _listen(self, connection: psycopg.Connection) -> None:
        """Pass notifications on, both ways, until told to stop; sleeps in the kernel when there are none."""
        own, stopping, waking = connection.info.backend_pid, self._stopping.fileno(), self._wake.fileno()
        while True:
            self._tell_others(connection)
            while (told := connection.pgconn.notifies()) is not None:
                if told.be_pid != own:
                    self._signals.notify(told.extra.decode())
            ready = _ready(connection.fileno(), stopping, waking)
            if waking in ready:
                self._wake.recv(1)
            elif stopping in ready:
                return
            if connection.fileno() in ready:
                connection.pgconn.consume_input()

    def _tell_others(self, connection: psycopg.Connection) -> None:
        """Announce what there is. Errors: psycopg's; it is announced after the next connecting then."""
        with self._lock:
            channels, self._unannounced = self._unannounced, set()
        if not channels:
            return
        try:
            run(connection, _ANNOUNCING, CHANNEL, " ".join(sorted(channels)))
        except psycopg.Error:
            with self._lock:
                self._unannounced |= channels
            raise

    def _stop_within(self, seconds: float) -> bool:
        return bool(_ready(self._stopping.fileno(), within_s=seconds))


def _ready(*fds: int, within_s: float | None = None) -> set[int]:
    """Wait until something can be read. poll(2): a busy server has descriptors above 1023, which select(2) refuses."""
    waiting = select.poll()
    for fd in fds:
        waiting.register(fd, select.POLLIN)
    return {fd for fd, _ in waiting.poll(None if within_s is None else within_s * 1000)}
