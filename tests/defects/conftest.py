"""A small site with two tenants."""

from pathlib import Path

import pytest
from tests.model.site import Site

from malleable.store import SqlStore


@pytest.fixture
def site(store: SqlStore, tmp_path: Path) -> Site:
    """One site on each database."""
    return Site(store=store, spool=tmp_path)
