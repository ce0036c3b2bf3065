"""One furnished site per test."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.conftest import KEY
from tests.contract.api.site import Site

from malleable.domain.store import Store
from malleable.store import open_store


@pytest.fixture
def site(store: Store, tmp_path: Path) -> Iterator[Site]:
    """The site on both databases."""
    yield from _furnished(store, tmp_path)


@pytest.fixture
def small_site(sqlite_store: Store, tmp_path: Path) -> Iterator[Site]:
    """The site on SQLite alone, for what does not depend on the database."""
    yield from _furnished(sqlite_store, tmp_path)


@pytest.fixture
def postgres_site(postgres_store: Store, tmp_path: Path) -> Iterator[Site]:
    """The site on PostgreSQL alone, where two transactions write beside each other."""
    yield from _furnished(postgres_store, tmp_path)


@pytest.fixture
def new_site(migrated_sqlite_file: Path, memory_path: Path) -> Iterator[Callable[[], Site]]:
    """Make as many sites as a test wants, each on a database of its own."""
    sites: list[Site] = []

    def make() -> Site:
        place = memory_path / str(len(sites))
        (place / "spool").mkdir(parents=True)
        shutil.copyfile(migrated_sqlite_file, place / "m.db")
        sites.append(Site(store=open_store(f"sqlite:///{place}/m.db", KEY), spool=place / "spool"))
        return sites[-1]

    yield make
    for site in sites:
        site.close()
        site.store.close()


def _furnished(store: Store, tmp_path: Path) -> Iterator[Site]:
    spool = tmp_path / "spool"
    spool.mkdir()
    site = Site(store=store, spool=spool)
    yield site
    site.close()
