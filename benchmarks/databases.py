"""The two databases a server may have, each as durable as in use."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.postgres import running_postgres

SQLITE, POSTGRESQL = "SQLite", "PostgreSQL"


@contextmanager
def database(kind: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Give the URL of an empty database ("": the server's own SQLite) and the pid of its server, if it has one."""
    if kind == SQLITE:
        yield "", ()
        return
    with running_postgres(is_durable=True) as server:
        yield server.url(server.create()), (server.pid,)
