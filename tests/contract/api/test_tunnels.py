"""Fabrics whose networks travel by VXLAN: what can be one, and what its networks are."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from tests.contract.api.site import Site, items, later

from malleable.domain.ids import AttachmentId, NetworkId, NicId, SwitchId, SwitchPortId, new_id
from malleable.domain.networks import Attachment, AttachmentState, Channel
from malleable.domain.nodes import NodeState
from malleable.domain.operations import OperationState
from malleable.domain.switches import PortConfig, PortState, SwitchPort
from malleable.domain.tunnels import VNI_BASE_MAX, Tunnel
from malleable.sim.faults import FaultKind

FABRIC = "/v1/fabrics/hall"


def _ask(site: Site, method: str, path: str, body: Mapping[str, object], caller: str = "operator") -> dict[str, Any]:
    response = site.call(caller, method, path, json=body)
    return {"status": response.status_code, **(response.json() if response.content else {})}


def _codes(site: Site, method: str, path: str, body: Mapping[str, object]) -> tuple[int, str]:
    told = _ask(site, method, path, body)
    return told["status"], told.get("code", "")


def _switch(site: Site, name: str, fabric: str = "hall", **settings: str) -> tuple[int, str]:
    address = f"sim://{name}"
    site.switches.add(address, ["p1"], vtep=settings.get("vtep", ""))
    wish = {"name": name, "driver": "sim", "fabric": fabric, "address": address, "settings": settings}
    return _codes(site, "POST", "/v1/switches", wish)


def _network(site: Site, name: str = "far", **wish: object) -> dict[str, Any]:
    return _ask(site, "POST", "/v1/networks", {"name": name, "fabric": "hall", "mtu": 1450, **wish}, "member")


@pytest.fixture
def hall(small_site: Site) -> Site:
    """A fabric of two switches that has VNIs."""
    assert _codes(small_site, "PUT", f"{FABRIC}/vlans", {"ranges": ["200-202"]}) == (200, "")
    for number in (1, 2):
        assert _switch(small_site, f"v{number}", vtep=f"10.99.0.{number}") == (201, "")
    assert _codes(small_site, "PUT", f"{FABRIC}/vnis", {"base": 70000}) == (200, "")
    return small_site


def test_a_network_has_the_vni_of_its_vlan_and_tenants_do_not_read_it(hall: Site) -> None:
    network = _network(hall)
    assert network["status"] == 201, network
    assert "vni" not in network
    shown = hall.get("admin", f"/v1/networks/{network['id']}").json()
    assert (shown["vid"], shown["vni"]) == (200, 70200)
    told = {n["name"]: n["is_tunnelled"] for n in hall.get("gateway", "/v1/gateway/desired").json()["networks"]}
    assert {name for name, is_tunnelled in told.items() if is_tunnelled} == {"far"}, "gateways hear which ones are"
    assert hall.get("operator", FABRIC).json()["vni_base"] == 70000
    assert len(items(hall.get("operator", "/v1/operations?kind=weave-tunnels"))) == 2, "each switch is told"


def test_vlans_that_join_and_leave_the_pool_bring_and_take_their_vnis(hall: Site) -> None:
    assert _codes(hall, "POST", f"{FABRIC}/vlans", {"add": ["300"], "remove": ["200"]}) == (200, "")
    with hall.store.reading() as tx:
        assert {(v.vid, v.vni) for v in tx.vlans.list(fabric="hall")} == {(v, 70000 + v) for v in (201, 202, 300)}


def test_the_pool_is_exhausted_as_without_vnis(hall: Site) -> None:
    assert [_network(hall, f"n{number}")["status"] for number in range(3)] == [201, 201, 201]
    told = _network(hall, "n3")
    assert (told["status"], told["code"]) == (409, "no-vlan")


def test_vnis_end_when_no_network_has_one(hall: Site) -> None:
    network = _network(hall)
    assert _codes(hall, "PUT", f"{FABRIC}/vnis", {"base": None}) == (409, "vlan-in-use")
    assert _codes(hall, "PUT", f"{FABRIC}/vnis", {"base": 80000}) == (409, "vlan-in-use")
    assert _codes(hall, "PUT", f"{FABRIC}/vnis", {"base": 70000}) == (200, ""), "it is so already"
    with hall.store.transaction() as tx:
        found = tx.networks.find(name=network["name"])
        assert found is not None
        tx.vlans.give_back(found.id, hall.clock.now())
        tx.networks.remove(found.id)
    assert _codes(hall, "PUT", f"{FABRIC}/vnis", {"base": 70001}) == (200, ""), "though each is its neighbour's old one"
    assert _codes(hall, "PUT", f"{FABRIC}/vnis", {"base": None}) == (200, "")
    assert _network(hall, mtu=1500)["status"] == 201


def test_a_vni_rests_as_its_vlan_does(hall: Site) -> None:
    with hall.store.transaction() as tx:
        (vlan, *_) = tx.vlans.list(fabric="hall")
        tx.vlans.change(vlan.id, reusable_at=hall.clock.now() + timedelta(seconds=1))
    for base in (None, 80000):
        assert _codes(hall, "PUT", f"{FABRIC}/vnis", {"base": base}) == (409, "vlan-resting"), "another may be given it"
    hall.clock.advance(1)
    assert _codes(hall, "PUT", f"{FABRIC}/vnis", {"base": None}) == (200, "")


@pytest.mark.parametrize("base", [-1, VNI_BASE_MAX + 1])
def test_a_vni_has_24_bits(hall: Site, base: int) -> None:
    assert _codes(hall, "PUT", f"{FABRIC}/vnis", {"base": base}) == (422, "invalid")


def test_a_vni_is_one_fabrics_alone(hall: Site) -> None:
    assert _codes(hall, "PUT", "/v1/fabrics/roof/vlans", {"ranges": ["210-219"]}) == (200, "")
    assert _codes(hall, "PUT", "/v1/fabrics/roof/vnis", {"base": 69990}) == (409, "vni-of-another-fabric")
    assert _codes(hall, "PUT", "/v1/fabrics/roof/vnis", {"base": 70000}) == (200, "")
    assert _codes(hall, "POST", "/v1/fabrics/roof/vlans", {"add": ["220"]}) == (200, "")
    assert _codes(hall, "PUT", "/v1/fabrics/empty/vnis", {"base": 70000}) == (409, "no-vlan")


def test_switches_that_cannot_are_refused_in_such_a_fabric(hall: Site) -> None:
    assert _switch(hall, "plain") == (409, "no-vtep")
    assert _switch(hall, "unable", vtep="10.99.0.3", tunnels="off") == (409, "no-tunnels")
    assert _switch(hall, "same", vtep="10.99.0.2") == (409, "vtep-taken")
    assert _switch(hall, "six", vtep="fd00::9") == (409, "vtep-taken")
    wish = {"name": "twin", "driver": "sim", "fabric": "roof", "address": "sim://v1"}
    assert _codes(hall, "POST", "/v1/switches", wish) == (409, "vtep-not-alone")
    assert _switch(hall, "able", vtep="10.99.0.3") == (201, "")
    moved = [_codes(hall, "PUT", "/v1/switches/able/access", {"address": f"sim://{name}"}) for name in ("v1", "able")]
    assert moved == [(409, "vtep-not-alone"), (200, "")]


@pytest.mark.parametrize(
    ("address", "twin"),
    [
        ("unix:/run/v9/db.sock", "unix:/var/run/v9//x/../db.sock"),
        ("tcp:host:6640", "tcp:HOST:06640"),
        ("tcp:[fd00::1]:6640", "tcp:[FD00:0::1]:6640"),
    ],
)
def test_an_open_vswitch_is_one_however_its_address_is_written(small_site: Site, address: str, twin: str) -> None:
    wish = {"driver": "sim", "fabric": "roof"}
    for place in (address, twin):
        small_site.switches.add(place, ["p1"])
    first = {**wish, "name": "first", "address": address, "settings": {"vtep": "10.99.0.9"}}
    assert _codes(small_site, "POST", "/v1/switches", first) == (201, "")
    second = {**wish, "name": "second", "address": twin}
    assert _codes(small_site, "POST", "/v1/switches", second) == (409, "vtep-not-alone")
    for name, other in enumerate(("unix:/run/v9/other.sock", "tcp:host:6641", f"tcp:host:{'6' * 200}", "tcp:")):
        small_site.switches.add(other, ["p1"])
        assert _codes(small_site, "POST", "/v1/switches", {**second, "name": f"n{name}", "address": other}) == (201, "")


@pytest.mark.parametrize(
    "vtep", ["host", "10.99.0.300", "127.0.0.1", "0.0.0.0", "224.0.0.1", "fe80::1", "8.8.8.8", "::"]
)
def test_a_vtep_is_a_private_address(small_site: Site, vtep: str) -> None:
    assert _switch(small_site, "odd", vtep=vtep) == (422, "invalid")


@pytest.mark.parametrize("mtu", ["0", "1329", "99999", "many", "９000", ""])  # noqa: RUF001 - a digit of another script
def test_an_underlay_has_an_mtu(small_site: Site, mtu: str) -> None:
    assert _switch(small_site, "odd", vtep="10.99.0.3", underlay_mtu=mtu) == (422, "invalid")


def test_a_fabric_with_a_switch_that_cannot_gets_no_vnis(small_site: Site) -> None:
    assert _codes(small_site, "PUT", f"{FABRIC}/vlans", {"ranges": ["200-202"]}) == (200, "")
    assert _switch(small_site, "plain") == (201, "")
    assert _codes(small_site, "PUT", f"{FABRIC}/vnis", {"base": 70000}) == (409, "no-vtep")


def test_packets_fit_the_tunnels_of_every_switch(hall: Site) -> None:
    told = _network(hall, mtu=1500)
    assert (told["status"], told["code"]) == (422, "mtu-too-large")
    assert "1450" in told["detail"]
    assert _switch(hall, "wide", vtep="10.99.0.3", underlay_mtu="9000") == (201, "")
    assert _network(hall, mtu=8950)["code"] == "mtu-too-large", "one of them is narrow"
    network = _network(hall)
    assert _ask(hall, "PUT", f"/v1/networks/{network['id']}", {"mtu": 1451}, "member")["code"] == "mtu-too-large"
    assert _switch(hall, "narrow", vtep="10.99.0.4", underlay_mtu="1400") == (409, "mtu-too-large")


def test_what_is_made_by_hand_stays_on_its_vlan(hall: Site) -> None:
    wish = {"name": "office", "fabric": "hall", "kind": "provider", "vlan": 4000}
    assert _ask(hall, "POST", "/v1/networks", wish, "admin")["vni"] is None


def _weavings(site: Site) -> int:
    return len(items(site.get("operator", "/v1/operations?kind=weave-tunnels")))


def test_the_others_forget_a_switch_that_is_deleted(hall: Site) -> None:
    """Also one that was not read back yet: they may have tunnels to it."""
    assert _codes(hall, "DELETE", "/v1/switches/v2", {}) == (204, "")
    assert _weavings(hall) == 1


def test_a_switch_shows_the_vnis_it_may_have(hall: Site) -> None:
    with hall.store.transaction() as tx:
        switch = tx.switches.find(name="v2")
        assert switch is not None
        tx.switches.change(switch.id, vnis=(70200,))
    assert hall.get("operator", "/v1/switches/v2").json()["vnis"] == [70200]


def test_a_path_between_switches_is_open_only_by_proven_tunnels(hall: Site) -> None:
    network = hall.get("admin", f"/v1/networks/{_network(hall)['id']}").json()
    with hall.store.transaction() as tx:
        for number in (1, 2):
            switch = tx.switches.find(name=f"v{number}")
            assert switch is not None
            hall.ids[f"v{number}"], hall.ids["port9"] = switch.id, new_id()
            port = SwitchPort(id=SwitchPortId(hall.ids["port9"]), switch_id=switch.id, name="p1", created_at=later(0))
            tx.switch_ports.add(port)
            config = PortConfig(native_vid=network["vid"])
            tx.switch_ports.change(port.id, wanted=config, observed=config, state=PortState.SETTLED)
            hall.node(tx, f"far{number}", NodeState.ALLOCATED, port=9, project="alpha")
            attachment = Attachment(
                id=AttachmentId(new_id()),
                nic_id=NicId(hall.ids[f"nic:far{number}"]),
                network_id=NetworkId(UUID(network["id"])),
                channel=Channel.NATIVE,
                state=AttachmentState.ATTACHED,
                address=f"10.0.0.1{number}",
                created_at=later(0),
            )
            tx.attachments.add(attachment)

    def told() -> tuple[bool, str]:
        found = hall.get("member", "/v1/paths?one=far1&other=far2").json()
        return found["is_open"], found["networks"][0]["reason"]

    apart = (False, "The tunnels between their switches are not proven.")
    assert told() == apart, "nothing was woven yet"
    with hall.store.transaction() as tx:
        for weaving in tx.operations.list(kind="weave-tunnels"):
            tx.operations.change(weaving.id, state=OperationState.SUCCEEDED)
        tx.switches.change(SwitchId(hall.ids["v1"]), vnis=(network["vni"],))
    assert told() == apart, "one end is no tunnel"
    with hall.store.transaction() as tx:
        tx.switches.change(SwitchId(hall.ids["v2"]), vnis=(network["vni"],))
    assert told() == (True, "")


@pytest.mark.parametrize("fault", [None, FaultKind.LOST_REQUEST, FaultKind.REFUSED])
def test_a_switch_that_comes_back_loses_the_tunnels_of_its_former_life(
    small_site: Site, fault: FaultKind | None
) -> None:
    """With a trunk they would be a loop. Whether it has any is not known when it does not answer that question."""
    assert _switch(small_site, "fresh") == (201, "")
    assert _weavings(small_site) == 0
    address = "sim://back"
    small_site.switches.add(address, ["p1"])
    old = Tunnel(local="10.99.0.1", remote="10.99.0.2", vni=70200, vid=200)
    small_site.switches.rewire(address, [old])
    if fault is not None:
        small_site.switches.faults.add("tunnels", fault, key=address)
    wish = {"name": "back", "driver": "sim", "fabric": "plain", "address": address}
    assert _codes(small_site, "POST", "/v1/switches", wish) == (201, "")
    assert _weavings(small_site) == (0 if fault is FaultKind.REFUSED else 1)
