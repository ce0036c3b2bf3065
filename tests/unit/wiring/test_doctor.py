"""What `m2d doctor` finds in the database of a server."""

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError
from tests.contract.store import values

from malleable.config import Settings
from malleable.domain import portals
from malleable.domain.gateways import ALL_FABRICS, Gateway
from malleable.domain.ids import GatewayId, new_id
from malleable.gateway import process
from malleable.gateway.fabrics import Fabrics
from malleable.gateway.layout import NetworkLayout
from malleable.store import open_store
from malleable.store.migrate import upgrade
from malleable.wiring import pools
from malleable.wiring.assembly import gateway_settings, make_directories
from malleable.wiring.doctor import Finding, examine, examine_room
from malleable.wiring.keys import database_key


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path / "state", run_dir=tmp_path / "run", database_url="")


def found(settings: Settings) -> Mapping[str, Finding]:
    return {finding.what: finding for finding in examine_room(settings)}


def test_who_is_not_root_needs_no_directory_that_a_login_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    assert Settings().run_dir == tmp_path / "malleable" / "run"
    assert Settings(state_dir=tmp_path / "other").run_dir == tmp_path / "other" / "run"
    assert [str(warning.message) for warning in recwarn] == []


def test_where_no_database_is_there_is_nothing_to_find(settings: Settings) -> None:
    assert found(settings) == {}
    assert not settings.state_dir.exists()


def test_silent_switches_and_networks_that_nobody_serves_are_found(settings: Settings) -> None:
    make_directories(settings)
    upgrade(settings.database)
    assert all(finding.is_good for finding in found(settings).values())
    store = open_store(settings.database, database_key(settings.state_dir))
    lagging = values.network(name="blue", generation=5, served_generation=4)
    with store.transaction() as tx:
        tx.switches.add(values.switch(name="tor1", driver="ovs", address="tcp:127.0.0.1:1", settings={"bridge": "br0"}))
        tx.switches.add(values.switch(name="tor2"))
        tx.networks.add(lagging)
    store.close()
    look = found(settings)
    assert [what for what, finding in look.items() if not finding.is_good] == ["switch tor1", "gateway"]
    assert look["gateway"].said == "1 of 1 networks wait for it: blue"
    assert look["switch tor1"].fix
    assert look["switch tor2"].said == "not looked at: its driver is sim"


def test_a_target_daemon_that_does_not_run_is_found_by_its_name(settings: Settings) -> None:
    with tempfile.TemporaryDirectory() as short:  # pytest's are too long for a socket's name
        _find_daemons(settings.model_copy(update={"run_dir": Path(short)}))


def _find_daemons(settings: Settings) -> None:
    make_directories(settings)
    upgrade(settings.database)
    network = values.network(name="blue", portal_epoch=portals.tell(["a", "b"], {1}))
    store = open_store(settings.database, database_key(settings.state_dir))
    with store.transaction() as tx:
        tx.networks.add(network)
    store.close()
    assert "target daemons" not in found(settings), "another host serves it"
    layout = NetworkLayout(run_dir=gateway_settings(settings).run_dir, network_id=network.id)
    layout.directory.mkdir(parents=True)
    running = process.identify(os.getpid())
    assert running is not None
    layout.pid_file("tgtd").write_text(json.dumps(asdict(running)))
    assert found(settings)["target daemons"].said == "tgtd-1 of network blue does not run"
    layout.pid_file("tgtd-1").write_text(json.dumps(asdict(running)))
    look = found(settings)["target daemons"]
    assert (look.is_good, look.said) == (True, "1 tgtd, 1 tgtd-1 (drained)")


@pytest.mark.parametrize("drained", ["[2]", "[0, 1]", "[-1]"])
def test_daemons_that_are_not_there_are_not_drained(drained: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M2D_TARGETS__DAEMONS", "2")
    monkeypatch.setenv("M2D_TARGETS__DRAINED", drained)
    with pytest.raises(ValidationError, match="some of the numbers 0 to 1, and not all"):
        Settings()


def test_a_gateway_that_is_silent_or_in_trouble_is_found(settings: Settings) -> None:
    make_directories(settings)
    upgrade(settings.database)
    store = open_store(settings.database, database_key(settings.state_dir))
    now = datetime.now(UTC)
    told = {"host1": (now, ()), "host2": (now - timedelta(minutes=5), ()), "host3": (now, ("tgtd does not answer.",))}
    with store.transaction() as tx:
        for name, (seen_at, troubles) in told.items():
            id, serves = GatewayId(new_id()), (ALL_FABRICS,)
            fresh = Gateway(id=id, name=name, seen_at=seen_at, troubles=troubles, serves=serves, created_at=now)
            tx.gateways.add(fresh)
    store.close()
    bad = {(finding.what, finding.said) for finding in examine_room(settings) if not finding.is_good}
    assert {what for what, _ in bad} == {"gateway host2", "gateway host3"}
    assert ("gateway host3", "tgtd does not answer.") in bad


def test_a_second_bridge_is_none_that_is_named_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M2D_UPLINK__BRIDGES", '{"roof": "br1"}')
    for bridge in ("br0", "br1"):
        monkeypatch.setenv("M2D_UPLINK__SECOND_BRIDGE", bridge)
        with pytest.raises(ValidationError, match=r"second_bridge: a bridge of its own"):
            Settings()
    monkeypatch.setenv("M2D_UPLINK__SECOND_BRIDGE", "br2")
    assert gateway_settings(Settings()).fabrics == Fabrics(names=("roof",), has_second=True)


@pytest.mark.parametrize(
    "bridges", ['{"roof": "br0"}', '{"a": "br1", "b": "br1"}', '{"roof": ""}', '{"": "br1"}', '{"Roof": "br1"}']
)
def test_a_bridge_of_ones_own_is_nobody_elses(bridges: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M2D_UPLINK__BRIDGES", bridges)
    with pytest.raises(ValidationError, match=r"bridge of its own|no fabric's name"):
        Settings()


def test_of_a_pool_that_cannot_be_it_is_said_what_every_kind_lacks(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pools, "_shares_blocks", lambda _: False)
    monkeypatch.setattr(pools, "_has", lambda need: need not in ("/dev/loop-control", "/dev/fuse"))
    settings.state_dir.mkdir()
    (settings.state_dir / "pool").touch()  # in its way
    (pool,) = (finding for finding in examine(settings) if finding.what == "disk pool")
    assert not pool.is_good
    assert "an XFS of its own lacks /dev/loop-control; qcow2 would lack /dev/fuse: " in pool.said
