"""Where nodes use no addresses but their own: decided by whom a network is for, or by its owner."""

from typing import Any

import pytest
from tests.contract.api.room import Room
from tests.contract.api.site import Site, items


def _make(site: Site, **more: Any) -> tuple[int, dict[str, Any]]:
    response = site.post("admin", "/v1/networks", {"name": "lab", "project": "alpha", "cidr": "10.7.0.0/24", **more})
    told: dict[str, Any] = response.json()
    return response.status_code, told


def _set(site: Site, caller: str = "member", network: str = "blue", **changes: Any) -> tuple[int, dict[str, Any]]:
    response = site.call(caller, "PUT", f"/v1/networks/{network}", json=changes)
    told: dict[str, Any] = response.json()
    return response.status_code, told


def _offer(site: Site) -> tuple[int, dict[str, Any]]:
    body = {"network": str(site.ids["network:alpha"]), "grantee": str(site.ids["beta"])}
    response = site.post("member", "/v1/grants", body)
    told: dict[str, Any] = response.json()
    return response.status_code, told


def _bindings(site: Site) -> list[dict[str, Any]]:
    """Read what the port of alpha's node is to bind."""
    guard = site.get("operator", "/v1/switches/tor1/ports/p3").json()["wanted"]["guard"]
    found: list[dict[str, Any]] = guard["bindings"] if guard else []
    return found


def _work(site: Site) -> None:
    for _ in Room(site).work():
        pass


def _binds(site: Site, network: str) -> bool:
    told = site.get("gateway", "/v1/gateway/desired").json()["networks"]
    return bool(next(one["binds_addresses"] for one in told if one["id"] == network))


@pytest.mark.parametrize(
    ("wish", "guard"),
    [
        ({}, "auto"),
        ({"address_guard": "on"}, "on"),
        ({"address_guard": "off"}, "off"),
        ({"kind": "provider"}, "on"),
        ({"kind": "provider", "public": True}, "on"),
        ({"kind": "provider", "public": True, "address_guard": "off"}, "off"),
        ({"kind": "provider", "vlan": 4000}, "auto"),
        ({"kind": "provider", "vlan": 4000, "serve": True}, "on"),
    ],
)
def test_it_follows_from_whom_a_network_is_for(small_site: Site, wish: dict[str, Any], guard: str) -> None:
    status, made = _make(small_site, **wish)
    assert (status, made["address_guard"]) == (201, guard)
    if made["has_service"]:
        assert _binds(small_site, made["id"]) is (guard == "on")


def test_addresses_that_others_give_cannot_be_guarded(small_site: Site) -> None:
    status, told = _make(small_site, kind="provider", vlan=4000, address_guard="on")
    assert (status, told["code"]) == (422, "network-not-served")
    assert _make(small_site, kind="provider", vlan=4000)[0] == 201
    assert _set(small_site, "admin", "lab", address_guard="on")[0] == 422


def test_an_offer_guards_what_is_attached_already(site: Site) -> None:
    body = {"node": "held", "network": _make(site)[1]["id"], "channel": "tagged"}
    assert site.post("member", "/v1/attachments", body).status_code == 202
    _work(site)
    assert _bindings(site) == []
    assert _offer(site)[0] == 201
    _work(site)
    (network,) = (one for one in items(site.get("member", "/v1/networks")) if one["name"] == "blue")
    assert network["address_guard"] == "on"
    assert _binds(site, network["id"])
    assert _bindings(site) == [{"vids": [0, 101], "addresses": ["10.0.0.10"]}]
    assert site.get("operator", "/v1/switches/tor1/ports/p3").json()["state"] == "settled"
    # Whoever joins is bound from the first frame on.
    (grant,) = (one for one in items(site.get("other", "/v1/grants")) if one["network"] == "blue")
    site.post("other", f"/v1/grants/{grant['id']}/accept")
    joins = {"node": "foreign", "network": network["id"], "channel": "tagged"}
    assert site.post("other", "/v1/attachments", joins).status_code == 202
    _work(site)
    guard = site.get("operator", "/v1/switches/tor1/ports/p4").json()["wanted"]["guard"]
    assert [one["vids"] for one in guard["bindings"]] == [[101]]


def test_what_the_owner_says_stays(small_site: Site) -> None:
    assert _set(small_site, address_guard="off")[1]["address_guard"] == "off"
    assert _offer(small_site)[0] == 201
    assert _set(small_site, domain="lab.example")[1]["address_guard"] == "off"
    assert _set(small_site, address_guard="auto")[1]["address_guard"] == "on", "it is offered"
    assert _set(small_site, address_guard="off")[1]["address_guard"] == "off"
    _work(small_site)
    assert _bindings(small_site) == []


def test_whoever_may_only_use_a_network_does_not_decide(small_site: Site) -> None:
    lent = str(small_site.ids["network:lent"])
    assert _set(small_site, "other", lent, address_guard="off")[0] == 403
