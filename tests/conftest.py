"""Stores for every test that needs one: both databases, each test on its own copy of a migrated one."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.postgres import Postgres, running_postgres

from malleable.store import SqlStore, open_store
from malleable.store.migrate import upgrade

#: The stores' key.
KEY = bytes(range(32))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A throw-away PostgreSQL; fails with the reason when it cannot start."""
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def migrated_sqlite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty, migrated SQLite database to copy."""
    file = tmp_path_factory.mktemp("sqlite") / "migrated.db"
    upgrade(f"sqlite:///{file}")
    return file


@pytest.fixture(scope="session")
def migrated_postgres_database(postgres: Postgres) -> str:
    """A migrated PostgreSQL database, by name."""
    name = postgres.create()
    upgrade(postgres.url(name))
    return name


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A directory in memory, for databases that need no disk: there an fsync costs nothing."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(prefix="malleable-test-", dir=memory if os.access(memory, os.W_OK) else None) as place:
        yield Path(place)


@pytest.fixture
def sqlite_url(migrated_sqlite_file: Path, memory_path: Path) -> str:
    """A migrated, empty SQLite database."""
    file = memory_path / "malleable.db"
    shutil.copyfile(migrated_sqlite_file, file)
    return f"sqlite:///{file}"


@pytest.fixture
def postgres_url(postgres: Postgres, migrated_postgres_database: str) -> Iterator[str]:
    """A migrated, empty PostgreSQL database."""
    yield postgres.url(migrated_postgres_database)
    postgres.empty(migrated_postgres_database)


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest) -> str:
    """A migrated, empty database of either kind."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def sqlite_store(sqlite_url: str) -> Iterator[SqlStore]:
    store = open_store(sqlite_url, KEY)
    yield store
    store.close()


@pytest.fixture
def postgres_store(postgres_url: str) -> Iterator[SqlStore]:
    store = open_store(postgres_url, KEY)
    yield store
    store.close()


@pytest.fixture
def store(store_url: str) -> Iterator[SqlStore]:
    """An empty store; every test that asks for it runs on both databases."""
    opened = open_store(store_url, KEY)
    yield opened
    opened.close()
