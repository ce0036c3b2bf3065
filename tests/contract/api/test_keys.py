"""Public SSH keys of projects: every machine they start gets them."""

import pytest
from tests.contract.api.room import Room
from tests.contract.api.site import Site, items

KEYS = "/v1/projects/alpha/keys"
ANN, BEN, OWN = (f"ssh-ed25519 AAAA{name} {name}@lab" for name in ("ann", "ben", "own"))


def _put(site: Site, name: str, key: str) -> int:
    return site.call("member", "PUT", f"{KEYS}/{name}", json={"key": key}).status_code


def test_what_a_project_starts_gets_its_keys_once_and_those_of_the_request(small_site: Site) -> None:
    site = small_site
    assert [_put(site, "ann", BEN), _put(site, "ben", BEN), _put(site, "ann", ANN)] == [200, 200, 200]
    assert {key["name"]: key["key"] for key in items(site.get("reader", KEYS))} == {"ann": ANN, "ben": BEN}
    wish = {"project": "alpha", "node": "free", "image": "tiny", "network": "blue", "ssh_keys": [OWN, BEN]}
    assert site.post("member", "/v1/provisions", wish).status_code == 202
    assert site.call("member", "DELETE", f"{KEYS}/ben").status_code == 204
    list(Room(site).work())
    with site.store.reading() as tx:
        boot = tx.boots.find(node_id=site.ids["free"])
    assert boot is not None
    assert boot.ssh_keys == (BEN, ANN, OWN)
    assert [key["name"] for key in items(site.get("member", KEYS))] == ["ann"]


@pytest.mark.parametrize("key", ["", f"{OWN}\u2028more", f"{OWN}\u0085more"])
def test_what_no_gateway_would_hand_on_is_refused_when_it_is_given(small_site: Site, key: str) -> None:
    wish = {"project": "alpha", "node": "free", "image": "tiny", "network": "blue", "ssh_keys": [key]}
    response = small_site.post("member", "/v1/provisions", wish)
    assert (response.status_code, "SSH key" in response.text) == (422, True)


@pytest.mark.parametrize(
    "key", ["", "hello", "-----BEGIN OPENSSH PRIVATE KEY-----", f"{ANN}\n{BEN}", 'command="x" ' + ANN]
)
def test_what_is_no_public_key_is_refused(small_site: Site, key: str) -> None:
    assert _put(small_site, "ann", key) == 422
    assert items(small_site.get("member", KEYS)) == []
