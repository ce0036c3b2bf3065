"""Adopting a live switch: its ports are kept as they are found, and nothing is changed on it.

Only a port that can harm no network of ours is adopted: one that carries a network's VLAN, or one that a network may
be given tomorrow, is left for the operator to decide.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from malleable.domain.ids import SwitchPortId, UserId, new_id
from malleable.domain.store import Transaction
from malleable.domain.switches import Adoption, PortConfig, PortPlan, PortState, Switch, SwitchPort
from malleable.workflows.requests import record


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the database says of a switch."""

    ports: Mapping[str, SwitchPort]
    wired: frozenset[SwitchPortId]
    networks: Mapping[int, str]  #: by VLAN of the switch's fabric
    pool: frozenset[int]  #: VLANs that new networks may be given


def known(tx: Transaction, switch: Switch) -> Known:
    """Read what a plan needs; five queries however many ports."""
    ports = {port.name: port for port in tx.switch_ports.list(switch_id=switch.id)}
    nics = tx.nics.list(switch_port_id=[port.id for port in ports.values()]) if ports else ()
    networks = tx.networks.list(fabric=switch.fabric)
    return Known(
        ports=ports,
        wired=frozenset(nic.switch_port_id for nic in nics if nic.switch_port_id),
        networks={network.vid: network.name for network in networks},
        pool=frozenset(vlan.vid for vlan in tx.vlans.list(fabric=switch.fabric)),
    )


def plan(known: Known, names: Sequence[str], carried: Mapping[str, PortConfig]) -> tuple[PortPlan, ...]:
    """Say of every port, in order of name, what adopting the switch makes of it; ``names`` are the live ones."""
    gone = [_gone(port) for name, port in known.ports.items() if name not in names]
    return tuple(sorted([*(_plan_one(known, name, carried.get(name)) for name in names), *gone], key=lambda p: p.name))


def _gone(port: SwitchPort) -> PortPlan:
    reason = "It is managed, and the switch has no such port."
    return PortPlan(name=port.name, adoption=Adoption.GONE, carried=None, wanted=port.wanted, reason=reason)


def _plan_one(known: Known, name: str, carried: PortConfig | None) -> PortPlan:
    port = known.ports.get(name)
    wanted = port.wanted if port is not None and port.wanted_generation else None
    is_wired = port is not None and port.id in known.wired
    adoption, reason = _judge(known, carried, wanted, is_wired=is_wired)
    return PortPlan(name=name, adoption=adoption, carried=carried, wanted=wanted, reason=reason)


def _judge(
    known: Known, carried: PortConfig | None, wanted: PortConfig | None, *, is_wired: bool
) -> tuple[Adoption, str]:
    if wanted is not None:
        if carried == wanted:
            return Adoption.SAME, "It carries what is wanted."
        return Adoption.DIFFERS, "It carries something else than is wanted; the watch puts that back by itself."
    if carried is None:
        return Adoption.LEAVE, "It is in no state that can be kept; an uplink that carries every VLAN, for example."
    if is_wired:
        return Adoption.LEAVE, "A node is wired to it: reading the node again shuts it (`m2 node readmit`)."
    if names := sorted({known.networks[vid] for vid in carried.vids if vid in known.networks}):
        return Adoption.LEAVE, f"It reaches network {', '.join(names)}, and nobody attached it: look at it."
    if taken := sorted(carried.vids & known.pool):
        told = ", ".join(map(str, taken))
        return Adoption.LEAVE, f"A network may be given VLAN {told} of the pool: take it out with `m2 fabric remove`."
    return Adoption.ADOPT, "It is kept as it is from now on."


def adopt(
    tx: Transaction, now: datetime, switch: Switch, plans: Iterable[PortPlan], *, actor_id: UserId | None
) -> None:
    """Make the database want what the ports carry."""
    chosen = {p.name: p.carried for p in plans if p.adoption is Adoption.ADOPT and p.carried is not None}
    present = {port.name: port for port in tx.switch_ports.list(switch_id=switch.id, name=list(chosen))}
    for name, carried in chosen.items():
        port = present.get(name)
        if port is None:
            port = SwitchPort(id=SwitchPortId(new_id()), switch_id=switch.id, name=name, created_at=now)
            tx.switch_ports.add(port)
        tx.switch_ports.change(
            port.id,
            wanted=carried,
            wanted_generation=1,
            observed=carried,
            observed_generation=1,
            observed_at=now,
            state=PortState.SETTLED,
        )
    record(tx, now, "switch.imported", actor_id=actor_id, data={"switch": switch.name, "ports": sorted(chosen)})
