"""Disks through the API: blank ones, and what is refused."""

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from tests.contract.api.room import Room
from tests.contract.api.site import Site, items

from malleable.domain.ids import DiskId, ImageId
from malleable.services.all import make_services
from malleable.workflows.catalogue import WORKFLOWS
from malleable.workflows.engine import Engine
from malleable.workflows.worker import Worker


def test_a_blank_disk_is_made_of_its_size_and_boots_nothing(small_site: Site) -> None:
    site = small_site
    begun = site.post("member", "/v1/disks", {"name": "data", "project": "alpha", "size_bytes": 1 << 20})
    assert begun.status_code == 202, begun.text
    list(Room(site).work())
    disk = site.get("member", "/v1/disks/data").json()
    assert (disk["state"], disk["size_bytes"], disk["image"]) == ("ready", 1 << 20, None)
    assert site.disks.read(DiskId(UUID(disk["id"])), 0, 4096) == bytes(4096)
    refused = site.post("member", "/v1/provisions", {"disk": "data", "network": "blue", "project": "alpha"})
    assert (refused.status_code, refused.json()["code"]) == (409, "nothing-to-boot")


def test_a_disk_has_whole_sectors_so_that_the_end_of_its_image_is_not_missing(small_site: Site) -> None:
    site = small_site
    with site.store.transaction() as tx:
        tx.images.change(site.ids["image"], size_bytes=6 * 1024 + 1)
    begun = site.post("member", "/v1/disks", {"name": "odd", "project": "alpha", "image": "tiny"})
    assert begun.status_code == 202, begun.text
    assert site.get("member", "/v1/disks/odd").json()["size_bytes"] == 6 * 1024 + 512


def test_a_stateless_machine_has_no_disk_and_its_people_see_what_it_reads(small_site: Site) -> None:
    site = small_site
    wish = {"project": "alpha", "node": "free", "image": "tiny", "network": "blue", "stateless": True}
    begun = site.post("member", "/v1/provisions", wish)
    assert begun.status_code == 202, begun.text
    before = len(site.get("member", "/v1/disks").json()["items"])
    list(Room(site).work())
    assert site.get("member", "/v1/nodes/free").json()["boot"] == "up"
    targets = {target["node"]: target for target in site.get("member", "/v1/targets").json()["items"]}
    assert (targets["free"]["image"], targets["free"]["disk"]) == ("tiny", None)
    assert len(site.get("member", "/v1/disks").json()["items"]) == before
    boots = site.get("gateway", "/v1/gateway/desired").json()["networks"]
    cmdlines = {boot["cmdline"] for network in boots for boot in network["boots"]}
    assert {cmdline for cmdline in cmdlines if "malleable.overlay=ram" in cmdline}
    assert site.get("other", "/v1/targets?node=free").status_code == 404
    named = site.post("member", "/v1/provisions", {**wish, "disk_name": "root"})
    assert named.status_code == 422


def test_a_disk_needs_a_size_or_an_origin_and_not_two_origins(small_site: Site) -> None:
    nothing = small_site.post("member", "/v1/disks", {"name": "data"})
    assert (nothing.status_code, nothing.json()["code"]) == (422, "size-needed")
    both = small_site.post("member", "/v1/disks", {"name": "data", "image": "tiny", "snapshot": "before"})
    assert both.status_code == 422


def test_a_batch_is_one_operation_for_disks_that_are_alike(small_site: Site) -> None:
    site, names = small_site, [f"web-{number}" for number in range(5)]
    begun = site.post("member", "/v1/disks/batch", {"names": names, "image": "tiny", "project": "alpha"})
    assert begun.status_code == 202, begun.text
    list(Room(site).work())
    ended = site.get("member", f"/v1/operations/{begun.json()['id']}").json()
    assert (ended["kind"], ended["state"]) == ("create-disks", "succeeded"), ended
    made = [site.get("member", f"/v1/disks/{disk_id}").json() for disk_id in ended["result"]["disk_ids"]]
    assert [disk["name"] for disk in made] == names
    assert {(disk["state"], disk["image"]) for disk in made} == {("ready", "tiny")}
    events = site.get("member", "/v1/events?limit=1000").json()["items"]
    told = [event["data"]["name"] for event in events if event["operation_id"] == ended["id"]]
    assert sorted(told) == names


@pytest.mark.parametrize(
    ("names", "status", "code"),
    [
        (["new", "spare"], 409, "conflict"),
        (["new", "new"], 422, "disk-twice"),
        (["new", "../new"], 422, "invalid"),
        ([], 422, "invalid"),
        ([f"new-{number}" for number in range(257)], 422, "invalid"),
    ],
)
def test_a_batch_is_made_wholly_or_not_at_all(small_site: Site, names: list[str], status: int, code: str) -> None:
    before = items(small_site.get("member", "/v1/disks"))
    refused = small_site.post("member", "/v1/disks/batch", {"names": names, "image": "tiny", "project": "alpha"})
    assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert items(small_site.get("member", "/v1/disks")) == before


def test_a_disk_is_ready_with_the_answer_where_a_worker_is_at_hand(small_site: Site) -> None:
    site = small_site
    parts = site.services.parts
    engine = Engine(
        store=site.store, clock=site.clock, drivers=parts.drivers, workflows=WORKFLOWS, worker="here", lease_s=60.0
    )
    worker = Worker(engine)
    site.app.state.edge.services = make_services(replace(parts, worker=worker))
    worker.start()
    try:
        begun = site.post("member", "/v1/disks", {"name": "soon", "image": "tiny", "project": "alpha"})
        assert (begun.status_code, begun.json()["state"]) == (202, "succeeded"), begun.text
        assert site.get("member", f"/v1/disks/{begun.json()['result']['disk_id']}").json()["state"] == "ready"
    finally:
        worker.stop()


def test_a_disk_is_flattened_step_by_step_and_left_alone_meanwhile(small_site: Site) -> None:
    site = small_site
    site.post("member", "/v1/disks", {"name": "web", "project": "alpha", "image": "tiny"})
    list(Room(site).work())
    site.disks.flatten_blocks = 1
    begun = site.post("member", "/v1/disks/web/flatten")
    assert begun.status_code == 202, begun.text
    operation = f"/v1/operations/{begun.json()['id']}"
    next(Room(site).work())
    waiting = site.get("member", operation).json()
    assert (waiting["state"], waiting["reason"]) == ("waiting", "0.0 of 0.0 GiB are copied.")
    assert site.get("member", "/v1/disks/web").json()["state"] == "flattening"
    for method, path, body in (
        ("POST", "/v1/disks/web/flatten", None),
        ("POST", "/v1/snapshots", {"name": "now", "disk": "web"}),
        ("POST", "/v1/disks/web/grow", {"size_bytes": 1 << 20}),
        ("DELETE", "/v1/disks/web", None),
    ):
        refused = site.call("member", method, path, body)
        assert (refused.status_code, refused.json()["code"]) == (409, "disk-state"), path
    list(Room(site).work())
    ended = site.get("member", operation).json()
    assert (ended["state"], ended["result"]["copied_bytes"]) == ("succeeded", 2 * 4096)
    assert site.get("member", "/v1/disks/web").json()["state"] == "ready"


def test_a_disk_that_a_node_has_is_flattened_beside_it_until_somebody_cancels_that(small_site: Site) -> None:
    site = small_site
    disk = f"/v1/disks/{site.ids['disk:alpha']}"
    site.disks.clone(ImageId(site.ids["image"]), DiskId(site.ids["disk:alpha"]), size_bytes=0)
    site.disks.flatten_blocks = 1
    node = site.get("member", disk).json()["node"]
    assert node
    operation = f"/v1/operations/{site.post('member', f'{disk}/flatten').json()['id']}"
    next(Room(site).work())
    meanwhile = site.get("member", disk).json()
    assert (meanwhile["state"], meanwhile["node"]) == ("flattening", node)
    kept = site.post("member", "/v1/snapshots", {"name": "now", "disk": str(site.ids["disk:alpha"])})
    assert (kept.status_code, kept.json()["code"]) == (409, "disk-state")
    assert site.post("member", f"{operation}/cancel").status_code == 202
    list(Room(site).work())
    assert site.get("member", operation).json()["state"] == "cancelled"
    after = site.get("member", disk).json()
    assert (after["state"], after["node"]) == ("ready", node)


def test_a_chain_of_clones_ends_and_says_how_it_goes_on(small_site: Site) -> None:
    site = small_site
    site.disks.max_chain = 1
    site.post("member", "/v1/disks", {"name": "web", "project": "alpha", "image": "tiny"})
    list(Room(site).work())
    site.post("member", "/v1/snapshots", {"name": "mine", "disk": "web"})
    list(Room(site).work())

    def clone(name: str) -> dict[str, Any]:
        begun = site.post("member", "/v1/disks", {"name": name, "project": "alpha", "snapshot": "mine"})
        list(Room(site).work())
        ended: dict[str, Any] = site.get("member", f"/v1/operations/{begun.json()['id']}").json()
        return ended

    refused = clone("one")
    assert (refused["state"], refused["error"]["code"]) == ("failed", "chain-too-deep")
    assert "m2 disk flatten" in refused["error"]["fix"]
    site.post("member", "/v1/disks/web/flatten")
    list(Room(site).work())
    assert clone("two")["state"] == "succeeded"


def test_a_disk_is_rolled_back_to_a_snapshot_of_its_own_alone(small_site: Site) -> None:
    site = small_site
    site.post("member", "/v1/disks", {"name": "web", "project": "alpha", "image": "tiny"})
    list(Room(site).work())
    refused = site.post("member", "/v1/disks/web/roll-back", {"snapshot": "kept"})
    assert (refused.status_code, refused.json()["code"]) == (422, "other-disk")
    assert "m2 disk create NAME --snapshot kept" in refused.json()["fix"]
    assert site.get("member", "/v1/disks/web").json()["state"] == "ready"


def test_targets_are_of_the_node_and_of_the_project_that_are_named(site: Site) -> None:
    def disks_of(caller: str, query: str) -> set[str]:
        return {target["node"] for target in site.get(caller, f"/v1/targets?{query}").json()["items"]}

    everywhere = disks_of("admin", "")
    assert len(everywhere) > 1
    mine = disks_of("member", "")
    assert disks_of("admin", "project=alpha") == disks_of("member", "project=alpha") == mine < everywhere
    for node in mine:
        assert disks_of("member", f"node={node}") == disks_of("admin", f"node={node}") == {node}
    assert disks_of("admin", f"project=beta&node={min(mine)}") == set()


def test_a_snapshot_says_how_it_was_taken_and_gets_another_name(small_site: Site) -> None:
    site = small_site
    held, idle = str(site.ids["disk:alpha"]), str(site.ids["spare:alpha"])
    for disk in (held, idle):
        site.disks.clone(ImageId(site.ids["image"]), DiskId(UUID(disk)), size_bytes=0)
    for disk, name, consistency in ((held, "of-held", "crash"), (idle, "of-idle", "idle")):
        begun = site.post("member", "/v1/snapshots", {"name": name, "disk": disk})
        assert site.get("member", f"/v1/snapshots/{name}").json()["consistency"] is None
        list(Room(site).work())
        ended = site.get("member", f"/v1/operations/{begun.json()['id']}").json()
        assert (ended["state"], ended["result"]["consistency"]) == ("succeeded", consistency)
        assert site.get("member", f"/v1/snapshots/{name}").json()["consistency"] == consistency
    taken = site.call("member", "PUT", "/v1/snapshots/of-idle/name", {"name": "of-held"})
    assert (taken.status_code, taken.json()["code"]) == (409, "conflict")
    renamed = site.call("member", "PUT", "/v1/snapshots/of-idle/name", {"name": "kept-longer"})
    assert (renamed.status_code, renamed.json()["name"]) == (200, "kept-longer")
    assert site.get("member", "/v1/snapshots/of-idle").status_code == 404
    (event,) = items(site.get("member", "/v1/events?kind=snapshot.renamed"))
    assert (event["data"]["snapshot"], event["data"]["name"]) == ("of-idle", "kept-longer")


def test_a_disk_that_is_on_its_way_to_a_node_says_so_to_who_would_move_it(small_site: Site) -> None:
    site = small_site
    where = f"/v1/disks/{site.ids['spare:alpha']}/move"
    nowhere = site.post("member", where, {"node": "free"})
    assert (nowhere.status_code, nowhere.json()["code"]) == (422, "network-needed")
    first = site.post("member", where, {"node": "free", "network": str(site.ids["network:alpha"])})
    assert first.status_code == 202, first.text
    second = site.post("member", where, {"node": "free"})
    assert (second.status_code, second.json()["code"]) == (409, "disk-in-use")
    assert first.json()["id"] in second.json()["detail"]
