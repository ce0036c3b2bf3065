"""One workshop per test, on either database."""

import threading
import time
from collections.abc import Callable

import pytest
from tests.contract.engine.shop import Shop

from malleable.store import SqlStore
from malleable.wiring.clock import SystemClock


@pytest.fixture
def shop(store: SqlStore) -> Shop:
    return Shop(store=store)


@pytest.fixture
def live(shop: Shop) -> Shop:
    """A workshop in real time."""
    shop.clock = SystemClock()
    return shop


class Until:
    """Wait for a condition without sleeping through it."""

    def __call__(self, is_so: Callable[[], bool], *, seconds: float) -> None:
        """Return as soon as ``is_so``. Errors: AssertionError when it is not within ``seconds``."""
        pause, deadline = threading.Event(), time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < deadline, f"not within {seconds} s"
            pause.wait(0.02)


@pytest.fixture
def until() -> Until:
    return Until()
