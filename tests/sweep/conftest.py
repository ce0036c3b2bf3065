"""One fresh site per test."""

import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from tests.postgres import Postgres
from tests.sweep.verb import Verb
from tests.sweep.world import World

from malleable.store import SqlStore, open_store
from malleable.store.migrate import upgrade

KEY = b"0" * 32


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database without rows, to be copied."""
    path = tmp_path_factory.mktemp("empty") / "m.db"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def new_world(request: pytest.FixtureRequest, memory_path: Path, empty_database: Path) -> Iterator[Callable[[], World]]:
    """Make as many independent sites as a test wants; on PostgreSQL, where its verb is, each ends the one before."""
    stores: list[SqlStore] = []
    numbers = count()
    verb = request.node.callspec.params.get("verb") if hasattr(request.node, "callspec") else None
    is_on_postgres = isinstance(verb, Verb) and verb.is_on_postgres

    def make() -> World:
        place = memory_path / str(next(numbers))
        place.mkdir()
        if is_on_postgres:
            url = _emptied(request, stores)
        else:
            shutil.copy(empty_database, place / "m.db")
            url = f"sqlite:///{place}/m.db"
        stores.append(open_store(url, KEY))
        return World(store=stores[-1], spool=place)

    yield make
    if is_on_postgres:
        _emptied(request, stores)
    for store in stores:
        store.close()


def _emptied(request: pytest.FixtureRequest, stores: list[SqlStore]) -> str:
    """Close the stores and empty the one PostgreSQL database that they were of; return its URL."""
    server: Postgres = request.getfixturevalue("postgres")
    name: str = request.getfixturevalue("migrated_postgres_database")
    for store in stores:
        store.close()
    stores.clear()
    server.empty(name)
    return server.url(name)
