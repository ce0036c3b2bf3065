"""What came of an image: its tree, copies, its name, and what keeps it from being deleted."""

from typing import Any
from uuid import UUID

from tests.contract.api.site import GOLDEN, Site

from malleable.domain.disks import Disk, DiskState, Snapshot, SnapshotState
from malleable.domain.ids import DiskId, ImageId, ProjectId, SnapshotId, new_id


def tree(site: Site, caller: str, image: str, query: str = "") -> Any:
    answer = site.get(caller, f"/v1/images/{image}/tree{query}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def names(site: Site, caller: str, image: str) -> list[tuple[str, str]]:
    return [(branch["kind"], branch["name"]) for branch in tree(site, caller, image)["branches"]]


def grow(site: Site, image: str, project: str, name: str) -> UUID:
    """Add a disk, its snapshot and an image that was made of it."""
    image_id, project_id = ImageId(site.ids[image]), ProjectId(site.ids[project])
    disk_id, snapshot_id, now = DiskId(new_id()), SnapshotId(new_id()), site.clock.now()
    with site.store.transaction() as tx:
        tx.disks.add(
            Disk(
                id=disk_id,
                name=name,
                project_id=project_id,
                image_id=image_id,
                state=DiskState.READY,
                size_bytes=len(GOLDEN),
                created_at=now,
            )
        )
        tx.snapshots.add(
            Snapshot(
                id=snapshot_id,
                name=f"{name}-then",
                project_id=project_id,
                disk_id=disk_id,
                image_id=image_id,
                state=SnapshotState.READY,
                size_bytes=len(GOLDEN),
                created_at=now,
            )
        )
        promoted = site.image(tx, f"{name}-image", f"promoted:{name}", project)
        tx.images.change(promoted.id, parent_id=image_id)
    site.disks.clone(ImageId(site.ids["image"]), disk_id, size_bytes=0)
    return disk_id


def test_a_tree_shows_what_was_made_of_what(small_site: Site) -> None:
    disk_id = grow(small_site, "image:alpha", "alpha", "web")
    found = tree(small_site, "member", "alpha-image")["branches"]
    by_name = {branch["name"]: branch for branch in found}
    assert (found[0]["name"], found[0]["parent_id"]) == ("alpha-image", None)
    assert by_name["web"]["parent_id"] == found[0]["id"]
    assert by_name["web-then"]["parent_id"] == str(disk_id)
    assert by_name["web-image"]["parent_id"] == found[0]["id"]


def test_whoever_boots_a_disk_is_named_and_bytes_are_measured(small_site: Site) -> None:
    grow(small_site, "image", "alpha", "web")
    found = tree(small_site, "member", "tiny", "?measure=true")["branches"]
    assert {branch["node"] for branch in found if branch["name"] == "web"} == {None}
    assert any(branch["node"] == "held" for branch in tree(small_site, "admin", "alpha-image")["branches"] + found)
    web = next(branch for branch in found if branch["name"] == "web")
    assert web["own_bytes"] is not None
    assert web["shared_bytes"] is not None


def test_tenants_see_their_own_branches_alone(small_site: Site) -> None:
    grow(small_site, "image", "alpha", "ours")
    grow(small_site, "image", "beta", "theirs")
    assert ("disk", "ours") in names(small_site, "reader", "tiny")
    assert ("image", "ours-image") in names(small_site, "reader", "tiny")
    assert not any("theirs" in name for _, name in names(small_site, "member", "tiny"))
    assert not any("ours" in name for _, name in names(small_site, "other", "tiny"))
    assert tree(small_site, "member", "tiny")["hidden_count"] == 0
    assert {("disk", "ours"), ("disk", "theirs")} <= set(names(small_site, "admin", "tiny"))
    assert small_site.get("other", "/v1/images/alpha-image/tree").status_code == 404


def test_an_owner_reads_how_much_of_others_depends_on_a_shared_image(small_site: Site) -> None:
    """What was made of their disks does not: it is whole, and keeps nobody from deleting the image."""
    before = tree(small_site, "member", "alpha-image")["hidden_count"]
    grow(small_site, "image:alpha", "beta", "theirs")
    assert tree(small_site, "member", "alpha-image")["hidden_count"] == before + 2


def test_another_projects_copy_does_not_depend_on_an_image(small_site: Site) -> None:
    with small_site.store.transaction() as tx:
        lent = small_site.image(tx, "lent", "image:lent", "alpha")
        copied = small_site.image(tx, "copied", "image:copied", "beta")
        tx.images.change(copied.id, parent_id=lent.id)
    assert tree(small_site, "member", "lent")["hidden_count"] == 0
    assert small_site.call("member", "DELETE", "/v1/images/lent").status_code == 202


def test_a_refused_delete_names_what_depends_on_the_image(small_site: Site) -> None:
    grow(small_site, "image:beta", "beta", "web")
    refused = small_site.call("other", "DELETE", "/v1/images/beta-image")
    assert (refused.status_code, refused.json()["code"]) == (409, "image-in-use")
    assert "web" in refused.json()["details"]["disks"]
    assert "web-then" in refused.json()["details"]["snapshots"]
    assert "web-then" in refused.json()["detail"]


def test_a_refused_delete_names_nothing_of_other_projects(small_site: Site) -> None:
    with small_site.store.transaction() as tx:
        image_id = small_site.image(tx, "lent", "image:lent", "alpha").id
    grow(small_site, "image:lent", "beta", "secret")
    refused = small_site.call("member", "DELETE", "/v1/images/lent")
    assert refused.status_code == 409
    assert "secret" not in refused.text
    assert "of other projects" in refused.json()["detail"]
    assert "have the other projects delete theirs" in refused.json()["fix"]
    assert image_id


def test_an_image_gets_another_name(small_site: Site) -> None:
    renamed = small_site.call("member", "PUT", "/v1/images/alpha-image/name", json={"name": "web"})
    assert (renamed.status_code, renamed.json()["name"]) == (200, "web")
    assert small_site.get("member", "/v1/images/web").status_code == 200
    taken = small_site.call("member", "PUT", "/v1/images/web/name", json={"name": "alpha-new"})
    assert taken.status_code == 409
    assert small_site.call("member", "PUT", "/v1/images/web/name", json={"name": "../x"}).status_code == 422


def test_a_copy_is_an_image_of_its_own(small_site: Site) -> None:
    begun = small_site.post("member", "/v1/images/alpha-image/copy", {"project": "alpha", "name": "again"})
    assert begun.status_code == 202
    copied = small_site.get("member", "/v1/images/again").json()
    assert (copied["state"], copied["project"], copied["kernel"]) == ("importing", "alpha", "vmlinuz")
    taken = small_site.post("member", "/v1/images/alpha-image/copy", {"project": "alpha"})
    assert taken.status_code == 409
    assert small_site.post("member", "/v1/images/again/copy", {"project": "alpha", "name": "x"}).status_code == 409


def test_an_image_is_copied_where_one_may_make_some(small_site: Site) -> None:
    to_beta = {"project": "beta", "name": "tiny-too"}
    assert small_site.post("other", "/v1/images/tiny/copy", to_beta).status_code == 202
    assert small_site.post("member", "/v1/images/tiny/copy", {"project": "beta"}).status_code == 404
    assert small_site.post("member", "/v1/images/alpha-image/copy", {}).status_code == 403
    assert small_site.post("admin", "/v1/images/alpha-image/copy", {}).status_code == 202


def test_what_is_being_copied_is_not_deleted(small_site: Site) -> None:
    with small_site.store.transaction() as tx:
        small_site.image(tx, "lone", "image:lone", "alpha")
    body = {"project": "alpha", "name": "again"}
    assert small_site.post("member", "/v1/images/lone/copy", body).status_code == 202
    refused = small_site.call("member", "DELETE", "/v1/images/lone")
    assert (refused.status_code, refused.json()["code"]) == (409, "image-in-use")
