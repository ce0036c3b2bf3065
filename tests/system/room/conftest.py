"""One room for all tests of a module: machines take long to boot."""

import os
from collections.abc import Iterator

import pytest
from tests.system.room.images import TINY
from tests.system.room.site import Site, open_site

ENROLLED, MACHINES = 2, 3


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Three machines, two of them enrolled, and a server."""
    if os.geteuid() != 0:
        pytest.skip("a machine room needs root")
    assert TINY.exists(), "build/images/tiny.json is missing: run `make tiny`"
    with open_site(machines=MACHINES, enrolled=ENROLLED) as opened:
        yield opened
