"""Projects with pools of their own: what is theirs is there, and nothing of another project is read through it."""

from typing import Any
from uuid import UUID

import pytest
from tests.contract.api.room import Room
from tests.contract.api.site import Site, items

from malleable.domain.ids import DiskId, ImageId
from malleable.services.gauge import FRESH_FOR_S
from malleable.sim.disks import PROJECT_POOLS
from malleable.sim.faults import FaultKind

POOL, OTHERS = PROJECT_POOLS


def create(site: Site, name: str = "gamma", pool: Any = POOL, caller: str = "admin") -> Any:
    return site.post(caller, "/v1/projects", {"name": name, "pool": pool})


@pytest.fixture
def site(small_site: Site) -> Site:
    """A site with a project of its own pool, to which a member of another belongs as well."""
    created = create(small_site)
    assert (created.status_code, created.json()["pool"]) == (201, POOL)
    assert (
        small_site.call("admin", "PUT", "/v1/projects/gamma/members/other", json={"role": "member"}).status_code == 200
    )
    return small_site


def done(site: Site, begun: Any) -> str:
    """Work an operation to its end; return how that was."""
    assert begun.status_code == 202, begun.text
    list(Room(site).work())
    ended = site.get("admin", f"/v1/operations/{begun.json()['id']}").json()
    return str(ended["error"] or ended["state"])


def disk(site: Site, name: str, **wish: Any) -> UUID:
    assert done(site, site.post("other", "/v1/disks", {"name": name, "project": "gamma", **wish})) == "succeeded"
    return UUID(site.get("other", f"/v1/disks/{name}?project=gamma").json()["id"])


def pool_of(site: Site, image: str) -> str:
    return site.disks.pool_of(ImageId(UUID(site.get("other", f"/v1/images/{image}").json()["id"])))


def test_what_a_project_has_is_in_its_pool(site: Site) -> None:
    begun = [disk(site, "golden", image="tiny"), disk(site, "blank", size_bytes=1 << 20)]
    snapshot = site.post("other", "/v1/snapshots", {"name": "moment", "disk": "golden", "project": "gamma"})
    assert done(site, snapshot) == "succeeded"
    begun.append(disk(site, "again", snapshot="moment"))
    assert {site.disks.pool_of(DiskId(one)) for one in begun} == {POOL}
    promoted = site.post("other", "/v1/snapshots/moment/promote?project=gamma", {"name": "own"})
    assert done(site, promoted) == "succeeded"
    assert pool_of(site, "own?project=gamma") == POOL
    copied = site.post("other", "/v1/images/tiny/copy", {"project": "gamma", "name": "copied"})
    assert done(site, copied) == "succeeded"
    assert pool_of(site, "copied?project=gamma") == POOL
    # What an admin makes golden of it is everybody's.
    golden = site.post("admin", "/v1/snapshots/moment/promote?project=gamma", {"name": "for-all", "golden": True})
    assert done(site, golden) == "succeeded"
    assert pool_of(site, "for-all") == ""


def test_a_machine_boots_from_it_and_one_without_a_disk_reads_the_sites_image_by_the_pools_user(site: Site) -> None:
    made = site.post("admin", "/v1/networks", {"name": "theirs", "project": "gamma", "cidr": "10.66.0.0/24"})
    assert made.status_code == 201, made.text
    wish = {"project": "gamma", "node": "free", "image": "tiny", "network": "theirs", "stateless": True}
    begun = site.post("admin", "/v1/provisions", wish)
    assert begun.status_code == 202, begun.text
    list(Room(site).work())
    with site.store.reading() as tx:
        (target,) = tx.targets.list(node_id=site.ids["free"])
    assert (target.image_id is not None, target.pool) == (True, POOL)


def test_another_projects_image_is_copied_and_never_cloned(site: Site) -> None:
    gamma = site.get("admin", "/v1/projects/gamma").json()["id"]
    grant = site.post("member", "/v1/images/alpha-image/grants", {"grantee": gamma})
    assert site.post("other", f"/v1/image-grants/{grant.json()['id']}/accept").status_code == 200
    disk(site, "of-the-site", image="alpha-image")  # it is in the site's pool, as alpha is
    assert create(site, "delta", OTHERS).status_code == 201
    # The other way round: what is in a project's pool is nobody else's to clone.
    own = site.post("other", "/v1/images/tiny/copy", {"project": "gamma", "name": "own"})
    assert done(site, own) == "succeeded"
    for project in ("beta", "delta"):
        id = site.get("admin", f"/v1/projects/{project}").json()["id"]
        grant = site.post("other", "/v1/images/own/grants?project=gamma", {"grantee": id})
        assert grant.status_code == 201, grant.text
        assert site.post("admin", f"/v1/image-grants/{grant.json()['id']}/accept").status_code == 200
        wish = {"name": "theirs", "image": "own", "project": project}
        refused = site.post("admin", "/v1/disks", wish)
        assert (refused.status_code, refused.json()["code"]) == (409, "image-in-another-pool")
        assert refused.json()["fix"] == f"Copy it: `m2 image copy own --to {project}`."
        copied = site.post("admin", f"/v1/images/own/copy?project={project}", {"project": project, "name": "mine"})
        assert done(site, copied) == "succeeded"
        assert done(site, site.post("admin", "/v1/disks", {**wish, "image": "mine"})) == "succeeded"


def test_a_disk_is_given_within_one_pool_only(site: Site) -> None:
    disk(site, "gift", size_bytes=1 << 20)
    refused = site.post("other", "/v1/disks/gift/offer?project=gamma", {"receiver": "beta"})
    assert (refused.status_code, refused.json()["code"]) == (409, "disk-in-another-pool")
    assert create(site, "delta", POOL).status_code == 201
    offered = site.post("admin", "/v1/disks/gift/offer?project=gamma", {"receiver": "delta"})
    assert offered.status_code == 201, offered.text
    taken = site.post("admin", f"/v1/disk-offers/{offered.json()['id']}/accept", {"name": None})
    assert (taken.status_code, taken.json()["project"]) == (200, "delta")


def test_a_pool_that_cannot_be_had_makes_no_project(small_site: Site) -> None:
    site = small_site
    answer = create(site, pool="nowhere")
    assert (answer.status_code, answer.json()["code"]) == (409, "no-such-pool")
    for wrong in ("", "UPPER", "a/b", "a@b", "x" * 64, 7):
        assert create(site, pool=wrong).status_code == 422
    site.disks.faults.add("check", FaultKind.LOST_REQUEST)
    assert create(site).status_code == 504
    site.disks.reserve_bytes = 2 * site.disks.total_bytes
    refused = create(site)
    assert (refused.status_code, refused.json()["code"]) == (409, "pool-full")
    assert "less than the reserve" in refused.json()["detail"]
    assert create(site, caller="member").status_code == 403
    assert "gamma" not in [project["name"] for project in items(site.get("admin", "/v1/projects"))]


def test_pools_of_projects_are_watched_as_the_sites_is(site: Site) -> None:
    free = f'malleable_project_pool_free_bytes{{pool="{POOL}"}}'
    assert free in site.get("operator", "/metrics").text
    assert "project_pools" not in site.get("nobody", "/v1/health").json()["warnings"]
    site.disks.reserve_bytes = 2 * site.disks.total_bytes
    site.clock.advance(FRESH_FOR_S)
    told = "Of 1 pools of projects 1 have less free than the reserve, and nothing new is made in them."
    assert site.get("nobody", "/v1/health").json()["warnings"]["project_pools"] == told
    with site.store.transaction() as tx:
        (gamma,) = tx.projects.list(pool=POOL)
        tx.projects.change(gamma.id, pool="gone")
    site.clock.advance(FRESH_FOR_S)
    told = "Of 1 pools of projects 1 cannot be measured."
    assert site.get("nobody", "/v1/health").json()["warnings"]["project_pools"] == told
    assert "malleable_project_pool_free_bytes{" not in site.get("operator", "/metrics").text


def test_operators_see_a_projects_pool_and_tenants_do_not(site: Site) -> None:
    assert site.get("operator", "/v1/projects/gamma").json()["pool"] == POOL
    assert "pool" not in site.get("other", "/v1/projects/gamma").json()
    assert site.get("operator", "/v1/pool?project=gamma").json()["total_bytes"] == site.disks.total_bytes
    assert site.get("operator", "/v1/pool?project=nobody").status_code == 404
