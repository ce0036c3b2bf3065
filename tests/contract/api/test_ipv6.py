"""Networks of IPv6, alone or beside IPv4."""

from typing import Any

from tests.contract.api.room import Room
from tests.contract.api.site import Site

BAD: list[dict[str, object]] = [
    {"cidr": "", "cidr6": ""},
    {"cidr6": "fe80::/64"},
    {"cidr6": "ff02::/64"},
    {"cidr6": "::/64"},
    {"cidr6": "::1/128"},
    {"cidr6": "fd00:a::/48"},
    {"cidr6": "fd00:a::/80"},
    {"cidr6": "fd00:a::1/64"},
    {"cidr6": "fd00:a::%eth0/64"},
    {"cidr6": "10.0.0.0/24"},
    {"cidr": "fd00:a::/64"},
    {"addressing": {"ranges6": ["fd00:a::9-fd00:a::8"]}},
    {"addressing": {"ranges6": ["fd00:b::9"]}},
    {"addressing": {"ranges6": ["10.7.0.9"]}},
    {"addressing": {"ranges": ["fd00:a::9"]}},
    {"addressing": {"ranges6": ["fd00:a::1"]}},
    {"addressing": {"dns_servers": ["fe80::1%eth0"]}},
    {"cidr6": "", "addressing": {"ranges6": ["fd00:a::9"]}},
    {"cidr": "", "addressing": {"ranges": ["10.7.0.9"]}},
]
NEW = {"name": "six", "project": "alpha", "cidr": "10.7.0.0/24", "cidr6": "fd00:a::/64"}


def _make(site: Site, **changes: object) -> dict[str, Any]:
    response = site.post("member", "/v1/networks", {**NEW, **changes})
    assert response.status_code == 201, response.text
    made: dict[str, Any] = response.json()
    return made


def _attach(site: Site, network: str, **more: str) -> tuple[int, str]:
    body = {"node": "held", "network": network, "channel": "tagged", **more}
    response = site.post("member", "/v1/attachments", body)
    return response.status_code, str(response.json().get("detail", ""))


def test_a_node_has_an_address_of_each_family(small_site: Site) -> None:
    network = _make(small_site, addressing={"ranges6": ["fd00:a::50"]})
    assert (network["cidr6"], network["gateway_address6"]) == ("fd00:a::/64", "fd00:a::1")
    assert _attach(small_site, network["id"])[0] == 202
    for _ in Room(small_site).work():
        pass
    (told,) = small_site.get("member", "/v1/attachments", params={"network": network["id"]}).json()["items"]
    assert (told["address"], told["address6"]) == ("10.7.0.10", "fd00:a::50")
    desired = small_site.get("gateway", "/v1/gateway/desired").json()["networks"]
    (lab,) = (one for one in desired if one["id"] == network["id"])
    assert [(host["address"], host["address6"]) for host in lab["hosts"]] == [("10.7.0.10", "fd00:a::50")]
    assert lab["gateway_address6"] == "fd00:a::1"


def test_what_stands_in_an_addresss_way_is_told(small_site: Site) -> None:
    network = _make(small_site)["id"]
    for address, words in (("fd00:a::1", "gateway's"), ("fd00:b::5", "not a host's"), ("10.7.0.9", "not a host's")):
        status, told = _attach(small_site, network, address6=address)
        assert (status, words in told) == (422, True), told
    assert _attach(small_site, network, address6="fd00:a::77") == (202, "")


def test_no_node_is_given_the_second_portals_address(small_site: Site) -> None:
    network = _make(small_site, addressing={"ranges": ["10.7.0.2-10.7.0.99"]})
    assert network["second_address"] == "10.7.0.2"
    status, told = _attach(small_site, network["id"], address="10.7.0.2")
    assert (status, "second portal" in told) == (422, True)
    assert _attach(small_site, network["id"]) == (202, "")
    desired = small_site.get("gateway", "/v1/gateway/desired").json()["networks"]
    assert [host["address"] for one in desired if one["id"] == network["id"] for host in one["hosts"]] == ["10.7.0.3"]


def test_nothing_boots_by_ipv6_and_nodes_are_attached_all_the_same(small_site: Site) -> None:
    network = _make(small_site, cidr="")
    assert (network["cidr"], network["gateway_address"]) == ("", "")
    boot = {"image": "tiny", "network": network["id"], "project": "alpha", "node": "free"}
    refused = small_site.post("member", "/v1/provisions", boot)
    assert (refused.status_code, refused.json()["code"]) == (409, "network-without-ipv4")
    assert "no IPv4 subnet" in refused.json()["detail"]
    assert _attach(small_site, network["id"], address="10.7.0.5")[0] == 422
    assert _attach(small_site, network["id"]) == (202, "")


def test_what_no_network_can_have_is_refused_with_advice(small_site: Site) -> None:
    for changes in BAD:
        refused = small_site.post("member", "/v1/networks", {**NEW, **changes})
        assert refused.status_code == 422, (changes, refused.text)
        assert refused.json()["fix"], changes
