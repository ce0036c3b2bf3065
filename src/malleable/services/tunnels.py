"""Tunnels: which fabrics can have them, and which switches such a fabric."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from malleable.domain.errors import Conflict
from malleable.domain.networks import Vlan
from malleable.domain.ports import Drivers
from malleable.domain.ports import Switches as Driver
from malleable.domain.store import Page, Transaction
from malleable.domain.switches import Switch
from malleable.domain.tunnels import inner_mtu, place_of, vtep_of


def base_of(pool: Iterable[Vlan]) -> int | None:
    """Say how much larger than a VLAN's id its VNI is, of all VLANs of a pool; None when they have none."""
    return next((vlan.vni - vlan.vid for vlan in pool if vlan.vni is not None), None)


def require_fabric(tx: Transaction, drivers: Drivers, fabric: str) -> None:
    """Be sure that every switch of a fabric can have tunnels to every other. Errors: Conflict, naming the switch."""
    earlier: list[Switch] = []
    for switch in tx.switches.list(fabric=fabric):
        _require(switch, drivers.switches, earlier)
        earlier.append(switch)


def require_switch(tx: Transaction, drivers: Drivers, switch: Switch) -> bool:
    """Be sure that a new switch fits its fabric; say whether that has VNIs. Errors: Invalid, Conflict."""
    limit = inner_mtu(switch)
    require_alone(tx, switch)
    if base_of(tx.vlans.list(Page(limit=1), fabric=switch.fabric)) is None:
        return False
    _require(switch, drivers.switches, tx.switches.list(fabric=switch.fabric))
    large = [n for n in tx.networks.list(fabric=switch.fabric) if n.vni is not None and n.mtu > limit]
    if large:
        raise Conflict(
            f"Network {large[0].name} has packets of {large[0].mtu} bytes, and the tunnels of switch {switch.name} take"
            f" {limit}.",
            code="mtu-too-large",
            fix="Raise the MTU of the underlay, and tell it by the setting underlay_mtu.",
        )
    return True


def require_alone(tx: Transaction, switch: Switch) -> None:
    """Refuse a switch that is here by another name: its ports would have two intents. Bridges of one Open vSwitch are
    switches of their own, but not where one has tunnels: nodes of the other could write into these.

    Errors: Conflict.
    """
    place = place_of(switch.address)
    twins = [other for other in tx.switches.list() if other.id != switch.id and place_of(other.address) == place]
    for other in twins:
        if vtep_of(switch) or vtep_of(other):
            raise Conflict(
                f"Switch {other.name} is at {other.address} already, and one of the two has a VTEP.",
                code="vtep-not-alone",
                fix="Manage one bridge of an Open vSwitch that has tunnels, and no other.",
            )
        # Of one bridge of the same name the store tells that the name is taken.
        if other.name != switch.name and other.settings.get("bridge") == switch.settings.get("bridge"):
            raise Conflict(
                f"The switch at {switch.address} is here already, as {other.name}: its ports would be wanted twice.",
                code="switch-twice",
                fix=f"Use it by that name (`m2 switch show {other.name}`), or name another bridge of an Open vSwitch.",
            )


def _require(switch: Switch, drivers: Mapping[str, Driver], others: Sequence[Switch]) -> None:
    driver, vtep = drivers.get(switch.driver), vtep_of(switch)
    if driver is None or not driver.can_tunnel(switch):
        raise Conflict(
            f"Switch {switch.name} can have no tunnels by its driver {switch.driver}, and networks of fabric"
            f" {switch.fabric} travel by VXLAN.",
            code="no-tunnels",
            fix="Put it in another fabric; `m2 driver list` shows which drivers can.",
        )
    if not vtep:
        raise Conflict(
            f"Switch {switch.name} has no VTEP, and networks of fabric {switch.fabric} travel by VXLAN.",
            code="no-vtep",
            fix="Add it with the address that its host has on the underlay: `--setting vtep=10.9.0.1`.",
        )
    for other in others:
        theirs = vtep_of(other)
        if theirs == vtep or (":" in theirs) != (":" in vtep):
            why = "is that of" if theirs == vtep else "is of another IP version than that of"
            raise Conflict(
                f"The VTEP {vtep} of switch {switch.name} {why} switch {other.name}.",
                code="vtep-taken",
                fix="Each switch of the fabric has an address of its own on one underlay.",
            )


def refuse_vnis_elsewhere(tx: Transaction, fabric: str, vids: Collection[int], base: int | None) -> None:
    """Refuse VNIs that another fabric has: they may have one underlay. Errors: Conflict."""
    if base is None or not vids:
        return
    wanted = {base + vid for vid in vids}
    taken = [vlan for vlan in tx.vlans.list() if vlan.vni in wanted and vlan.fabric != fabric]
    if taken:
        raise Conflict(
            f"VNI {taken[0].vni} is fabric {taken[0].fabric}'s.",
            code="vni-of-another-fabric",
            fix="Count from another number on.",
        )
