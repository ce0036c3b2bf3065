"""Turns at writing: one writer's part of a transaction, and when it is durable.

On SQLite an fsync takes longer than all statements of a step. So a writer that waits for its turn joins the open
transaction, and the last one commits for all: every one of them returns when that commit is done. A writer that fails
takes back its own changes and nobody else's (a savepoint); a commit that fails fails them all, and none was done.
"""

import sqlite3
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from malleable.domain.errors import StoreBusy, Unavailable
from malleable.store.connections import Connections

#: So many share a commit at most: the first of them waits for the last.
SHARERS_MAX = 16


class Turn(Protocol):
    """One writer's part of a transaction."""

    connection: Connection

    def roll_back(self) -> None:
        """Give up all changes; statements from now on see what is there without them."""

    def commit(self) -> None:
        """Return when the changes are durable. Errors: DBAPIError, Unavailable: then none was made."""


class OwnTurn:
    """A transaction of one's own."""

    __slots__ = ("connection",)

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def roll_back(self) -> None:
        """Do as ``Turn``."""
        if not self.connection.invalidated:
            self.connection.rollback()

    def commit(self) -> None:
        """Do as ``Turn``."""
        _commit(self.connection)


class SharedTurn:
    """A turn in a transaction that others may share."""

    __slots__ = ("_queue", "began", "connection", "ended", "error", "is_first", "is_over")

    def __init__(self, queue: "TurnQueue") -> None:
        self._queue = queue
        self.began, self.ended = _shut(), _shut()  #: opened when it is this one's turn, and when its commit is done
        self.error: Exception | None = None  #: of that commit
        self.is_first = True  #: the transaction holds nobody's changes before its own
        self.is_over = False
        self.connection: Connection

    def roll_back(self) -> None:
        """Do as ``Turn``."""
        if self.is_first:
            self.connection.rollback()
        elif _driver(self.connection).in_transaction:  # else SQLite has rolled all of it back: told by ``TurnQueue``
            _driver(self.connection).execute("ROLLBACK TO turn")

    def commit(self) -> None:
        """Do as ``Turn``."""
        if not self.is_first:
            _driver(self.connection).execute("RELEASE turn")
        self.is_over = True
        self._queue.end(self)
        self.ended.acquire()
        if self.error is not None:
            raise self.error


class TurnQueue:
    """The writers of one SQLite file within this process, in line for one connection."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._lock = threading.Lock()  #: of the line; never held during a statement
        self._waiting: deque[SharedTurn] = deque()
        self._is_taken = False
        # Only whoever has the turn touches these. A transaction is open as long as somebody shares it.
        self._connection: Connection | None = None
        self._sharers: list[SharedTurn] = []

    @contextmanager
    def turn(self, timeout_s: float) -> Iterator[SharedTurn]:
        """Wait for a turn; what is not committed is rolled back on leaving. Errors: Busy, DBAPIError."""
        turn = SharedTurn(self)
        self._wait(turn, timeout_s)
        try:
            self._begin(turn)
            yield turn
        finally:
            if not turn.is_over:
                self._give_up(turn)

    def end(self, turn: SharedTurn) -> None:
        """Count a turn among those to be committed, and let the next one join, or commit for all."""
        self._sharers.append(turn)
        if len(self._sharers) == SHARERS_MAX or not self._hand_on(is_last=False):
            self._commit_all(turn.connection)

    def _wait(self, turn: SharedTurn, timeout_s: float) -> None:
        with self._lock:
            if not self._is_taken:
                self._is_taken = True
                return
            self._waiting.append(turn)
        if turn.began.acquire(timeout=timeout_s):
            return
        with self._lock:
            if turn not in self._waiting:
                return  # it was given at the last moment
            self._waiting.remove(turn)
        raise StoreBusy("The database has been writing for too long.", fix="Try again.")

    def _begin(self, turn: SharedTurn) -> None:
        turn.is_first = self._connection is None
        if self._connection is None:
            self._connection = self._connections.take()
            self._connection.begin()
        else:
            _driver(self._connection).execute("SAVEPOINT turn")
        turn.connection = self._connection

    def _give_up(self, turn: SharedTurn) -> None:
        """Take a turn's changes back; what others did before it stays."""
        connection = self._connection
        if connection is None or turn.is_first:
            self._connection = None
            try:
                if connection is not None:
                    self._connections.give(connection)
            finally:
                self._hand_on(is_last=True)
            return
        try:
            for statement in ("ROLLBACK TO turn", "RELEASE turn"):
                _driver(connection).execute(statement)
        except sqlite3.Error:
            connection.invalidate()  # SQLite has rolled back everything: the disk is full, say
        if connection.invalidated or not self._hand_on(is_last=False):
            self._commit_all(connection)

    def _commit_all(self, connection: Connection) -> None:
        sharers = self._sharers
        self._connection, self._sharers = None, []
        error: Exception | None = Unavailable(
            "The database's transaction was lost.", fix="Look at its disk; try again."
        )
        try:
            if not connection.invalidated:
                error = _outcome(connection)
            self._connections.give(connection)
        finally:
            self._hand_on(is_last=True)
            for turn in sharers:
                turn.error = error
                turn.ended.release()

    def _hand_on(self, *, is_last: bool) -> bool:
        """Give the turn to the next in line, if there is one; else keep it, or give it back after the last."""
        with self._lock:
            if not self._waiting:
                self._is_taken = not is_last
                return False
            turn = self._waiting.popleft()
        turn.began.release()
        return True


def _commit(connection: Connection) -> None:
    try:
        connection.commit()
    except DBAPIError:
        connection.invalidate()  # SQLite leaves the transaction open, others may have lost the connection
        raise


def _outcome(connection: Connection) -> Exception | None:
    try:
        _commit(connection)
    except DBAPIError as e:
        return e
    return None


def _driver(connection: Connection) -> Any:
    """Reach SQLite's own connection: its turns need no more than that, at a tenth of the price."""
    return connection.connection.dbapi_connection


def _shut() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock
