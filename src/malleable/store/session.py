"""One database transaction: runs statements and maps the database's errors, in this one place."""

from collections.abc import Sequence

from sqlalchemy import Executable, RowMapping, text
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from malleable.domain.errors import Invalid, MalleableError, StoreBusy, Unavailable
from malleable.store.sealing import Seal
from malleable.store.statements import Answer, Line, Params
from malleable.store.turns import Turn

#: PostgreSQL: serialization_failure, deadlock_detected, lock_not_available, too_many_connections, query_canceled.
_BUSY_SQLSTATES = frozenset({"40001", "40P01", "55P03", "53300", "57014"})
#: What PostgreSQL's codes that begin so mean while its connection lives on, and what to do.
_POSTGRES_GONE = {
    "25006": ("only reads", "Name the primary's address, or promote this standby."),
    "53": ("has no room or memory left", "Make room there; what was committed is safe."),
    "57": ("is being stopped or started", "Check that PostgreSQL runs, then try again."),
    "58": ("cannot be read or written", "Check its server's disk and PostgreSQL's log."),
}
_SQLITE_BUSY = ("SQLITE_BUSY", "SQLITE_LOCKED")
#: What SQLite's own word for a file that is of no use means, and what to do.
_SQLITE_GONE = {
    "SQLITE_CANTOPEN": ("cannot be opened", "Check that its file exists, and its rights."),
    "SQLITE_IOERR": ("cannot be read or written", "Check its disk."),
    "SQLITE_FULL": ("has no room: its disk is full", "Make room there; what was committed is safe."),
    "SQLITE_CORRUPT": ("is damaged", "Restore its file from a copy."),
    "SQLITE_NOTADB": ("is none: the file is something else", "Name another file, or restore it from a copy."),
    "SQLITE_READONLY": ("cannot be written", "Check the rights of its file and directory."),
}


_QUEUE = text("SELECT pg_advisory_xact_lock(hashtext(:kind), hashtext(:name))")


class Session:
    """A transaction on one connection.

    After an error the transaction is rolled back and dead: every further statement is a programming error, so that no
    caller goes on with half of its work on one database and with none of it on the other.
    """

    __slots__ = (
        "_connection",
        "_is_dead",
        "_is_writable",
        "_line",
        "_turn",
        "channels",
        "dialect",
        "has_row_locks",
        "seal",
    )

    def __init__(self, turn: Turn, seal: Seal, *, is_writable: bool) -> None:
        self._turn = turn
        self._connection = connection = turn.connection
        self._line: Line = connection.info["line"]
        self._is_writable = is_writable
        self._is_dead = False
        self.seal = seal
        self.channels: set[str] = set()  #: to notify at the commit
        self.dialect = connection.dialect.name  #: "sqlite" or "postgresql"
        self.has_row_locks = self.dialect == "postgresql"  #: SQLite has one writer at a time instead

    @property
    def is_dead(self) -> bool:
        return self._is_dead

    def read(self, statement: Executable, params: Params | None = None) -> Answer:
        """Run a query. Errors: Busy, Unavailable, Invalid."""
        if self._is_dead:
            raise RuntimeError("this transaction was rolled back by an error; leave it and begin another")
        try:
            return self._line.run(statement, params or {})
        except (StatementError, OverflowError, UnicodeError) as e:
            if isinstance(e, DBAPIError) and e.connection_invalidated:
                self._connection.invalidate(e)
            self.roll_back()
            error = meaning_of(e)
            if error is None:
                raise
            raise error from e

    def write(self, statement: Executable, params: Params | None = None) -> Answer:
        """Change rows. Errors: as ``read``; IntegrityError, for the caller to explain (it is rolled back by then)."""
        self.require_writable()
        return self.read(statement, params)

    def queue_on(self, kind: str, name: str) -> None:
        """Wait for other transactions that queue on the same name; they wait for this one until its end.

        Two names of one hash only wait for each other. SQLite has one writer at a time anyway.
        """
        if self.has_row_locks:
            self.write(_QUEUE, {"kind": kind, "name": name})

    def require_writable(self) -> None:
        if not self._is_writable:
            raise RuntimeError("this transaction only reads; use Store.transaction()")

    def roll_back(self) -> None:
        """Give up all changes, and with them every lock."""
        self._is_dead = True
        self._turn.roll_back()

    def after_death(self, statement: Executable, params: Params) -> Sequence[RowMapping]:
        """Read what stood in the way of a transaction that was rolled back; sees what others have committed."""
        rows = self._connection.execute(statement, params).mappings().all()
        self._turn.roll_back()
        return rows


def meaning_of(e: Exception, place: str = "") -> MalleableError | None:
    """Map a database failure to the product's error; None when it is a broken constraint or a bug of ours.

    ``place`` is told where the database is of no use.
    """
    database = f"The database{f' {place}' if place else ''}"
    if isinstance(e, IntegrityError):
        return None
    if isinstance(e, PoolTimeout):
        return StoreBusy(
            "All database connections are in use.", fix="Try again; run more server processes if this repeats."
        )
    original = e.orig if isinstance(e, StatementError) else e
    if isinstance(e, DataError) or isinstance(original, OverflowError | UnicodeError):
        return Invalid("A value cannot be kept in the database.", fix="Use shorter numbers and text without NUL bytes.")
    code = getattr(original, "sqlstate", None) or ""
    if code in _BUSY_SQLSTATES:
        return StoreBusy("The database refused this transaction because of others beside it.", fix="Try again.")
    for gone, (what, fix) in _POSTGRES_GONE.items():
        if code.startswith(gone):
            return Unavailable(f"{database} {what}.", fix=fix)
    name = getattr(original, "sqlite_errorname", "")
    if name.startswith(_SQLITE_BUSY):
        return StoreBusy("Another process keeps the database locked.", fix="Try again; see which process has it open.")
    for gone, (what, fix) in _SQLITE_GONE.items():
        if name.startswith(gone):
            return Unavailable(f"{database} {what}.", fix=fix)
    if isinstance(e, DBAPIError) and e.connection_invalidated:
        return Unavailable(
            f"The connection to {database[0].lower()}{database[1:]} broke.",
            fix="Check that PostgreSQL runs, then try again.",
        )
    if type(original).__name__ == "OperationalError" and not code and not name:
        return Unavailable(f"{database} does not answer.", fix="Check that PostgreSQL runs and its address.")
    return None
