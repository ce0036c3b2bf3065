"""Every kind of switch, in one shape for one suite."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from tests.contract.switches.room import BRIDGE, OvsRoom, ovs_room

from malleable.domain.ids import SwitchId, new_id
from malleable.domain.ports import Switches
from malleable.domain.secrets import Secret
from malleable.domain.switches import Switch
from malleable.drivers.switch.ovs import OvsSwitches
from malleable.sim.switches import Misbehaviour, SimSwitches

PORTS = ("n1", "n2", "n3")


@dataclass(frozen=True, kw_only=True)
class Bench:
    """One driver with one switch that has three ports as out of the box, and ways to break it."""

    driver: Switches
    switch: Switch
    lose_port: Callable[[str], object]  #: make the switch forget a port's configuration
    die: Callable[[], object]  #: make what forwards stop answering
    carried: Callable[[str], tuple[int | None, frozenset[int]]]  #: a port's VLANs, by another witness than the driver


def a_switch(address: str, **settings: str) -> Switch:
    return Switch(
        id=SwitchId(new_id()),
        name="leaf",
        driver="any",
        fabric="room",
        address=address,
        settings=settings,
        password=Secret(""),
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def sim_bench(driver: SimSwitches) -> Bench:
    address = "sim://leaf"
    driver.add(address, PORTS)
    return Bench(
        driver=driver,
        switch=a_switch(address),
        lose_port=lambda port: driver.drift(address, port, None),
        die=lambda: driver.misbehave(address, Misbehaviour.DEAD),
        carried=lambda port: _carried(driver, address, port),
    )


def _carried(driver: SimSwitches, address: str, port: str) -> tuple[int | None, frozenset[int]]:
    config = driver.carried(address, port)
    return (None, frozenset()) if config is None else (config.native_vid, config.tagged_vids)


_names = itertools.count()


@pytest.fixture(scope="session")
def room() -> Iterator[OvsRoom]:
    """One real Open vSwitch for all tests; each takes ports of its own."""
    with ovs_room() as running:
        yield running


@pytest.fixture
def fresh_room() -> Iterator[OvsRoom]:
    """A real Open vSwitch of one's own, to break."""
    with ovs_room() as running:
        for port in PORTS:
            running.add_port(port)
        yield running


def ovs_bench(running: OvsRoom) -> Bench:
    return Bench(
        driver=OvsSwitches(timeout_s=1.5),
        switch=a_switch(running.address, bridge=BRIDGE),
        lose_port=lambda port: running.vsctl("clear", "port", port, "tag", "trunks", "vlan_mode"),
        die=lambda: running.stop_daemon("ovs-vswitchd"),
        carried=lambda port: _told(running, port),
    )


def _told(running: OvsRoom, port: str) -> tuple[int | None, frozenset[int]]:
    tag, trunks = running.vsctl("get", "port", port, "tag", "trunks").split("\n")[:2]
    vids = frozenset(int(vid) for vid in trunks.strip("[]").split(",") if vid)
    return None if tag == "[]" else int(tag), vids - {4095}


@pytest.fixture(params=["sim", pytest.param("ovs", marks=pytest.mark.room)])
def bench(request: pytest.FixtureRequest) -> Bench:
    if request.param == "sim":
        return sim_bench(SimSwitches())
    return ovs_bench(request.getfixturevalue("fresh_room"))
