"""One room for all tests of a module: machines take long to boot."""

import os
from collections.abc import Iterator

import pytest
from tests.system.room.images import TINY
from tests.system.room.site import Site, open_site

from malleable.domain.scrubs import Demand, Scrub

ENROLLED, MACHINES = 2, 3


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Three machines, two of them enrolled, and a server that scrubs everything it can before it frees one."""
    if os.geteuid() != 0:
        pytest.skip("a machine room needs root")
    assert TINY.exists(), "build/images/tiny.json is missing: run `make tiny`"
    with pytest.MonkeyPatch.context() as settings:
        for scrub in Scrub:
            # Its machines have no TPM and no drives, so none can be cleared.
            is_lacking = scrub in (Scrub.TPM, Scrub.DISKS)
            settings.setenv(f"M2D_SCRUB__{scrub.upper()}", Demand.TRY if is_lacking else Demand.REQUIRED)
        with open_site(machines=MACHINES, enrolled=ENROLLED) as opened:
            yield opened
