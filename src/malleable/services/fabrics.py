"""Fabrics: the VLAN pool that a set of switches shares."""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from malleable.domain.errors import Conflict, Invalid, NotFound
from malleable.domain.gateways import ALL_FABRICS
from malleable.domain.ids import VlanId, new_id
from malleable.domain.networks import Vlan, parse_vid
from malleable.domain.store import Transaction
from malleable.domain.switches import Switch
from malleable.domain.tunnels import VNI_BASE_MAX
from malleable.services.authorization import not_found, require
from malleable.services.caller import Caller
from malleable.services.finding import shown
from malleable.services.parts import Parts
from malleable.services.tunnels import base_of, refuse_vnis_elsewhere, require_fabric
from malleable.workflows.requests import record

_RANGE = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)
VLANS_SHOWN = 20
#: A VLAN that was never used needs no rest.
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fabric:
    """A fabric with its pool, counted."""

    name: str
    total: int
    used: int
    resting: int
    ranges: tuple[str, ...]  #: the pool's VLANs, e.g. "100-199"
    vni_base: int | None  #: a VLAN's VNI is this much larger; None: its switches have a trunk between them
    is_apart: bool  #: the gateways reach it by a way of its own, so its VLANs may be others', too


class Fabrics:
    """VLAN pools; there is a fabric as soon as a switch or a VLAN names it."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def fabric_list(self, caller: Caller) -> tuple[Fabric, ...]:
        """List all fabrics by name."""
        require(caller, "fabric_list")
        now = self._parts.now()
        with self._parts.store.reading() as tx:
            vlans, switches = tx.vlans.list(), tx.switches.list()
            apart = _apart(tx, now)
        names = _names(vlans, switches)
        return tuple(_count(name, [v for v in vlans if v.fabric == name], now, apart) for name in names)

    def fabric_get(self, caller: Caller, name: str) -> Fabric:
        """Read one fabric. Errors: NotFound."""
        require(caller, "fabric_list")
        now = self._parts.now()
        with self._parts.store.reading() as tx:
            pool = tx.vlans.list(fabric=name)
            if not pool and not tx.switches.count(fabric=name):
                raise not_found(f"fabric {shown(name)}")
            return _count(name, pool, now, _apart(tx, now))

    def fabric_change_vlans(
        self, caller: Caller, name: str, *, add: Iterable[str] = (), remove: Iterable[str] = ()
    ) -> Fabric:
        """Add VLANs to a fabric's pool and take others out.

        Errors: Invalid for ids outside 1 to 4094, or given twice; Conflict for what is in the pool already, not in it,
        used by a network, carried by an adopted port, still resting or another fabric's.
        """
        require(caller, "fabric_set_vlans")
        new, gone = parse_ranges(add, is_once=True), parse_ranges(remove, is_once=True)
        if new & gone or not new | gone:
            raise Invalid("Name VLANs to add, or others to remove.", fix="Write for example 100-199.")
        with self._parts.store.transaction() as tx:
            tx.vlans.hold(name)
            present = frozenset(vlan.vid for vlan in tx.vlans.list(fabric=name))
            if new & present:
                raise Conflict(f"In the pool already: VLAN {_ranges_text(new & present)}.", code="vlan-in-pool")
            if gone - present:
                raise Conflict(f"Not in the pool: VLAN {_ranges_text(gone - present)}.", code="vlan-not-in-pool")
            return self._replace(tx, caller, name, present - gone | new)

    def fabric_set_vlans(self, caller: Caller, name: str, ranges: Iterable[str]) -> Fabric:
        """Make ``ranges`` the pool of a fabric: adds what is new, drops what is left out.

        Errors: Invalid for ids outside 1 to 4094; Conflict when a network uses one that is left out, an adopted port
        carries a new one, or for another fabric's.
        """
        require(caller, "fabric_set_vlans")
        wanted = parse_ranges(ranges)
        with self._parts.store.transaction() as tx:
            tx.vlans.hold(name)
            return self._replace(tx, caller, name, wanted)

    def fabric_set_vnis(self, caller: Caller, name: str, base: int | None) -> Fabric:
        """Have the fabric's networks travel between its switches by VXLAN: VLAN n as VNI ``base`` + n; None ends that.

        Errors: Invalid for VNIs outside 1 to 16777215; Conflict for a fabric without VLANs or with networks on them,
        for a switch that cannot, and for VNIs of another fabric.
        """
        require(caller, "fabric_set_vnis")
        if base is not None and not 0 <= base <= VNI_BASE_MAX:
            raise Invalid(
                f"VLANs cannot be counted from VNI {base} on: a VNI has 24 bits.", fix=f"Use 0 to {VNI_BASE_MAX}."
            )
        with self._parts.store.transaction() as tx:
            tx.vlans.hold(name)
            pool = tx.vlans.list(fabric=name)
            if not pool:
                raise Conflict(
                    f"Fabric {shown(name)} has no VLANs, which VNIs could be for.",
                    code="no-vlan",
                    fix=f"Add some first: `m2 fabric add {shown(name)} 200-299`.",
                )
            if base != base_of(pool):
                _renumber(tx, self._parts, name, pool, base)
                data = {"fabric": name, "vni_base": base}
                record(tx, self._parts.now(), "fabric.vnis-set", actor_id=caller.user_id, data=data)
            return _count(name, tx.vlans.list(fabric=name), self._parts.now(), _apart(tx, self._parts.now()))

    def _replace(self, tx: Transaction, caller: Caller, name: str, wanted: frozenset[int]) -> Fabric:
        now = self._parts.now()
        present = {vlan.vid: vlan for vlan in tx.vlans.list(fabric=name)}
        _drop(tx, [vlan for vid, vlan in present.items() if vid not in wanted], now)
        new, base = wanted - present.keys(), base_of(present.values())
        _check_untaken(tx, name, new)
        _check_uncarried(tx, name, new)
        refuse_elsewhere(tx, now, name, new)
        refuse_vnis_elsewhere(tx, name, new, base)
        for vid in sorted(new):
            vni = None if base is None else base + vid
            id = VlanId(new_id())
            tx.vlans.add(Vlan(id=id, fabric=name, vid=vid, network_id=None, reusable_at=_LONG_AGO, vni=vni))
        data = {"fabric": name, "vlans": len(wanted)}
        record(tx, now, "fabric.vlans-set", actor_id=caller.user_id, data=data)
        return _count(name, tx.vlans.list(fabric=name), now, _apart(tx, now))


def parse_fabrics(tx: Transaction, raw: Iterable[str]) -> tuple[str, ...]:
    """Accept names of fabrics that there are, or ``ALL_FABRICS`` alone. Errors: Invalid, NotFound."""
    names = tuple(sorted(set(raw)))
    if not names:
        raise Invalid("A gateway serves no fabric unless it is named.", fix="Name its fabrics, or say that it is all.")
    if names == (ALL_FABRICS,):
        return names
    known = _names(tx.vlans.list(), tx.switches.list())
    for name in names:
        if name not in known:
            fix = f"There are: {', '.join(known)}." if known else "Add its switch or its VLANs first."
            raise NotFound(f"There is no fabric {shown(name)}.", fix=fix)
    return names


def _names(vlans: Iterable[Vlan], switches: Iterable[Switch]) -> Sequence[str]:
    return sorted({v.fabric for v in vlans} | {s.fabric for s in switches})


def parse_ranges(ranges: Iterable[str], *, is_once: bool = False) -> frozenset[int]:
    """Read ``["100-199", "300"]``; ``is_once`` takes no VLAN twice. Errors: Invalid."""
    vids: set[int] = set()
    for raw in ranges:
        match = _RANGE.fullmatch(raw.strip())
        if match is None:
            raise Invalid(f"{raw!a} is not a range of VLANs.", fix="Write for example 100-199 or 300.")
        first = parse_vid(int(match[1]))
        last = parse_vid(int(match[2])) if match[2] else first
        if last < first:
            raise Invalid(f"The range {raw} ends before it begins.", fix=f"Write {last}-{first}.")
        span = frozenset(range(first, last + 1))
        if is_once and span & vids:
            raise Invalid(f"The ranges overlap: VLAN {_ranges_text(span & vids)} is named twice.", fix="Name it once.")
        vids |= span
    return frozenset(vids)


def ranges_of(vids: Iterable[int]) -> tuple[str, ...]:
    """Write VLANs as ranges, lowest first: the reverse of ``parse_ranges``."""
    spans: list[list[int]] = []
    for vid in sorted(vids):
        if spans and spans[-1][-1] == vid - 1:
            spans[-1][1:] = [vid]
        else:
            spans.append([vid])
    return tuple("-".join(str(vid) for vid in span) for span in spans)


def _ranges_text(vids: Iterable[int]) -> str:
    return ", ".join(ranges_of(vids))


def _drop(tx: Transaction, vlans: list[Vlan], now: datetime) -> None:
    _refuse_used(vlans, now, "In use, and cannot leave the pool", "or keep them in the ranges")
    for vlan in vlans:
        tx.vlans.remove(vlan.id, expect={"network_id": None})


def _renumber(tx: Transaction, parts: Parts, fabric: str, pool: Collection[Vlan], base: int | None) -> None:
    """Give the VLANs of a pool other VNIs, or none. Errors: Conflict."""
    _refuse_used(pool, parts.now(), "In use, and nodes would be cut off", "or take another fabric")
    if base is not None:
        require_fabric(tx, parts.drivers, fabric)
    refuse_vnis_elsewhere(tx, fabric, {vlan.vid for vlan in pool}, base)
    for vlan in pool:
        tx.vlans.change(vlan.id, vni=None)
    if base is not None:
        for vlan in pool:
            tx.vlans.change(vlan.id, vni=base + vlan.vid)


def _refuse_used(vlans: Collection[Vlan], now: datetime, told: str, otherwise: str) -> None:
    """Refuse to take VLANs, or their VNIs, out of a pool that networks have, or had a moment ago. Errors: Conflict."""
    used = [v for v in vlans if v.network_id is not None]
    if used:
        raise Conflict(
            f"{told}: VLAN {_ranges_text(v.vid for v in used)}.",
            code="vlan-in-use",
            fix=f"Delete their networks first (`m2 network list` shows them), {otherwise}.",
            details={"vlans": {str(v.vid): str(v.network_id) for v in used}},
        )
    resting = [v for v in vlans if v.reusable_at > now]
    if resting:
        # Put back into a pool, it would be used again at once.
        raise Conflict(
            f"Just given back by a network, and still resting: VLAN {_ranges_text(v.vid for v in resting)}.",
            code="vlan-resting",
            fix=f"Try again after {max(v.reusable_at for v in resting):%H:%M:%S} UTC.",
        )


def _check_untaken(tx: Transaction, fabric: str, vids: frozenset[int]) -> None:
    """Refuse VLANs that networks were put on by hand."""
    taken = [n for n in tx.networks.list(fabric=fabric) if n.vid in vids]
    if taken:
        raise Conflict(
            f"Network {taken[0].name} is on VLAN {taken[0].vid} of fabric {fabric} by hand.",
            code="vlan-taken",
            fix="Leave this VLAN out of the ranges, or delete the network first.",
            details={"vlans": {str(n.vid): str(n.id) for n in taken[:VLANS_SHOWN]}},
        )


def _check_uncarried(tx: Transaction, fabric: str, vids: frozenset[int]) -> None:
    """Refuse VLANs that adopted ports carry: a network would reach what hangs on these."""
    switches = {switch.id: switch.name for switch in tx.switches.list(fabric=fabric)} if vids else {}
    ports = tx.switch_ports.list(switch_id=list(switches)) if switches else ()
    carrying = [(port, sorted(port.wanted.vids & vids)) for port in ports if port.wanted.vids & vids]
    if carrying:
        port, carried = carrying[0]
        more = f", and {len(carrying) - 1} more ports carry some of these" if len(carrying) > 1 else ""
        raise Conflict(
            f"Port {port.name} of switch {switches[port.switch_id]} is kept on VLAN {_ranges_text(carried)}{more}.",
            code="vlan-on-port",
            fix="Leave the VLAN out of the ranges; or `m2 switch port delete` the ports, and take them off it.",
            details={"ports": {f"{switches[p.switch_id]} {p.name}": vs for p, vs in carrying[:VLANS_SHOWN]}},
        )


def refuse_elsewhere(tx: Transaction, now: datetime, fabric: str, vids: Collection[int]) -> None:
    """Refuse VLANs that a gateway serves, or may come to, on another fabric that it reaches by the same way.

    Errors: Conflict.
    """
    if not vids:
        return
    others = {(vlan.vid, vlan.fabric) for vlan in tx.vlans.list()}
    others |= {(network.vid, network.fabric) for network in tx.networks.list(has_service=True)}
    same = [(vid, other) for vid, other in sorted(others) if vid in vids and other != fabric]
    apart = _apart(tx, now) if same else frozenset()
    taken = {vid: other for vid, other in same if not {fabric, other} & apart}
    if taken:
        raise Conflict(
            f"VLAN {_ranges_text(taken)} is fabric {taken[min(taken)]}'s, and the gateway has one bridge for both.",
            code="vlan-of-another-fabric",
            fix="Use other VLANs, or give the gateway a bridge for one of the fabrics (M2D_UPLINK__BRIDGES).",
        )


def _apart(tx: Transaction, now: datetime) -> frozenset[str]:
    """List the fabrics that every gateway which lives reaches by a way of its own; it sees to it itself besides."""
    live = [gateway for gateway in tx.gateways.list() if not gateway.is_silent(now)]
    told = {name for gateway in live for name in (*gateway.fabrics, *gateway.serves)}
    return frozenset(name for name in told if all(gateway.is_apart(name) for gateway in live))


def _count(name: str, vlans: Iterable[Vlan], now: datetime, apart: Collection[str]) -> Fabric:
    pool = list(vlans)
    used = sum(v.network_id is not None for v in pool)
    resting = sum(v.network_id is None and v.reusable_at > now for v in pool)
    ranges = ranges_of(v.vid for v in pool)
    return Fabric(
        name=name,
        total=len(pool),
        used=used,
        resting=resting,
        ranges=ranges,
        vni_base=base_of(pool),
        is_apart=name in apart,
    )
