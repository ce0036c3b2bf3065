"""The suite on a real Ceph, and what only Ceph can show."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.ceph import Ceph, missing_for_ceph, running_ceph
from tests.contract.disks import suite
from tests.contract.disks.conftest import Bench
from tests.contract.disks.rbd_bench import empty, rbd_bench, settings_of

from malleable.drivers.storage.rbd import RbdDisks
from malleable.drivers.storage.rbd_cluster import RbdSettings

pytestmark = [pytest.mark.room, pytest.mark.slow]


@pytest.fixture(scope="module")
def ceph() -> Iterator[Ceph]:
    """One real cluster for all tests."""
    if reason := missing_for_ceph():
        pytest.skip(reason)
    with running_ceph() as cluster:
        yield cluster


@pytest.fixture
def settings(ceph: Ceph, tmp_path: Path) -> RbdSettings:
    return settings_of(ceph, tmp_path / "cache")


@pytest.fixture(scope="module")
def one_connection(ceph: Ceph, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RbdDisks]:
    disks = RbdDisks(settings_of(ceph, tmp_path_factory.mktemp("cache")))
    yield disks
    # Closed before the cluster goes: a client waits for it at its end.
    disks.close()


@pytest.fixture
def disks(one_connection: RbdDisks) -> Iterator[RbdDisks]:
    """The pool, emptied after the test."""
    yield one_connection
    empty(one_connection)


@pytest.fixture
def bench(disks: RbdDisks, settings: RbdSettings, tmp_path: Path) -> Iterator[Bench]:
    with rbd_bench(disks, settings, tmp_path) as bench:
        yield bench


@pytest.mark.parametrize("rule", suite.RULES, ids=lambda rule: rule.__name__)
def test_pool_in_ceph_keeps_the_rule(rule: Callable[[Bench], None], bench: Bench) -> None:
    rule(bench)
