"""What the pool lost: whoever wants to use it is told so, nothing is half made, and it can be deleted."""

from typing import Any

import pytest
from tests.contract.api.room import Room
from tests.contract.api.site import Site

from malleable.domain.ids import DiskId, ImageId

#: (what is asked for, the code it ends with)
USES: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("/v1/snapshots", {"project": "alpha", "name": "new", "disk": "spare"}, "no-such-disk"),
    ("/v1/disks/spare/grow?project=alpha", {"size_bytes": 1 << 30}, "no-such-disk"),
    ("/v1/disks/spare/flatten?project=alpha", {}, "no-such-disk"),
    ("/v1/disks/spare/roll-back?project=alpha", {"snapshot": "kept"}, "no-such-disk"),
    ("/v1/provisions", {"project": "alpha", "disk": "spare", "network": "blue", "node": "free"}, "no-such-disk"),
    ("/v1/disks", {"project": "alpha", "name": "clone", "image": "tiny"}, "no-such-image"),
    ("/v1/disks", {"project": "alpha", "name": "clone", "snapshot": "kept"}, "no-such-snapshot"),
    ("/v1/snapshots/kept/promote?project=alpha", {"name": "mine"}, "no-such-snapshot"),
)


@pytest.mark.parametrize(("path", "body", "code"), USES, ids=[f"{code}-{path}" for path, _, code in USES])
def test_who_wants_what_is_lost_is_told_so(small_site: Site, path: str, body: dict[str, Any], code: str) -> None:
    site = small_site
    assert DiskId(site.ids["spare:alpha"]) not in site.disks.list().disks
    site.disks.delete_image(ImageId(site.ids["image"]))
    begun = site.post("member", path, body)
    assert begun.status_code == 202, begun.text
    list(Room(site).work())
    ended = site.get("member", f"/v1/operations/{begun.json()['id']}").json()
    assert (ended["state"], ended["error"]["code"]) == ("failed", code)
    what = code.removeprefix("no-such-")
    assert ended["reason"] == f"The provider's storage does not have the {what}: its content may be lost."
    assert f"quote the {what}'s id" in ended["error"]["fix"]
    assert site.get("member", "/v1/disks/spare").json()["state"] == "ready"
    assert site.get("member", "/v1/snapshots/kept").json()["state"] == "ready"
    assert site.get("member", "/v1/disks/clone").status_code == 404
    assert site.get("member", "/v1/images/mine").status_code == 404
    assert site.get("admin", "/v1/nodes/free").json()["state"] == "free"


def test_what_is_lost_can_be_deleted(small_site: Site) -> None:
    site = small_site
    for path in ("/v1/snapshots/kept?project=alpha", "/v1/disks/spare?project=alpha"):
        begun = site.call("member", "DELETE", path)
        assert begun.status_code == 202, begun.text
        list(Room(site).work())
        assert site.get("member", path).status_code == 404
