"""The knobs of the simulated BMCs."""

import threading

import pytest
from tests.contract.power.conftest import ADDRESS, MACHINE, Room, credentials

from malleable.domain.errors import DriverError, Malformed, Refused, Unreachable
from malleable.domain.nodes import PowerState
from malleable.domain.secrets import Secret
from malleable.sim.bmcs import SimBmcs, SimMachine, later_in_a_thread
from malleable.sim.faults import FaultKind
from malleable.sim.power import SimPower

ON, OFF = PowerState.ON, PowerState.OFF
NAME = MACHINE.name


@pytest.fixture
def room() -> Room:
    return Room()


@pytest.fixture
def driver(room: Room) -> SimPower:
    return SimPower(room.bmcs, faults=room.faults)


def test_a_later_wish_overtakes_an_earlier_one(room: Room, driver: SimPower) -> None:
    driver.set(credentials(ADDRESS), ON)
    driver.set(credentials(ADDRESS), OFF)
    room.run_later()
    assert room.happened == []
    assert room.bmcs.view(NAME).power is OFF


def test_a_machine_can_change_its_power_by_itself(room: Room, driver: SimPower) -> None:
    room.bmcs.force(NAME, ON)
    assert driver.state(credentials(ADDRESS)) is ON
    driver.set(credentials(ADDRESS), OFF)
    room.bmcs.force(NAME, OFF)
    room.run_later()
    assert room.happened == [(NAME, ON), (NAME, OFF)]


def test_without_a_delay_power_changes_at_once() -> None:
    bmcs = SimBmcs()
    bmcs.add(ADDRESS, MACHINE, username="admin", password=Secret("good"))
    SimPower(bmcs).set(credentials(ADDRESS), ON)
    assert bmcs.view(NAME).power is ON


def test_real_time_runs_in_a_thread() -> None:
    done = threading.Event()
    later_in_a_thread(0.001, done.set)
    assert done.wait(5)


def test_machines_have_unique_names(room: Room) -> None:
    with pytest.raises(ValueError, match=NAME):
        room.bmcs.add("sim://other", SimMachine(name=NAME), username="u", password=Secret("p"))


def test_every_call_takes_its_time(room: Room) -> None:
    waited: list[float] = []
    driver = SimPower(room.bmcs, call_s=0.3, delay=waited.append)
    driver.state(credentials(ADDRESS))
    driver.faults.add("state", FaultKind.SLOW, delay_s=7)
    driver.state(credentials(ADDRESS))
    assert waited == [0.3, 0.3, 7]


@pytest.mark.parametrize(
    ("kind", "error", "done"),
    [
        (FaultKind.LOST_REQUEST, Unreachable, False),
        (FaultKind.LOST_REPLY, Unreachable, True),
        (FaultKind.REFUSED, Refused, False),
        (FaultKind.MALFORMED, Malformed, False),
    ],
)
def test_fails_as_ordered(room: Room, driver: SimPower, kind: FaultKind, error: type[DriverError], done: bool) -> None:
    room.faults.add("set", kind, key=ADDRESS)
    with pytest.raises(error):
        driver.set(credentials(ADDRESS), ON)
    room.run_later()
    assert room.happened == ([(NAME, ON)] if done else [])
