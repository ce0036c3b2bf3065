"""Every kind of BMC driver over the same simulated machines, in one shape for one suite."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import pytest

from malleable.domain.nodes import Firmware, PowerState
from malleable.domain.ports import Bmc, InspectedNic, Power
from malleable.domain.scrubs import Scrub
from malleable.domain.secrets import Secret
from malleable.drivers.power.redfish import RedfishPower
from malleable.sim.bmcs import SimBmcs, SimMachine
from malleable.sim.faults import Faults
from malleable.sim.power import SimPower
from malleable.sim.redfish import SimRedfish
from malleable.sim.redfish_tree import Quirk

ADDRESS = "sim://one"
TWINS = "sim://twins"
NIC = InspectedNic(name="nic0", mac="52:54:00:00:00:01")
MACHINE = SimMachine(
    name="node-1",
    firmware=Firmware.BIOS,
    system_uuid="5d2c3b1e-0000-4000-8000-00000000000a",
    vendor="Acme",
    model="Z1",
    serial="S-17",
    cpu_count=8,
    memory_mib=1536,
    nics=(NIC, InspectedNic(name="nic1", mac="52:54:00:00:00:02")),
    can_scrub=tuple(Scrub),
    drives=("disk0", "disk1"),
)


class Room:
    """Two BMCs: one with one machine, one with two. Power changes wait until ``run_later``."""

    address = ADDRESS

    def __init__(self) -> None:
        self.happened: list[tuple[str, PowerState]] = []
        self._later: list[Callable[[], None]] = []
        self.bmcs = SimBmcs(
            power_s=3.0,
            later=lambda delay_s, call: self._later.append(call),
            on_power=lambda name, power: self.happened.append((name, power)),
        )
        self.bmcs.add(ADDRESS, MACHINE, username="admin", password=Secret("good"))
        twins = (SimMachine(name="twin-1"), SimMachine(name="twin-2"))
        self.bmcs.add(TWINS, *twins, username="admin", password=Secret("good"))
        self.faults = Faults()

    def run_later(self) -> None:
        """Let the time of every power change asked for pass."""
        while self._later:
            self._later.pop(0)()


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A driver and where it finds the room's BMCs."""

    driver: Power
    bmc: Bmc
    twins: Bmc
    room: Room = field(default_factory=Room)

    def wrong_password(self) -> Bmc:
        return replace(self.bmc, password=Secret("bad"))


def sim_bench(driver: Callable[[Room], Power]) -> Bench:
    room = Room()
    return Bench(driver=driver(room), bmc=credentials(ADDRESS), twins=credentials(TWINS), room=room)


def credentials(address: str) -> Bmc:
    return Bmc(address=address, username="admin", password=Secret("good"))


def sim_driver(room: Room) -> Power:
    return SimPower(room.bmcs, faults=room.faults)


def wire(stack: ExitStack, room: Room, address: str, *quirks: Quirk) -> SimRedfish:
    return stack.enter_context(SimRedfish(room.bmcs, address, faults=room.faults, quirks=quirks))


@pytest.fixture
def redfish() -> Iterator[RedfishPower]:
    driver = RedfishPower(timeout_s=5.0)
    yield driver
    driver.close()


#: what the contract holds on, whatever a BMC lacks
KINDS: dict[str, tuple[Quirk, ...]] = {
    "redfish": (),
    "redfish-basic-auth": (Quirk.NO_SESSIONS,),
    "redfish-no-once": (Quirk.NO_ONCE,),
    "redfish-no-disabled": (Quirk.NO_DISABLED, Quirk.PAGED),
}


@pytest.fixture(params=["sim", *KINDS])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    if request.param == "sim":
        yield sim_bench(sim_driver)
        return
    quirks = KINDS[request.param]
    driver = RedfishPower(timeout_s=5.0)
    with ExitStack() as stack:
        room = Room()
        one, twins = (wire(stack, room, address, *quirks) for address in (ADDRESS, TWINS))
        yield Bench(driver=driver, bmc=credentials(one.url), twins=credentials(twins.url), room=room)
        driver.close()
