"""Open vSwitch as Ansible sees it: ovs-vsctl, everything of a call in one transaction."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

from malleable.domain.errors import Malformed, Refused
from malleable.domain.switches import PortConfig, Switch
from malleable.drivers.ovsdb import members
from malleable.drivers.switch.ansible.dialects import Dialect, Told, require_sane
from malleable.drivers.switch.ovs import OUTSIDE_TYPES, interface_fault, mtu_of
from malleable.drivers.switch.ovs_vlans import row_of, told_by

_WAIT_S = 4


def _vsctl(switch: Switch, *words: str) -> list[str]:
    return ["ovs-vsctl", f"--db={switch.address}", f"--timeout={_WAIT_S}", "--format=json", *words]


def _bridge(switch: Switch) -> str:
    if not switch.settings.get("bridge"):
        raise Refused(f"Switch {switch.name} names no bridge.", fix='Add the setting "bridge".', code="missing-setting")
    return switch.settings["bridge"]


def _show(switch: Switch) -> Sequence[object]:
    # It changes a word that means nothing: ovs-vsctl then waits until ovs-vswitchd follows.
    proof = ("set", "Open_vSwitch", ".", f"external_ids:malleable-proof={uuid4()}")
    lists = (("list", "Bridge", _bridge(switch)), ("list", "Port"), ("list", "Interface"))
    return [_vsctl(switch, *proof, *(word for words in lists for word in ("--", *words)))]


def _read(switch: Switch, answers: Sequence[str]) -> Mapping[str, Told]:
    try:
        bridges, ports, interfaces = (_rows(line) for answer in answers for line in answer.splitlines() if line)
    except (ValueError, KeyError) as e:
        raise Malformed(f"ovs-vsctl of switch {switch.name} does not answer as it should: {e}.") from e
    mine = {uuid for bridge in bridges for uuid in members(bridge["ports"])}
    outside = {row["name"]: row for row in interfaces if row["type"] in OUTSIDE_TYPES}
    told: dict[str, Told] = {}
    for port in ports:
        interface = outside.get(port["name"])
        if members(port["_uuid"])[0] in mine and interface is not None:
            config = interface_fault(port, [interface]) or told_by(port)
            told[port["name"]] = config if isinstance(config, str) else replace(config, mtu=mtu_of([interface]))
    return told


def _rows(answer: str) -> Sequence[Mapping[str, Any]]:
    table = json.loads(answer)
    return [dict(zip(table["headings"], row, strict=True)) for row in table["data"]]


def _change(switch: Switch, wanted: Mapping[str, PortConfig]) -> Sequence[str]:
    words = []
    for name, config in wanted.items():
        require_sane(name, config)
        columns = (f"{column}={_value(value)}" for column, value in row_of(name, config).items())
        mtu = "[]" if config.mtu is None else str(config.mtu)
        words += ["--", "set", "Port", name, *columns, "--", "set", "Interface", name, f"mtu_request={mtu}"]
    return _vsctl(switch, *words) if words else []


def _value(value: object) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(str, value[1]))}]"
    return str(value).lower()


OPENVSWITCH = Dialect(
    role="openvswitch",
    connection="ansible.builtin.local",
    network_os="",
    needs="",
    tested="Open vSwitch 3.1",
    show=_show,
    read=_read,
    change=_change,
)
