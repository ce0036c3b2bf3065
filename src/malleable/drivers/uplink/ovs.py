"""OvsUplink: an internal port of an Open vSwitch bridge, moved into a network's namespace."""

import json
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from malleable.domain.errors import Malformed, Refused, Unreachable
from malleable.drivers.ovsdb import Operation, Ovsdb, Row, forget_flows, members, select, to_set

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}", re.ASCII)  #: Linux: at most 15 bytes
_NAMESPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}", re.ASCII)
_MARK = ("malleable", "uplink")  #: in external_ids of the ports that are ours to remove
_PORT_COLUMNS = ("_uuid", "interfaces", "external_ids")


class OvsUplink:
    """Plugs interfaces into bridges of one Open vSwitch, which may run in a network namespace of its own."""

    def __init__(
        self,
        address: str,
        bridge: str,
        *,
        bridges: Mapping[str, str] = {},
        switch_namespace: str | None = None,
        timeout_s: float = 5.0,
        settle_s: float = 0.5,
        delay: Callable[[float], object] = time.sleep,
    ) -> None:
        """Use ``bridge`` of the database at ``address`` ("unix:/path", "tcp:host:port"), for some fabrics ``bridges``.

        ``settle_s`` is waited by ``delay`` after a change of VLAN where ovs-vswitchd cannot be told to forget flows.
        """
        self._address = address
        self._bridge = bridge
        self._bridges = bridges
        self._switch_namespace = switch_namespace
        self._timeout_s = timeout_s
        self._settle_s = settle_s
        self._delay = delay

    def plug(self, interface: str, vid: int, namespace: str, fabric: str = "") -> None:
        """Make the port, or change its VLAN, and move its device. One on another bridge is made anew.

        A device lost with its namespace or with a killed ovs-vswitchd is made anew. A new device is down and has no
        addresses; one that was good is left as it is.
        Errors: Refused for a port of that name that is not ours, a bad name, VLAN or a namespace that does not exist.
        """
        _require_names(interface, namespace)
        if not 1 <= vid <= 4094:
            raise Refused(f"Interface {interface} cannot be on VLAN {vid}.", code="bad-vlan")
        if not self._has_namespace(namespace):
            raise Refused(f"There is no network namespace {namespace}.", code="no-such-namespace")
        bridge = self._bridges.get(fabric, self._bridge)
        port = self._port(interface)
        if port is not None and not self._is_on(bridge, port):  # a bridge that is not there unplugs nothing
            self._remove(port)
            port = None
        is_there = self._has_device(interface, namespace)
        is_fresh = namespace != self._switch_namespace and self._has_device(interface, self._switch_namespace)
        if port is None and is_there:
            raise Refused(f"Namespace {namespace} has another device {interface}.", code="interface-taken")
        if port is not None and not is_there and not is_fresh:
            self._remove(port)
            port = None
        self._configure(interface, vid, bridge, port)
        if is_there and not is_fresh:
            return
        if is_there:  # the dead device of an ovs-vswitchd that was killed; the new one has made another
            self._ip(namespace, "link", "delete", "dev", interface)
        self._ip(self._switch_namespace, "link", "set", "dev", interface, "netns", namespace)

    def unplug(self, interface: str) -> None:
        _require_names(interface)
        port = self._port(interface)
        if port is not None:
            self._remove(port)

    def _port(self, interface: str) -> Row | None:
        """Find our port, when ovs-vswitchd has made all devices. Errors: Refused for one that is not ours."""
        with self._open() as ovsdb:
            ovsdb.change()
            (found,) = ovsdb.transact(select("Port", "name", interface, _PORT_COLUMNS))
        if not found["rows"]:
            return None
        port: Row = found["rows"][0]
        if list(_MARK) not in port["external_ids"][1]:
            raise Refused(
                f"Port {interface} of Open vSwitch was not made by the gateway.",
                fix="Rename that port, or the gateway's interface.",
                code="not-an-uplink",
            )
        return port

    def _configure(self, interface: str, vid: int, bridge: str, port: Row | None) -> None:
        row = {
            "vlan_mode": "access",
            "tag": vid,
            "trunks": to_set([]),
            "cvlans": to_set([]),
            "protected": False,
            "external_ids": ["map", [list(_MARK)]],
        }
        with self._open() as ovsdb:
            if port is not None:
                where = [["_uuid", "==", port["_uuid"]]]
                ovsdb.change({"op": "update", "table": "Port", "where": where, "row": row})
            else:
                *_, joined = ovsdb.change(*self._creation(interface, bridge, row))
                if joined.get("count") != 1:
                    raise _no_bridge(bridge)
            (found,) = ovsdb.transact(select("Interface", "name", interface, ["error", "ofport"]))
        error = members(found["rows"][0]["error"]) if found["rows"] else ("it is not there",)
        if error:
            raise Refused(f"Open vSwitch could not make {interface}: {error[0]}.", code="ovsdb")
        if port is not None and not forget_flows(self._address, timeout_s=self._timeout_s):
            self._delay(self._settle_s)

    def _creation(self, interface: str, bridge: str, row: Row) -> Sequence[Operation]:
        device = {"name": interface, "type": "internal"}
        return (
            {"op": "insert", "table": "Interface", "uuid-name": "device", "row": device},
            {
                "op": "insert",
                "table": "Port",
                "uuid-name": "port",
                "row": {**row, "name": interface, "interfaces": ["named-uuid", "device"]},
            },
            _ports("insert", ["named-uuid", "port"], ["name", "==", bridge]),
        )

    def _remove(self, port: Row) -> None:
        with self._open() as ovsdb:
            ovsdb.change(_ports("delete", port["_uuid"], ["ports", "includes", port["_uuid"]]))

    def _is_on(self, bridge: str, port: Row) -> bool:
        with self._open() as ovsdb:
            (found,) = ovsdb.transact(select("Bridge", "name", bridge, ["ports"]))
        if not found["rows"]:
            raise _no_bridge(bridge)
        return any(port["_uuid"][1] in members(row["ports"]) for row in found["rows"])

    def _open(self) -> Ovsdb:
        return Ovsdb(self._address, timeout_s=self._timeout_s)

    def _has_namespace(self, namespace: str) -> bool:
        return Path("/run/netns", namespace).exists()

    def _has_device(self, interface: str, namespace: str | None) -> bool:
        if namespace is not None and not self._has_namespace(namespace):
            return False
        links = self._ip(namespace, "-json", "link", "show")
        return any(link.get("ifname") == interface for link in links)

    def _ip(self, namespace: str | None, *words: str) -> Sequence[Any]:
        """Run ip, in a namespace; return what it says in JSON."""
        command = ["ip", *(() if namespace is None else ("-n", namespace)), *words]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=self._timeout_s, check=True)
            said: Sequence[Any] = json.loads(done.stdout or "[]")
        except subprocess.CalledProcessError as e:
            raise Refused(f"{' '.join(command)}: {e.stderr.strip()}", code="ip") from e
        except FileNotFoundError as e:
            raise Refused("The program ip is not installed.", fix="Install iproute2.") from e
        except subprocess.TimeoutExpired as e:
            raise Unreachable(f"{' '.join(command)} took longer than {self._timeout_s} s.") from e
        except json.JSONDecodeError as e:
            raise Malformed(f"{' '.join(command)} did not answer in JSON.") from e
        return said


def _ports(mutator: str, port: object, where: Sequence[object]) -> Operation:
    return {"op": "mutate", "table": "Bridge", "where": [where], "mutations": [["ports", mutator, port]]}


def _no_bridge(name: str) -> Refused:
    return Refused(f"Open vSwitch has no bridge {name}.", code="no-such-bridge")


def _require_names(interface: str, namespace: str = "x") -> None:
    """Accept only names that Linux takes and that no program can take for an option or a path."""
    if not _NAME.fullmatch(interface) or not _NAMESPACE.fullmatch(namespace):
        raise Refused(f"{interface!a} and {namespace!a} cannot be an interface and a namespace.", code="bad-name")
