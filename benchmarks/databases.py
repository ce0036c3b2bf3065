"""The two databases a server may have, each as durable as in use."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile

from tests.postgres import running_postgres

from benchmarks.server import DURABLE_DIR

SQLITE, POSTGRESQL = "SQLite", "PostgreSQL"


@contextmanager
def database(kind: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Give the URL of an empty database ("": the server's own SQLite) and the pid of its server, if it has one."""
    if kind == SQLITE:
        yield "", ()
        return
    with running_postgres(is_durable=True) as server:
        yield server.url(server.create()), (server.pid,)


def durable_write_ms() -> float:
    """Append 8 KiB to a file where the databases are, and wait until the disk has them."""
    with TemporaryFile(dir=DURABLE_DIR) as file:
        began_s = time.perf_counter()
        file.write(bytes(8192))
        file.flush()
        os.fdatasync(file.fileno())
        return 1000 * (time.perf_counter() - began_s)
