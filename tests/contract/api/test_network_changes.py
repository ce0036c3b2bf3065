"""Changes of networks that serve already, and the way outside."""

from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any
from uuid import UUID

import pytest
from tests.contract.api.room import Room
from tests.contract.api.site import Site, items

from malleable.domain.errors import Invalid
from malleable.domain.networks import AttachmentState, NetworkKind
from malleable.services.networks import Networks, NetworkWish

PATH = "/v1/networks/blue"


def _set(site: Site, caller: str = "member", path: str = PATH, **changes: object) -> tuple[int, dict[str, Any]]:
    response = site.call(caller, "PUT", path, json=changes)
    return response.status_code, response.json()


def _desired(site: Site, network_id: str) -> dict[str, Any]:
    told = site.get("gateway", "/v1/gateway/desired").json()["networks"]
    return next(one for one in told if one["id"] == network_id)


def test_what_is_given_changes_and_the_rest_stays(small_site: Site) -> None:
    before = small_site.get("member", PATH).json()
    status, after = _set(small_site, dns_servers=["9.9.9.9"], domain="lab.example", ranges=["10.0.0.50-10.0.0.99"])
    assert status == 200
    given = {"dns_servers": ["9.9.9.9"], "domain": "lab.example", "ranges": ["10.0.0.50-10.0.0.99"]}
    assert after["addressing"] == {**before["addressing"], **given}
    assert after["generation"] > before["generation"], "the gateway hears of it"
    assert _desired(small_site, before["id"])["addressing"] == after["addressing"]
    status, again = _set(small_site, dns_servers=[], ranges=[])
    assert again["addressing"] == {**before["addressing"], "domain": "lab.example"}
    (event, *_) = (one for one in items(small_site.get("member", "/v1/events")) if one["kind"] == "network.changed")
    assert event["data"]["changed"] == ["dns_servers", "domain", "ranges"]


def test_a_range_of_a_subnet_that_is_not_there_is_refused(small_site: Site) -> None:
    assert _set(small_site, ranges6=["fd00:a::9"])[0] == 422


def test_what_cannot_change_is_refused_with_advice(small_site: Site) -> None:
    for changes, status, code in (
        ({}, 422, "invalid"),
        ({"cidr": "10.1.0.0/24"}, 409, "network-in-use"),
        ({"cidr": ""}, 422, "no-subnet"),
        ({"cidr": "", "cidr6": "fd00:a::/64"}, 409, "network-in-use"),
        ({"cidr": "10.0.0.0/8"}, 422, "invalid"),
        ({"cidr6": "fe80::/64"}, 422, "invalid"),
        ({"mtu": 1400}, 409, "network-in-use"),
        ({"mtu": 99}, 422, "invalid"),
        ({"ranges": ["10.0.0.20-10.0.0.255"]}, 422, "invalid"),
        ({"ranges": ["10.0.0.20-10.0.0.29", "10.0.0.29-10.0.0.39"]}, 422, "invalid"),
        ({"domain": "x\ny"}, 422, "invalid"),
        ({"has_nat": True}, 403, "nat-not-for-tenants"),
    ):
        found, told = _set(small_site, **changes)
        assert (found, told["code"]) == (status, code), changes
        assert told["fix"] or code == "invalid", changes
    assert _set(small_site, "other", f"/v1/networks/{small_site.ids['network:alpha']}", domain="x")[0] == 404


def test_the_mtu_changes_while_nobody_is_attached(small_site: Site) -> None:
    small_site.post("member", "/v1/networks", {"name": "spare", "project": "alpha"})
    status, told = _set(small_site, path="/v1/networks/spare", mtu=9000)
    assert (status, told["mtu"]) == (200, 9000)
    assert _set(small_site, path="/v1/networks/spare", mtu=1500)[1]["mtu"] == 1500


def test_an_mtu_that_no_switch_forwards_any_more_keeps_nothing_else_from_changing(small_site: Site) -> None:
    with small_site.store.transaction() as tx:
        (switch,) = tx.switches.list()
        tx.switches.change(switch.id, settings={**switch.settings, "mtu": "1400"})
    assert _set(small_site, domain="lab.example")[0] == 200
    assert _set(small_site, mtu=1500)[1]["code"] == "mtu-too-large"


def test_a_network_that_goes_changes_no_more(small_site: Site) -> None:
    small_site.post("member", "/v1/networks", {"name": "spare", "project": "alpha"})
    assert small_site.call("member", "DELETE", "/v1/networks/spare").status_code == 202
    assert _set(small_site, path="/v1/networks/spare", domain="x.example")[1]["code"] == "network-removing"
    for _ in Room(small_site).work():
        pass


def test_an_admin_opens_the_way_outside_and_members_shut_it(small_site: Site) -> None:
    network_id = str(small_site.ids["network:alpha"])
    assert _set(small_site, "admin", f"/v1/networks/{network_id}", has_nat=True)[1]["has_nat"] is True
    assert _desired(small_site, network_id)["has_nat"] is True
    assert _set(small_site, dns_servers=["9.9.9.9"])[1]["has_nat"] is True, "what is open stays so"
    assert _set(small_site, has_nat=False)[1]["has_nat"] is False
    new = {"name": "open", "project": "alpha", "nat": True}
    assert small_site.post("member", "/v1/networks", new).json()["code"] == "nat-not-for-tenants"
    assert small_site.post("admin", "/v1/networks", new).json()["has_nat"] is True
    six = small_site.post("admin", "/v1/networks", {**new, "name": "six", "cidr": "", "cidr6": "fd00:a::/64"})
    assert six.json()["code"] == "no-way-outside"
    assert _set(small_site, has_outside_dns=False)[1]["has_outside_dns"] is False
    assert _desired(small_site, network_id)["has_outside_dns"] is False


def test_a_site_may_leave_it_to_its_projects_and_keeps_its_own_subnets(small_site: Site) -> None:
    parts = replace(small_site.services.parts, tenants_may_nat=True, own_subnets=(IPv4Network("198.18.0.0/20"),))
    caller = small_site.services.authentication.caller_of(small_site.tokens["member"])
    wish = NetworkWish(
        name="open", project="alpha", cidr="10.0.0.0/24", fabric="default", kind=NetworkKind.TENANT, has_nat=True
    )
    assert Networks(parts).network_create(caller, wish).value.has_nat
    with pytest.raises(Invalid, match=r"overlaps 198\.18\.0\.0/20"):
        Networks(parts).network_create(caller, replace(wish, name="taken", cidr="198.18.0.0/16"))
    six = replace(wish, name="six", cidr="", cidr6="fd00:a::/64")
    assert Networks(replace(parts, leads_ipv6=True)).network_create(caller, six).value.has_nat


def test_a_subnet_grows_and_a_family_comes_under_what_is_attached(small_site: Site) -> None:
    (there,) = items(small_site.get("member", "/v1/attachments"))
    status, grown = _set(small_site, cidr="10.0.0.0/22", ranges=["10.0.0.10-10.0.3.9"])
    assert (status, grown["cidr"], grown["gateway_address"]) == (200, "10.0.0.0/22", "10.0.0.1")
    status, both = _set(small_site, cidr6="fd00:a::/64")
    assert (status, both["cidr6"]) == (200, "fd00:a::/64")
    (after,) = items(small_site.get("member", "/v1/attachments"))
    assert after == {**there, "address6": "fd00:a::a"}
    assert _desired(small_site, both["id"])["hosts"][0]["address6"] == "fd00:a::a"
    assert _set(small_site, cidr="10.0.0.0/28", ranges=[])[0] == 200, "as long as it holds what is attached"


def test_what_stands_in_a_subnets_way_is_told_by_name_as_far_as_it_is_ones_own(small_site: Site) -> None:
    (there,) = items(small_site.get("member", "/v1/attachments"))
    told = _set(small_site, cidr="10.1.0.0/24")[1]
    assert told["details"]["in_the_way"] == [f"node {there['node']}, NIC {there['nic']}, has {there['address']}"]
    assert _set(small_site, ranges=[])[0] == 200
    moved = _set(small_site, cidr="10.0.0.0/16")[1]
    assert moved.get("cidr") == "10.0.0.0/16"
    with small_site.store.transaction() as tx:
        tx.attachments.change(UUID(there["id"]), state=AttachmentState.ATTACHING)
    assert "being attached" in _set(small_site, cidr6="fd00:a::/64")[1]["detail"]
    with small_site.store.transaction() as tx:
        tx.attachments.change(UUID(there["id"]), state=AttachmentState.ATTACHED)
        tx.nodes.change(UUID(there["node_id"]), project_id=small_site.ids["beta"])
    told = _set(small_site, cidr="10.1.0.0/24")[1]
    assert told["details"]["in_the_way"] == ["a node of another project is attached"]


def test_a_range_that_a_new_subnet_leaves_outside_is_told_by_name(small_site: Site) -> None:
    path, ranges = "/v1/networks/blue", ["10.0.0.50-10.0.0.99"]
    assert small_site.call("member", "PUT", path, json={"ranges": ranges}).status_code == 200
    told = small_site.call("member", "PUT", path, json={"cidr": "10.8.0.0/24"}).json()
    assert (told["status"], told["code"]) == (422, "invalid")
    assert told["detail"] == "The range 10.0.0.50-10.0.0.99 is not in the subnet 10.8.0.0/24."
    assert "--addresses" in told["fix"]


def test_an_empty_network_takes_any_subnet(small_site: Site) -> None:
    small_site.post("member", "/v1/networks", {"name": "spare", "project": "alpha"})
    path = "/v1/networks/spare"
    assert _set(small_site, path=path, cidr="192.168.7.0/24", cidr6="fd00:7::/64")[1]["cidr"] == "192.168.7.0/24"
    assert _set(small_site, path=path, cidr="")[1]["gateway_address"] == ""
    small_site.call("admin", "PUT", path, json={"has_nat": True})
    assert _set(small_site, path=path, cidr6="")[1]["code"] == "no-subnet"
