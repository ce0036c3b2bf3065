"""What is not in the state it is wanted in says so, and what to do then."""

import pytest
from tests.contract.api.site import Site
from tests.contract.api.test_bad_input import told

from malleable.domain.disks import DiskState, SnapshotState
from malleable.domain.images import ImageState

USES = {
    "provision": ("/v1/provisions", {"project": "alpha", "node": "free", "image": "IMAGE", "network": "blue"}),
    "disk": ("/v1/disks", {"project": "alpha", "name": "new", "image": "IMAGE"}),
    "copy": ("/v1/images/IMAGE/copy?project=alpha", {"name": "new", "project": "alpha"}),
    "share": ("/v1/images/IMAGE/grants?project=alpha", {"grantee": "BETA"}),
}


@pytest.mark.parametrize("state", [ImageState.IMPORTING, ImageState.FAILED])
def test_an_image_that_is_not_sealed_tells_how_to_get_there(state: ImageState, small_site: Site) -> None:
    site = small_site
    with site.store.transaction() as tx:
        (image,) = tx.images.list(name="alpha-new")
        tx.images.change(image.id, state=state)
    for name, (path, body) in USES.items():
        beta = str(site.ids["beta"])
        filled = {key: value.replace("IMAGE", "alpha-new").replace("BETA", beta) for key, value in body.items()}
        response = site.post("member", path.replace("IMAGE", "alpha-new"), filled)
        assert told(response, 409) == "image-not-sealed", (name, response.text)
        assert response.json()["detail"] == f"Image alpha-new is {state}, not sealed."
        assert "`m2 image import FILE --name alpha-new`" in response.json()["fix"]
    assert told(site.get("member", "/v1/images/alpha-new/content?project=alpha"), 409) == "image-not-sealed"


@pytest.mark.parametrize("state", [DiskState.FLATTENING, DiskState.DELETING])
def test_a_disk_that_is_busy_says_what_to_wait_for(state: DiskState, small_site: Site) -> None:
    site = small_site
    with site.store.transaction() as tx:
        disk = tx.disks.get(site.ids["spare:alpha"])
        tx.disks.change(disk.id, state=state)
    body = {"project": "alpha", "disk": disk.name, "name": "new"}
    for path in ("/v1/snapshots", f"/v1/disks/{disk.id}/flatten"):
        response = site.post("member", path, body if path == "/v1/snapshots" else None)
        assert told(response, 409) == "disk-state"
        assert response.json()["detail"] == f"Disk {disk.name} is {state}."
        assert ("choose another" if state is DiskState.DELETING else "m2 operation list") in response.json()["fix"]


def test_a_snapshot_that_is_not_there_yet_says_what_to_wait_for(small_site: Site) -> None:
    site = small_site
    with site.store.transaction() as tx:
        snapshot = tx.snapshots.get(site.ids["snapshot:alpha"])
        tx.snapshots.change(snapshot.id, state=SnapshotState.CREATING)
    response = site.post("member", "/v1/disks", {"project": "alpha", "name": "new", "snapshot": snapshot.name})
    assert told(response, 409) == "snapshot-state"
    assert "m2 operation list" in response.json()["fix"]


@pytest.mark.parametrize("field", ["user_data", "user_data_base64"])
def test_user_data_over_a_mebibyte_is_told_in_words_about_it(field: str, small_site: Site) -> None:
    text = "#!" + "x" * (1 << 20) if field == "user_data" else "eHh4" * 350_000
    wish = {"project": "alpha", "node": "free", "image": "tiny", "network": "blue", field: text}
    response = small_site.post("member", "/v1/provisions", wish)
    assert told(response, 422) == "invalid"
    assert response.json()["detail"].startswith("The user-data has ")
    assert "compress it with gzip" in response.json()["fix"]
