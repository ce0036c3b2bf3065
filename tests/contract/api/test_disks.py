"""Disks through the API: blank ones, and what is refused."""

from uuid import UUID

from tests.contract.api.room import Room
from tests.contract.api.site import Site

from malleable.domain.ids import DiskId


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


def test_a_disk_needs_a_size_or_an_origin_and_not_two_origins(small_site: Site) -> None:
    nothing = small_site.post("member", "/v1/disks", {"name": "data"})
    assert (nothing.status_code, nothing.json()["code"]) == (422, "size-needed")
    both = small_site.post("member", "/v1/disks", {"name": "data", "image": "tiny", "snapshot": "before"})
    assert both.status_code == 422
