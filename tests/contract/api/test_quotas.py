"""Quotas: who sets them, what they refuse, and that nothing is left of what was refused."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from httpx import Response
from tests.contract.api.room import Room
from tests.contract.api.site import GOLDEN, Site, items

from malleable.domain.disks import DiskState
from malleable.domain.ids import DiskId, ImageId, ProjectId, new_id
from malleable.domain.images import ImageState
from malleable.domain.nodes import NodeState
from malleable.domain.projects import HOLDINGS, Quota
from malleable.services.all import make_services
from malleable.sim.faults import FaultKind
from malleable.store import SqlStore
from malleable.workflows.accounting import record_usage

SIZE = len(GOLDEN)
#: What project alpha has in the beginning.
HAS = {
    "nodes": 1,
    "networks": 2,
    "attachments": 1,
    "disks": 2,
    "disk_bytes": 3 * SIZE,
    "snapshots": 1,
    "images": 2,
    "image_bytes": 2 * SIZE,
    "taken_bytes": 0,
}
PATH = "/v1/projects/alpha/quota"
PROVISION = {"project": "alpha", "image": "tiny", "network": "blue"}
IMAGE = {"name": "more", "project": "alpha", "sha256": "0" * 64, "size_bytes": 10}
FETCH = {"name": "more", "project": "alpha", "url": "https://mirror.example/more.img"}

#: (what is limited, the request that takes it, how much that is)
TAKERS: tuple[tuple[str, str, Mapping[str, Any], int], ...] = (
    ("networks", "/v1/networks", {"name": "more", "project": "alpha", "cidr": "10.7.0.0/24"}, 1),
    ("disks", "/v1/disks", {"name": "more", "project": "alpha", "image": "tiny"}, 1),
    (
        "disk_bytes",
        "/v1/disks",
        {"name": "more", "project": "alpha", "image": "tiny", "size_bytes": 9 * SIZE},
        9 * SIZE,
    ),
    ("disks", "/v1/disks", {"name": "more", "project": "alpha", "snapshot": "kept"}, 1),
    ("disks", "/v1/disks/batch", {"names": ["more", "and-more"], "project": "alpha", "image": "tiny"}, 2),
    ("disk_bytes", "/v1/disks/batch", {"names": ["more", "and-more"], "project": "alpha", "image": "tiny"}, 2 * SIZE),
    ("snapshots", "/v1/snapshots", {"name": "more", "project": "alpha", "disk": "spare"}, 1),
    ("disk_bytes", "/v1/snapshots", {"name": "more", "project": "alpha", "disk": "spare"}, SIZE),
    ("images", "/v1/images", IMAGE, 1),
    ("images", "/v1/snapshots/{snapshot:alpha}/promote", {"name": "more"}, 1),
    ("image_bytes", "/v1/images", IMAGE, 10),
    ("image_bytes", "/v1/images/fetch", {**FETCH, "size_bytes": 10}, 10),
    ("images", "/v1/images/fetch", FETCH, 1),
    ("image_bytes", "/v1/snapshots/{snapshot:alpha}/promote", {"name": "more"}, SIZE),
    ("attachments", "/v1/attachments", {"node": "held", "network": "public", "channel": "tagged"}, 1),
    ("attachments", "/v1/provisions", PROVISION, 1),
    ("nodes", "/v1/provisions", PROVISION, 1),
    ("nodes", "/v1/provisions", {"project": "alpha", "disk": "spare", "network": "blue"}, 1),
    ("disks", "/v1/provisions", PROVISION, 1),
    ("disk_bytes", "/v1/provisions", {**PROVISION, "disk_size_bytes": 5 * SIZE}, 5 * SIZE),
    ("nodes", "/v1/disks/{disk:alpha}/move", {"node": "free"}, 1),
    ("disk_bytes", "/v1/disks/{spare:alpha}/grow", {"size_bytes": 4 * SIZE}, 3 * SIZE),
)


def limit(site: Site, **limits: int | None) -> None:
    answer = site.call("admin", "PUT", PATH, json=limits)
    assert answer.status_code == 200, answer.text


def ask(site: Site, caller: str, path: str, body: Mapping[str, Any]) -> Response:
    for key, id in site.ids.items():
        path = path.replace(f"{{{key}}}", str(id))
    return site.post(caller, path, body)


def in_use(site: Site) -> Mapping[str, int]:
    found: Mapping[str, int] = site.get("member", PATH).json()["in_use"]
    return found


@contextmanager
def heard(site: Site) -> Iterator[list[str]]:
    """Collect the statements sent."""
    assert isinstance(site.store, SqlStore)
    statements: list[str] = []
    site.store.database.statements.heard = statements.append
    yield statements
    site.store.database.statements.heard = None


@pytest.mark.parametrize("caller", ["member", "admin"])
@pytest.mark.parametrize(("name", "path", "body", "wanted"), TAKERS, ids=[f"{t[0]}-{t[1]}" for t in TAKERS])
def test_more_than_the_limit_is_refused_and_leaves_nothing(
    new_site: Callable[[], Site], name: str, path: str, body: Mapping[str, Any], wanted: int, caller: str
) -> None:
    """Admins are bound by the quota of the project they act for."""
    site, limited = new_site(), HAS[name] + wanted - 1
    limit(site, **{name: limited})
    operations = items(site.get("admin", "/v1/operations"))
    refused = ask(site, caller, path, body)
    assert refused.status_code == 409, refused.text
    problem = refused.json()
    assert problem["code"] == "quota-exceeded"
    assert problem["details"] == {"limit": name, "max": limited, "in_use": HAS[name], "wanted": wanted}
    assert f"has {HAS[name]} of at most {limited}" in problem["detail"]
    assert "ask an admin" in problem["fix"]
    assert f"m2 project quota set alpha --{name.replace('_bytes', '-size')} " in problem["fix"]
    assert in_use(site) == HAS
    assert items(site.get("admin", "/v1/operations")) == operations
    assert site.get("admin", "/v1/nodes/free").json()["state"] == "free"
    with site.store.reading() as tx:
        assert tx.boots.count() == 0
        assert {disk.state for disk in tx.disks.list()} == {DiskState.READY}

    limit(site, **{name: limited + 1})
    granted = ask(site, caller, path, body)
    assert granted.status_code in (201, 202), granted.text
    assert in_use(site)[name] == limited + 1


def test_a_quota_is_read_by_its_people_and_set_by_admins(site: Site) -> None:
    limit(site, nodes=5, disk_bytes=2**40)
    for caller in ("reader", "member", "read_only", "scoped", "operator", "admin"):
        found = site.get(caller, PATH).json()
        assert (found["project"], found["project_id"]) == ("alpha", str(site.ids["alpha"]))
        assert found["limits"] == {**dict.fromkeys(HOLDINGS), "nodes": 5, "disk_bytes": 2**40}
        assert found["in_use"] == HAS
    assert site.get("other", PATH).status_code == 404
    assert site.call("member", "PUT", PATH, json={"nodes": 9}).status_code == 403
    assert site.get("admin", PATH).json()["limits"]["nodes"] == 5


def test_null_lifts_a_limit_and_what_is_left_out_stays(small_site: Site) -> None:
    limit(small_site, nodes=5, disks=7)
    limit(small_site, nodes=None)
    limits = small_site.get("admin", PATH).json()["limits"]
    assert (limits["nodes"], limits["disks"]) == (None, 7)
    set_events = [e for e in items(small_site.get("member", "/v1/events")) if e["kind"] == "project.quota-set"]
    assert [e["data"]["quota"]["nodes"] for e in set_events] == [5, None]


@pytest.mark.parametrize(
    "body",
    [{}, {"nodes": -1}, {"nodes": 2**54}, {"nodes": "5"}, {"nodes": 1.5}, {"nodes": True}, {"racks": 3}, [], None],
)
def test_what_is_no_quota_is_refused(small_site: Site, body: object) -> None:
    limit(small_site, nodes=5)
    refused = small_site.call("admin", "PUT", PATH, json=body)
    assert refused.status_code == 422, refused.text
    assert refused.json()["fix"]
    assert small_site.get("admin", PATH).json()["limits"]["nodes"] == 5


def test_a_limit_below_what_is_there_takes_nothing_away(small_site: Site) -> None:
    limit(small_site, **dict.fromkeys(HOLDINGS, 0))
    assert in_use(small_site) == HAS
    # What needs nothing more goes on: a held node is stopped, a disk it has is renamed and deleted.
    assert small_site.post("member", "/v1/nodes/held/stop").status_code == 202
    assert small_site.call("member", "DELETE", f"/v1/disks/{small_site.ids['spare:alpha']}").status_code == 202


def test_a_new_project_has_the_sites_quota(small_site: Site) -> None:
    services = make_services(replace(small_site.services.parts, new_quota=Quota(nodes=3, images=0)))
    services.projects.project_create(services.authentication.caller_of(small_site.tokens["admin"]), "gamma")
    limits = small_site.get("admin", "/v1/projects/gamma/quota").json()["limits"]
    assert {name: most for name, most in limits.items() if most is not None} == {"nodes": 3, "images": 0}


def test_golden_images_and_the_providers_networks_are_on_nobodys_quota(small_site: Site) -> None:
    limit(small_site, **dict.fromkeys(HOLDINGS, 0))
    golden = {key: value for key, value in IMAGE.items() if key != "project"}
    assert small_site.post("admin", "/v1/images", golden).status_code == 201
    body = {"name": "wide", "kind": "provider", "cidr": "10.8.0.0/24"}
    assert small_site.post("admin", "/v1/networks", body).status_code == 201
    promoted = small_site.post(
        "admin", f"/v1/snapshots/{small_site.ids['snapshot:alpha']}/promote", {"name": "g", "golden": True}
    )
    assert promoted.status_code == 202, promoted.text


def test_an_image_that_takes_a_failed_ones_name_needs_no_room(small_site: Site) -> None:
    site = small_site
    limit(site, images=HAS["images"])
    body = {**IMAGE, "name": "alpha-new"}
    assert site.post("member", "/v1/images", body).status_code == 409
    with site.store.transaction() as tx:
        tx.images.change(site.ids["new:alpha"], state=ImageState.FAILED)
    assert site.post("member", "/v1/images", {**body, "name": "alpha-newer"}).status_code == 409
    assert site.post("member", "/v1/images", body).status_code == 201
    assert in_use(site)["images"] == HAS["images"]


def test_a_node_that_is_held_already_boots_another_disk_without_room_for_nodes(small_site: Site) -> None:
    limit(small_site, nodes=1)
    with small_site.store.transaction() as tx:
        tx.targets.remove(small_site.ids["target:alpha"])
    again = small_site.post("member", "/v1/provisions", {**PROVISION, "node": "held"})
    assert again.status_code == 202, again.text
    assert in_use(small_site)["nodes"] == 1


def test_a_node_in_quarantine_is_not_the_projects_burden(small_site: Site) -> None:
    with small_site.store.transaction() as tx:
        tx.nodes.change(small_site.ids["held"], state=NodeState.QUARANTINED)
    assert in_use(small_site)["nodes"] == 0


def test_growth_counts_from_the_request_on_and_no_longer_when_it_fails(small_site: Site) -> None:
    site, path = small_site, f"/v1/disks/{small_site.ids['spare:alpha']}/grow"
    room = Room(site)
    site.disks.clone(ImageId(site.ids["image:alpha"]), DiskId(site.ids["spare:alpha"]), size_bytes=0)
    limit(site, disk_bytes=HAS["disk_bytes"] + 2 * SIZE)
    room.faults.add("grow", FaultKind.REFUSED, times=None)
    assert site.post("member", path, {"size_bytes": 3 * SIZE}).status_code == 202
    assert in_use(site)["disk_bytes"] == HAS["disk_bytes"] + 2 * SIZE
    other = site.post("member", "/v1/snapshots", {"name": "more", "project": "alpha", "disk": "root"})
    assert other.json()["code"] == "quota-exceeded", other.text
    list(room.work())
    assert in_use(site)["disk_bytes"] == HAS["disk_bytes"]

    room.faults.clear()
    assert site.post("member", path, {"size_bytes": 3 * SIZE}).status_code == 202
    list(room.work())
    assert in_use(site)["disk_bytes"] == HAS["disk_bytes"] + 2 * SIZE
    assert site.post("member", path, {"size_bytes": SIZE}).json()["code"] == "disk-shrinks"
    assert site.post("member", path, {"size_bytes": 3 * SIZE + 512}).json()["code"] == "quota-exceeded"


def test_rolling_back_to_a_larger_snapshot_takes_room(small_site: Site) -> None:
    site, path = small_site, f"/v1/disks/{small_site.ids['spare:alpha']}/roll-back"
    with site.store.transaction() as tx:
        tx.snapshots.change(site.ids["snapshot:alpha"], size_bytes=4 * SIZE)
    limit(site, disk_bytes=6 * SIZE)
    assert in_use(site)["disk_bytes"] == 6 * SIZE
    refused = site.post("member", path, {"snapshot": "kept"})
    assert refused.json()["details"]["wanted"] == 3 * SIZE
    limit(site, disk_bytes=9 * SIZE)
    assert site.post("member", path, {"snapshot": "kept"}).status_code == 202
    assert in_use(site)["disk_bytes"] == 9 * SIZE


def test_a_provision_counts_with_one_statement_however_much_the_project_has(new_site: Callable[[], Site]) -> None:
    costs = []
    for disks, limits in (
        (0, {}),
        (0, {"nodes": 5, "disks": 500, "disk_bytes": 2**40}),
        (200, {"nodes": 5, "disks": 500}),
    ):
        site = new_site()
        if limits:
            limit(site, **limits)
        with site.store.transaction() as tx:
            one = tx.disks.get(site.ids["spare:alpha"])
            for number in range(disks):
                tx.disks.add(replace(one, id=DiskId(new_id()), name=f"more-{number}"))
        with heard(site) as statements:
            assert site.post("member", "/v1/provisions", {**PROVISION, "node": "free"}).status_code == 202
        costs.append(len(statements))
    none, few, many = costs
    assert few == many == none + 1, "the project is locked in any case, and counted when something is limited"


def measured(site: Site, minutes: int) -> None:
    now = site.clock.now().replace(minute=0) + timedelta(minutes=minutes)
    record_usage(site.store, site.disks, now=now, before=now - timedelta(days=1))


def test_who_writes_more_than_may_be_taken_makes_nothing_new_until_it_is_less(small_site: Site) -> None:
    """Whatever its nodes write they write; what they wrote keeps the project from more."""
    site, written, scratch = small_site, DiskId(site_disk(small_site)), DiskId(site_disk(small_site))
    measured(site, 0)
    most = in_use(site)["taken_bytes"] + 4096
    limit(site, taken_bytes=most)
    site.disks.write(written, 0, b"x" * 4096)
    measured(site, 5)
    assert in_use(site)["taken_bytes"] == most
    body = {"project": "alpha", "image": "tiny"}
    assert ask(site, "member", "/v1/disks", {**body, "name": "still"}).status_code == 202
    site.disks.write(scratch, 4096, b"y")
    assert ask(site, "member", "/v1/disks", {**body, "name": "unseen"}).status_code == 202
    measured(site, 9)
    assert in_use(site)["taken_bytes"] == most, "it is measured at every fifth minute"
    measured(site, 10)
    asked: dict[str, Mapping[str, Any]] = {
        "/v1/disks": {**body, "name": "more"},
        "/v1/disks/batch": {**body, "names": ["more", "and-more"]},
        "/v1/snapshots": {"name": "more", "project": "alpha", "disk": "spare"},
        "/v1/snapshots/{snapshot:alpha}/promote": {"name": "more"},
        "/v1/images": IMAGE,
        "/v1/disks/{spare:alpha}/grow": {"size_bytes": 8 * SIZE},
        "/v1/provisions": PROVISION,
    }
    for path, wanted in asked.items():
        for caller in ("member", "admin"):
            refused = ask(site, caller, path, wanted)
            assert (refused.status_code, refused.json()["code"]) == (409, "quota-exceeded"), path
            assert (
                f"has {most + 4096} of at most {most} bytes of the pool for itself alone." in refused.json()["detail"]
            )
            assert "m2 project quota set alpha --taken-size SIZE" in refused.json()["fix"]
    # What takes nothing of the pool goes on.
    runs = {"project": "alpha", "disk": "spare", "network": "blue"}
    assert ask(site, "member", "/v1/provisions", runs).status_code == 202
    site.disks.delete_disk(scratch)
    measured(site, 15)
    assert ask(site, "member", "/v1/disks", {**body, "name": "more"}).status_code == 202


def site_disk(site: Site) -> UUID:
    """Add a disk of project alpha, in the pool as well."""
    with site.store.transaction() as tx:
        one = tx.disks.get(site.ids["spare:alpha"])
        disk = replace(one, id=DiskId(new_id()), name=f"disk-{tx.disks.count()}")
        tx.disks.add(disk)
    assert disk.image_id is not None
    site.disks.clone(disk.image_id, disk.id, size_bytes=16384)
    return disk.id


def test_a_project_that_is_younger_than_the_hour_is_measured_where_it_is_limited(small_site: Site) -> None:
    site = small_site
    measured(site, 0)
    with site.store.transaction() as tx:
        one = tx.projects.get(site.ids["alpha"])
        for name, quota in (("young", Quota(taken_bytes=1)), ("free", Quota())):
            tx.projects.add(replace(one, id=ProjectId(new_id()), name=name, quota=quota))
    measured(site, 5)
    assert len(items(site.get("admin", "/v1/projects/young/usage"))) == 1
    assert not items(site.get("admin", "/v1/projects/free/usage"))
    measured(site, 65)
    assert len(items(site.get("admin", "/v1/projects/free/usage"))) == 1


def test_what_a_project_had_is_read_hour_by_hour_and_by_nobody_else(small_site: Site) -> None:
    site = small_site
    before = site.clock.now() - timedelta(days=1)
    for hours in range(3):
        now = site.clock.now() + timedelta(hours=hours)
        assert record_usage(site.store, site.disks, now=now, before=before)
    records = items(site.get("member", "/v1/projects/alpha/usage"))
    assert [record["disks"] for record in records] == [HAS["disks"]] * 3
    assert {record["disk_bytes"] for record in records} == {HAS["disk_bytes"]}
    assert all(record["taken_bytes"] is not None for record in records)
    page = site.get("member", "/v1/projects/alpha/usage?limit=2").json()
    rest = items(site.get("member", f"/v1/projects/alpha/usage?limit=2&after={page['next']}"))
    assert [*page["items"], *rest] == records
    assert site.get("other", "/v1/projects/alpha/usage").status_code == 404
