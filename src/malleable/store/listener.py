"""LISTEN on a connection of its own, in a thread of its own: brings PostgreSQL's notifications into this process."""

import select
import socket
import threading

import psycopg
from psycopg import sql

from malleable.store.signals import CHANNEL, Signals

_RECONNECT_DELAYS_S = (0.1, 0.5, 1.0, 2.0, 5.0)
#: A connection that died without a word is found out after about a minute.
_KEEPALIVES = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "connect_timeout": 10}


class Listener:
    """Listens from ``start`` until ``stop``, through restarts of the server."""

    def __init__(self, conninfo: str, signals: Signals) -> None:
        self._conninfo = conninfo
        self._signals = signals
        self._stopping, self._stop = socket.socketpair()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run, name="store-listener", daemon=True)
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start once; return when LISTEN is in force (or after a while, when the server does not answer)."""
        if self._listening.is_set():
            return
        with self._lock:
            if self._thread.ident is None:
                self._thread.start()
        self._listening.wait(timeout=5.0)

    def stop(self) -> None:
        """End the thread and its connection."""
        self._stop.close()
        if self._thread.ident is not None:
            self._thread.join(timeout=15.0)
        self._stopping.close()

    def _run(self) -> None:
        failures = 0
        while not self._stop_within(0.0):
            try:
                with psycopg.connect(self._conninfo, autocommit=True, **_KEEPALIVES) as connection:  # type: ignore[arg-type]
                    connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL)))
                    failures = 0
                    # Whoever waits may have missed something until now: let everybody look once.
                    self._signals.notify_all()
                    self._listening.set()
                    self._listen(connection)
            except psycopg.OperationalError:
                if self._stop_within(_RECONNECT_DELAYS_S[min(failures, len(_RECONNECT_DELAYS_S) - 1)]):
                    return
                failures += 1

    def _listen(self, connection: psycopg.Connection) -> None:
        """Pass notifications on until told to stop; sleeps in the kernel when there are none."""
        while True:
            for notification in connection.notifies(timeout=0):
                self._signals.notify(notification.payload)
            ready, _, _ = select.select([connection.fileno(), self._stopping.fileno()], [], [])
            if self._stopping.fileno() in ready:
                return

    def _stop_within(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._stopping], [], [], seconds)
        return bool(ready)
