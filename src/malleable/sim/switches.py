"""SimSwitches: the Switches port over simulated switches, in memory."""

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from malleable.domain.errors import Malformed, Refused, Unreachable
from malleable.domain.switches import SHUT, PortConfig, Switch
from malleable.domain.tunnels import Tunnel
from malleable.sim.faults import Faults


class Misbehaviour(StrEnum):
    """How a switch goes wrong beyond a failing call."""

    DROPS = "accepts-then-drops"  #: accepts a change and does nothing
    LATE = "applies-late"  #: a change is in the data path only ``late_s`` after it was accepted
    LIES = "lies-on-read-back"  #: accepts a change, does nothing, and reads back what was asked
    HALF = "half-applies-a-batch"  #: changes the first half of the ports (rounded down), then the reply is lost
    SLOW = "slow"  #: does all that is asked, and answers every call only after ``late_s``
    DEAD = "dead"  #: answers nothing


@dataclass(slots=True, kw_only=True)
class _Port:
    #: what the data path does; None: as out of the box, a trunk of every VLAN, which PortConfig cannot tell
    carried: PortConfig | None = None
    asked: PortConfig | None = None
    pending: tuple[float, PortConfig] | None = None  #: when it will be carried, and what


@dataclass(slots=True, kw_only=True)
class _Switch:
    ports: dict[str, _Port]
    vtep: str = ""
    tunnels: frozenset[Tunnel] = frozenset()
    asked_tunnels: frozenset[Tunnel] = frozenset()
    tunnels_at_s: float = 0.0  #: when those that were asked for are there, of one that applies late
    misbehaviour: Misbehaviour | None = None
    late_s: float = 0.0
    is_bare: bool = False  #: it started anew, and nothing keeps nodes from its tunnels
    lock: threading.Lock = field(default_factory=threading.Lock)


class SimSwitches:
    """Any number of switches, known by address. Safe to use from many threads; one switch never waits for another."""

    def __init__(
        self,
        *,
        faults: Faults | None = None,
        call_s: float = 0.0,
        delay: Callable[[float], object] = time.sleep,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start without switches; every call takes ``call_s``, waited for by ``delay``.

        ``faults`` are keyed by the method's name and the switch's address.
        """
        self.faults = faults or Faults(delay=delay)
        self._call_s = call_s
        self._delay = delay
        self._monotonic_s = monotonic_s
        self._switches: dict[str, _Switch] = {}

    def add(self, address: str, ports: Iterable[str], *, vtep: str = "") -> None:
        """Make a switch with ports as out of the box: each carries every VLAN until it is configured.

        Between it and one with a ``vtep`` there is no trunk: only tunnels lead there.
        """
        self._switches[address] = _Switch(ports={name: _Port() for name in ports}, vtep=vtep)

    def misbehave(self, address: str, how: Misbehaviour | None, *, late_s: float = 0.0) -> None:
        """Make a switch go wrong from now on; None makes it good again, but does not repair what it did."""
        switch = self._switches[address]
        with switch.lock:
            switch.misbehaviour, switch.late_s = how, late_s

    def carried(self, address: str, port: str) -> PortConfig | None:
        """Say what a port really carries, whatever the switch says; None for every VLAN, as out of the box."""
        switch = self._switches[address]
        with switch.lock:
            return self._carried(switch.ports[port])

    def drift(self, address: str, port: str, config: PortConfig | None) -> None:
        """Change a port behind our back; None sets it back to what it is out of the box."""
        switch = self._switches[address]
        with switch.lock:
            switch.ports[port] = _Port(carried=config)

    def wipe(self, address: str) -> None:
        """Lose the whole configuration of a switch, as after a reset to factory settings."""
        switch = self._switches[address]
        with switch.lock:
            for name in switch.ports:
                switch.ports[name] = _Port()
            switch.tunnels = frozenset()

    def woven(self, address: str) -> frozenset[Tunnel]:
        """Say which tunnels a switch really has, whatever it says."""
        switch = self._switches[address]
        with switch.lock:
            return self._woven(switch)

    def rewire(self, address: str, tunnels: Collection[Tunnel]) -> None:
        """Change a switch's tunnels behind our back."""
        switch = self._switches[address]
        with switch.lock:
            switch.tunnels = frozenset(tunnels)

    def restart(self, address: str) -> None:
        """Have a switch start anew, without its guards."""
        switch = self._switches[address]
        with switch.lock:
            switch.is_bare = True
            for port in switch.ports.values():
                if port.carried is not None:
                    port.carried = replace(port.carried, guard=None)

    def meet(self, one: tuple[str, str], other: tuple[str, str]) -> bool:
        """Say whether two ports (address, name) of one fabric can really exchange an untagged or tagged frame."""
        ends = [self._switches[one[0]], self._switches[other[0]]]
        vids = [_vids(self.carried(*one)), _vids(self.carried(*other))]
        if one[0] == other[0] or not (ends[0].vtep or ends[1].vtep):
            return bool(vids[0] & vids[1])
        there = {(t.local, t.remote, t.vni) for t in self._woven(ends[0]) if t.vid in vids[0]}
        back = {(t.remote, t.local, t.vni) for t in self._woven(ends[1]) if t.vid in vids[1]}
        return bool(there & back)

    def check(self, switch: Switch) -> None:
        self._find(switch, "check")
        self.faults.after("check", switch.address)

    def ports(self, switch: Switch) -> Sequence[str]:
        found = self._find(switch, "ports")
        self.faults.after("ports", switch.address)
        return sorted(found.ports)

    def can_guard(self, switch: Switch) -> bool:
        return switch.settings.get("guard") != "off"

    def can_bond(self, switch: Switch) -> bool:
        return switch.settings.get("bond") != "off"

    def can_tunnel(self, switch: Switch) -> bool:
        return switch.settings.get("tunnels") != "off"

    def weave(self, switch: Switch, wanted: Collection[Tunnel]) -> None:
        found = self._find(switch, "weave")
        if wanted and not self.can_tunnel(switch):
            raise Refused(f"Switch {switch.name} has no tunnels.", code="no-tunnels")
        with found.lock:
            found.tunnels = self._woven(found)
            found.asked_tunnels = frozenset(wanted)
            found.tunnels_at_s = self._monotonic_s() + found.late_s
            if found.misbehaviour in (None, Misbehaviour.SLOW):
                found.tunnels = found.asked_tunnels
            is_half = found.misbehaviour is Misbehaviour.HALF
        if is_half:
            raise Unreachable(f"Switch {switch.name} stopped answering.")
        self.faults.after("weave", switch.address)

    def stand_by(self, switch: Switch, wait_s: float) -> bool | None:  # noqa: ARG002 - it forgets only when it is told to
        """Nobody need wait: only ``restart`` has a switch forget anything."""
        found = self._switches.get(switch.address)
        if found is None:
            return None
        with found.lock:
            was_bare, found.is_bare = found.is_bare, False
        return was_bare or None

    def tunnels(self, switch: Switch) -> frozenset[Tunnel]:
        found = self._find(switch, "tunnels")
        with found.lock:
            is_lie = found.misbehaviour is Misbehaviour.LIES
            seen = found.asked_tunnels if is_lie else self._woven(found)
        self.faults.after("tunnels", switch.address)
        return seen

    def _woven(self, switch: _Switch) -> frozenset[Tunnel]:
        is_late = switch.misbehaviour is Misbehaviour.LATE and self._monotonic_s() >= switch.tunnels_at_s
        return switch.asked_tunnels if is_late else switch.tunnels

    def apply(self, switch: Switch, wanted: Mapping[str, PortConfig]) -> None:
        found = self._find(switch, "apply")
        _require(switch, found, wanted)
        for name, config in wanted.items():
            _require_sane(name, config)
            if config.guard is not None and not self.can_guard(switch):
                raise Refused(f"Switch {switch.name} cannot guard port {name}.", code="no-guard")
            if config.bond and not self.can_bond(switch):
                raise Refused(f"Switch {switch.name} cannot bond port {name}.", code="no-bond")
        with found.lock:
            self._apply(found, wanted)
            half = found.misbehaviour is Misbehaviour.HALF
        if half:
            raise Unreachable(f"Switch {switch.name} stopped answering.")
        self.faults.after("apply", switch.address)

    def read(self, switch: Switch, ports: Collection[str]) -> Mapping[str, PortConfig]:
        found = self._find(switch, "read")
        _require(switch, found, ports)
        with found.lock:
            seen = {name: self._seen(found, found.ports[name]) for name in ports}
        self.faults.after("read", switch.address)
        open_ports = sorted(name for name, config in seen.items() if config is None)
        if open_ports:
            raise Malformed(
                f"Switch {switch.name}: {', '.join(open_ports)} carry every VLAN.",
                fix="Apply a configuration to them.",
                details={"ports": open_ports},
            )
        return {name: config for name, config in seen.items() if config is not None}

    def _find(self, switch: Switch, method: str) -> _Switch:
        if self._call_s:
            self._delay(self._call_s)
        self.faults.before(method, switch.address)
        found = self._switches.get(switch.address)
        if found is not None and found.misbehaviour is Misbehaviour.SLOW:
            self._delay(found.late_s)
        if found is None or found.misbehaviour is Misbehaviour.DEAD:
            raise Unreachable(
                f"Switch {switch.name} at {switch.address} does not answer.", fix="Check its address, cable and power."
            )
        return found

    def _apply(self, switch: _Switch, wanted: Mapping[str, PortConfig]) -> None:
        names = list(wanted)
        if switch.misbehaviour is Misbehaviour.HALF:
            names = names[: len(names) // 2]
        for name in names:
            port, config = switch.ports[name], wanted[name]
            port.carried, port.pending = self._carried(port), None
            match switch.misbehaviour:
                case Misbehaviour.DROPS:
                    continue
                case Misbehaviour.LIES:
                    port.asked = config
                case Misbehaviour.LATE:
                    port.pending = (self._monotonic_s() + switch.late_s, config)
                case _:
                    port.carried = port.asked = config

    def _carried(self, port: _Port) -> PortConfig | None:
        if port.pending is not None and port.pending[0] <= self._monotonic_s():
            return port.pending[1]
        return port.carried

    def _seen(self, switch: _Switch, port: _Port) -> PortConfig | None:
        if switch.misbehaviour is Misbehaviour.LIES and port.asked is not None:
            return port.asked
        return self._carried(port)


def _require(switch: Switch, found: _Switch, ports: Iterable[str]) -> None:
    missing = sorted(set(ports) - set(found.ports))
    if missing:
        raise Refused(f"Switch {switch.name} has no port {', '.join(missing)}.", code="no-such-port")


def _require_sane(name: str, config: PortConfig) -> None:
    vids = config.tagged_vids | ({config.native_vid} if config.native_vid is not None else set())
    if any(not 1 <= vid <= 4094 for vid in vids) or config.native_vid in config.tagged_vids:
        raise Refused(f"Port {name} cannot carry VLANs {sorted(vids)}.", code="bad-vlan")


def _vids(config: PortConfig | None) -> set[int]:
    if config is None:
        return set(range(1, 4095))
    if config == SHUT:
        return set()
    return set(config.tagged_vids) | ({config.native_vid} if config.native_vid is not None else set())
