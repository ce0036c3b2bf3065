"""What `m2d doctor` finds in the database of a server."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.contract.store import values

from malleable.config import Settings
from malleable.store import open_store
from malleable.store.migrate import upgrade
from malleable.wiring.assembly import make_directories
from malleable.wiring.doctor import Finding, examine_room
from malleable.wiring.keys import database_key


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path / "state", run_dir=tmp_path / "run", database_url="")


def found(settings: Settings) -> Mapping[str, Finding]:
    return {finding.what: finding for finding in examine_room(settings)}


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
