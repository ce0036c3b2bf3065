"""Which driver a pool gets."""

from pathlib import Path

import pytest

from malleable.config import PoolSettings, Settings
from malleable.domain.errors import Invalid
from malleable.drivers.storage.qcow2 import Qcow2Disks
from malleable.drivers.storage.reflink import ReflinkDisks
from malleable.wiring import pools
from malleable.wiring.assembly import gateway_settings
from malleable.wiring.pools import chosen, local_pool, pool_limits, remote_limits


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path / "state", run_dir=tmp_path / "run", database_url="")


def with_driver(settings: Settings, driver: str) -> Settings:
    return settings.model_copy(update={"pool": PoolSettings.model_validate({"driver": driver})})


def lacking(monkeypatch: pytest.MonkeyPatch, *lacks: str) -> None:
    monkeypatch.setattr(pools, "_shares_blocks", lambda _: False)
    monkeypatch.setattr(pools, "_has", lambda need: need not in lacks)


def test_where_an_xfs_can_be_mounted_nothing_else_is_chosen(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking(monkeypatch)
    assert (chosen(settings).driver, chosen(settings).why) == ("reflink", "on an XFS of its own")
    assert isinstance(local_pool(settings), ReflinkDisks)
    assert not settings.state_dir.exists(), "nothing is made by looking"


def test_without_loop_devices_layers_are_chosen_and_it_is_said_why(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking(monkeypatch, "/dev/loop-control", "xfs")
    choice = chosen(settings)
    assert choice.driver == "qcow2"
    assert "lacks /dev/loop-control, xfs" in choice.why
    assert isinstance(local_pool(settings), Qcow2Disks)
    assert pools.portal_threads(settings) == pools.DIRECT_PORTAL_THREADS


def test_where_nothing_will_do_it_is_said_what_each_lacks(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    lacking(monkeypatch, "mkfs.xfs", "/dev/fuse")
    assert chosen(settings).driver == "reflink"
    assert "lacks mkfs.xfs" in chosen(settings).why
    assert "/dev/fuse" in chosen(settings).why


def test_a_pool_stays_what_it_was_begun_as(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    lacking(monkeypatch)
    (settings.state_dir / "pool" / "layers").mkdir(parents=True)
    assert chosen(settings).driver == "qcow2"
    assert chosen(with_driver(settings, "qcow2")).why == "as the settings say"
    assert chosen(with_driver(settings, "rbd")).driver == "rbd"
    with pytest.raises(Invalid, match="begun with qcow2"):
        chosen(with_driver(settings, "reflink"))
    (settings.state_dir / "pool" / "layers").rmdir()
    (settings.state_dir / "pool" / "pool.xfs").touch()
    assert chosen(settings).driver == "reflink"
    with pytest.raises(Invalid, match="begun with reflink"):
        chosen(with_driver(settings, "qcow2"))


@pytest.mark.parametrize("driver", ["rbd", "acme"])
def test_a_pool_elsewhere_is_none_that_a_gateway_opens_or_guards(settings: Settings, driver: str) -> None:
    """``acme``: an array, added as docs/howto/add-an-array.md says."""
    elsewhere = settings.model_copy(update={"pool": settings.pool.model_copy(update={"driver": driver})})
    assert gateway_settings(elsewhere).pool is None
    assert isinstance(gateway_settings(with_driver(settings, "reflink")).pool, ReflinkDisks)


def test_a_pool_that_hangs_leaves_threads_to_others_and_a_project_leaves_half_of_the_rest(settings: Settings) -> None:
    for threads in (4, 16, 24, settings.worker.threads, 256):
        worker = settings.worker.model_copy(update={"threads": threads})
        limits = pool_limits(with_driver(settings, "rbd").model_copy(update={"worker": worker}))
        assert limits["pool"] + limits["frozen"] <= threads * 3 // 4
        assert all(limits[f"{kind}-project"] <= limits[kind] // 2 for kind in ("pool", "frozen") if limits[kind] > 1)


def test_a_worker_of_few_threads_still_asks_the_pool() -> None:
    assert all(min(remote_limits(threads).values()) == 1 for threads in (1, 2, 3))
    assert remote_limits(3)["pool"] + remote_limits(3)["frozen"] < 3


def test_a_pool_on_this_host_is_asked_by_all(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    lacking(monkeypatch)
    assert pool_limits(with_driver(settings, "reflink"))["pool"] == 0
