"""One fresh site per test."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
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
def new_world(memory_path: Path, empty_database: Path) -> Iterator[Callable[[], World]]:
    """Make as many independent sites as a test wants."""
    stores: list[SqlStore] = []

    def make() -> World:
        place = memory_path / str(len(stores))
        place.mkdir()
        shutil.copy(empty_database, place / "m.db")
        stores.append(open_store(f"sqlite:///{place}/m.db", KEY))
        return World(store=stores[-1], spool=place)

    yield make
    for store in stores:
        store.close()
