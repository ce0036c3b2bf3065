"""Connections kept for their next use.

SQLAlchemy's own pool makes and finalizes half a dozen objects for every use: a tenth of a provision's CPU. Here a
connection goes from hand to hand as it is.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

#: Of a connection to PostgreSQL: one that died without a word is found out after about a minute.
ALIVE = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,  # the same where we have said something and it was not heard
}
#: How long whoever finds none free waits for one.
WAIT_S = 30.0


class Connections:
    """An engine's open connections, at most ``most`` at once; who needs one gets the one used last."""

    def __init__(self, engine: Engine, most: int) -> None:
        """Errors are those of connecting; the engine keeps no connections itself (``NullPool``)."""
        self._engine = engine
        self._free = threading.Semaphore(most)
        self._idle: list[Connection] = []  # its append and pop need no lock
        self._is_closed = False

    @contextmanager
    def one(self) -> Iterator[Connection]:
        """Lend a connection; what is not committed is rolled back on leaving. Errors: PoolTimeout, DBAPIError."""
        connection = self.take()
        try:
            yield connection
        finally:
            self.give(connection)

    def take(self) -> Connection:
        """Hand out a connection until it is given back. Errors: PoolTimeout, DBAPIError."""
        if not self._free.acquire(timeout=WAIT_S):
            raise PoolTimeout(f"no connection became free within {WAIT_S:.0f} s")
        try:
            return self._idle_one() or self._engine.connect()
        except BaseException:
            self._free.release()
            raise

    def give(self, connection: Connection) -> None:
        """Take a connection back; one that is of no use any more is given up."""
        try:
            if not connection.closed and connection.in_transaction():
                connection.rollback()
        except DBAPIError:
            connection.invalidate()
        finally:
            if connection.closed or connection.invalidated or self._is_closed:
                connection.close()
            else:
                self._idle.append(connection)
            self._free.release()

    def replace(self, connection: Connection) -> Connection:
        """Give up a connection that broke, and those that wait: they are no younger. Errors: DBAPIError."""
        connection.close()
        self._close_idle()
        return self._engine.connect()

    def close(self) -> None:
        """Give up all connections: those in use as they come back."""
        self._is_closed = True
        self._close_idle()

    def _close_idle(self) -> None:
        while (connection := self._idle_one()) is not None:
            connection.close()

    def _idle_one(self) -> Connection | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None
