"""Looks into PostgreSQL beside a contention, and counts the transactions that waited in a circle."""

from collections.abc import Mapping
from threading import Event, Thread

import psycopg


def deadlocks_of(url: str) -> int:
    """Count what PostgreSQL had to end in this database; processes that have ended have told theirs."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").fetchone()
    assert row is not None
    return int(row[0])


class Watcher:
    """Looks all the time for what must never be."""

    def __init__(self, url: str, never: Mapping[str, str]) -> None:
        """Look by the queries of ``never`` for what must not be. Each is one statement, so it sees one moment."""
        self.url, self.never = url, never
        self.looks = 0
        self.found: list[str] = []
        self._is_over = Event()
        self._thread = Thread(target=self._watch)

    def __enter__(self) -> "Watcher":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            while not self._is_over.wait(0.01):
                for what, query in self.never.items():
                    self.found += [f"{what}: {row[0]}" for row in connection.execute(query)]
                self.looks += 1
