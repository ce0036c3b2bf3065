"""The way of statements to PostgreSQL: by libpq itself, every statement prepared once per connection.

psycopg turns values into PostgreSQL's and back. Its cursors, which wait in Python, are left out: whoever waits here
waits in C and lets other threads run.
"""

import select
from collections.abc import Sequence
from typing import Any

from psycopg import Connection, Error
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus, TransactionStatus

from malleable.store.statements import Line, Statement, Statements

_DONE = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)
#: PostgreSQL keeps each in memory; there are about 300 (one more per type of a value: a small and a large integer).
_PREPARED_MAX = 1000


class PostgresLine(Line):
    """To a PostgreSQL server."""

    errors = Error

    def __init__(self, driver: Connection, statements: Statements) -> None:
        super().__init__(driver, statements)
        self._transformer = Transformer(driver)
        self._prepared: dict[tuple[bytes, tuple[int, ...]], bytes] = {}

    def _send(self, statement: Statement, values: list[Any]) -> tuple[Sequence[Sequence[Any]], int]:
        transformer = self._transformer
        dumped = transformer.dump_sequence(values, [PyFormat.AUTO] * len(values))
        name = self._prepared.get((statement.encoded, transformer.types or ())) or self._prepare(statement)
        result = self._driver.pgconn.exec_prepared(name, dumped, transformer.formats)
        if result.status not in _DONE:
            raise error_from_result(result)
        transformer.set_pgresult(result)
        return transformer.load_rows(0, result.ntuples, tuple), result.command_tuples or 0

    def _prepare(self, statement: Statement) -> bytes:
        if len(self._prepared) >= _PREPARED_MAX:
            command(self._driver, "DEALLOCATE ALL")
            self._prepared.clear()
        types = self._transformer.types or ()
        name = b"malleable_%d" % len(self._prepared)
        result = self._driver.pgconn.prepare(name, statement.encoded, types)
        if result.status not in _DONE:
            raise error_from_result(result)
        self._prepared[statement.encoded, types] = name
        return name


def command(driver: Any, sql: str) -> None:
    """Run a command without values. Errors: psycopg's."""
    result = driver.pgconn.exec_(sql.encode())
    if result.status not in _DONE:
        raise error_from_result(result)


def prepare(driver: Connection, name: bytes, sql: bytes) -> None:
    """Have a statement with text values parsed and planned once. Errors: psycopg's."""
    result = driver.pgconn.prepare(name, sql)
    if result.status not in _DONE:
        raise error_from_result(result)


def run(driver: Connection, name: bytes, *texts: str) -> None:
    """Run what was prepared under a name. Errors: psycopg's."""
    result = driver.pgconn.exec_prepared(name, [text.encode() for text in texts])
    if result.status not in _DONE:
        raise error_from_result(result)


def end(driver: Any, sql: str) -> None:
    """Commit or roll back, if there is anything to end. Errors: psycopg's."""
    if driver.pgconn.transaction_status != TransactionStatus.IDLE:
        command(driver, sql)


def is_silent(driver: Any) -> bool:
    """Say whether the server has sent nothing, not even its farewell, to a connection that asked nothing."""
    poll = select.poll()
    poll.register(driver.pgconn.socket, select.POLLIN)
    return not poll.poll(0)
