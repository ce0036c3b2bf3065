"""Addresses that are reserved: no node gets them, and who asks for what cannot be is told why."""

from typing import Any
from uuid import UUID

import pytest
from tests.contract.api.room import Room
from tests.contract.api.site import Site, items
from tests.contract.api.test_lists import counted_queries

from malleable.domain.addressing import Addressing
from malleable.domain.reservations import RESERVATIONS_MAX

PATH = "/v1/networks/blue/reservations"


def _reserve(site: Site, *, caller: str = "member", path: str = PATH, **wish: Any) -> tuple[int, dict[str, Any]]:
    response = site.post(caller, path, {"name": "vip", **wish})
    told: dict[str, Any] = response.json()
    return response.status_code, told


def _attach(site: Site, network: str, **more: str) -> tuple[int, dict[str, Any]]:
    body = {"node": "held", "network": network, "channel": "tagged", **more}
    response = site.post("member", "/v1/attachments", body)
    told: dict[str, Any] = response.json()
    return response.status_code, told


def _make(site: Site, **more: Any) -> str:
    wish = {"name": "lab", "project": "alpha", "cidr": "10.7.0.0/24", **more}
    return str(site.post("member", "/v1/networks", wish).json()["id"])


def _hosts(site: Site, network: str) -> list[dict[str, Any]]:
    told = site.get("gateway", "/v1/gateway/desired").json()["networks"]
    (one,) = (network_ for network_ in told if network_["id"] == network)
    hosts: list[dict[str, Any]] = one["hosts"]
    return hosts


def test_a_reservation_is_made_listed_served_and_removed(site: Site) -> None:
    network = _make(site, cidr6="fd00:a::/64")
    path = f"/v1/networks/{network}/reservations"
    wish = {"address": "10.7.0.9", "address6": "fd00:a::9", "mac": "52-54-00-AA-00-01", "hostname": "printer"}
    before = site.get("member", f"/v1/networks/{network}").json()["generation"]
    status, made = _reserve(site, path=path, **wish)
    assert status == 201, made
    assert {**wish, "mac": "52:54:00:aa:00:01", "name": "vip", "network": "lab"}.items() <= made.items()
    assert items(site.get("reader", path)) == [made]
    assert site.get("reader", f"{path}/vip").json() == site.get("reader", f"{path}/{made['id']}").json() == made
    assert site.get("member", f"/v1/networks/{network}").json()["generation"] > before, "the gateway hears of it"
    told = {"node_id": None, "mac": made["mac"], "address": "10.7.0.9", "address6": "fd00:a::9", "hostname": "printer"}
    assert _hosts(site, network) == [told]
    assert site.call("member", "DELETE", f"{path}/vip").status_code == 204
    assert site.call("member", "DELETE", f"{path}/vip").status_code == 404
    assert (_hosts(site, network), items(site.get("member", path))) == ([], [])
    events = [event for event in items(site.get("member", "/v1/events")) if event["data"].get("name") == "vip"]
    assert sorted(event["kind"] for event in events) == ["network.address-reserved", "network.reservation-removed"]
    assert all(event["data"]["addresses"] == ["10.7.0.9", "fd00:a::9"] for event in events)


def test_no_node_is_given_what_is_reserved(site: Site) -> None:
    network = _make(site, addressing={"ranges": ["10.7.0.20-10.7.0.21", "10.7.0.40"]})
    path = f"/v1/networks/{network}/reservations"
    assert _reserve(site, path=path)[1]["address"] == "10.7.0.20", "without an address the first free one"
    assert _reserve(site, path=path, name="other", address="10.7.0.21")[0] == 201
    status, told = _attach(site, network, address="10.7.0.20")
    assert (status, told["code"]) == (409, "address-reserved")
    assert _attach(site, network)[0] == 202
    assert [host["address"] for host in _hosts(site, network)] == ["10.7.0.40", "10.7.0.20", "10.7.0.21"]
    status, told = _reserve(site, path=path, name="third")
    assert (status, told["code"]) == (409, "exhausted")
    assert "10.7.0.20-10.7.0.21, 10.7.0.40-10.7.0.40 of 10.7.0.0/24; 2 are reserved" in told["detail"]


def test_a_network_whose_addresses_are_all_reserved_takes_no_node(small_site: Site) -> None:
    network = _make(small_site, addressing={"ranges": ["10.7.0.20"]})
    assert _reserve(small_site, path=f"/v1/networks/{network}/reservations")[0] == 201
    status, told = _attach(small_site, network)
    assert (status, told["code"], "1 are reserved" in told["detail"]) == (409, "exhausted", True)
    assert "remove a reservation" in told["fix"]


@pytest.mark.parametrize(
    ("wish", "expected", "words"),
    [
        ({"address": "10.1.0.9"}, (422, "invalid"), "not a host's in 10.0.0.0/24"),
        ({"address": "10.0.0.0"}, (422, "invalid"), "not a host's"),
        ({"address": "10.0.0.255"}, (422, "invalid"), "not a host's"),
        ({"address": "10.0.0.1"}, (422, "invalid"), "the gateway's"),
        ({"address": "10.0.0.2"}, (422, "invalid"), "second portal"),
        ({"address": "fd00::9"}, (422, "invalid"), "not a host's"),
        ({"address": "nine"}, (422, "invalid"), "not an IP address"),
        ({"address6": "fd00::9"}, (422, "invalid"), "has no subnet"),
        ({"address": "10.0.0.10"}, (409, "address-taken"), "belongs to node held"),
        ({"address": "10.0.0.50"}, (409, "address-reserved"), "is reserved"),
        ({"name": "taken"}, (409, "conflict"), "There is a reservation named taken already."),
        ({"mac": "52:54:00:aa:00:01"}, (409, "conflict"), "52:54:00:aa:00:01 is reserved for taken"),
        ({"hostname": "printer"}, (409, "conflict"), "host name printer is reserved for taken"),
        ({"mac": "NIC"}, (409, "mac-of-node"), "node held"),
        ({"mac": "x"}, (422, "invalid"), ""),
        ({"hostname": "held"}, (409, "name-of-node"), "called held"),
        ({"hostname": "a.b"}, (422, "invalid"), ""),
        ({"name": "Not a name"}, (422, "invalid"), ""),
    ],
)
def test_what_cannot_be_reserved_is_told(
    small_site: Site, wish: dict[str, str], expected: tuple[int, str], words: str
) -> None:
    taken = {"name": "taken", "address": "10.0.0.50", "mac": "52:54:00:aa:00:01", "hostname": "printer"}
    assert _reserve(small_site, **taken)[0] == 201
    with small_site.store.reading() as tx:
        mac = next(nic.mac for nic in tx.nics.list(node_id=small_site.ids["held"]))
    status, told = _reserve(small_site, **{key: mac if value == "NIC" else value for key, value in wish.items()})
    assert (status, told["code"]) == expected, told
    assert words in told["detail"]
    assert {one["name"] for one in items(small_site.get("member", PATH))} == {"taken"}


def test_a_node_of_others_is_not_named(small_site: Site) -> None:
    with small_site.store.transaction() as tx:
        tx.nodes.change(small_site.ids["held"], project_id=small_site.ids["beta"])
        mac = next(nic.mac for nic in tx.nics.list(node_id=small_site.ids["held"]))
    for wish in ({"address": "10.0.0.10"}, {"mac": mac}):
        status, told = _reserve(small_site, **wish)
        assert (status, "held" in str(told), "a node" in told["detail"]) == (409, False, True)


def test_a_mac_tells_nobody_of_nodes_that_are_not_theirs_to_see(small_site: Site) -> None:
    network = _make(small_site)
    path = f"/v1/networks/{network}/reservations"
    with small_site.store.transaction() as tx:
        tx.nodes.change(small_site.ids["held"], project_id=small_site.ids["beta"])
        mac = next(nic.mac for nic in tx.nics.list(node_id=small_site.ids["held"]))
    assert _reserve(small_site, path=path, name="other", mac="52:54:00:aa:00:01")[0] == 201
    assert _reserve(small_site, path=path, mac=mac)[0] == 201, "as of a MAC that is nobody's"
    status, told = _reserve(small_site, caller="admin", path=path, name="again", mac=mac)
    assert (status, told["code"], "node held" in told["detail"]) == (409, "mac-of-node", True), "who may see it is told"
    status, told = _reserve(small_site, mac=mac)
    assert (status, told["code"]) == (409, "mac-of-node"), "it is on that network"
    with small_site.store.transaction() as tx:
        tx.nodes.change(small_site.ids["held"], project_id=small_site.ids["alpha"])
    status, told = _attach(small_site, network)
    assert (status, told["code"]) == (409, "mac-reserved"), told
    assert (mac in told["detail"], "removes that reservation" in told["fix"]) == (True, True)
    assert small_site.call("member", "DELETE", f"{path}/vip").status_code == 204
    assert _attach(small_site, network)[0] == 202


@pytest.mark.parametrize("name", ["rack1.n1", "rack1_n1", "rack1-n1"])
def test_a_name_is_a_nodes_as_dns_has_it(small_site: Site, name: str) -> None:
    with small_site.store.transaction() as tx:
        tx.nodes.change(small_site.ids["held"], name=name)
    status, told = _reserve(small_site, hostname="rack1-n1")
    assert (status, told["code"]) == (409, "name-of-node"), told
    assert "called rack1-n1 in its DNS" in told["detail"]
    elsewhere = f"/v1/networks/{_make(small_site)}/reservations"
    assert _reserve(small_site, path=elsewhere, hostname="rack1-n1")[0] == 201, "the node is not there"


def test_a_mac_that_is_reserved_is_no_nodes(small_site: Site) -> None:
    network = _make(small_site)
    assert _reserve(small_site, path=f"/v1/networks/{network}/reservations", mac="52:54:00:aa:00:01")[0] == 201
    with small_site.store.transaction() as tx:  # a machine that was enrolled since
        (nic, *_) = tx.nics.list(node_id=small_site.ids["held"])
        tx.nics.change(nic.id, mac="52:54:00:aa:00:01")
    status, told = _attach(small_site, network)
    assert (status, told["code"]) == (409, "mac-reserved"), told


def test_a_nodes_own_name_comes_before_a_reserved_one(small_site: Site) -> None:
    network = _make(small_site)
    assert _reserve(small_site, path=f"/v1/networks/{network}/reservations", hostname="held")[0] == 201
    assert _attach(small_site, network)[0] == 202
    assert [(host["node_id"] is None, host["hostname"]) for host in _hosts(small_site, network)] == [
        (False, "held"),
        (True, ""),
    ]


def test_a_subnet_does_not_change_under_a_reservation(small_site: Site) -> None:
    network = _make(small_site)
    path = f"/v1/networks/{network}"
    assert _reserve(small_site, path=f"{path}/reservations", address="10.7.0.200")[0] == 201
    for changes in ({"cidr": "10.7.0.0/25"}, {"cidr": "10.8.0.0/24"}, {"cidr": "", "cidr6": "fd00:a::/64"}):
        told = small_site.call("member", "PUT", path, json=changes)
        assert (told.status_code, told.json()["code"]) == (409, "network-in-use")
        assert told.json()["details"]["in_the_way"] == ["reservation vip has 10.7.0.200"]
    for changes in ({"cidr": "10.7.0.0/16"}, {"cidr": "10.7.0.192/26"}, {"cidr6": "fd00:a::/64"}):
        assert small_site.call("member", "PUT", path, json=changes).status_code == 200, changes


def test_reservations_go_with_their_network(site: Site) -> None:
    network = _make(site)
    assert _reserve(site, path=f"/v1/networks/{network}/reservations")[0] == 201
    assert site.call("member", "DELETE", f"/v1/networks/{network}").status_code == 202
    status, told = _reserve(site, path=f"/v1/networks/{network}/reservations", name="late")
    assert (status, told["code"]) == (409, "network-removing")
    for _ in Room(site).work():
        pass
    with site.store.reading() as tx:
        gone = UUID(network)
        assert (tx.reservations.count(network_id=gone), tx.networks.find(id=gone)) == (0, None)


def test_in_a_network_that_others_serve_addresses_alone_are_kept(small_site: Site) -> None:
    wish = {"name": "office", "kind": "provider", "vlan": 4000, "project": "alpha"}
    assert small_site.post("admin", "/v1/networks", wish).status_code == 201
    path = "/v1/networks/office/reservations"
    assert _reserve(small_site, path=path, address="10.0.0.2")[0] == 201, "no second portal there"
    for more in ({"mac": "52:54:00:aa:00:01"}, {"hostname": "printer"}):
        assert _reserve(small_site, path=path, name="other", **more)[0] == 422


def test_there_are_never_too_many(small_site: Site) -> None:
    network = _make(small_site, cidr="10.7.0.0/16")
    path = f"/v1/networks/{network}/reservations"
    for number in range(RESERVATIONS_MAX):
        assert _reserve(small_site, path=path, name=f"vip-{number}")[0] == 201
    status, told = _reserve(small_site, path=path, name="more")
    assert (status, told["code"]) == (409, "too-many-reservations")
    assert len(items(small_site.get("member", f"{path}?limit=1000"))) == RESERVATIONS_MAX


def test_queries_do_not_grow_with_reservations(small_site: Site) -> None:
    """Neither what is asked for an attachment, nor for the gateway."""
    network = _make(small_site)
    path = f"/v1/networks/{network}/reservations"
    counts = []
    for wave in range(2):
        for number in range(1 + 30 * wave):
            assert _reserve(small_site, path=path, name=f"vip-{wave}-{number}")[0] == 201
        with counted_queries(small_site) as heard:
            small_site.get("member", path)
            _hosts(small_site, network)
            _reserve(small_site, path=path, name=f"last-{wave}")
        counts.append(len(heard))
    assert counts[1] <= counts[0], "the first wave finds nothing prepared"


def test_who_may_only_use_a_network_reserves_nothing_there(small_site: Site) -> None:
    lent = f"/v1/networks/{small_site.ids['network:lent']}/reservations"
    assert _reserve(small_site, path=lent, name="mine", address="10.8.0.30")[0] == 201
    assert items(small_site.get("other", lent)) == []
    assert _reserve(small_site, caller="other", path=lent)[0] == 403
    body = {"node": "foreign", "network": "lent", "channel": "tagged", "address": "10.8.0.30"}
    told = small_site.post("other", "/v1/attachments", body)
    assert (told.status_code, told.json()["code"], "mine" in told.text) == (409, "address-reserved", False)
    with small_site.store.transaction() as tx:
        tx.networks.change(small_site.ids["network:lent"], addressing=Addressing(ranges=("10.8.0.30-10.8.0.31",)))
    assert small_site.post("other", "/v1/attachments", {**body, "address": ""}).status_code == 202
