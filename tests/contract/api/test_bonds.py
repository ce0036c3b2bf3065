"""Two NICs that are one: who may say so, of which, and what follows."""

import json
from typing import Any

import pytest
from tests.contract.api.site import START, Site, items

from malleable.domain.ids import NicId, NodeId, SwitchId, SwitchPortId, new_id
from malleable.domain.nodes import Nic, NodeState
from malleable.domain.seeds import Link, network_config
from malleable.domain.switches import SwitchPort

PATH = "/v1/nodes/broken/bonds/bond0"
BOOT, ONE, OTHER = "52:54:00:00:00:01", "52:54:00:00:00:02", "52:54:00:00:00:03"


def _more_nics(site: Site, *ports: str) -> None:
    """Give the node more NICs, wired to new ports; "" is not wired."""
    with site.store.transaction() as tx:
        for number, name in enumerate(ports, 1):
            port_id = SwitchPortId(new_id()) if name else None
            if port_id is not None:
                switch_id = SwitchId(site.ids["switch"])
                tx.switch_ports.add(SwitchPort(id=port_id, switch_id=switch_id, name=name, created_at=START))
            node_id, mac = NodeId(site.ids["broken"]), f"52:54:00:00:01:{number:02x}"
            tx.nics.add(Nic(id=NicId(new_id()), node_id=node_id, name=f"nic{number}", mac=mac, switch_port_id=port_id))


def _bond(site: Site, *nics: str, path: str = PATH) -> tuple[int, dict[str, Any]]:
    response = site.call("operator", "PUT", path, json={"nics": list(nics)})
    return response.status_code, response.json()


def test_two_nics_are_one_until_that_is_undone(small_site: Site) -> None:
    _more_nics(small_site, "p6", "p7")
    for _ in range(2):
        status, told = _bond(small_site, "nic1", "nic0")
        assert (status, [(nic["name"], nic["bond"]) for nic in told["items"]]) == (
            200,
            [("nic0", "bond0"), ("nic1", "bond0")],
        )
    kinds = [event["kind"] for event in items(small_site.get("admin", "/v1/events"))]
    assert kinds.count("nic.bonded") == 1, "saying it again is nothing new"
    wire = small_site.call("operator", "PUT", "/v1/nodes/broken/nics/nic1/port", json={"switch": "tor1", "port": "p7"})
    assert (wire.status_code, wire.json()["code"]) == (409, "nic-bonded")
    assert "unbond" in wire.json()["fix"]
    assert _bond(small_site, "nic0", "nic2", path="/v1/nodes/broken/bonds/bond1")[1]["code"] == "nic-bonded"
    assert small_site.call("operator", "DELETE", PATH).status_code == 204
    assert {nic["bond"] for nic in items(small_site.get("operator", "/v1/nodes/broken/nics"))} == {""}
    assert small_site.call("operator", "DELETE", PATH).status_code == 404


@pytest.mark.parametrize("nics", [("nic0",), ("nic0", "nic0"), ("nic0", "nic1", "nic2"), ()])
def test_a_bond_is_of_two(small_site: Site, nics: tuple[str, ...]) -> None:
    _more_nics(small_site, "p6", "p7")
    status, told = _bond(small_site, *nics)
    assert (status, told["code"]) == (422, "bond-of-two")


def test_what_cannot_be_one_is_refused_with_advice(small_site: Site) -> None:
    _more_nics(small_site, "p6", "")
    for nics, path, status, code in (
        (("nic0", "nic2"), PATH, 409, "nic-not-wired"),
        (("nic0", "nic9"), PATH, 404, "not-found"),
        (("nic0", "nic1"), "/v1/nodes/broken/bonds/nic2", 409, "nic-bonded"),
        (("nic0", "nic1"), "/v1/nodes/broken/bonds/Bond-0", 422, "invalid"),
        (("nic0", "nic1"), "/v1/nodes/held/bonds/bond0", 409, "node-held"),
    ):
        found, told = _bond(small_site, *nics, path=path)
        assert (found, told["code"]) == (status, code), nics
    with small_site.store.transaction() as tx:
        (switch,) = tx.switches.list()
        tx.switches.change(switch.id, settings={"bond": "off"})
    found, told = _bond(small_site, "nic0", "nic1")
    assert (found, told["code"], "driver list" in told["fix"]) == (409, "no-bond", True)
    with small_site.store.transaction() as tx:
        other = SwitchId(new_id())
        tx.switches.add(type(switch)(**{name: getattr(switch, name) for name in switch.__slots__} | _renamed(other)))
        (port,) = tx.switch_ports.list(name="p6")
        tx.switch_ports.change(port.id, switch_id=other)
    assert _bond(small_site, "nic0", "nic1")[1]["code"] == "bond-across-switches"


def _renamed(id: SwitchId) -> dict[str, object]:
    return {"id": id, "name": "tor2", "address": "sim://tor2"}


def test_a_network_joins_both_by_either_name(small_site: Site) -> None:
    _more_nics(small_site, "p6")
    assert _bond(small_site, "nic0", "nic1")[0] == 200
    with small_site.store.transaction() as tx:
        tx.nodes.change(small_site.ids["broken"], state=NodeState.ALLOCATED, project_id=small_site.ids["alpha"])
        (first, _) = tx.nics.list(node_id=small_site.ids["broken"])
    wish = {"node": "broken", "network": "blue", "nic": "bond0"}
    begun = small_site.post("member", "/v1/attachments", wish)
    assert begun.status_code == 202, begun.json()
    (there,) = (one for one in items(small_site.get("admin", "/v1/attachments")) if one["node"] == "broken")
    assert there["mac"] == first.mac
    again = small_site.post("member", "/v1/attachments", {**wish, "nic": "nic1"})
    assert again.json()["code"] in ("already-attached", "node-busy")


def test_a_system_is_told_of_the_bond_unless_its_disk_comes_through_it() -> None:
    boot = Link(mac=BOOT, addresses=("10.0.0.10/24",), mtu=1500, is_boot=True)
    bonded: dict[str, Any] = {"bond": "bond0", "bonded": (ONE, OTHER)}
    native = Link(mac=ONE, addresses=("10.1.0.10/24",), mtu=9000, **bonded)
    tagged = Link(mac=ONE, vid=102, addresses=("10.2.0.10/24",), mtu=1500, **bonded)
    told = _read(network_config([boot, tagged, native]))
    assert told["bonds"]["bond0"]["interfaces"] == ["bond0port0", "bond0port1"]
    assert (told["bonds"]["bond0"]["macaddress"], told["bonds"]["bond0"]["dhcp4"]) == (ONE, True)
    assert told["bonds"]["bond0"]["parameters"]["mode"] == "802.3ad"
    assert {name: card["match"]["macaddress"] for name, card in told["ethernets"].items() if "port" in name} == {
        "bond0port0": ONE,
        "bond0port1": OTHER,
    }
    assert {card["mtu"] for name, card in told["ethernets"].items() if "port" in name} == {9000}
    assert told["vlans"]["bond0.102"]["link"] == "bond0"
    root = Link(mac=ONE, addresses=("10.0.0.10/24",), mtu=1500, is_boot=True, **bonded)
    told = _read(network_config([root, tagged]))
    assert "bonds" not in told
    assert [card["match"]["macaddress"] for card in told["ethernets"].values()] == [ONE]


def _read(text: str) -> dict[str, dict[str, Any]]:
    """Read what is YAML with values of JSON."""
    told: dict[str, dict[str, Any]] = {}
    section: dict[str, Any] = {}
    for line in text.splitlines()[1:]:
        name, _, value = line.strip().partition(": ")
        if line.startswith("  "):
            section[name] = json.loads(value)
        else:
            section = told.setdefault(name.rstrip(":"), {})
    return told


def test_a_node_is_enrolled_with_its_bond_or_not_at_all(small_site: Site) -> None:
    assert small_site.post("operator", "/v1/switches/tor1/ports", {"names": ["p6"]}).status_code == 201
    wiring = [{"mac": mac, "switch": "tor1", "port": port} for mac, port in ((ONE, "p5"), (OTHER, "p6"))]
    body: dict[str, Any] = {"name": "new", "bmc": {"driver": "sim", "address": "sim://new"}, "wiring": wiring}
    alone = small_site.post("operator", "/v1/nodes", {**body, "bonds": [{"name": "bond0", "nics": [ONE]}]})
    assert (alone.status_code, alone.json()["code"]) == (422, "bond-of-two")
    assert small_site.get("operator", "/v1/nodes/new").status_code == 404
    begun = small_site.post("operator", "/v1/nodes", {**body, "bonds": [{"name": "bond0", "nics": [ONE, OTHER]}]})
    assert begun.status_code == 202, begun.json()
    assert [nic["bond"] for nic in items(small_site.get("operator", "/v1/nodes/new/nics"))] == ["bond0", "bond0"]
