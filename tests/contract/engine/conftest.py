"""One workshop per test, on either database."""

import pytest
from tests.contract.engine.shop import Shop

from malleable.store import SqlStore


@pytest.fixture
def shop(store: SqlStore) -> Shop:
    return Shop(store=store)
