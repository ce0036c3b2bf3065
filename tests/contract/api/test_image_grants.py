"""Images shared between projects: what the other side may, before it accepts, while it is shared, and afterwards."""

from typing import Any

import pytest
from tests.contract.api.room import Room
from tests.contract.api.site import GOLDEN, Site, items

from malleable.domain.images import ImageState

IMAGE = "/v1/images/alpha-image"


def offer(site: Site, caller: str = "member", image: str = "alpha-image", grantee: str = "beta") -> Any:
    return site.post(caller, f"/v1/images/{image}/grants", {"grantee": str(site.ids[grantee])})


def shared(site: Site) -> str:
    grant = offer(site).json()["id"]
    assert site.post("other", f"/v1/image-grants/{grant}/accept").json()["is_accepted"] is True
    return str(grant)


def seen(site: Site, query: str = "") -> list[str]:
    return [image["name"] for image in items(site.get("other", f"/v1/images{query}"))]


def clone(site: Site, name: str = "theirs", image: str = "alpha-image") -> Any:
    return site.post("other", "/v1/disks", {"name": name, "image": image, "project": "beta"})


def test_an_offer_gives_nothing_before_it_is_accepted(small_site: Site) -> None:
    grant = offer(small_site)
    assert grant.status_code == 201
    assert grant.json().items() >= {"image": "alpha-image", "owner": "alpha", "is_accepted": False}.items()
    assert small_site.get("other", f"/v1/images/{small_site.ids['image:alpha']}").status_code == 404
    assert "alpha-image" not in seen(small_site)
    assert clone(small_site).status_code == 404
    offers = items(small_site.get("other", "/v1/image-grants"))
    assert [grant["image"] for grant in offers if grant["owner"] == "alpha"] == ["alpha-image"]
    again = offer(small_site)
    assert (again.status_code, again.json()["code"]) == (409, "image-offered")


def test_a_shared_image_is_seen_and_cloned_and_nothing_else(small_site: Site) -> None:
    site = small_site
    shared(site)
    for ref in ("alpha-image", site.ids["image:alpha"]):
        assert site.get("other", f"/v1/images/{ref}").json()["name"] == "alpha-image"
    assert seen(site).count("alpha-image") == 1
    assert seen(site, "?project=beta").count("alpha-image") == 1
    assert site.get("other", f"{IMAGE}/content").content == GOLDEN
    assert clone(site).status_code == 202
    provision = {"image": "alpha-image", "network": "{network:beta}", "project": "beta"}
    provision["network"] = str(site.ids["network:beta"])
    assert site.post("other", "/v1/provisions", provision).status_code == 202
    for method, path in (
        ("DELETE", IMAGE),
        ("POST", f"{IMAGE}/seal"),
        ("PUT", f"{IMAGE}/content"),
        ("POST", f"{IMAGE}/grants"),
    ):
        body = {"grantee": str(site.ids["empty"])} if path.endswith("grants") else None
        assert site.call("other", method, path, json=body).status_code == 403, path


def test_the_owner_cannot_delete_what_others_cloned_and_reads_why(small_site: Site) -> None:
    shared(small_site)
    assert clone(small_site).status_code == 202
    refused = small_site.call("member", "DELETE", IMAGE)
    assert (refused.status_code, refused.json()["code"]) == (409, "image-in-use")


@pytest.mark.parametrize("by", ["member", "other", "admin"])
def test_a_revoked_image_is_gone_for_new_disks_and_old_ones_stay(small_site: Site, by: str) -> None:
    site = small_site
    grant = shared(site)
    assert clone(site).status_code == 202
    assert site.call(by, "DELETE", f"/v1/image-grants/{grant}").status_code == 204
    assert clone(site, "second").status_code == 404
    assert "alpha-image" not in seen(site)
    assert site.get("other", "/v1/disks/theirs").json()["image"] == "alpha-image"
    assert site.call(by, "DELETE", f"/v1/image-grants/{grant}").status_code == 404
    assert offer(site).status_code == 201


@pytest.mark.parametrize("held", ["offered", "accepted", "a disk", "a snapshot", "a node", "a provision"])
def test_how_an_image_boots_is_settled_once_others_have_to_do_with_it(small_site: Site, held: str) -> None:
    """Its owner would be root on their nodes from their next boot on."""
    site, url = small_site, f"{IMAGE}/description"
    grant = offer(site).json()["id"] if held == "offered" else shared(site)
    begin = {"node": "free", "image": "alpha-image", "network": str(site.ids["network:beta"]), "project": "beta"}
    match held:
        case "a disk" | "a snapshot":
            assert clone(site).status_code == 202
            list(Room(site).work())
            if held == "a snapshot":
                assert site.post("other", "/v1/snapshots", {"name": "late", "disk": "theirs"}).status_code == 202
                list(Room(site).work())
                site.call("other", "DELETE", "/v1/disks/theirs")
                list(Room(site).work())
        case "a node" | "a provision":
            assert site.post("other", "/v1/provisions", {**begin, "stateless": True}).status_code == 202
            if held == "a node":
                list(Room(site).work())
    if held not in ("offered", "accepted"):
        assert site.call("member", "DELETE", f"/v1/image-grants/{grant}").status_code == 204
    before = site.get("member", IMAGE).json()
    for changes in (
        {"cmdline": 'systemd.run="x"'},
        {"cmdline": 'systemd.run="x"', "in_use": True},
        {"up_proof": "phone-home"},
        {"firmwares": ["uefi"]},
        {"wants_seed_disk": True},
    ):
        refused = site.call("member", "PUT", url, json=changes)
        assert (refused.status_code, refused.json()["code"]) == (409, "image-in-use"), changes
        assert "m2 image copy" in refused.json()["fix"]
    assert site.get("member", IMAGE).json() == before
    said = {"os": "Debian 13", "cmdline": before["cmdline"]}
    assert site.call("member", "PUT", url, json=said).status_code == 200


def test_nobody_decides_for_others_what_a_name_means(small_site: Site) -> None:
    """A project's own image and a golden one go before one that is shared under the same name."""
    site = small_site
    with site.store.transaction() as tx:
        tx.images.change(site.ids["image:alpha"], name="tiny")
    grant = offer(site, image=str(site.ids["image:alpha"])).json()["id"]
    site.post("other", f"/v1/image-grants/{grant}/accept")
    assert site.get("other", "/v1/images/tiny").json()["project"] is None
    assert site.get("other", "/v1/images/tiny?project=beta").json()["project"] is None


def test_what_cannot_be_shared_is_told(small_site: Site) -> None:
    site = small_site
    told = [
        (offer(site, "admin", image="tiny"), 409, "image-golden"),
        (offer(site, grantee="alpha"), 422, "grant-to-owner"),
        (offer(site, image="alpha-new"), 409, "image-not-sealed"),
        (site.post("member", f"{IMAGE}/grants", {"grantee": "beta"}), 404, "not-found"),
        (site.post("member", f"{IMAGE}/grants", {"grantee": "nobody"}), 404, "not-found"),
    ]
    for answer, status, code in told:
        assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_third_project_sees_neither_image_nor_grant(small_site: Site) -> None:
    site = small_site
    grant = offer(site, grantee="empty").json()["id"]
    assert site.post("other", f"/v1/image-grants/{grant}/accept").status_code == 404
    assert site.call("other", "DELETE", f"/v1/image-grants/{grant}").status_code == 404
    assert all(other["id"] != grant for other in items(site.get("other", "/v1/image-grants")))
    assert site.get("other", IMAGE).status_code == 404
    assert site.post("member", f"/v1/image-grants/{grant}/accept").status_code == 403


def test_grants_go_with_the_image(small_site: Site) -> None:
    site = small_site
    with site.store.transaction() as tx:
        tx.images.change(site.ids["new:alpha"], state=ImageState.SEALED)
        before = tx.image_grants.count()
    assert offer(site, image="alpha-new").status_code == 201
    assert site.call("member", "DELETE", "/v1/images/alpha-new").status_code == 202
    with site.store.reading() as tx:
        assert tx.image_grants.count() == before


def test_both_sides_read_what_became_of_a_grant(small_site: Site) -> None:
    grant = shared(small_site)
    small_site.call("other", "DELETE", f"/v1/image-grants/{grant}")
    for caller, project in (("member", "alpha"), ("other", "beta")):
        events = items(small_site.get(caller, f"/v1/events?limit=1000&project={project}"))
        kinds = [event["kind"] for event in events]
        assert [kind for kind in kinds if kind.startswith("image.")][-3:] == [
            "image.offered",
            "image.accepted",
            "image.unshared",
        ]
