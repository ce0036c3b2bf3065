"""Networks of others: granted, public, the site's own; and whom they let in."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from tests.contract.api.room import Room
from tests.contract.api.site import START, Site, items, later

from malleable.domain.addressing import Addressing
from malleable.domain.gateways import SILENT_AFTER_S
from malleable.domain.ids import AttachmentId, NetworkId, NodeId, new_id
from malleable.domain.networks import Channel
from malleable.domain.nodes import NodeState
from malleable.domain.store import Transaction
from malleable.workflows.requests import begin


def _codes(site: Site, caller: str, method: str, path: str, json: object = None) -> tuple[int, str]:
    response = site.call(caller, method, path, json=json)
    return response.status_code, response.json().get("code", "") if response.content else ""


def _offer(site: Site, network: str = "network:alpha", grantee: str = "beta") -> Mapping[str, Any]:
    body = {"network": str(site.ids[network]), "grantee": str(site.ids[grantee])}
    response = site.post("admin", "/v1/grants", body)
    assert response.status_code == 201, response.text
    found: Mapping[str, Any] = response.json()
    return found


def _join(site: Site, caller: str = "other", network: str = "network:alpha", node: str = "foreign") -> tuple[int, str]:
    body = {"node": node, "network": str(site.ids[network]), "channel": "tagged"}
    return _codes(site, caller, "POST", "/v1/attachments", body)


def _names(site: Site, caller: str, path: str = "/v1/networks") -> set[str]:
    return {str(item["name"]) for item in items(site.get(caller, path))}


def test_an_offer_lets_nobody_in_until_it_is_accepted(site: Site) -> None:
    grant = _offer(site)
    assert (grant["state"], grant["network"], grant["owner"], grant["grantee"]) == ("offered", "blue", "alpha", "beta")
    assert site.get("other", f"/v1/networks/{site.ids['network:alpha']}").status_code == 404
    assert _join(site)[0] == 404
    assert site.post("other", f"/v1/grants/{grant['id']}/accept").json()["state"] == "accepted"
    assert site.post("other", f"/v1/grants/{grant['id']}/accept").json()["state"] == "accepted", "again is as good"
    seen = site.get("other", f"/v1/networks/{site.ids['network:alpha']}").json()
    assert (seen["name"], seen["project"]) == ("blue", "alpha")
    assert _join(site) == (202, "")
    kinds = [item["kind"] for item in items(site.get("other", "/v1/events"))]
    assert {"network.offered", "network.grant-accepted"} <= set(kinds)


def test_members_see_what_they_may_use(site: Site) -> None:
    assert _names(site, "other") == {"blue", "lent", "public"}
    assert _names(site, "other", "/v1/networks?project=beta") == {"blue", "lent", "public"}
    assert _names(site, "member") == {"blue", "lent", "public"}
    assert site.get("other", "/v1/networks/lent").json()["id"] == str(site.ids["network:lent"])
    mine = site.get("other", "/v1/networks/blue").json()
    assert mine["project"] == "beta", "one's own comes before one that is shared"
    for limit in (1, 2):
        first = site.get("other", f"/v1/networks?limit={limit}").json()
        assert len(first["items"]) == limit
        assert first["next"]


def test_who_may_only_use_a_network_is_told_whose_it_is(site: Site) -> None:
    change = {"mtu": 1400}
    told = site.call("other", "PUT", f"/v1/networks/{site.ids['network:lent']}", json=change)
    assert (told.status_code, told.json()["code"]) == (403, "forbidden")
    assert "network lent is of project alpha" in told.json()["detail"].lower()
    reader = site.call("reader", "PUT", f"/v1/networks/{site.ids['network:lent']}", json=change).json()
    assert "it takes" in reader["detail"], "its own people may lack a role"


def test_what_others_have_on_a_shared_network_is_the_owners_to_see(site: Site) -> None:
    assert _join(site, network="network:lent")[0] == 202
    assert _join(site, caller="member", network="network:lent", node="held")[0] == 202
    path = f"/v1/attachments?network={site.ids['network:lent']}"
    assert [item["node"] for item in items(site.get("other", path))] == ["foreign"]
    assert [item["network"] for item in items(site.get("other", path))] == ["lent"]
    assert {item["node"] for item in items(site.get("member", path))} == {"held", "foreign"}


def test_who_reaches_a_guest_on_a_shared_network_is_its_owners_to_ask(site: Site) -> None:
    path = "/v1/paths?one=held&other=foreign"
    assert site.get("member", path).status_code == 404, "no guest yet"
    assert _join(site, network="network:lent")[0] == 202
    apart = site.get("member", path).json()
    assert (apart["is_open"], apart["networks"]) == (False, [])
    assert "no network of yours" in apart["reason"]
    list(Room(site).work())
    assert _join(site, caller="member", network="network:lent", node="held")[0] == 202
    list(Room(site).work())
    told = site.get("member", path).json()
    assert (told["is_open"], [network["network"] for network in told["networks"]]) == (True, ["lent"])
    assert {end["node"] for network in told["networks"] for end in network["ends"]} == {"held", "foreign"}
    assert site.get("other", path).status_code == 404, "a guest hears of nobody but itself"
    assert site.get("narrow", path).status_code == 404, "nor does who was let use one node"


@pytest.mark.parametrize(
    ("caller", "network", "grantee", "expected"),
    [
        ("member", "network:alpha", "alpha", (422, "grant-to-owner")),
        ("member", "network:beta", "beta", (404, "not-found")),
        ("member", "network:alpha", "reader-of-nothing", (404, "not-found")),
        ("member", "network:public", "beta", (403, "forbidden")),
        ("admin", "network:public", "beta", (409, "network-public")),
        ("member", "network:lent", "beta", (409, "conflict")),
    ],
)
def test_what_cannot_be_shared(
    small_site: Site, caller: str, network: str, grantee: str, expected: tuple[int, str]
) -> None:
    body = {"network": str(small_site.ids[network]), "grantee": str(small_site.ids.get(grantee, grantee))}
    assert _codes(small_site, caller, "POST", "/v1/grants", body) == expected


def test_a_project_one_does_not_see_is_named_by_its_id(small_site: Site) -> None:
    network = str(small_site.ids["network:alpha"])
    by_name = small_site.post("member", "/v1/grants", {"network": network, "grantee": "beta"})
    nobody = small_site.post("member", "/v1/grants", {"network": network, "grantee": "nobody"})
    assert by_name.status_code == nobody.status_code == 404
    assert by_name.json()["detail"].replace("beta", "nobody") == nobody.json()["detail"], "names are not to be guessed"
    assert "by its id" in by_name.json()["fix"]


def test_revoking_is_refused_while_nodes_are_there_and_forced_detaches_them(site: Site) -> None:
    _join(site, network="network:lent")
    room = Room(site)
    for _ in room.work():
        pass
    grant = f"/v1/grants/{site.ids['grant:lent']}"
    refused = site.call("member", "DELETE", grant)
    assert (refused.status_code, refused.json()["code"]) == (409, "grant-in-use")
    assert refused.json()["details"]["nodes"] == ["foreign"]
    assert "`m2 grant revoke lent --force`" in refused.json()["fix"]
    begun = site.call("member", "DELETE", f"{grant}?force=true")
    assert begun.status_code == 202, begun.text
    assert _join(site, network="network:lent")[0] in (404, 409), "nobody joins a grant that ends"
    assert _codes(site, "member", "DELETE", grant) == (409, "grant-revoking")
    for _ in room.work():
        pass
    assert site.get("member", f"/v1/operations/{begun.json()['id']}").json()["state"] == "succeeded"
    with site.store.reading() as tx:
        assert tx.grants.find(id=site.ids["grant:lent"]) is None
        assert tx.attachments.count(network_id=site.ids["network:lent"]) == 0
    assert "lent" not in _names(site, "other")
    told = [item for item in items(site.get("other", "/v1/events")) if item["kind"] == "network.grant-revoked"]
    assert [item["actor_id"] for item in told] == [None], "who of the other side did it is theirs to know"


def test_an_offer_is_taken_back_and_declined(site: Site) -> None:
    grant = _offer(site)
    begun = site.call("other", "DELETE", f"/v1/grants/{grant['id']}")
    assert begun.status_code == 202
    for _ in Room(site).work():
        pass
    assert site.get("other", f"/v1/grants/{grant['id']}").status_code == 404
    assert _offer(site)["state"] == "offered", "and may be made again"


def test_a_network_is_deleted_with_its_grants_but_not_with_others_nodes(site: Site) -> None:
    path = f"/v1/networks/{site.ids['network:lent']}"
    _join(site, network="network:lent")
    for _ in Room(site).work():
        pass
    assert _codes(site, "member", "DELETE", path) == (409, "network-in-use")
    site.call("member", "DELETE", f"/v1/grants/{site.ids['grant:lent']}?force=true")
    for _ in Room(site).work():
        pass
    _offer(site, "network:lent")
    assert site.call("member", "DELETE", path).status_code == 202
    for _ in Room(site).work():
        pass
    with site.store.reading() as tx:
        assert tx.grants.count(network_id=site.ids["network:lent"]) == 0
        assert tx.networks.find(id=site.ids["network:lent"]) is None


NEW = {"name": "office", "kind": "provider"}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({**NEW, "vlan": 0}, (422, "invalid")),
        ({**NEW, "vlan": 4095}, (422, "invalid")),
        ({**NEW, "vlan": 105}, (409, "vlan-in-pool")),
        ({**NEW, "vlan": 4001}, (409, "conflict")),
        ({**NEW, "vlan": 4000, "fabric": "defualt"}, (404, "not-found")),
        ({"name": "mine", "project": "alpha", "fabric": "defualt"}, (404, "not-found")),
        ({**NEW, "kind": "airlock", "vlan": 4000}, (422, "provider-only")),
        ({"name": "mine", "project": "alpha", "vlan": 4000}, (422, "provider-only")),
        ({"name": "mine", "project": "alpha", "public": True}, (422, "provider-only")),
        ({"name": "mine", "project": "alpha", "serve": False}, (422, "provider-only")),
        ({"name": "mine", "project": "alpha", "mtu": 1279}, (422, "invalid")),
        ({"name": "mine", "project": "alpha", "addressing": {"ranges": ["10.0.1.5"]}}, (422, "invalid")),
        ({"name": "mine", "project": "alpha", "addressing": {"ranges": ["10.0.0.1"]}}, (422, "invalid")),
        ({"name": "mine", "project": "alpha", "addressing": {"ranges": ["10.0.0.9-10.0.0.255"]}}, (422, "invalid")),
        (
            {"name": "mine", "project": "alpha", "addressing": {"ranges": ["10.0.0.9-10.0.0.8"]}},
            (422, "invalid"),
        ),
        ({"name": "mine", "project": "alpha", "addressing": {"ranges": ["10.0.0.9-"]}}, (422, "invalid")),
        ({"name": "mine", "project": "alpha", "addressing": {"ranges": ["10.0.0.9"] * 17}}, (422, "invalid")),
        ({"name": "mine", "project": "alpha", "addressing": {"domain": "x\ny"}}, (422, "invalid")),
        ({"name": "mine", "project": "alpha", "addressing": {"domain": "lab,example"}}, (422, "invalid")),
        ({"name": "mine", "project": "alpha", "addressing": {"dns_servers": ["nowhere"]}}, (422, "invalid")),
        ({"name": "mine", "project": "alpha", "addressing": {"ntp_servers": ["10.0.0.2"] * 5}}, (422, "invalid")),
        ({"name": "mine", "project": "alpha", "mtu": 9217}, (422, "invalid")),
    ],
)
def test_what_provider_networks_cannot_be(small_site: Site, body: object, expected: tuple[int, str]) -> None:
    assert _codes(small_site, "admin", "POST", "/v1/networks", body) == expected


def test_a_vlan_that_is_there_is_not_served_unless_asked(small_site: Site) -> None:
    quiet = small_site.post("admin", "/v1/networks", {**NEW, "vlan": 4000, "public": True}).json()
    asked = small_site.post("admin", "/v1/networks", {"name": "lab", "kind": "provider", "vlan": 3999, "serve": True})
    assert (quiet["has_service"], asked.json()["has_service"]) == (False, True)
    told = small_site.get("gateway", "/v1/gateway/desired").json()["networks"]
    assert quiet["id"] not in {network["id"] for network in told}
    assert asked.json()["id"] in {network["id"] for network in told}
    boot = {"image": "tiny", "network": quiet["id"], "project": "alpha", "node": "free"}
    assert _codes(small_site, "member", "POST", "/v1/provisions", boot) == (409, "network-not-served")
    assert small_site.call("admin", "DELETE", f"/v1/networks/{quiet['id']}").status_code == 202
    for _ in Room(small_site, is_gateway_up=False).work():
        break
    with small_site.store.reading() as tx:
        assert tx.networks.find(name="office") is None, "no gateway is waited for that never had it"


def test_packets_are_no_larger_than_the_switch_forwards(small_site: Site) -> None:
    jumbo = small_site.post("member", "/v1/networks", {"name": "jumbo", "project": "alpha", "mtu": 9000}).json()
    told = small_site.get("gateway", "/v1/gateway/desired").json()["networks"]
    assert [network["mtu"] for network in told if network["id"] == jumbo["id"]] == [9000]
    with small_site.store.transaction() as tx:
        tx.switches.change(small_site.ids["switch"], settings={"mtu": "2000"})
    body = {"node": "held", "network": jumbo["id"], "channel": "tagged"}
    assert _codes(small_site, "member", "POST", "/v1/attachments", body) == (409, "mtu-too-large")
    again = {"name": "more", "project": "alpha", "mtu": 9000}
    assert _codes(small_site, "member", "POST", "/v1/networks", again) == (422, "mtu-too-large")
    with small_site.store.transaction() as tx:
        tx.switches.change(small_site.ids["switch"], settings={})
    assert _codes(small_site, "member", "POST", "/v1/attachments", body) == (202, "")
    for _ in Room(small_site).work():
        pass
    carried = small_site.switches.carried("sim://tor1", "p3")
    assert carried is not None
    assert (carried.native_vid, carried.mtu) == (101, 9000), "the port takes the largest of its networks"


def test_addresses_are_chosen_from_the_range_or_named(small_site: Site) -> None:
    given = {"ranges": ["10.7.0.50-10.7.0.50"], "domain": "lab.example", "has_router": False}
    new = {"name": "lab", "project": "alpha", "cidr": "10.7.0.0/24", "addressing": given}
    network = small_site.post("member", "/v1/networks", new).json()
    assert network["addressing"] == {**given, "ranges6": [], "dns_servers": [], "ntp_servers": []}
    body = {"node": "held", "network": network["id"], "channel": "tagged"}
    for address, expected in (("10.7.0.1", 422), ("10.8.0.9", 422), ("x", 422), ("10.7.0.200", 202)):
        assert _codes(small_site, "member", "POST", "/v1/attachments", {**body, "address": address})[0] == expected
    for _ in Room(small_site).work():
        pass
    told = small_site.get("gateway", "/v1/gateway/desired").json()["networks"]
    (lab,) = (one for one in told if one["id"] == network["id"])
    assert [host["address"] for host in lab["hosts"]] == ["10.7.0.200"]
    assert lab["addressing"]["domain"] == "lab.example"


def test_an_empty_range_is_told_and_a_taken_address_too(small_site: Site) -> None:
    with small_site.store.transaction() as tx:
        tx.networks.change(small_site.ids["network:beta"], addressing=Addressing(ranges=("10.0.0.10-10.0.0.10",)))
        tx.grants.change(small_site.ids["grant:lent"], network_id=small_site.ids["network:beta"])
        tx.grants.change(small_site.ids["grant:lent"], project_id=small_site.ids["alpha"])
    body = {"node": "held", "network": str(small_site.ids["network:beta"]), "channel": "tagged"}
    assert _codes(small_site, "member", "POST", "/v1/attachments", body) == (409, "exhausted")
    taken = small_site.post("member", "/v1/attachments", {**body, "address": "10.0.0.10"})
    assert taken.status_code == 409
    assert "10.0.0.10" in taken.json()["detail"]


def test_a_vlan_set_by_hand_does_not_enter_the_pool(small_site: Site) -> None:
    small_site.post("admin", "/v1/networks", {**NEW, "vlan": 4000})
    wanted = {"ranges": ["100-109", "4000"]}
    assert _codes(small_site, "operator", "PUT", "/v1/fabrics/default/vlans", wanted) == (409, "vlan-taken")


def test_no_two_fabrics_have_the_same_vlan(small_site: Site) -> None:
    refused, change = (409, "vlan-of-another-fabric"), ("operator", "POST", "/v1/fabrics/roof/vlans")
    assert _codes(small_site, *change, {"add": ["99-100"]}) == refused
    assert _codes(small_site, "operator", "PUT", "/v1/fabrics/roof/vlans", {"ranges": ["109"]}) == refused
    assert _codes(small_site, *change, {"add": ["500-501"]}) == (200, "")
    by_hand = ("admin", "POST", "/v1/networks")
    assert _codes(small_site, *by_hand, {**NEW, "vlan": 500, "serve": True}) == refused
    assert _codes(small_site, *by_hand, {**NEW, "vlan": 502, "serve": True})[0] == 201
    assert _codes(small_site, *change, {"add": ["502"]}) == refused
    assert _codes(small_site, *change, {"remove": ["501"]}) == (200, "")
    # A way of its own to one of them tells them apart, where every gateway that lives has it.
    for name, apart, code in (("a", ["roof"], 200), ("b", [], 409), ("a", ["roof"], 409)):
        beat = {"gateway": {"name": name, "fabrics": apart}}
        assert small_site.post("gateway", "/v1/gateway/reports", beat).status_code == 204
        assert _codes(small_site, *change, {"add": ["99-100"]})[0] == code
        assert _codes(small_site, *change, {"remove": ["99-100"]})[0] == code
    small_site.clock.advance(SILENT_AFTER_S + 1)
    assert small_site.post("gateway", "/v1/gateway/reports", beat).status_code == 204
    assert _codes(small_site, *change, {"add": ["99-100"]}) == (200, "")
    shown = {one["name"]: one["is_apart"] for one in small_site.get("operator", "/v1/fabrics").json()["items"]}
    assert (
        shown
        == {"default": False, "roof": True}
        == {name: small_site.get("operator", f"/v1/fabrics/{name}").json()["is_apart"] for name in shown}
    )


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"add": ["200-299", "300"]}, (200, "")),
        ({"remove": ["105-109"]}, (200, "")),
        ({"add": ["105-120"]}, (409, "vlan-in-pool")),
        ({"add": ["200-210", "205-215"]}, (422, "invalid")),
        ({"add": ["0"]}, (422, "invalid")),
        ({"add": ["4095"]}, (422, "invalid")),
        ({"add": ["4001"]}, (409, "vlan-taken")),
        ({"remove": ["400"]}, (409, "vlan-not-in-pool")),
        ({"remove": ["101-109"]}, (409, "vlan-in-use")),
        ({"add": ["200"], "remove": ["200"]}, (422, "invalid")),
        ({}, (422, "invalid")),
    ],
)
def test_a_pool_is_changed_by_ranges(small_site: Site, body: object, expected: tuple[int, str]) -> None:
    assert _codes(small_site, "operator", "POST", "/v1/fabrics/default/vlans", body) == expected
    if expected[0] == 200:
        ranges = {"add": ["100-109", "200-300"], "remove": ["100-104"]}[next(iter(dict(body)))]  # type: ignore[call-overload]
        assert small_site.get("operator", "/v1/fabrics/default").json()["ranges"] == ranges


def test_a_resting_vlan_does_not_leave_the_pool_to_come_back_fresh(small_site: Site) -> None:
    with small_site.store.transaction() as tx:
        vlan = tx.vlans.find(fabric="default", vid=109)
        assert vlan is not None
        tx.vlans.change(vlan.id, reusable_at=later(60))
    gone = ("operator", "POST", "/v1/fabrics/default/vlans", {"remove": ["109"]})
    assert _codes(small_site, *gone) == (409, "vlan-resting")
    small_site.clock.advance(60)
    assert _codes(small_site, *gone) == (200, "")


def _break(site: Site, tx: Transaction, check: str) -> None:
    """Make one check of connect fail, for alpha's node on beta's network."""
    nic, network_id = tx.nics.list(node_id=site.ids["held"])[0], NetworkId(site.ids["network:beta"])
    match check:
        case "held":
            tx.nodes.change(site.ids["held"], state=NodeState.FREE, project_id=None)
        case "wired":
            tx.nics.change(nic.id, switch_port_id=None)
        case "idle":
            begin(tx, START, "power", node_id=NodeId(site.ids["held"]))
        case "access":
            tx.grants.remove(tx.grants.list(network_id=network_id)[0].id)
        case "new":
            present = tx.attachments.list(nic_id=nic.id)[0]
            another = replace(present, id=AttachmentId(new_id()), network_id=network_id, address="10.0.0.99")
            tx.attachments.add(replace(another, channel=Channel.TAGGED))
        case "fabric":
            tx.networks.change(network_id, fabric="elsewhere")


#: HIL's checks of connect, in its order: what breaks each, and what the caller is told.
CHECKS = [
    ("exists", (404, "not-found")),
    ("held", (409, "node-not-allocated")),
    ("role", (403, "forbidden")),
    ("wired", (409, "nic-not-wired")),
    ("idle", (409, "node-busy")),
    ("access", (404, "not-found")),
    ("new", (409, "already-attached")),
    ("channel", (409, "channel-taken")),
    ("fabric", (409, "other-fabric")),
]


@pytest.mark.parametrize("at", range(len(CHECKS)), ids=[check for check, _ in CHECKS])
def test_connecting_is_checked_in_hils_order(small_site: Site, at: int) -> None:
    """Break the check at hand and every later one: it is the one at hand that is told."""
    site, broken = small_site, [check for check, _ in CHECKS[at:]]
    for user, role in (("member", "member"), ("reader", "reader")):  # so they see the network, whomever it is for
        site.call("admin", "PUT", f"/v1/projects/beta/members/{user}", json={"role": role})
    site.post("admin", f"/v1/grants/{_offer(site, 'network:beta', 'alpha')['id']}/accept")
    with site.store.transaction() as tx:
        for check in reversed(broken):
            _break(site, tx, check)
    body = {
        "node": "held",
        "network": "nothing" if "exists" in broken else str(site.ids["network:beta"]),
        "channel": "native" if "channel" in broken else "tagged",
    }
    assert _codes(site, "reader" if "role" in broken else "member", "POST", "/v1/attachments", body) == CHECKS[at][1]


def test_a_member_of_both_sides_joins_for_the_side_that_was_let_in(small_site: Site) -> None:
    """Seeing a network is not enough: it must be for the project that holds the node."""
    site = small_site
    site.call("admin", "PUT", "/v1/projects/beta/members/member", json={"role": "member"})
    body = {"node": "held", "network": str(site.ids["network:beta"]), "channel": "tagged"}
    assert _codes(site, "member", "POST", "/v1/attachments", body) == (404, "not-found")
