"""One fresh site per test."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.sweep.world import World

from malleable.store import open_store
from malleable.store.migrate import upgrade

KEY = b"0" * 32


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database without rows, to be copied."""
    path = tmp_path_factory.mktemp("empty") / "m.db"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def new_world(memory_path: Path, empty_database: Path) -> Callable[[], World]:
    """Make as many independent sites as a test wants."""
    count = 0

    def make() -> World:
        nonlocal count
        count += 1
        place = memory_path / str(count)
        place.mkdir()
        shutil.copy(empty_database, place / "m.db")
        return World(store=open_store(f"sqlite:///{place}/m.db", KEY), spool=place)

    return make
