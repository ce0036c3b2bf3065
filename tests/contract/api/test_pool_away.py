"""A pool that is away, as a Ceph without its monitors: what needs it waits, says so, and goes on by itself."""

import json

import pytest
from tests.contract.api.room import Room
from tests.contract.api.site import Site

from malleable.domain.ids import DiskId
from malleable.sim.faults import FaultKind

AWAY_S = 1200.0
CHANGES = {
    "create": ("/v1/disks", {"project": "alpha", "name": "new", "image": "tiny"}),
    "batch": ("/v1/disks/batch", {"project": "alpha", "names": ["one", "two"], "image": "tiny"}),
    "snapshot": ("/v1/snapshots", {"project": "alpha", "name": "new", "disk": "SPARE"}),
    "grow": ("/v1/disks/SPARE/grow", {"size_bytes": 1 << 30}),
    "provision": ("/v1/provisions", {"project": "alpha", "node": "free", "image": "tiny", "network": "blue"}),
    "delete": ("/v1/disks/SPARE", None),
}


def _away(site: Site) -> Room:
    room = Room(site)
    site.disks.make_blank(DiskId(site.ids["spare:alpha"]), size_bytes=1 << 20)
    for method in ("clone", "make_blank", "snapshot", "grow", "delete_disk", "delete_snapshot", "has_disk", "usage"):
        room.faults.add(method, FaultKind.LOST_REQUEST, times=None)
    return room


def _ask(site: Site, kind: str) -> str:
    path, body = CHANGES[kind]
    spare = str(site.ids["spare:alpha"])
    method = "POST" if body else "DELETE"
    filled = json.loads(json.dumps(body).replace("SPARE", spare)) if body else None
    began = site.call("member", method, path.replace("SPARE", spare), json=filled)
    assert began.status_code == 202, began.text
    return f"/v1/operations/{began.json()['id']}"


@pytest.mark.parametrize("kind", CHANGES)
def test_what_needs_it_waits_with_a_reason_and_goes_on_by_itself(kind: str, small_site: Site) -> None:
    site, room = small_site, _away(small_site)
    operation, began, waited = _ask(site, kind), site.clock.now(), False
    for _ in room.work():
        away_s = (site.clock.now() - began).total_seconds()
        told = site.get("member", operation).json()
        if not waited and away_s < AWAY_S:
            assert told["state"] == "waiting", told
            assert told["reason"] == "The disk storage does not answer. It is tried again."
        elif not waited:
            waited = True
            room.faults.clear()
    assert waited
    assert site.get("member", operation).json()["state"] == "succeeded"


def test_who_cannot_wait_cancels_and_nothing_is_left(small_site: Site) -> None:
    site, room = small_site, _away(small_site)
    operation, began, asked = _ask(site, "provision"), site.clock.now(), False
    for _ in room.work():
        away_s = (site.clock.now() - began).total_seconds()
        if away_s > 60 and not asked:
            asked = True
            assert site.post("member", f"{operation}/cancel").status_code == 202
        if away_s > AWAY_S:
            room.faults.clear()
    assert site.get("member", operation).json()["state"] == "cancelled"
    assert site.get("operator", "/v1/nodes/free").json()["state"] == "free"
