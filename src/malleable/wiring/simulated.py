"""A simulated site behind the real control plane: machines, switches, pool, target daemons, and a gateway for them."""

import threading
import time
from collections import deque
from dataclasses import dataclass
from uuid import UUID

import structlog

from malleable.domain.drivers import DriverFacts
from malleable.domain.errors import MalleableError
from malleable.domain.gateways import BEAT_S
from malleable.domain.ids import NetworkId
from malleable.domain.networks import NetworkState
from malleable.domain.nodes import Firmware
from malleable.domain.ports import Drivers
from malleable.domain.scrubs import Scrub
from malleable.domain.secrets import Secret, random_secret
from malleable.drivers.convert.qemu import QemuConverter
from malleable.gateway.control_plane import ControlPlane
from malleable.services.bootstrap import bootstrap_gateway
from malleable.sim.agents import Freeze
from malleable.sim.disks import SimDisks
from malleable.sim.faults import Faults
from malleable.sim.power import SimPower
from malleable.sim.room import Intent, Pace, SimRoom
from malleable.sim.schedule import Schedule
from malleable.sim.switches import SimSwitches
from malleable.sim.targets import SimTargets
from malleable.wire.gateway import (
    BootSign,
    BootStage,
    DesiredNetwork,
    GatewayBeat,
    ReportsRequest,
    ServedNetwork,
    SignsRequest,
)
from malleable.wiring.assembly import Assembly
from malleable.wiring.beside import Beside

log = structlog.get_logger()

NODES_PER_SWITCH = 24
LONG_POLL_S = 20.0
RETRY_S = 0.5
#: A burst of changes is taken over together: a look reads whole networks, so the longer it took, the longer it rests.
REST_PER_LOOK = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedMachine:
    """What an operator would read off a machine's label to enrol it."""

    name: str
    bmc_address: str
    bmc_password: Secret
    mac: str
    switch: str
    port: str


class SimulatedSite:
    """Everything a data centre would bring, in memory."""

    def __init__(self, nodes: int, pace: Pace, *, can_scrub: tuple[Scrub, ...] = ()) -> None:
        """Rack ``nodes`` machines, 24 to a switch, all dark and unknown to the control plane.

        ``can_scrub``: what their BMCs know how to do; whoever can erase local disks has one.
        """
        self._can_scrub = can_scrub
        self.schedule = Schedule()
        self.faults = Faults()
        self.switches = SimSwitches(faults=self.faults, call_s=pace.switch_call_s)
        self.targets, self.disks = SimTargets(faults=self.faults), SimDisks(faults=self.faults)
        self._signs: deque[BootSign] = deque()
        self._news = threading.Event()
        self.room = SimRoom(
            switches=self.switches,
            targets=self.targets,
            later=self.schedule.later,
            pace=pace,
            on_sign=self._sign,
            on_report=self._report,
        )
        self.power = SimPower(self.room.bmcs, faults=self.faults, call_s=pace.bmc_call_s)
        count = -(-nodes // NODES_PER_SWITCH)
        self.switch_names = tuple(f"tor{n + 1}" for n in range(count))
        for name in self.switch_names:
            self.switches.add(f"sim://{name}", [f"Ethernet1/{p + 1}" for p in range(NODES_PER_SWITCH)])
        self.machines = tuple(self._rack(n) for n in range(nodes))

    def drivers(self) -> Drivers:
        """Hand the simulated devices to a worker."""
        return Drivers(
            power={"sim": self.power},
            switches={"sim": self.switches},
            disks=self.disks,
            targets=self.targets,
            converter=QemuConverter(),
            facts=tuple(
                DriverFacts(
                    kind=kind, name="sim", tested="simulated devices", bonds=kind == "switch", tunnels=kind == "switch"
                )
                for kind in ("power", "switch")
            ),
        )

    def close(self) -> None:
        """Let time stand still for good."""
        self.schedule.stop()

    def _rack(self, number: int) -> SimulatedMachine:
        switch, port = divmod(number, NODES_PER_SWITCH)
        machine = SimulatedMachine(
            name=f"n{number + 1:03d}",
            bmc_address=f"sim://n{number + 1:03d}",
            bmc_password=random_secret(),
            mac=f"52:54:00:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}",
            switch=self.switch_names[switch],
            port=f"Ethernet1/{port + 1}",
        )
        self.room.add_machine(
            machine.name,
            address=machine.bmc_address,
            password=machine.bmc_password,
            mac=machine.mac,
            switch=f"sim://{machine.switch}",
            port=machine.port,
            firmware=Firmware.BIOS if number % 2 else Firmware.UEFI,
            can_scrub=self._can_scrub,
            drives=("disk0",) if Scrub.DISKS in self._can_scrub else (),
        )
        return machine

    # -- the gateway --------------------------------------------------------------------------------------------------

    def gateway(self, assembly: Assembly, _url: str, stop: threading.Event) -> None:
        """Be this site's gateway until ``stop``."""
        control_plane = Beside(assembly.services, stop)
        control_plane.sign_in(bootstrap_gateway(assembly.services.parts, assembly.services.users, of="simulated"))
        threads = [
            threading.Thread(target=work, args=(control_plane, stop), daemon=True)
            for work in (self._follow, self._pass_signs_on)
        ]
        for thread in threads:
            thread.start()
        stop.wait()
        self._news.set()

    def _follow(self, control_plane: ControlPlane, stop: threading.Event) -> None:
        generation, beat_at_s = 0, 0.0
        while not stop.is_set():
            rest_s = RETRY_S
            try:
                if time.monotonic() >= beat_at_s:
                    control_plane.gateway_report(ReportsRequest(gateway=GatewayBeat(name="simulated")))
                    beat_at_s = time.monotonic() + BEAT_S
                view = control_plane.gateway_desired(generation, LONG_POLL_S)
                began_s = time.monotonic()
                if view.networks:
                    control_plane.gateway_report(self.serve(view.networks))
                    generation = max(generation, *(network.generation for network in view.networks))
                rest_s = REST_PER_LOOK * (time.monotonic() - began_s)
            except MalleableError as e:
                log.warning("simulated gateway", error=str(e))
            stop.wait(rest_s)

    def serve(self, networks: tuple[DesiredNetwork, ...]) -> ReportsRequest:
        """Put networks in force; return the report of it."""
        served, removed = [], []
        for network in networks:
            network_id = NetworkId(network.id)
            if network.state is NetworkState.REMOVING:
                self.room.withdraw(network_id)
                removed.append(network.id)
                continue
            self.targets.start(network_id)
            self.room.serve(network.vid, network_id, _intents(network))
            epoch = f"simulated-{network.id}"
            served.append(ServedNetwork(id=network.id, served_generation=network.generation, portal_epoch=epoch))
        return ReportsRequest(networks=tuple(served), removed=tuple(removed))

    def _sign(self, boot_id: UUID, stage: str) -> None:
        self._signs.append(BootSign(boot_id=boot_id, stage=BootStage(stage)))
        self._news.set()

    def _report(self, boot_id: UUID, freeze_id: UUID, stage: str) -> None:
        self._signs.append(BootSign(boot_id=boot_id, stage=BootStage(stage), freeze_id=freeze_id))
        self._news.set()

    def _pass_signs_on(self, control_plane: ControlPlane, stop: threading.Event) -> None:
        while not stop.is_set():
            self._news.wait()
            self._news.clear()
            signs = [self._signs.popleft() for _ in range(min(len(self._signs), 1000))]
            if not signs:
                continue
            try:
                control_plane.gateway_signs(SignsRequest(signs=tuple(signs)))
            except MalleableError as e:
                log.warning("simulated gateway", error=str(e))
                self._signs.extendleft(reversed(signs))
                stop.wait(RETRY_S)
            if self._signs:
                self._news.set()


def _intents(network: DesiredNetwork) -> dict[str, Intent]:
    return {
        boot.mac: Intent(
            boot_id=boot.id,
            address=boot.address,
            way=boot.way,
            iqn=boot.iqn,
            initiator_iqn=boot.initiator_iqn,
            chap=(boot.chap_username, Secret(boot.chap_password)),
            has_hook=boot.has_hook,
            freeze=Freeze(id=boot.freeze.id, is_held=boot.freeze.is_held) if boot.freeze is not None else None,
        )
        for boot in network.boots
    }
