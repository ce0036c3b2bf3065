"""The simulated machine room: machines, switches and target daemons that behave like the real ones, in memory.

A machine that gets power asks the network its port really carries for a boot script, logs in to its disk, and comes
up, or stays dark and says why on its console: exactly what a wrong VLAN, a missing intent or a wrong secret does to a
real one.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from malleable.domain.ids import NetworkId
from malleable.domain.images import BootWay
from malleable.domain.nodes import Firmware, PowerState
from malleable.domain.ports import InspectedNic, Session
from malleable.domain.scrubs import Scrub
from malleable.domain.secrets import Secret
from malleable.sim.agents import Freeze, Manner, says
from malleable.sim.bmcs import Later, Override, SimBmcs, SimMachine
from malleable.sim.switches import SimSwitches
from malleable.sim.targets import LoginRefused, SimTargets


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long things take, in seconds; all zero for tests and benchmarks."""

    bmc_call_s: float = 0.0
    power_s: float = 0.0
    firmware_s: float = 0.0  #: from power-on to the boot script
    kernel_s: float = 0.0  #: from the boot script to the operating system's own login
    system_s: float = 0.0  #: from there to phoning home
    switch_call_s: float = 0.0


#: Shaped after a real server, but for its firmware's self-test: nobody tries software for three minutes of that.
LIFELIKE = Pace(bmc_call_s=0.02, power_s=0.4, firmware_s=1.5, kernel_s=1.2, system_s=0.8, switch_call_s=0.01)
INSTANT = Pace()


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What a network's gateway has in force for one MAC address."""

    boot_id: UUID
    address: str
    way: BootWay
    iqn: str
    initiator_iqn: str
    chap: tuple[str, Secret]
    has_hook: bool = False  #: its system reports the end of its first-boot script
    freeze: Freeze | None = None


@dataclass(slots=True)
class _Machine:
    nic: str
    switch: str
    port: str
    boots: int = 0  #: grows with every power change, so that an overtaken boot does not go on
    session: tuple[NetworkId, str, Session] | None = None


@dataclass(slots=True)
class _Served:
    network_id: NetworkId
    intents: Mapping[str, Intent] = field(default_factory=dict)


class SimRoom:
    """Machines that boot from one NIC each, wired to simulated switches. Safe to use from many threads."""

    def __init__(
        self,
        *,
        switches: SimSwitches,
        targets: SimTargets,
        later: Later,
        pace: Pace = INSTANT,
        on_sign: Callable[[UUID, str], object] = lambda _boot_id, _stage: None,
        on_report: Callable[[UUID, UUID, str], object] = lambda _boot_id, _freeze_id, _stage: None,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Build an empty room; ``on_sign`` is told the signs of life by boot id, as a gateway sees them.

        So is ``on_report`` what agents say of freezes. ``agents`` says how they behave.
        """
        self.agents = Manner.ABLE
        self.bmcs = SimBmcs(power_s=pace.power_s, later=later, on_power=self._power_changed)
        self.switches, self.targets = switches, targets
        self._later, self._pace, self._on_sign, self._on_report = later, pace, on_sign, on_report
        self._monotonic_s = monotonic_s
        self._told: dict[UUID, Freeze] = {}  #: what agents know, by boot
        self._told_at_s: dict[UUID, float] = {}  #: since when of this freeze
        self._lock = threading.RLock()
        self._machines: dict[str, _Machine] = {}
        self._served: dict[int, _Served] = {}

    def add_machine(
        self,
        name: str,
        *,
        address: str,
        password: Secret,
        mac: str,
        switch: str,
        port: str,
        firmware: Firmware,
        more_macs: tuple[str, ...] = (),
        can_scrub: tuple[Scrub, ...] = (),
        drives: tuple[str, ...] = (),
    ) -> None:
        """Rack a machine: its BMC at ``address``, its NIC ``mac`` cabled to ``port`` of the switch at ``switch``.

        It never boots from its other NICs, ``more_macs``, nor from its local ``drives``.
        """
        with self._lock:
            self._machines[name] = _Machine(nic=mac, switch=switch, port=port)
        machine = SimMachine(
            name=name,
            firmware=firmware,
            serial=f"SIM-{name}",
            cpu_count=32,
            memory_mib=262_144,
            nics=tuple(InspectedNic(name=f"NIC.{n}", mac=m) for n, m in enumerate((mac, *more_macs), start=1)),
            can_scrub=can_scrub,
            drives=drives,
        )
        self.bmcs.add(address, machine, username="admin", password=password)

    def serve(self, vid: int, network_id: NetworkId, intents: Mapping[str, Intent]) -> None:
        """Put a network's boot intents, by MAC address, in force on its VLAN."""
        with self._lock:
            self._served[vid] = _Served(network_id=network_id, intents=dict(intents))
        for mac, intent in intents.items():
            if intent.freeze is not None:
                self._tell_agent(mac, intent.boot_id, intent.freeze)

    def withdraw(self, network_id: NetworkId) -> None:
        """Stop serving a network."""
        with self._lock:
            self._served = {v: s for v, s in self._served.items() if s.network_id != network_id}

    def running(self) -> Iterable[str]:
        """Name the machines whose operating system is up."""
        with self._lock:
            return sorted(name for name, machine in self._machines.items() if machine.session is not None)

    # -- what a machine does ----------------------------------------------------------------------------------------

    def _power_changed(self, name: str, power: PowerState) -> None:
        with self._lock:
            machine = self._machines[name]
            machine.boots += 1
            boots, gone, machine.session = machine.boots, machine.session, None
        if gone is not None:
            self.targets.logout(*gone)
        if power is PowerState.ON:
            self._say(name, "firmware: self-test passed")
            if self.bmcs.view(name).booted is Override.DISK:
                self._say(name, "firmware: starting from the disk inside")
                return
            self._later(self._pace.firmware_s, lambda: self._ask_for_script(name, boots))

    def _ask_for_script(self, name: str, boots: int) -> None:
        if (machine := self._current(name, boots)) is None:
            return
        carried = self.switches.carried(machine.switch, machine.port)
        served = self._served.get(carried.native_vid or 0) if carried is not None else None
        intent = served.intents.get(machine.nic) if served else None
        if served is None or intent is None:
            where = "no answer to DHCP" if served is None else "no boot intent for this machine"
            self._say(name, f"iPXE: net0 {machine.nic}: {where}")
            return
        self._on_sign(intent.boot_id, "script_fetched")
        if (firmware := self._login(name, served.network_id, intent)) is None:
            return
        self._say(name, f"iPXE: booting from {intent.iqn}")
        if intent.way is BootWay.KERNEL:
            self._on_sign(intent.boot_id, "kernel_fetched")
        place = (served.network_id, intent.iqn, firmware)
        self._later(self._pace.kernel_s, lambda: self._start_system(name, boots, intent, place))

    def _start_system(self, name: str, boots: int, intent: Intent, firmware: tuple[NetworkId, str, Session]) -> None:
        network_id = firmware[0]
        machine = self._current(name, boots)
        session = self._login(name, network_id, intent, alias=name) if machine is not None else None
        self.targets.logout(*firmware)
        if machine is None or session is None:
            return
        with self._lock:
            machine.session = (network_id, intent.iqn, session)
        self._say(name, "systemd: reached target basic system")
        self._later(self._pace.system_s, lambda: self._phone_home(name, boots, intent))

    def _phone_home(self, name: str, boots: int, intent: Intent) -> None:
        if self._current(name, boots) is None:
            return
        self._say(name, f"{name} login:")
        self._on_sign(intent.boot_id, "metadata_fetched")
        if self.agents is not Manner.ABSENT:
            self._on_sign(intent.boot_id, "agent_seen")
        self._on_sign(intent.boot_id, "phoned_home")
        if intent.has_hook:
            self._on_sign(intent.boot_id, "finished")

    def _tell_agent(self, mac: str, boot_id: UUID, freeze: Freeze) -> None:
        """Have the agent of a machine that is up do what is news to it."""
        with self._lock:
            is_up = any(machine.nic == mac and machine.session is not None for machine in self._machines.values())
            known, now_s = self._told.get(boot_id), self._monotonic_s()
            if not is_up or known == freeze:
                return
            if known is None or known.id != freeze.id:
                self._told_at_s[boot_id] = now_s
            self._told[boot_id] = freeze
            held_s = now_s - self._told_at_s[boot_id]
        for stage in says(self.agents, freeze, held_s):
            self._on_report(boot_id, freeze.id, stage)

    def _current(self, name: str, boots: int) -> _Machine | None:
        with self._lock:
            machine = self._machines[name]
            return machine if machine.boots == boots else None

    def _login(self, name: str, network_id: NetworkId, intent: Intent, alias: str = "") -> Session | None:
        try:
            return self.targets.login(
                network_id,
                intent.iqn,
                address=intent.address,
                chap=intent.chap,
                initiator_iqn=intent.initiator_iqn,
                alias=alias,
            )
        except LoginRefused as e:
            self._say(name, f"iSCSI: could not open SAN device: {e}")
            return None

    def _say(self, name: str, text: str) -> None:
        self.bmcs.write_console(name, text)
