"""The two databases: how to connect, begin and notify."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from malleable.domain.errors import Invalid, Unavailable
from malleable.store.connections import ALIVE, Connections
from malleable.store.signals import Signals
from malleable.store.statements import SqliteLine, Statements
from malleable.store.turns import OwnTurn, Turn, TurnQueue
from malleable.store.types import from_json, to_json

if TYPE_CHECKING:
    import psycopg

#: How long a writer waits for the others of its own process, and SQLite for other processes.
LOCK_TIMEOUT_S = 30.0
#: More than a process has threads: whoever reads a file need not wait for others that do.
SQLITE_READERS = 1000


class Database(Protocol):
    """What differs between the databases."""

    signals: Signals
    statements: Statements

    def writing(self) -> AbstractContextManager[Turn]:
        """Begin to write; what is not committed is rolled back on leaving. Errors: Busy, DBAPIError."""

    def reading(self) -> AbstractContextManager[Connection]:
        """Begin a read-only transaction that sees one state of the database throughout."""

    def glancing(self) -> AbstractContextManager[Connection]:
        """Read without beginning: every statement sees the state of its own moment."""

    def announce(self, channels: set[str]) -> None:
        """Wake who waits on these channels, after a commit; on PostgreSQL also in other processes."""

    def listen(self) -> None:
        """See to it that ``signals`` hears what other processes announce."""

    def close(self) -> None:
        """Give up all connections."""


def open_database(url: str, *, make_file: bool = False) -> Database:
    """Connect to ``sqlite:////file`` or ``postgresql://…``; nothing is sent to a server yet.

    Errors: Invalid (URL), Unavailable (no file, unless it shall be made).
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() != "sqlite":
        return PostgresDatabase(parsed)
    file = Path(parsed.database or "")
    try:
        if make_file:
            file.touch(mode=0o600)  # SQLite gives its write-ahead log the same rights
        file.stat()
    except OSError as e:
        reason = e.strerror or type(e).__name__
        fix = "Run `m2d migrate`." if file.parent.is_dir() else f"Make the directory {file.parent}, or name another."
        raise Unavailable(f"The database {file} cannot be used: {reason}.", fix=fix) from e
    return SqliteDatabase(parsed)


def parse_url(url: str) -> URL:
    """Read a database URL and choose the driver. Errors: Invalid (never repeats the URL: it may hold a password)."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as e:
        raise Invalid("The database URL cannot be read.", fix=_URL_FIX) from e
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise Invalid("The SQLite URL names no file.", fix=_URL_FIX)
        return parsed.set(drivername="sqlite")
    if backend in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    raise Invalid(f"The database {backend} is not supported.", fix=_URL_FIX)


def place_of(url: str) -> str:
    """Tell where the database of a URL is, without user and password: a file, or a server and what it calls it."""
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        return parsed.database or ""
    host = parsed.host or parsed.query.get("host") or "localhost"
    return f"{host}{f':{parsed.port}' if parsed.port else ''}/{parsed.database or ''}"


_URL_FIX = "Write sqlite:////path/to/file.db or postgresql://user@host/database."


class SqliteDatabase:
    """One file: any number of readers, and one writer at a time."""

    def __init__(self, url: URL) -> None:
        self.signals = Signals()
        writing = sqlite_engine(url, begin="BEGIN IMMEDIATE")
        reading = sqlite_engine(url, begin="BEGIN", query_only=True)
        self.statements = Statements(writing.dialect)
        for engine in (writing, reading):
            event.listen(engine, "connect", self._connected)
        self._writer, self._readers = Connections(writing, 1), Connections(reading, SQLITE_READERS)
        self._turns = TurnQueue(self._writer)  # threads queue here; SQLite itself would make them poll

    def writing(self) -> AbstractContextManager[Turn]:
        return self._turns.turn(LOCK_TIMEOUT_S)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with self._readers.one() as connection:
            connection.begin()
            yield connection

    def glancing(self) -> AbstractContextManager[Connection]:
        return self._readers.one()

    def announce(self, channels: set[str]) -> None:
        for channel in channels:
            self.signals.notify(channel)

    def listen(self) -> None:
        """Nothing: other processes are not heard."""

    def close(self) -> None:
        self._writer.close()
        self._readers.close()

    def _connected(self, driver: Any, record: ConnectionPoolEntry) -> None:
        record.info["line"] = SqliteLine(driver, self.statements)


class PostgresDatabase:
    """A server: readers and writers side by side, with row locks."""

    def __init__(self, url: URL) -> None:
        # These load psycopg: 9 MiB that a server on SQLite does without.
        from malleable.store import libpq
        from malleable.store.listener import Listener

        self.signals = Signals()
        engine = postgres_engine(url)
        self._connections = Connections(engine, POSTGRES_CONNECTIONS)
        self.statements = Statements(engine.dialect)
        self._libpq = libpq
        event.listen(engine, "connect", self._connected)
        conninfo = url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._listener = Listener(conninfo, self.signals)

    @contextmanager
    def writing(self) -> Iterator[Turn]:
        with self._begun("BEGIN ISOLATION LEVEL READ COMMITTED") as connection:
            yield OwnTurn(connection)

    def reading(self) -> AbstractContextManager[Connection]:
        return self._begun(_BEGIN_READING)

    @contextmanager
    def glancing(self) -> Iterator[Connection]:
        connection = self._connections.take()
        try:
            if not self._libpq.is_silent(connection.connection.dbapi_connection):
                connection = self._begun_anew(connection, _BEGIN_READING)  # the server may have closed it meanwhile
            yield connection
        finally:
            self._connections.give(connection)

    @contextmanager
    def _begun(self, begin: str) -> Iterator[Connection]:
        """Begin now; a connection that the server closed meanwhile shows here, where another can take its place."""
        connection = self._connections.take()
        try:
            try:
                self._libpq.command(connection.connection.dbapi_connection, begin)
            except self._libpq.PostgresLine.errors:
                connection = self._begun_anew(connection, begin)
            if not connection.in_transaction():
                connection.begin()
            yield connection
        finally:
            self._connections.give(connection)

    def _begun_anew(self, connection: Connection, begin: str) -> Connection:
        """Begin by way of SQLAlchemy, which tells a connection that broke from other trouble."""
        try:
            connection.exec_driver_sql(begin)
        except DBAPIError as e:
            if not e.connection_invalidated:
                raise
            connection = self._connections.replace(connection)
            connection.exec_driver_sql(begin)
        return connection

    def _connected(self, driver: "psycopg.Connection", record: ConnectionPoolEntry) -> None:
        driver.autocommit = True  # the driver shall not begin by itself: BEGIN carries the isolation level
        record.info["line"] = self._libpq.PostgresLine(driver, self.statements)

    def announce(self, channels: set[str]) -> None:
        self._listener.announce(channels)

    def listen(self) -> None:
        self._listener.start()

    def close(self) -> None:
        self._listener.stop()
        self._connections.close()


def sqlite_engine(url: URL, *, begin: str, query_only: bool = False) -> Engine:
    """Make an engine whose transactions open with ``begin``."""
    engine = create_engine(
        url,
        connect_args={"cached_statements": 500},  # ours are about 200, and the default is 128
        **_ENGINE_OPTIONS,
    )
    pragmas = [
        f"busy_timeout={int(LOCK_TIMEOUT_S * 1000)}",
        "synchronous=FULL",
        "foreign_keys=ON",
        f"query_only={int(query_only)}",
    ]

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver shall not begin by itself
        _keep_log(connection)
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    def _begin(connection: Any) -> None:
        connection.execute(begin)

    # Not the engine's event "begin": with any of those, every statement takes a path that is a fifth slower.
    engine.dialect.do_begin = _begin  # type: ignore[assignment, method-assign]
    return engine


def _keep_log(connection: sqlite3.Connection) -> None:
    """Switch a file to write-ahead logging; several that do so to a new file at once take turns.

    SQLite itself does not wait here: it answers "locked" at once.
    """
    ends_s = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as e:
            if e.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > ends_s:
                raise
            time.sleep(0.01)


#: Of one server process. More only wait for each other's rows: its Python runs on one core. One beyond them for a
#: moment would cost a process and 100 statements to prepare; whoever finds none waits as well as for another's row.
POSTGRES_CONNECTIONS = 10
_BEGIN_READING = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_SETTINGS = {
    "timezone": "UTC",
    # A process that hangs or dies half-way through a transaction must not hold up the site.
    "lock_timeout": f"{LOCK_TIMEOUT_S:.0f}s",
    "idle_in_transaction_session_timeout": f"{2 * LOCK_TIMEOUT_S:.0f}s",
    # Statements are planned once, not six times per connection: no plan of ours depends on values, and planning was a
    # third of a new connection's work. At that time a table may be empty, and is soon not: of all ways to read it only
    # those are allowed that do not grow with it. (Whoever forbids one makes plans look dear, and worth compiling.)
    "plan_cache_mode": "force_generic_plan",
    **dict.fromkeys(("enable_seqscan", "enable_hashjoin", "enable_mergejoin", "jit"), "off"),
}
_SERVER_OPTIONS = " ".join(f"-c {name}={value}" for name, value in _SETTINGS.items())


def postgres_engine(url: URL) -> Engine:
    """Make an engine whose transactions whoever connects has to begin by a statement: it says their isolation."""
    from malleable.store.libpq import end

    engine = create_engine(
        url,
        connect_args={
            "options": _SERVER_OPTIONS,
            "application_name": "malleable",
            "prepare_threshold": None,  # ``libpq`` prepares, and forgets all that is prepared on the connection
            **ALIVE,
        },
        **_ENGINE_OPTIONS,
    )

    engine.dialect.do_commit = partial(end, sql="COMMIT")  # type: ignore[method-assign]
    engine.dialect.do_rollback = partial(end, sql="ROLLBACK")  # type: ignore[method-assign]
    return engine


_ENGINE_OPTIONS: dict[str, Any] = {
    "poolclass": NullPool,  # ``Connections`` keeps them
    "json_serializer": to_json,
    "json_deserializer": from_json,
    "hide_parameters": True,  # an exception's text must not hold what tenants wrote
    "query_cache_size": 1000,
}
