"""A pool that takes no writes any more: said at once, nothing half made, and well again once it is mended."""

import json

import pytest
from tests.contract.api.room import Room
from tests.contract.api.site import Site
from tests.contract.api.test_health import beat, warnings

from malleable.services.gauge import FRESH_FOR_S

CHANGES = {
    "create-disk": ("/v1/disks", {"project": "alpha", "name": "new", "image": "tiny"}, "disks"),
    "create-disks": ("/v1/disks/batch", {"project": "alpha", "names": ["new", "two"], "image": "tiny"}, "disks"),
    "snapshot-disk": ("/v1/snapshots", {"project": "alpha", "name": "new", "disk": "SPARE"}, "snapshots"),
}


def test_everybody_is_told(site: Site) -> None:
    beat(site)
    assert warnings(site) == {}
    site.disks.is_read_only = True
    site.clock.advance(FRESH_FOR_S)
    beat(site)
    assert warnings(site)["pool"] == "The pool takes no writes: nothing new is made in it, and nodes' writes fail."


@pytest.mark.parametrize("kind", CHANGES)
def test_what_is_begun_parks_and_is_undone_once_the_pool_is_mended(kind: str, small_site: Site) -> None:
    site, (path, body, noun) = small_site, CHANGES[kind]
    site.disks.is_read_only = True
    filled = json.loads(json.dumps(body).replace("SPARE", str(site.ids["spare:alpha"])))
    began = site.post("member", path, filled)
    assert began.status_code == 202, began.text
    list(Room(site).work())
    operation = f"/v1/operations/{began.json()['id']}"
    told = site.get("member", operation).json()
    assert told["state"] == "needs-operator"
    assert "read-only" not in json.dumps(told), "what the provider's devices say is the provider's"
    assert "The simulated pool is read-only." in site.get("admin", operation).json()["reason"]
    site.disks.is_read_only = False
    assert site.post("operator", f"{operation}/resume").status_code == 202
    list(Room(site).work())
    assert site.get("member", operation).json()["state"] == "failed"
    assert "new" not in [item["name"] for item in site.get("member", f"/v1/{noun}?limit=1000").json()["items"]]
