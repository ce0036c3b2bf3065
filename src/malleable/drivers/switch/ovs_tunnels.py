"""Tunnels on Open vSwitch: for each network and each other switch one port, of type vxlan, on the network's VLAN.

Such a port hears one address and one VNI alone. It is protected: what comes out of one tunnel goes into no other, so a
full mesh has no loop. Ours are known by their names.
Source: ovs-vswitchd.conf.db(5), "Tunnel Options"; frames sent through two Open vSwitch 3.1 by tests/contract/switches.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from malleable.domain.errors import Refused
from malleable.domain.switches import Switch
from malleable.domain.tunnels import Tunnel, underlay_mtu, vtep_of
from malleable.drivers.ovsdb import Operation, Ovsdb, Row, ask_vswitchd, members, select, to_set

_PORT_COLUMNS = ("_uuid", "name", "interfaces", "tag", "trunks", "cvlans", "vlan_mode", "protected")
_INTERFACE_COLUMNS = ("_uuid", "type", "options", "ofport", "error")
#: Types of interfaces that another host is at the end of; of these only ours may be on the bridge.
_TYPES = frozenset(
    {"vxlan", "geneve", "gre", "ip6gre", "erspan", "ip6erspan", "stt", "lisp", "gtpu", "bareudp", "srv6"}
)
#: Not the gateway's m2-, o2-, p2- and s2-: its ports are on the same bridge.
_OURS = re.compile(r"t2-[0-9a-f]{12}", re.ASCII)
_ABOUT = "malleable-tunnel"  #: in external_ids, for people


@dataclass(frozen=True, slots=True, kw_only=True)
class Woven:
    """The tunnels of a bridge."""

    rows: Mapping[str, object]  #: reference of each port of ours by its name
    good: Mapping[str, Tunnel]  #: of these, in the data path as they were written


def name_of(tunnel: Tunnel) -> str:
    """Name a tunnel's port: Open vSwitch takes 15 characters."""
    told = f"{tunnel.local} {tunnel.remote} {tunnel.vni} {tunnel.vid}"
    return f"t2-{sha256(told.encode()).hexdigest()[:12]}"


def read_tunnels(ovsdb: Ovsdb, bridge: Row, switch: str) -> Woven:
    """Read the tunnels of a bridge. Errors: Refused with code "foreign-tunnel"."""
    ports, interfaces = ovsdb.transact(
        {"op": "select", "table": "Port", "where": [], "columns": list(_PORT_COLUMNS)},
        {"op": "select", "table": "Interface", "where": [], "columns": list(_INTERFACE_COLUMNS)},
    )
    on_bridge = set(members(bridge["ports"]))
    by_row = {members(row["_uuid"])[0]: row for row in interfaces["rows"]}
    rows, good = {}, {}
    for port in ports["rows"]:
        if members(port["_uuid"])[0] not in on_bridge:
            continue
        name, within = str(port["name"]), [by_row[uuid] for uuid in members(port["interfaces"]) if uuid in by_row]
        if _OURS.fullmatch(name):
            rows[name] = port["_uuid"]
            tunnel = _told(port, within)
            if tunnel is not None and name_of(tunnel) == name:
                good[name] = tunnel
        elif any(row["type"] in _TYPES for row in within):
            raise Refused(
                f"Switch {switch} has a tunnel that is not ours: {name}.",
                fix=f"Remove it (`ovs-vsctl del-port {name}`): it can bring in what no network has.",
                code="foreign-tunnel",
            )
    return Woven(rows=rows, good=good)


def _told(port: Row, interfaces: Sequence[Row]) -> Tunnel | None:
    """Read a tunnel off its port; None when it is not exactly one."""
    tag = members(port["tag"])
    if len(interfaces) != 1 or not tag or port["protected"] is not True or members(port["vlan_mode"]) != ("access",):
        return None
    (row,) = interfaces
    options, ofport = dict(row["options"][1]), members(row["ofport"])
    is_there = bool(ofport) and ofport[0] > 0 and not members(row["error"])
    is_plain = not members(port["trunks"]) and not members(port["cvlans"]) and row["type"] == "vxlan"
    if (
        not is_there
        or not is_plain
        or options.keys() != {"local_ip", "remote_ip", "key"}
        or not options["key"].isdecimal()
    ):
        return None
    return Tunnel(local=options["local_ip"], remote=options["remote_ip"], vni=int(options["key"]), vid=tag[0])


def require_underlay(ovsdb: Ovsdb, switch: Switch, *, timeout_s: float) -> None:
    """Refuse an underlay that takes smaller packets than an operator says: they would be lost without a word.

    Seen is the MTU of the VTEP's device where that is an interface of this Open vSwitch, reached by its socket.
    Errors: Refused with code "mtu-too-large".
    """
    vtep, told = vtep_of(switch), underlay_mtu(switch)
    if not vtep or not switch.address.startswith("unix:"):
        return
    routes = ask_vswitchd(switch.address, "ovs/route/show", timeout_s=timeout_s)
    own = re.search(rf"{re.escape(vtep)}/(?:32|128) dev (\S+) .*local", routes)
    (found,) = ovsdb.transact(select("Interface", "name", own[1] if own else "", ["name", "mtu"]))
    for row in found["rows"]:
        if any(mtu < told for mtu in members(row["mtu"])):
            raise Refused(
                f"The tunnels of switch {switch.name} leave by {row['name']}, which takes packets of"
                f" {members(row['mtu'])[0]} bytes, and not of {told}.",
                fix="Raise its MTU and that of its ports, or add the switch with the underlay_mtu that there is.",
                code="mtu-too-large",
            )


def ends_in(ovsdb: Ovsdb) -> frozenset[str]:
    """Read the addresses that tunnels of ours end at, whether they are in the data path yet or not."""
    (found,) = ovsdb.transact(select("Interface", "type", "vxlan", ["name", "options"]))
    ours = [dict(row["options"][1]) for row in found["rows"] if _OURS.fullmatch(str(row["name"]))]
    return frozenset(options["local_ip"] for options in ours if "local_ip" in options)


def cut(bridge: Row, rows: Iterable[object]) -> Operation:
    """Take ports off a bridge; they are gone with that."""
    return _ports(bridge, "delete", rows)


def make(bridge: Row, tunnels: Sequence[Tunnel]) -> Sequence[Operation]:
    """Put tunnels on a bridge."""
    operations: list[Operation] = []
    for number, tunnel in enumerate(tunnels):
        name = name_of(tunnel)
        options = [["local_ip", tunnel.local], ["remote_ip", tunnel.remote], ["key", str(tunnel.vni)]]
        device = {"name": name, "type": "vxlan", "options": ["map", options]}
        port = {
            "name": name,
            "interfaces": ["named-uuid", f"device{number}"],
            "vlan_mode": "access",
            "tag": tunnel.vid,
            "protected": True,
            "external_ids": ["map", [[_ABOUT, f"VNI {tunnel.vni} to {tunnel.remote}"]]],
        }
        operations.append({"op": "insert", "table": "Interface", "uuid-name": f"device{number}", "row": device})
        operations.append({"op": "insert", "table": "Port", "uuid-name": f"port{number}", "row": port})
    return [*operations, _ports(bridge, "insert", [["named-uuid", f"port{n}"] for n in range(len(tunnels))])]


def _ports(bridge: Row, how: str, rows: Iterable[object]) -> Operation:
    where = [["_uuid", "==", bridge["_uuid"]]]
    return {"op": "mutate", "table": "Bridge", "where": where, "mutations": [["ports", how, to_set(list(rows))]]}
