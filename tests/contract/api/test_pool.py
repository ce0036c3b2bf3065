"""The pool over the API: how full it is, what should not be in it, and collecting that."""

from uuid import UUID

import pytest
from tests.contract.api.room import Room
from tests.contract.api.site import START, Site, items

from malleable.domain.ids import DiskId, ImageId, SnapshotId, new_id
from malleable.domain.ports import StoredThings
from malleable.sim.faults import FaultKind

AUDIT, COLLECT = "/v1/pool/audit", "/v1/pool/collect"


def old_id() -> UUID:
    """Make an id of a day before the site's beginning."""
    return UUID(int=int((START.timestamp() - 86400) * 1000) << 80 | new_id().int & (1 << 80) - 1)


@pytest.fixture
def whole_site(site: Site) -> Site:
    """The site, with everything in its pool that its database knows."""
    with site.store.reading() as tx:
        for disk in tx.disks.list():
            assert disk.image_id is not None
            site.disks.clone(disk.image_id, disk.id, size_bytes=disk.size_bytes)
        for snapshot in tx.snapshots.list():
            assert snapshot.disk_id is not None
            site.disks.snapshot(snapshot.disk_id, snapshot.id)
    return site


def test_the_pool_is_measured_and_counted(whole_site: Site) -> None:
    site = whole_site
    site.disks.reserve_bytes = 1 << 30
    found = site.get("operator", "/v1/pool").json()
    assert found["total_bytes"] == site.disks.total_bytes
    assert found["free_bytes"] == site.disks.capacity().free_bytes
    assert (found["reserve_bytes"], found["is_full"]) == (1 << 30, False)
    assert found["images"] == {"in_pool": 3, "in_database": 3}, "not sealed, nothing in the pool"
    assert found["disks"] == {"in_pool": 4, "in_database": 4}
    assert found["snapshots"] == {"in_pool": 2, "in_database": 2}
    site.disks.reserve_bytes = site.disks.total_bytes
    assert site.get("operator", "/v1/pool").json()["is_full"] is True


def test_a_site_in_order_has_no_differences(whole_site: Site) -> None:
    found = whole_site.get("operator", AUDIT).json()
    assert (found["lost"], found["orphans"], found["removable"]) == (0, 0, 0)
    assert (found["differences"], found["unseen"]) == ([], [])


def test_what_is_lost_is_told_first_and_by_name(whole_site: Site) -> None:
    site = whole_site
    site.disks.delete_disk(DiskId(site.ids["spare:alpha"]))
    site.disks.delete_image(ImageId(site.ids["image"]))
    site.disks.clone(ImageId(site.ids["image:beta"]), DiskId(old_id()), size_bytes=0)
    found = site.get("operator", AUDIT).json()
    assert (found["lost"], found["orphans"], found["removable"]) == (2, 1, 1)
    told = [(d["kind"], d["noun"], d["name"], d["project"], d["remedy"]) for d in found["differences"]]
    assert told == [
        ("lost", "disk", "spare", "alpha", "tell"),
        ("lost", "image", "tiny", None, "tell"),
        ("orphan", "disk", "", None, "remove"),
    ]
    assert [UUID(d["id"]) for d in found["differences"]][:2] == [site.ids["spare:alpha"], site.ids["image"]]
    assert all(d["reason"] for d in found["differences"])


def test_a_target_is_told_with_its_network(whole_site: Site) -> None:
    site = whole_site
    with site.store.transaction() as tx:
        tx.networks.change(site.ids["network:alpha"], portal_epoch="first")
        target = tx.targets.get(site.ids["target:alpha"])
    (told,) = site.get("operator", AUDIT).json()["differences"]
    assert (told["kind"], told["name"], told["network"], told["remedy"]) == ("lost", target.iqn, "blue", "restore")


def test_of_many_differences_the_first_are_told_and_all_are_counted(whole_site: Site) -> None:
    for _ in range(12):
        whole_site.disks.clone(ImageId(whole_site.ids["image"]), DiskId(old_id()), size_bytes=0)
    found = whole_site.get("operator", f"{AUDIT}?limit=5").json()
    assert (found["orphans"], found["removable"], len(found["differences"])) == (12, 12, 5)


def test_a_pool_that_does_not_answer_is_told_as_unseen(whole_site: Site) -> None:
    whole_site.disks.faults.add("list", FaultKind.LOST_REQUEST, times=None)
    found = whole_site.get("operator", AUDIT).json()
    assert (found["lost"], found["orphans"]) == (0, 0)
    assert [place["place"] for place in found["unseen"]] == ["pool"]
    assert found["unseen"][0]["reason"]


def test_collecting_removes_old_orphans_alone_and_says_so(whole_site: Site) -> None:
    site = whole_site
    kept = site.disks.list()
    image_id = ImageId(site.ids["image"])
    orphan = DiskId(old_id())
    site.disks.clone(image_id, orphan, size_bytes=0)
    site.disks.snapshot(orphan, SnapshotId(old_id()))
    site.disks.seal(ImageId(old_id()), site.spool / "golden", sha256=None)
    young = DiskId(new_id())
    site.disks.clone(image_id, young, size_bytes=0)
    answer = site.post("operator", COLLECT, {})
    assert answer.status_code == 202, answer.text
    for _ in Room(site).work():
        pass
    ended = site.get("operator", answer.headers["Location"]).json()
    assert (ended["state"], ended["result"]) == ("succeeded", {"disks": 1, "snapshots": 1, "images": 1})
    assert site.disks.list() == StoredThings(images=kept.images, disks=kept.disks | {young}, snapshots=kept.snapshots)
    events = [event for event in items(site.get("admin", "/v1/events?limit=1000")) if event["kind"] == "pool.collected"]
    assert [event["detail"]["chosen"]["disk"] for event in events] == [[str(orphan)]]
    for tenant in ("member", "reader", "other", "scoped"):
        assert str(orphan) not in site.get(tenant, "/v1/events?limit=1000").text


def test_a_grace_has_bounds(small_site: Site) -> None:
    for seconds in (-1, 0, 59, 10**12, "x"):
        assert small_site.post("operator", COLLECT, {"older_than_s": seconds}).status_code == 422, seconds
        assert small_site.get("operator", f"{AUDIT}?older_than_s={seconds}").status_code == 422, seconds
    for limit in (0, 1001):
        assert small_site.get("operator", f"{AUDIT}?limit={limit}").status_code == 422


def test_metrics_tell_what_the_last_audit_found(whole_site: Site) -> None:
    assert "malleable_pool_differences{" not in whole_site.get("operator", "/metrics").text
    whole_site.disks.delete_disk(DiskId(whole_site.ids["spare:alpha"]))
    whole_site.get("operator", AUDIT)
    text = whole_site.get("operator", "/metrics").text
    assert 'malleable_pool_differences{kind="lost"} 1.0' in text
    assert 'malleable_pool_differences{kind="orphan"} 0.0' in text


def test_reading_takes_no_more_queries_for_more_disks(small_site: Site) -> None:
    """All of the site is read page by page, whatever the differences."""
    site = small_site
    site.get("operator", AUDIT)  # who asks is known from now on
    heard: list[str] = []
    site.store.database.statements.heard = heard.append  # type: ignore[attr-defined]
    counts = []
    for number in (1, 20):
        for _ in range(number):
            site.disks.clone(ImageId(site.ids["image"]), DiskId(old_id()), size_bytes=0)
        heard.clear()
        assert site.get("operator", AUDIT).status_code == 200
        counts.append(len(heard))
    assert counts[0] == counts[1]
