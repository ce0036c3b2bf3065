"""OvsSwitches: Open vSwitch bridges, configured through their database.

VLANs are columns of table Port: see ``ovs_vlans``. Bonds are two interfaces in one port: see ``ovs_bond``.
Guards are rules of OpenFlow, kept where the database is reached by its socket: see ``ovs_guard``.
Tunnels are ports of their own: see ``ovs_tunnels``.
Source: ovs-vswitchd.conf.db(5), and packets sent through Open vSwitch 3.1 by tests/contract/switches.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from malleable.domain.errors import DriverError, Malformed, Refused
from malleable.domain.switches import SHUT, PortConfig, Switch
from malleable.domain.tunnels import Tunnel, vtep_of
from malleable.drivers.ovsdb import DATABASE, Operation, Ovsdb, Row, forget_flows, hold_on, members, select, to_set
from malleable.drivers.switch import ovs_bond, ovs_tunnels
from malleable.drivers.switch.ovs_guard import (
    CLAIM,
    Rule,
    Rules,
    claim_of,
    guard_claimed,
    passing,
    read_rules,
    rules_of,
    write_fence,
    write_rules,
)
from malleable.drivers.switch.ovs_vlans import row_of, told_by

#: interface types that a node's cable can end at
OUTSIDE_TYPES = ("", "system", "tap", "afxdp", "dpdk", "dpdkvhostuser", "dpdkvhostuserclient")

_RETURN_POLL_S = 0.005  #: how often ovs-vswitchd that ended is looked for
_REFUSED_POLL_S = 0.02  #: and asked to take its rules, which costs a process
_USERSPACE = "netdev"  #: datapath_type of bridges whose frames ovs-vswitchd forwards itself

_PORT_COLUMNS = (
    *("_uuid", "name", "interfaces", "tag", "trunks", "vlan_mode", "protected", "external_ids"),
    *ovs_bond.COLUMNS,
)
_INTERFACE_COLUMNS = ("_uuid", "name", "ofport", "error", "mtu", "mtu_request")


class OvsSwitches:
    """Every bridge is one switch: ``address`` is its database's, ``settings["bridge"]`` its name."""

    def __init__(
        self, *, timeout_s: float = 5.0, settle_s: float = 0.5, delay: Callable[[float], object] = time.sleep
    ) -> None:
        """Give every connection at most ``timeout_s``.

        Where ovs-vswitchd cannot be told to forget its flows, a change waits ``settle_s``, by ``delay``, instead:
        as long as ovs-vswitchd needs to go through 200,000 flows, its limit.
        """
        self._timeout_s = timeout_s
        self._settle_s = settle_s
        self._delay = delay

    def check(self, switch: Switch) -> None:
        with self._open(switch) as ovsdb:
            ovsdb.change()
            bridge = _bridge(ovsdb, switch)
            self._rules(ovsdb, switch)
            if vtep_of(switch):
                ovs_tunnels.read_tunnels(ovsdb, bridge, switch.name)
                ovs_tunnels.require_underlay(ovsdb, switch, timeout_s=self._timeout_s)
            if members(bridge["controller"]):
                raise Refused(
                    f"Bridge {switch.settings['bridge']} of switch {switch.name} obeys an OpenFlow controller.",
                    fix="Remove the controller: its flows can pass what a VLAN would not.",
                    code="foreign-controller",
                )

    def ports(self, switch: Switch) -> Sequence[str]:
        """List the bridge's ports except those inside Open vSwitch: internal ones, patches and tunnels."""
        with self._open(switch) as ovsdb:
            bridge = _bridge(ovsdb, switch)
            ports, interfaces = ovsdb.transact(
                {"op": "select", "table": "Port", "where": [], "columns": list(_PORT_COLUMNS)},
                {"op": "select", "table": "Interface", "where": [], "columns": ["_uuid", "name", "type"]},
            )
        on_bridge = set(members(bridge["ports"]))
        outside = {members(row["_uuid"])[0]: row["name"] for row in interfaces["rows"] if row["type"] in OUTSIDE_TYPES}
        found = []
        for row in ports["rows"]:
            names = [outside[uuid] for uuid in members(row["interfaces"]) if uuid in outside]
            is_ours = names == [row["name"]] or (len(names) > 1 and not ovs_bond.bond_fault(row, names))
            if members(row["_uuid"])[0] in on_bridge and is_ours:
                found += names
        return sorted(found)

    def can_bond(self, switch: Switch) -> bool:
        """Say that two ports can be one, unless the setting bond=off."""
        return switch.settings.get("bond") != "off"

    def can_guard(self, switch: Switch) -> bool:
        """Say that ports are guarded: where ovs-vswitchd can be asked, unless the setting guard=off."""
        return switch.address.startswith("unix:") and switch.settings.get("guard") != "off"

    def apply(self, switch: Switch, wanted: Mapping[str, PortConfig]) -> None:
        """Change all ports in one transaction, and wait until no frame is forwarded as before.

        A guard is there before its VLANs, and goes after them.
        Errors: also Refused with code "bad-vlan" for VLAN ids outside 1-4094, or tagged and native at once.
        """
        wanted = ovs_bond.whole(wanted)
        if not self.can_guard(switch) and any(config.guard for config in wanted.values()):
            raise Refused(f"Switch {switch.name} cannot guard its ports.", code="no-guard")
        if not self.can_bond(switch) and any(config.bond for config in wanted.values()):
            raise Refused(f"Switch {switch.name} cannot bond its ports.", code="no-bond")
        with self._open(switch) as ovsdb:
            found = _find(ovsdb, switch, wanted)
            left = ovs_bond.reshape(
                ovsdb, _bridge(ovsdb, switch), found.values(), _names(ovsdb, found.values()), wanted
            )
            if left is not None:
                wanted |= dict.fromkeys(left - set(wanted), SHUT)
                found = _find(ovsdb, switch, wanted)
            rows = {name: row_of(name, config) for name, config in wanted.items()}
            rules = self._rules(ovsdb, switch)
            ofports = {name: _ofport(rows) for name, rows in _interfaces(ovsdb, wanted).items()}
            stale = {
                ofport: rules_of(config.guard, ofport)
                for name, config in wanted.items()
                if (ofport := ofports[name])
                and rules_of(config.guard, ofport) != rules.by_port.get(ofport, frozenset())
            }
            had = rules.by_port
            first = {ofport: passing(new, had.get(ofport, frozenset())) for ofport, new in stale.items()}
            self._write(switch, {ofport: some for ofport, some in first.items() if some})
            ovsdb.change(*(op for name, row in rows.items() for op in _update(name, found[name], row, wanted[name])))
            self._write(switch, {ofport: new for ofport, new in stale.items() if not new or new != first[ofport]})
        if not forget_flows(switch.address, timeout_s=self._timeout_s):
            self._delay(self._settle_s)

    def read(self, switch: Switch, ports: Collection[str]) -> Mapping[str, PortConfig]:
        """Read the configuration, and prove that ovs-vswitchd lives, follows it, and has the ports in its data path."""
        names = sorted(set(ports))
        with self._open(switch) as ovsdb:
            ovsdb.change()
            found = _find(ovsdb, switch, names)
            interfaces = _interfaces(ovsdb, names)
            within = _names(ovsdb, found.values())
            rules = self._rules(ovsdb, switch)
        seen: dict[str, PortConfig] = {}
        wrong: dict[str, str] = {}
        for name in names:
            bonded = ovs_bond.names_within(found[name], within)
            is_plain = len(bonded) == 1
            fault = interface_fault(found[name], interfaces[name]) if is_plain else absence(interfaces[name])
            fault = fault or ovs_bond.bond_fault(found[name], bonded)
            told = fault or told_by(found[name])
            if isinstance(told, PortConfig):
                told = replace(told, mtu=mtu_of(interfaces[name]), bond=ovs_bond.bond_told(bonded, told))
                told = _guarded(told, found[name], _ofport(interfaces[name]), rules)
            if isinstance(told, str):
                wrong[name] = told
            else:
                seen[name] = told
        if wrong:
            raise Malformed(
                f"Switch {switch.name}: " + "; ".join(f"port {name} {why}" for name, why in wrong.items()) + ".",
                fix="Apply the wanted configuration again.",
                details={"ports": wrong},
            )
        return seen

    def can_tunnel(self, switch: Switch) -> bool:
        """Say that networks travel by VXLAN, unless the setting tunnels=off."""
        return switch.settings.get("tunnels") != "off"

    def weave(self, switch: Switch, wanted: Collection[Tunnel]) -> None:
        """Cut first what is not wanted, then make the rest, each in one transaction."""
        if wanted and not self.can_tunnel(switch):
            raise Refused(f"Switch {switch.name} has no tunnels.", code="no-tunnels")
        with self._open(switch) as ovsdb:
            bridge = _bridge(ovsdb, switch)
            woven = ovs_tunnels.read_tunnels(ovsdb, bridge, switch.name)
            self._fence(switch, bridge, wanted)  # before there is a tunnel, and until the last one is cut
            wrong = [row for name, row in woven.rows.items() if woven.good.get(name) not in wanted]
            if wrong:
                ovsdb.change(ovs_tunnels.cut(bridge, wrong))
            missing = sorted(set(wanted) - set(woven.good.values()), key=ovs_tunnels.name_of)
            if missing:
                ovsdb.change(*ovs_tunnels.make(bridge, missing))
            self._unfence(switch, bridge, wanted)
        if wrong and not forget_flows(switch.address, timeout_s=self._timeout_s):
            self._delay(self._settle_s)

    def tunnels(self, switch: Switch) -> frozenset[Tunnel]:
        """Read the tunnels, and prove that ovs-vswitchd follows."""
        with self._open(switch) as ovsdb:
            ovsdb.change()
            bridge = _bridge(ovsdb, switch)
            woven = ovs_tunnels.read_tunnels(ovsdb, bridge, switch.name)
        if self._fences(switch, bridge) != _ends(woven.good.values(), bridge):
            raise Malformed(
                f"Switch {switch.name} is not fenced: nodes could write tunnel packets of their own.",
                fix="Make the wanted tunnels again.",
            )
        if len(woven.good) < len(woven.rows):
            odd = sorted(set(woven.rows) - set(woven.good))
            raise Malformed(
                f"Switch {switch.name}: tunnel {', '.join(odd[:10])} is not as it was made.",
                fix="Make the wanted tunnels again.",
                details={"tunnels": odd},
            )
        return frozenset(woven.good.values())

    def stand_by(self, switch: Switch, wait_s: float) -> bool | None:
        """Hang on ovs-vswitchd's control socket: it is cut when ovs-vswitchd ends, and with it go all rules."""
        if not vtep_of(switch) or not switch.address.startswith("unix:"):
            return None
        end_s, absent_s = time.monotonic() + wait_s, _RETURN_POLL_S
        while True:
            try:
                with hold_on(switch.address, timeout_s=self._timeout_s) as is_over:
                    if self._refence(switch):
                        return True
                    if not is_over(end_s - time.monotonic()):
                        return False
            except Refused:  # it has not made the bridge yet, or there is no ovs-ofctl
                self._delay(_REFUSED_POLL_S)
            except DriverError:  # it is not there
                self._delay(absent_s)
                absent_s = min(absent_s * 1.2, _REFUSED_POLL_S)
            if time.monotonic() > end_s:
                return False

    def _refence(self, switch: Switch) -> bool:
        """Fence the ends of the tunnels that are there, if they are not; say so."""
        with self._open(switch) as ovsdb:
            bridge = _bridge(ovsdb, switch)
            ends = ovs_tunnels.ends_in(ovsdb) if bridge["datapath_type"] == _USERSPACE else frozenset()
        missing = ends - self._fences(switch, bridge)
        if missing:
            write_fence(switch.address, switch.settings["bridge"], (), missing, timeout_s=self._timeout_s)
            forget_flows(switch.address, timeout_s=self._timeout_s)
        return bool(missing)

    def _fence(self, switch: Switch, bridge: Row, wanted: Collection[Tunnel]) -> None:
        """Keep nodes from writing tunnel packets of their own. Errors: Refused where that cannot be."""
        ends = _ends(wanted, bridge)
        if ends and not switch.address.startswith("unix:"):
            raise Refused(
                f"Switch {switch.name} forwards by ovs-vswitchd itself, and that is not reached by its sockets.",
                fix="Use a bridge of the kernel (no datapath_type), or reach it by unix:.",
                code="no-tunnels",
            )
        missing = ends - self._fences(switch, bridge)
        if missing:
            write_fence(switch.address, switch.settings["bridge"], (), missing, timeout_s=self._timeout_s)

    def _unfence(self, switch: Switch, bridge: Row, wanted: Collection[Tunnel]) -> None:
        """Let nodes reach again what no tunnel ends at any more."""
        idle = self._fences(switch, bridge) - _ends(wanted, bridge)
        if idle:
            write_fence(switch.address, switch.settings["bridge"], idle, (), timeout_s=self._timeout_s)

    def _fences(self, switch: Switch, bridge: Row) -> frozenset[str]:
        if bridge["datapath_type"] != _USERSPACE or not switch.address.startswith("unix:"):
            return frozenset()
        return read_rules(switch.address, switch.settings["bridge"], timeout_s=self._timeout_s).fences

    def _rules(self, ovsdb: Ovsdb, switch: Switch) -> Rules:
        """Read the bridge's rules. Errors: Refused for rules that are not a guard's, and where guards can be evaded."""
        if not self.can_guard(switch):
            return Rules()
        (limits,) = ovsdb.transact({"op": "select", "table": DATABASE, "where": [], "columns": ["other_config"]})
        limit = dict(limits["rows"][0]["other_config"][1]).get("vlan-limit", "1")
        if limit != "1":
            raise Refused(
                f"Switch {switch.name} reads {limit} VLAN tags of a frame: then a node can hide behind them.",
                fix="Run `ovs-vsctl remove Open_vSwitch . other_config vlan-limit` and restart it.",
                code="vlan-limit",
            )
        rules = read_rules(switch.address, switch.settings["bridge"], timeout_s=self._timeout_s)
        if rules.foreign:
            raise Refused(
                f"Bridge {switch.settings['bridge']} of switch {switch.name} has rules that are not ours, for example"
                f" {rules.foreign[0]}.",
                fix="Remove them (`ovs-ofctl del-flows --strict`): they can pass what a VLAN would not.",
                code="foreign-rules",
            )
        return rules

    def _write(self, switch: Switch, rules: Mapping[int, frozenset[Rule]]) -> None:
        if rules:
            write_rules(switch.address, switch.settings["bridge"], rules, timeout_s=self._timeout_s)

    def _open(self, switch: Switch) -> Ovsdb:
        if not switch.settings.get("bridge"):
            raise Refused(
                f"Switch {switch.name} names no bridge.", fix='Add the setting "bridge".', code="missing-setting"
            )
        return Ovsdb(switch.address, timeout_s=self._timeout_s)


def _ends(tunnels: Iterable[Tunnel], bridge: Row) -> frozenset[str]:
    """List the addresses of a switch's own ends where nodes could write to them; the kernel lets none do that."""
    return frozenset(tunnel.local for tunnel in tunnels) if bridge["datapath_type"] == _USERSPACE else frozenset()


def _bridge(ovsdb: Ovsdb, switch: Switch) -> Row:
    (result,) = ovsdb.transact(
        select("Bridge", "name", switch.settings["bridge"], ["_uuid", "ports", "controller", "datapath_type"])
    )
    if not result["rows"]:
        raise Refused(f"Switch {switch.name} has no bridge {switch.settings['bridge']}.", code="no-such-bridge")
    bridge: Row = result["rows"][0]
    return bridge


def _find(ovsdb: Ovsdb, switch: Switch, names: Iterable[str]) -> Mapping[str, Row]:
    """Read the rows of the named ports, of a bonded one that of its bond. Errors: Refused with code "no-such-port"."""
    names = list(names)
    on_bridge = set(members(_bridge(ovsdb, switch)["ports"]))
    results = ovsdb.transact(*(select("Port", "name", name, _PORT_COLUMNS) for name in names))
    rows = [row for result in results for row in result["rows"] if members(row["_uuid"])[0] in on_bridge]
    found = {row["name"]: row for row in rows}
    for name, interfaces in _interfaces(ovsdb, set(names) - set(found)).items():
        for interface in interfaces:
            within = {"op": "select", "table": "Port", "columns": list(_PORT_COLUMNS)}
            (bond,) = ovsdb.transact({**within, "where": [["interfaces", "includes", interface["_uuid"]]]})
            for row in bond["rows"]:
                if members(row["_uuid"])[0] in on_bridge:
                    found[name] = row
    missing = sorted(set(names) - set(found))
    if missing:
        raise Refused(f"Switch {switch.name} has no port {', '.join(missing)}.", code="no-such-port")
    return found


def _names(ovsdb: Ovsdb, ports: Collection[Row]) -> Mapping[str, str]:
    """Name the interfaces of ports by their rows; that of a plain port is called as the port."""
    plain = {
        members(port["interfaces"])[0]: str(port["name"]) for port in ports if len(members(port["interfaces"])) == 1
    }
    bonded = {uuid for port in ports for uuid in members(port["interfaces"])} - set(plain)
    asked = [select("Interface", "_uuid", ["uuid", uuid], ["_uuid", "name"]) for uuid in sorted(bonded)]
    rows = [row for result in (ovsdb.transact(*asked) if asked else ()) for row in result["rows"]]
    return plain | {members(row["_uuid"])[0]: str(row["name"]) for row in rows}


def _update(name: str, port: Row, row: Row, config: PortConfig) -> tuple[Operation, ...]:
    """Change a port's VLANs and the claim of its guard, and nothing else that is written there."""
    at = {"table": "Port", "where": [["_uuid", "==", port["_uuid"]]]}
    mutations: list[object] = [["external_ids", "delete", to_set([CLAIM])]]
    if config.guard is not None:
        mutations.append(["external_ids", "insert", ["map", [[CLAIM, claim_of(config.guard)]]]])
    device = {
        "op": "update",
        "table": "Interface",
        "where": [["name", "==", name]],
        "row": {"mtu_request": to_set([] if config.mtu is None else [config.mtu])},
    }
    return {"op": "update", **at, "row": row}, {"op": "mutate", **at, "mutations": mutations}, device


def _guarded(config: PortConfig, port: Row, ofport: int, rules: Rules) -> PortConfig | str:
    """Add the guard that is in force; words when it is not the one that is claimed."""
    guard = guard_claimed(dict(port["external_ids"][1]).get(CLAIM))
    if rules.by_port.get(ofport, frozenset()) != rules_of(guard, ofport):
        return "is not guarded by the rules it should have"
    return replace(config, guard=guard)


def _interfaces(ovsdb: Ovsdb, names: Iterable[str]) -> Mapping[str, Sequence[Row]]:
    names = list(names)
    results = ovsdb.transact(*(select("Interface", "name", name, _INTERFACE_COLUMNS) for name in names))
    return {name: result["rows"] for name, result in zip(names, results, strict=True)}


def _ofport(interfaces: Sequence[Row]) -> int:
    """Return the number of a port in the data path; 0 when it is not there."""
    numbers = members(interfaces[0]["ofport"]) if interfaces else ()
    return max(0, int(numbers[0])) if numbers else 0


def mtu_of(interfaces: Sequence[Row]) -> int | None:
    """Return what a port's device has where it was asked for something; else it has what it came with."""
    asked, has = members(interfaces[0]["mtu_request"]), members(interfaces[0]["mtu"])
    return int(has[0]) if asked and has else None


def interface_fault(port: Row, interfaces: Sequence[Mapping[str, Any]]) -> str:
    """Say why a port is not in the data path; "" when it is."""
    own = set(members(port["interfaces"]))
    if len(interfaces) != 1 or own != {members(interfaces[0]["_uuid"])[0]}:
        return "is not one plain interface"
    return absence(interfaces)


def absence(interfaces: Sequence[Mapping[str, Any]]) -> str:
    """Say why an interface is not in the data path; "" when it is."""
    error, ofport = members(interfaces[0]["error"]), members(interfaces[0]["ofport"])
    if error:
        return f"is not in the data path: {error[0]}"
    return "" if ofport and ofport[0] > 0 else "is not in the data path"
