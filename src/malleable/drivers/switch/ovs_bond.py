"""Bonds on Open vSwitch: two interfaces in one row of table Port, which then has one VLAN configuration for both.

The port keeps the name of its first interface, and two interfaces become one port, or one port two, while they are
shut. LACP as both ends wish; until the node's system speaks it (its firmware never does), the first one alone is used.
Source: ovs-vswitchd.conf.db(5), "Bonding Configuration"; frames sent through Open vSwitch 3.1.
"""

from collections.abc import Collection, Mapping

from malleable.domain.errors import Refused
from malleable.domain.switches import SHUT, PortConfig
from malleable.drivers.ovsdb import Operation, Ovsdb, Row, members, to_set
from malleable.drivers.switch.ovs_vlans import row_of

#: Columns of table Port; what a plain port has in them is nothing.
COLUMNS = ("bond_mode", "lacp", "other_config")
_SHUT = row_of("", SHUT)
_FALLBACK, _PRIMARY = "lacp-fallback-ab", "bond-primary"


def whole(wanted: Mapping[str, PortConfig]) -> dict[str, PortConfig]:
    """Name all ports of each bond. Errors: Refused for a bond that makes no sense."""
    for name, config in wanted.items():
        is_pair = not config.bond or (len(config.bond) == 2 and name in config.bond and not config.is_shut)
        if not is_pair or any(wanted.get(other, config) != config for other in config.bond):
            raise Refused(
                f"Port {name} cannot be bonded with {', '.join(sorted(config.bond))}.",
                fix="Bond two ports, both with the same configuration.",
                code="bad-bond",
            )
    return {other: config for name, config in wanted.items() for other in config.bond or {name}}


def names_within(port: Row, interfaces: Mapping[str, str]) -> frozenset[str]:
    """Name the interfaces of a port; ``interfaces``: names by row."""
    return frozenset(interfaces.get(uuid, uuid) for uuid in members(port["interfaces"]))


def reshape(
    ovsdb: Ovsdb, bridge: Row, found: Collection[Row], interfaces: Mapping[str, str], wanted: Mapping[str, PortConfig]
) -> frozenset[str] | None:
    """Join and split ports so that each is one with those it is to be one with; name all that this changed.

    They are shut by it, also the other one of a bond of which but one is told. None: nothing was to be done.
    """
    by_name = {name: uuid for uuid, name in interfaces.items()}
    ports = {str(port["name"]): port for port in found}
    wrong = {name: port for name, port in ports.items() if _is_wrong(port, names_within(port, interfaces), wanted)}
    if not wrong:
        return None
    touched = frozenset[str]().union(*(names_within(port, interfaces) for port in wrong.values()))
    groups = {_bond(name, wanted) for name in touched}
    operations: list[Operation] = []
    made: list[object] = []
    for group in sorted(groups, key=min):
        name = min(group)
        row = {**_SHUT, "interfaces": to_set([["uuid", by_name[one]] for one in sorted(group)]), **_bonding(group)}
        if name in wrong:
            where = [["_uuid", "==", wrong[name]["_uuid"]]]
            operations.append({"op": "update", "table": "Port", "where": where, "row": row})
        else:
            made.append(["named-uuid", f"port{len(made)}"])
            insert = {"op": "insert", "table": "Port", "row": {"name": name, **row}}
            operations.append({**insert, "uuid-name": f"port{len(made) - 1}"})
    gone = [port["_uuid"] for name, port in wrong.items() if name not in {min(group) for group in groups}]
    mutations = [["ports", how, to_set(rows)] for how, rows in (("delete", gone), ("insert", made)) if rows]
    if mutations:
        where = [["_uuid", "==", bridge["_uuid"]]]
        operations.append({"op": "mutate", "table": "Bridge", "where": where, "mutations": mutations})
    ovsdb.change(*operations)
    return touched


def _bond(name: str, wanted: Mapping[str, PortConfig]) -> frozenset[str]:
    return (wanted[name].bond if name in wanted else frozenset()) or frozenset({name})


def _is_wrong(port: Row, names: frozenset[str], wanted: Mapping[str, PortConfig]) -> bool:
    return bond_fault(port, names) != "" or any(_bond(name, wanted) != names for name in names if name in wanted)


def _bonding(group: Collection[str]) -> Row:
    if len(group) == 1:
        return {"bond_mode": to_set([]), "lacp": to_set([]), "other_config": ["map", []]}
    settings = [[_FALLBACK, "true"], [_PRIMARY, min(group)], ["lacp-time", "fast"]]
    return {"bond_mode": "balance-tcp", "lacp": "active", "other_config": ["map", settings]}


def bond_fault(port: Row, names: Collection[str]) -> str:
    """Say what is wrong with a port's bonding, or that it has one for itself; "" when nothing is."""
    if len(names) == 1:
        return ""
    settings = dict(port["other_config"][1])
    is_ours = (*members(port["bond_mode"]), *members(port["lacp"])) == ("balance-tcp", "active")
    if len(names) != 2 or not is_ours or settings.get(_FALLBACK) != "true" or settings.get(_PRIMARY) != min(names):
        return "is a bond of another kind than ours"
    return ""


def bond_told(names: Collection[str], config: PortConfig) -> frozenset[str]:
    """Say what a port's configuration tells of its bond: one that is shut is told by its ports as two that are."""
    return frozenset(names) if len(names) > 1 and config != SHUT else frozenset()
