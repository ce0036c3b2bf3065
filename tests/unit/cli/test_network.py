"""m2 network: what is shown of a network."""

from collections.abc import Mapping

from tests.unit.cli.desk import Desk, ago, id_of

NETWORK: Mapping[str, object] = {
    "id": id_of(40),
    "name": "office",
    "project_id": None,
    "project": None,
    "kind": "provider",
    "fabric": "default",
    "vid": 3999,
    "cidr": "10.0.0.0/24",
    "cidr6": "fd00:a::/64",
    "gateway_address": "10.0.0.1",
    "gateway_address6": "fd00:a::1",
    "second_address": "10.0.0.2",
    "addressing": {
        "ranges": [],
        "ranges6": [],
        "domain": "internal",
        "dns_servers": [],
        "ntp_servers": [],
        "has_router": True,
    },
    "mtu": 1500,
    "is_public": True,
    "has_service": True,
    "state": "active",
    "generation": 1,
    "served_generation": 1,
    "is_served": True,
    "created_at": ago(5),
}


def _shown(desk: Desk, **more: object) -> str:
    desk.answers |= {f"GET /v1/networks/{name}": {**NETWORK, **more} for name in ("office", id_of(40))}
    desk.answers["GET /v1/attachments"] = []
    return desk.m2("network", "show", "office").out


def test_of_a_network_that_others_serve_no_gateway_of_ours_is_told(desk: Desk) -> None:
    assert "gateway 10.0.0.1 (10.0.0.2 is kept" in _shown(desk)
    assert "router the gateway" in _shown(desk)
    others = _shown(desk, has_service=False)
    assert "by others" in others
    assert ("10.0.0.0/24" in others, "fd00:a::/64" in others, "gateway" in others) == (True, True, False)
