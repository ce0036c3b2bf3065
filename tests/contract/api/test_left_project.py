"""Somebody is taken out of a project while what they asked for is under way."""

from tests.contract.api.room import Room
from tests.contract.api.site import Site


def test_what_was_asked_for_ends_and_is_no_longer_theirs_to_see(site: Site) -> None:
    body = {"node": "held", "network": "blue", "channel": "tagged"}
    made = site.post("member", "/v1/networks", {"name": "lab", "project": "alpha", "cidr": "10.7.0.0/24"})
    begun = site.post("member", "/v1/attachments", {**body, "network": made.json()["id"]}).json()
    path = f"/v1/operations/{begun['id']}"
    assert site.get("member", path).status_code == 200
    assert site.call("admin", "DELETE", "/v1/projects/alpha/members/member").status_code == 204
    for _ in Room(site).work():
        assert site.get("member", path).status_code == 404
    assert site.get("admin", path).json()["state"] == "succeeded", "half a change is nobody's wish"
    assert site.post("member", "/v1/attachments", body).status_code == 404
