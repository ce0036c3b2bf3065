"""Disks given to another project: what either side may, sees and is told, before and after."""

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from tests.contract.api.room import Room
from tests.contract.api.site import Site, items

from malleable.domain.access import Pace
from malleable.domain.ids import DiskId
from malleable.services.all import make_services


def offer(site: Site, disk: str = "gift", caller: str = "member", to: str = "beta", **how: Any) -> Any:
    return site.post(caller, f"/v1/disks/{disk}/offer", {"receiver": str(site.ids[to]), **how})


def accept(site: Site, offered: Any, name: str | None = None, caller: str = "other") -> Any:
    assert offered.status_code == 201, offered.text
    return site.post(caller, f"/v1/disk-offers/{offered.json()['id']}/accept", {"name": name})


def disk_names(site: Site, caller: str) -> set[str]:
    return {disk["name"] for disk in items(site.get(caller, "/v1/disks"))}


def made(site: Site, *, name: str = "gift", caller: str = "member", **wish: Any) -> None:
    """Make a disk, blank if nothing else is said."""
    wish = wish or {"size_bytes": 1 << 20}
    begun = site.post(caller, "/v1/disks", {"name": name, **wish})
    assert begun.status_code == 202, begun.text
    list(Room(site).work())


def test_a_disk_changes_hands_with_all_that_is_on_it(small_site: Site) -> None:
    site = small_site
    made(site, name="web", image="tiny")
    disk_id = DiskId(UUID(site.get("member", "/v1/disks/web").json()["id"]))
    site.disks.write(disk_id, 0, b"mine" * 128)
    offered = offer(site, "web")
    assert offered.json().items() >= {"disk": "web", "owner": "alpha", "receiver": "beta", "image": "tiny"}.items()
    assert site.get("other", f"/v1/disks/{disk_id}").status_code == 404
    assert "web" in [one["disk"] for one in items(site.get("other", "/v1/disk-offers?project=beta"))]
    taken = accept(site, offered)
    assert (taken.status_code, taken.json()["project"], taken.json()["name"]) == (200, "beta", "web")
    assert site.get("member", f"/v1/disks/{disk_id}").status_code == 404
    assert ("web" in disk_names(site, "member"), "web" in disk_names(site, "other")) == (False, True)
    assert site.disks.read(disk_id, 0, 4) == b"mine"
    assert offered.json()["id"] not in [one["id"] for one in items(site.get("admin", "/v1/disk-offers"))]
    for caller, project in (("member", "alpha"), ("other", "beta")):
        told = [
            event
            for event in items(site.get(caller, f"/v1/events?project={project}&limit=1000"))
            if event["kind"] in ("disk.offered", "disk.given") and event["data"]["name"] == "web"
        ]
        assert [event["kind"] for event in told] == ["disk.offered", "disk.given"]
        mine = str(site.ids[f"user:{caller}"])
        assert [event["actor_id"] for event in told] == ([mine, None] if caller == "member" else [None, mine])


def test_an_offer_ends_from_either_side_and_nothing_changed(small_site: Site) -> None:
    made(small_site)
    for caller in ("member", "other"):
        offered = offer(small_site)
        assert small_site.call(caller, "DELETE", f"/v1/disk-offers/{offered.json()['id']}").status_code == 204
        assert accept(small_site, offered).status_code == 404
    assert "gift" in disk_names(small_site, "member")


@pytest.mark.parametrize(
    ("disk", "to", "code"),
    [
        ("root", "beta", "disk-in-use"),
        ("spare", "beta", "disk-has-snapshots"),
        ("spare", "alpha", "offer-to-owner"),
    ],
)
def test_what_cannot_be_given_is_refused_at_once(small_site: Site, disk: str, to: str, code: str) -> None:
    refused = offer(small_site, disk, to=to)
    assert (refused.status_code in (409, 422), refused.json()["code"]) == (True, code)


def test_a_disk_is_offered_to_one_at_a_time(small_site: Site) -> None:
    made(small_site)
    assert offer(small_site).status_code == 201
    again = offer(small_site, to="empty")
    assert (again.status_code, again.json()["code"]) == (409, "disk-offered")
    assert "m2 disk keep gift" in again.json()["fix"]


def test_the_image_that_it_boots_must_be_the_receivers_to_use(small_site: Site) -> None:
    site = small_site
    made(site, name="web", image="alpha-image")
    refused = offer(site, "web")
    assert (refused.status_code, refused.json()["code"]) == (409, "image-not-shared")
    grant = site.post("member", "/v1/images/alpha-image/grants", {"grantee": str(site.ids["beta"])}).json()["id"]
    offered = offer(site, "web")
    early = accept(site, offered)
    assert (early.status_code, early.json()["code"]) == (409, "image-not-shared")
    assert "m2 image accept alpha-image" in early.json()["fix"]
    site.post("other", f"/v1/image-grants/{grant}/accept")
    assert accept(site, offered).json()["image"] == "alpha-image"


def test_who_takes_it_needs_a_free_name_and_room(small_site: Site) -> None:
    site = small_site
    made(site)
    made(site, caller="other")
    offered = offer(site)
    taken = accept(site, offered)
    assert (taken.status_code, taken.json()["code"]) == (409, "conflict")
    quota = site.get("admin", "/v1/projects/beta/quota").json()["in_use"]["disks"]
    site.call("admin", "PUT", "/v1/projects/beta/quota", {"disks": quota})
    full = accept(site, offered, "another")
    assert (full.status_code, full.json()["code"]) == (409, "quota-exceeded")
    assert "gift" in disk_names(site, "member")
    site.call("admin", "PUT", "/v1/projects/beta/quota", {"disks": quota + 1})
    assert accept(site, offered, "another").json()["name"] == "another"


def test_what_happened_since_the_offer_is_looked_at_and_not_told(small_site: Site) -> None:
    """A node has it, an operation is about it, it has a snapshot: the receiver learns none of that."""
    site = small_site
    made(site, name="data", size_bytes=1 << 20)
    offered = offer(site, "data")
    site.post("member", "/v1/snapshots", {"name": "late", "disk": "data"})
    for _ in range(2):
        refused = accept(site, offered)
        assert (refused.status_code, refused.json()["code"]) == (409, "disk-in-use")
        assert "late" not in refused.text
        list(Room(site).work())
    site.call("member", "DELETE", "/v1/snapshots/late")
    list(Room(site).work())
    wish = {"project": "alpha", "node": "free", "image": "tiny", "network": "blue", "data_disks": ["data"]}
    assert site.post("member", "/v1/provisions", wish).status_code == 202
    for _ in range(2):
        refused = accept(site, offered)
        assert (refused.status_code, refused.json()["code"]) == (409, "disk-in-use")
        assert "free" not in refused.text
        list(Room(site).work())


def snapshots_of(site: Site, caller: str, project: str) -> dict[str, Any]:
    return {one["name"]: one for one in items(site.get(caller, f"/v1/snapshots?project={project}"))}


def kept(site: Site, *names: str, disk: str = "gift", caller: str = "member") -> None:
    """Snapshot a disk by some names."""
    for name in names:
        assert site.post(caller, "/v1/snapshots", {"name": name, "disk": disk}).status_code == 202
        list(Room(site).work())


def test_snapshots_go_with_their_disk_and_what_was_made_of_them_stays(small_site: Site) -> None:
    site = small_site
    made(site, name="web", image="tiny")
    kept(site, "first", "second", disk="web")
    made(site, name="clone", snapshot="first")
    assert site.post("member", "/v1/snapshots/first/promote", {"name": "mine"}).status_code == 202
    list(Room(site).work())
    made(site, name="theirs", caller="other")
    kept(site, "first", disk="theirs", caller="other")
    before = {caller: in_use(site, caller) for caller in ("member", "other")}
    disk = site.get("member", "/v1/disks/web").json()
    refused = offer(site, "web")
    assert (refused.json()["code"], refused.json()["details"]) == (
        "disk-has-snapshots",
        {"snapshots": ["first", "second"]},
    )
    offered = offer(site, "web", with_snapshots=True)
    assert (offered.json()["snapshots"], offered.json()["snapshot_bytes"]) == (2, 2 * disk["size_bytes"])
    assert accept(site, offered, "new").status_code == 200
    mine, theirs = snapshots_of(site, "member", "alpha"), snapshots_of(site, "other", "beta")
    assert {"first", "second"}.isdisjoint(mine)
    assert theirs.keys() >= {"first", "new-first", "second"}
    assert theirs["second"]["disk"] == "new"
    clone = site.get("member", "/v1/disks/clone").json()
    assert (clone["image"], clone["snapshot"]) == ("tiny", None)
    with site.store.reading() as tx:
        promoted = tx.images.find(name="mine")
    assert promoted is not None
    assert str(promoted.parent_id) == clone["image_id"]
    for caller, sign in (("member", -1), ("other", 1)):
        now = in_use(site, caller)
        changed = {name: now[name] - before[caller][name] for name in ("disks", "snapshots", "disk_bytes")}
        assert changed == {"disks": sign, "snapshots": 2 * sign, "disk_bytes": 3 * sign * disk["size_bytes"]}
    assert site.post("other", "/v1/disks/new/roll-back", {"snapshot": "new-first"}).status_code == 202
    assert site.post("member", "/v1/disks", {"name": "no", "snapshot": "second"}).status_code == 404
    list(Room(site).work())
    assert site.get("other", "/v1/disks/new").json()["state"] == "ready"


def in_use(site: Site, caller: str) -> dict[str, int]:
    project = {"member": "alpha", "other": "beta"}[caller]
    found: dict[str, int] = site.get("admin", f"/v1/projects/{project}/quota").json()["in_use"]
    return found


def test_only_snapshots_that_were_offered_are_taken_and_none_that_is_in_use(small_site: Site) -> None:
    site = small_site
    made(site)
    kept(site, "old", "older")
    offered = offer(site, with_snapshots=True)
    site.call("member", "DELETE", "/v1/snapshots/older")
    list(Room(site).work())
    kept(site, "late")  # as many as were offered, but not the same
    refused = accept(site, offered)
    assert (refused.status_code, refused.json()["code"]) == (409, "disk-in-use")
    assert "late" not in refused.text
    site.call("member", "DELETE", "/v1/snapshots/late")
    list(Room(site).work())
    assert site.post("member", "/v1/disks", {"name": "clone", "snapshot": "old"}).status_code == 202
    assert accept(site, offered).json()["code"] == "disk-in-use"
    list(Room(site).work())
    has = in_use(site, "other")
    site.call("admin", "PUT", "/v1/projects/beta/quota", {"snapshots": has["snapshots"]})
    assert accept(site, offered).json()["code"] == "quota-exceeded"
    assert in_use(site, "other") == has
    assert "old" in snapshots_of(site, "member", "alpha")
    site.call("admin", "PUT", "/v1/projects/beta/quota", {"snapshots": has["snapshots"] + 1})
    assert accept(site, offered).status_code == 200
    assert snapshots_of(site, "other", "beta")["old"]["disk"] == "gift"


def test_snapshots_that_cannot_go_along_keep_the_disk_from_being_offered(
    small_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = small_site
    made(site)
    kept(site, "one", "two")
    monkeypatch.setattr("malleable.workflows.giving.GIVEN_MAX", 1)
    assert offer(site, with_snapshots=True).json()["code"] == "too-many-snapshots"
    site.call("member", "DELETE", "/v1/snapshots/two")
    assert offer(site, with_snapshots=True).json()["code"] == "too-many-snapshots"
    monkeypatch.undo()
    refused = offer(site, with_snapshots=True)
    assert (refused.status_code, refused.json()["code"]) == (409, "snapshot-state")
    list(Room(site).work())
    made(site, name="theirs", caller="other")
    kept(site, "one", disk="theirs", caller="other")
    offered = offer(site, with_snapshots=True)
    longest = "x" * 63
    assert "shorter name" in accept(site, offered, longest).json()["fix"]
    assert accept(site, offered, longest[:59]).status_code == 200


@pytest.mark.parametrize("by", ["project", "site"])
def test_where_signatures_are_needed_a_disk_is_taken_by_those_who_may_do_without(small_site: Site, by: str) -> None:
    """What it was cloned from may be signed; what its givers wrote to it is not."""
    site = small_site
    made(site, name="web", image="tiny")
    made(site, name="data")
    if by == "site":
        parts = replace(site.services.parts, needs_signed_images=True)
        site.app.state.edge.services = make_services(parts)
    else:
        site.call("other", "PUT", "/v1/projects/beta/signing", json={"needs_signed_images": True})
    offered = offer(site, "web")
    refused = accept(site, offered)
    assert (refused.status_code, refused.json()["code"]) == (409, "disk-not-signed")
    assert "--unsigned" in refused.json()["fix"]
    path, body = f"/v1/disk-offers/{offered.json()['id']}/accept", {"unsigned": True}
    assert site.post("other", path, body).status_code == (409 if by == "site" else 200)
    if by == "site":
        assert site.post("admin", path, body).status_code == 200
    assert accept(site, offer(site, "data")).status_code == 200, "nothing boots from a blank one"


def test_offers_stay_in_others_events_so_they_have_a_pace(small_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Disks, images and networks together, of one user."""
    site = small_site
    monkeypatch.setattr("malleable.services.handing.OFFER_PACE", Pace(at_once=4, every_s=30.0))
    made(site)
    network = {"network": "blue", "grantee": str(site.ids["empty"])}
    image = {"grantee": str(site.ids["beta"])}
    assert site.post("member", "/v1/grants", network).status_code == 201
    assert site.post("member", "/v1/images/alpha-image/grants", image).status_code == 201
    for status in (201, 201, 429):
        offered = offer(site)
        assert offered.status_code == status
        if status == 201:
            site.call("member", "DELETE", f"/v1/disk-offers/{offered.json()['id']}")
    before = len(items(site.get("other", "/v1/events?limit=1000&project=beta")))
    refused = offer(site)
    assert (refused.json()["code"], refused.headers["retry-after"]) == ("too-many-calls", "30")
    assert len(items(site.get("other", "/v1/events?limit=1000&project=beta"))) == before
    site.clock.advance(30)
    assert [offer(site).status_code, offer(site, caller="admin", to="empty").status_code] == [201, 409]


def test_a_deleted_disk_is_no_longer_offered(small_site: Site) -> None:
    made(small_site)
    offered = offer(small_site)
    small_site.call("member", "DELETE", "/v1/disks/gift")
    assert accept(small_site, offered).status_code == 409
    list(Room(small_site).work())
    assert accept(small_site, offered).status_code == 404
