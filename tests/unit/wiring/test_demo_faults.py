"""Faults ordered in a demo's room from another terminal: they happen, they go away, and nobody else may order them."""

import json
import socket
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from malleable.domain.errors import DriverError, Invalid, MalleableError, NotFound, Refused, Unreachable
from malleable.domain.ids import SwitchId, new_id
from malleable.domain.nodes import PowerState
from malleable.domain.ports import Bmc
from malleable.domain.scrubs import Scrub
from malleable.domain.secrets import Secret
from malleable.domain.switches import PortConfig, Switch
from malleable.sim.room import INSTANT
from malleable.wiring.demo_door import ask, open_door
from malleable.wiring.demo_faults import OF_MACHINES, OF_SWITCHES, DemoFault, DemoFaults
from malleable.wiring.main import demo_fault
from malleable.wiring.simulated import SimulatedSite

PORT = "Ethernet1/1"
#: Nothing of these is seen in a machine's power.
OF_SCRUBS = {DemoFault.TPM_NOT_CLEARED, DemoFault.DISK_NOT_ERASED}
WANTED = PortConfig(native_vid=100)
URL = "http://127.0.0.1:1"


@pytest.fixture
def site() -> Iterator[SimulatedSite]:
    made = SimulatedSite(2, INSTANT, can_scrub=tuple(Scrub))
    yield made
    made.close()


@pytest.fixture
def faults(site: SimulatedSite) -> DemoFaults:
    return DemoFaults(site)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A demo's directory, in temporary files of our own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made = tmp_path / "malleable-demo-x"
    made.mkdir()
    return made


def switch_on(site: SimulatedSite) -> tuple[PowerState, PowerState]:
    """Ask machine n001's BMC for power; return what it says then, and what is so."""
    bmc = Bmc(address="sim://n001", username="admin", password=site.machines[0].bmc_password, system="")
    site.power.set(bmc, PowerState.ON)
    return site.power.state(bmc), site.room.bmcs.view("n001").power


def set_port(site: SimulatedSite) -> tuple[PortConfig, PortConfig | None]:
    """Configure a port of tor1; return what the switch says then, and what is so."""
    switch = Switch(
        id=SwitchId(new_id()),
        name="tor1",
        driver="sim",
        fabric="default",
        address="sim://tor1",
        settings={},
        password=Secret(""),
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    site.switches.apply(switch, {PORT: WANTED})
    return site.switches.read(switch, [PORT])[PORT], site.switches.carried("sim://tor1", PORT)


def outcome(site: SimulatedSite, target: str) -> object:
    """Use a machine or a switch; return what comes of it, or what kind of error."""
    try:
        return switch_on(site) if target == "n001" else set_port(site)
    except DriverError as e:
        return type(e)


@pytest.mark.parametrize("fault", sorted(set(DemoFault) - OF_SCRUBS - {DemoFault.SWITCH_SLOW, DemoFault.SWITCH_WIPED}))
def test_a_fault_lasts_until_it_is_mended(faults: DemoFaults, site: SimulatedSite, fault: DemoFault) -> None:
    target = "n001" if fault in OF_MACHINES else "tor1"
    good = (PowerState.ON, PowerState.ON) if target == "n001" else (WANTED, WANTED)
    faults.order(target, fault)
    assert outcome(site, target) != good
    assert outcome(site, target) != good or fault is DemoFault.LOST_REPLY
    assert faults.ordered() == {target: fault}
    faults.mend(target)
    if fault is DemoFault.RESET_IGNORED or fault is DemoFault.LIES_ABOUT_POWER:
        site.room.bmcs.force("n001", PowerState.OFF)
    assert outcome(site, target) == good
    assert faults.ordered() == {}


def test_the_faults_are_the_ones_they_are_called(faults: DemoFaults, site: SimulatedSite) -> None:
    expected = {
        DemoFault.BMC_SILENT: Unreachable,
        DemoFault.BMC_REFUSES: Refused,
        DemoFault.RESET_IGNORED: (PowerState.OFF, PowerState.OFF),
        DemoFault.LIES_ABOUT_POWER: (PowerState.ON, PowerState.OFF),
        DemoFault.SWITCH_DEAD: Unreachable,
        DemoFault.SWITCH_REFUSES: Refused,
        DemoFault.SWITCH_HALF: Unreachable,
    }
    for fault, wanted in expected.items():
        target = "n001" if fault in OF_MACHINES else "tor1"
        faults.order(target, fault)
        assert outcome(site, target) == wanted, fault
    faults.order("tor1", DemoFault.SWITCH_LIES)
    said, so = set_port(site)
    assert said == WANTED
    assert so != WANTED


def test_a_machine_that_cannot_be_scrubbed_is_found_out_until_it_is_mended(
    faults: DemoFaults, site: SimulatedSite
) -> None:
    bmc = Bmc(address="sim://n001", username="admin", password=site.machines[0].bmc_password, system="")
    faults.order("n001", DemoFault.TPM_NOT_CLEARED)
    with pytest.raises(Refused) as kept:
        site.power.clear_tpm(bmc)
    faults.order("n001", DemoFault.DISK_NOT_ERASED)
    site.power.clear_tpm(bmc)
    (drive,) = site.power.drives(bmc)
    work = site.power.erase_drive(bmc, drive.id)
    with pytest.raises(Refused) as failed:
        site.power.is_erased(bmc, work)
    assert (kept.value.code, failed.value.code) == ("tpm-not-kept", "erase-failed")


def test_a_slow_switch_does_what_it_is_told_and_answers_late(
    faults: DemoFaults, site: SimulatedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited_s: list[float] = []
    monkeypatch.setattr(site.switches, "_delay", waited_s.append)
    faults.order("tor1", DemoFault.SWITCH_SLOW)
    assert outcome(site, "tor1") == (WANTED, WANTED)
    assert waited_s == [3.0, 3.0], "to change and to read"


def test_a_wiped_switch_is_as_out_of_the_box_until_somebody_sets_it(faults: DemoFaults, site: SimulatedSite) -> None:
    assert outcome(site, "tor1") == (WANTED, WANTED)
    faults.order("tor1", DemoFault.SWITCH_WIPED)
    assert site.switches.carried("sim://tor1", PORT) is None, "every VLAN"
    assert outcome(site, "tor1") == (WANTED, WANTED)
    faults.order("n001", DemoFault.BMC_SILENT)
    assert site.switches.carried("sim://tor1", PORT) == WANTED, "another order does not wipe it again"


def test_only_the_one_named_is_broken_and_all_are_mended_at_once(faults: DemoFaults, site: SimulatedSite) -> None:
    faults.order("n002", DemoFault.BMC_SILENT)
    assert outcome(site, "n001") == (PowerState.ON, PowerState.ON)
    faults.order("tor1", DemoFault.SWITCH_DEAD)
    faults.mend(None)
    assert faults.ordered() == {}
    assert outcome(site, "tor1") == (WANTED, WANTED)


@pytest.mark.parametrize(("target", "fault"), [("n001", "switch-dead"), ("tor1", "bmc-silent"), ("n001", "nonsense")])
def test_what_cannot_be_ordered_is_refused_with_what_can(faults: DemoFaults, target: str, fault: str) -> None:
    with pytest.raises(Invalid) as caught:
        faults.order(target, fault)
    possible = OF_MACHINES if target == "n001" else OF_SWITCHES
    assert all(one in caught.value.fix for one in possible)
    with pytest.raises(NotFound):
        faults.order("n999", "bmc-silent")
    with pytest.raises(NotFound):
        faults.mend("n999")


def test_another_terminal_orders_and_is_told(faults: DemoFaults, site: SimulatedSite, place: Path) -> None:
    with open_door(place, URL, faults.answer):
        assert ask({"do": "look"}) == {}
        assert ask({"do": "order", "target": "tor1", "fault": "switch-dead"}, URL) == {"tor1": "switch-dead"}
        assert outcome(site, "tor1") is Unreachable
        with pytest.raises(MalleableError) as refused:
            ask({"do": "order", "target": "tor9", "fault": "switch-dead"})
        assert "tor9" in refused.value.message
        assert refused.value.fix
        assert ask({"do": "mend"}) == {}


def test_who_cannot_read_the_key_orders_nothing(faults: DemoFaults, place: Path) -> None:
    with open_door(place, URL, faults.answer):
        file = place / "room.json"
        assert file.stat().st_mode & 0o777 == 0o600
        port = json.loads(file.read_text())["port"]
        nonsense: tuple[object, ...] = ({"do": "order", "target": "tor1", "fault": "switch-dead"}, [], "no JSON")
        for sent in nonsense:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                connection.sendall((sent if isinstance(sent, str) else json.dumps(sent)).encode() + b"\n")
                assert "error" in json.loads(connection.makefile().readline())
        assert faults.ordered() == {}


def test_a_room_that_is_gone_is_not_found(faults: DemoFaults, place: Path) -> None:
    with open_door(place, URL, faults.answer):
        pass
    assert (place / "room.json").exists()
    with pytest.raises(NotFound) as caught:
        ask({"do": "look"})
    assert "m2d demo" in caught.value.fix


def test_of_several_rooms_one_must_be_named(faults: DemoFaults, place: Path) -> None:
    other = place.parent / "malleable-demo-y"
    other.mkdir()
    with open_door(place, URL, faults.answer), open_door(other, "http://127.0.0.1:2", faults.answer):
        with pytest.raises(Invalid) as caught:
            ask({"do": "look"})
        assert URL in caught.value.message
        assert ask({"do": "look"}, URL) == {}


def test_the_help_names_every_fault() -> None:
    named = (demo_fault.__doc__ or "").replace(",", " ").replace(".", " ").split()
    assert {fault.value for fault in DemoFault} <= set(named)
