"""Uploading images."""

import os
from datetime import timedelta
from shutil import disk_usage

import pytest
from httpx import Response
from tests.contract.api.site import GOLDEN, START, Site, items

from malleable.domain.errors import Conflict
from malleable.domain.ids import ProjectId, TokenId, UserId, new_id
from malleable.domain.projects import Role
from malleable.drivers.storage import sealing
from malleable.services import uploads
from malleable.services.caller import Caller

CONTENT = "/v1/images/alpha-new/content"


def test_an_upload_lands_in_the_spool(small_site: Site) -> None:
    data = os.urandom(len(GOLDEN))
    assert small_site.call("member", "PUT", CONTENT, content=data).status_code == 204
    place = small_site.spool / str(small_site.ids["new:alpha"])
    assert (place / "content").read_bytes() == data
    assert not list(place.glob(".*.part"))


def test_an_upload_of_another_size_changes_nothing(small_site: Site) -> None:
    place = small_site.spool / str(small_site.ids["new:alpha"])
    for data in (GOLDEN[:-1], GOLDEN + b"x", b""):
        response = small_site.call("member", "PUT", CONTENT, content=data)
        assert (response.status_code, response.json()["code"]) == (422, "wrong-size")
        assert (place / "content").read_bytes() == GOLDEN
        assert not list(place.glob(".*.part"))


def test_an_upload_may_be_larger_than_other_bodies(small_site: Site) -> None:
    size = 3_000_000
    body = {"name": "large", "project": "alpha", "sha256": "0" * 64, "size_bytes": size}
    assert small_site.post("member", "/v1/images", body).status_code == 201
    path = "/v1/images/large/content"
    assert small_site.call("member", "PUT", path, content=b"x" * size).status_code == 204


@pytest.mark.parametrize("path", ["content", "files/vmlinuz"])
def test_uploads_never_fill_the_disk(small_site: Site, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """The database may lie there too."""
    place = small_site.spool / str(small_site.ids["new:alpha"])
    before = {p: p.read_bytes() for p in place.rglob("*") if p.is_file()}
    monkeypatch.setattr(uploads, "SPOOL_RESERVE_BYTES", disk_usage(place).total)
    response = small_site.call("member", "PUT", f"/v1/images/alpha-new/{path}", content=GOLDEN)
    assert (response.status_code, response.json()["code"]) == (409, "spool-full")
    assert {p: p.read_bytes() for p in place.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("name", [sealing.IMAGE, sealing.MANIFEST])
def test_no_file_is_called_as_the_pool_calls_its_own(small_site: Site, name: str) -> None:
    """It was refused when all of it was uploaded, by the seal."""
    facts = {"name": "odd", "project": "alpha", "sha256": "0" * 64, "size_bytes": 1, "boot_ways": ["kernel"]}
    for files in ({"kernel": name, "initrd": "initrd"}, {"kernel": "vmlinuz", "initrd": name}):
        refused = small_site.post("member", "/v1/images", {**facts, **files})
        assert (refused.status_code, refused.json()["fix"]) == (422, "Rename it.")


def test_only_files_the_image_names_are_taken(small_site: Site) -> None:
    for name in ("other", "..%2Fcontent", "content"):
        response = small_site.call("member", "PUT", f"/v1/images/alpha-new/files/{name}", content=b"x")
        assert response.status_code == 404, name
    assert small_site.call("member", "PUT", "/v1/images/alpha-new/files/vmlinuz", content=b"k").status_code == 204


def test_the_files_of_a_sealed_image_are_read_by_those_who_read_the_image(small_site: Site) -> None:
    found = small_site.call("reader", "GET", "/v1/images/tiny/files/vmlinuz")
    assert (found.status_code, found.content) == (200, GOLDEN)
    for name in ("nosuch", "image.raw", "manifest.json", "..%2Fvmlinuz"):
        assert small_site.call("reader", "GET", f"/v1/images/tiny/files/{name}").status_code == 404
    early = small_site.call("member", "GET", "/v1/images/alpha-new/files/vmlinuz")
    assert (early.status_code, early.json()["code"]) == (409, "image-not-sealed")


def test_a_sealed_image_takes_no_upload(small_site: Site) -> None:
    response = small_site.call("member", "PUT", "/v1/images/alpha-image/content", content=GOLDEN)
    assert (response.status_code, response.json()["code"]) == (409, "image-state")


@pytest.mark.parametrize("path", ["seal", ""])
def test_an_upload_that_ends_too_late_is_refused(small_site: Site, path: str) -> None:
    """Sealed or deleted while it came: nothing of it may reach what is being checked."""
    caller = Caller(
        user_id=UserId(small_site.ids["user:member"]),
        name="member",
        site_role=None,
        memberships={ProjectId(small_site.ids["alpha"]): Role.MEMBER},
        token_id=TokenId(new_id()),
        is_read_only=False,
        expires_at=START + timedelta(days=1),
    )
    late = small_site.services.images.image_upload(caller, "alpha-new", file=None)
    late.part.write_bytes(b"x" * len(GOLDEN))
    method, url = ("POST", "/v1/images/alpha-new/seal") if path else ("DELETE", "/v1/images/alpha-new")
    assert small_site.call("member", method, url).status_code == 202
    with pytest.raises(Conflict):
        late.finish(len(GOLDEN))
    late.drop()


def test_an_image_under_promotion_is_left_alone(small_site: Site) -> None:
    promoted = small_site.post("member", "/v1/snapshots/kept/promote", {"name": "mine"})
    assert promoted.status_code == 202
    for method, path in (("PUT", "mine/content"), ("POST", "mine/seal"), ("DELETE", "mine")):
        content = GOLDEN if method == "PUT" else None
        response = small_site.call("member", method, f"/v1/images/{path}", content=content)
        assert response.status_code == 409, path
        assert response.json()["code"] in ("image-sealing", "upload-missing"), path


def test_a_disk_depends_on_golden_and_own_images_alone(small_site: Site) -> None:
    """A reader of another project could keep it from ever deleting its image."""
    small_site.call("admin", "PUT", "/v1/projects/alpha/members/other", json={"role": "reader"})
    body = {"name": "pin", "image": str(small_site.ids["image:alpha"]), "project": "beta"}
    assert small_site.post("other", "/v1/disks", body).status_code == 404
    provision = {**body, "network": str(small_site.ids["network:beta"]), "disk_name": "pin"}
    del provision["name"]
    assert small_site.post("other", "/v1/provisions", provision).status_code == 404


def test_sealing_names_what_is_not_uploaded(small_site: Site) -> None:
    place = small_site.spool / str(small_site.ids["new:alpha"])
    (place / "files" / "initrd").unlink()
    response = small_site.post("member", "/v1/images/alpha-new/seal")
    assert (response.status_code, response.json()["code"]) == (409, "upload-missing")
    assert "initrd" in response.json()["detail"]


def test_boot_way_kernel_needs_its_files(small_site: Site) -> None:
    body = {"name": "k", "project": "alpha", "sha256": "0" * 64, "size_bytes": 1, "boot_ways": ["kernel"]}
    assert small_site.post("member", "/v1/images", body).status_code == 422


def test_a_kernel_that_nothing_would_load_is_refused(small_site: Site) -> None:
    body = {"name": "k", "project": "alpha", "sha256": "0" * 64, "size_bytes": 1, "kernel": "vmlinuz"}
    for ways in ({}, {"boot_ways": ["san"]}, {"boot_ways": ["san"], "initrd": "initrd"}):
        refused = small_site.post("member", "/v1/images", {**body, **ways})
        assert (refused.status_code, refused.json()["fix"]) == (422, "Add boot way kernel, or leave both files out.")


def test_what_is_told_of_an_image_is_corrected_field_by_field(small_site: Site) -> None:
    url = "/v1/images/alpha-image/description"
    before = small_site.get("member", "/v1/images/alpha-image").json()
    changes = {"os": "Debian 12", "firmwares": ["uefi"], "boot_ways": ["san"], "up_proof": "phone-home"}
    assert small_site.call("member", "PUT", url, json=changes).json() == {**before, **changes}
    wrong: list[dict[str, object]] = [{}]
    wrong += [{"cmdline": cmdline} for cmdline in ("a || exit", "${password}", "a\nb", "x" * 961, "# x")]
    wrong += ({"firmwares": []}, {"sha256": "0" * 64}, {"signed_by": "me"}, {"architecture": ""})
    for bad in wrong:
        assert small_site.call("member", "PUT", url, json=bad).status_code == 422, bad
    assert small_site.get("member", "/v1/images/alpha-image").json() == {**before, **changes}
    body = {"name": "plain", "project": "alpha", "sha256": "0" * 64, "size_bytes": 1}
    assert small_site.post("member", "/v1/images", body).status_code == 201
    wanted = small_site.call("member", "PUT", "/v1/images/plain/description", json={"boot_ways": ["kernel"]})
    assert wanted.status_code == 422
    assert "initrd" in wanted.json()["detail"]


def test_a_projects_images_are_those_it_can_use(small_site: Site) -> None:
    listed = [image["name"] for image in items(small_site.get("member", "/v1/images?project=alpha"))]
    assert "tiny" in listed
    assert "alpha-image" in listed
    assert listed == [image["name"] for image in items(small_site.get("admin", "/v1/images?project=alpha"))]


def test_how_a_golden_image_boots_changes_for_its_users_only_if_that_is_said(small_site: Site) -> None:
    site = small_site
    with site.store.transaction() as tx:
        site.image(tx, "fresh", "fresh", None)

    def describe(name: str, **changes: object) -> Response:
        return site.call("admin", "PUT", f"/v1/images/{name}/description", json=changes)

    assert describe("fresh", cmdline="quiet").json()["cmdline"] == "quiet"
    assert site.post("member", "/v1/disks", {"name": "mine", "project": "alpha", "image": "tiny"}).status_code == 202
    refused = describe("tiny", cmdline="init=/bin/sh")
    assert (refused.status_code, refused.json()["code"]) == (409, "image-in-use")
    assert "--golden" in refused.json()["fix"]
    assert describe("tiny", cmdline="", os="Tiny 2").status_code == 200
    assert describe("tiny", in_use=True).status_code == 422
    assert describe("tiny", cmdline="init=/bin/sh", in_use=True).json()["cmdline"] == "init=/bin/sh"
