"""Uploads that break off and go on, and those that nobody finishes."""

import os
import socket
from datetime import timedelta
from pathlib import Path
from shutil import disk_usage
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from httpx import Response
from tests.contract.api.serving import served
from tests.contract.api.site import GOLDEN, START, Site

from malleable.domain.images import ImageState
from malleable.services import uploads
from malleable.workflows.expiry import expire_uploads

DATA = bytes(range(256)) * 2000


@pytest.fixture
def site(small_site: Site) -> Site:
    body = {"name": "large", "project": "alpha", "sha256": "0" * 64, "size_bytes": len(DATA)}
    answer = small_site.post("member", "/v1/images", body)
    small_site.ids["large"] = UUID(answer.json()["id"])
    return small_site


def folder(site: Site) -> Path:
    return site.spool / str(site.ids["large"])


def put(site: Site, offset: int, data: bytes) -> Response:
    return site.call("member", "PUT", f"/v1/images/large/content?offset={offset}", content=data)


def received(site: Site) -> int:
    answer = site.get("member", "/v1/images/large/upload")
    assert answer.json()["size_bytes"] == len(DATA)
    return int(answer.json()["received_bytes"])


def test_an_upload_comes_in_pieces(site: Site) -> None:
    assert received(site) == 0
    for offset in range(0, len(DATA), 200_000):
        assert put(site, offset, DATA[offset : offset + 200_000]).status_code == 204
        assert received(site) == min(offset + 200_000, len(DATA))
    assert (folder(site) / "content").read_bytes() == DATA
    assert [path.name for path in folder(site).iterdir()] == ["content"]
    assert site.post("member", "/v1/images/large/seal").status_code == 202


def test_a_piece_may_come_again_but_leave_no_hole(site: Site) -> None:
    assert put(site, 0, DATA[:1000]).status_code == 204
    refused = put(site, 1001, DATA[1001:])
    assert (refused.status_code, refused.json()["code"]) == (409, "upload-offset")
    assert refused.json()["details"]["wanted"] == 1000
    assert put(site, 500, DATA[500:]).status_code == 204
    assert (folder(site) / "content").read_bytes() == DATA


def test_more_than_was_announced_is_no_part_of_it(site: Site) -> None:
    assert put(site, 0, DATA + b"x").status_code == 422
    assert put(site, len(DATA), b"x").status_code == 409
    assert put(site, -1, b"x").status_code == 422
    assert received(site) <= len(DATA)
    assert put(site, 0, DATA).status_code == 204
    assert put(site, len(DATA) + 1, b"").status_code in (409, 422)


def test_a_full_disk_leaves_what_has_come(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    assert put(site, 0, DATA[:1000]).status_code == 204
    monkeypatch.setattr(uploads, "SPOOL_RESERVE_BYTES", disk_usage(site.spool).total)
    assert put(site, 1000, DATA[1000:]).json()["code"] == "spool-full"
    assert received(site) == 1000


def test_a_connection_that_breaks_loses_nothing(site: Site) -> None:
    with served(site) as url:
        where = urlsplit(url)
        head = (
            "PUT /v1/images/large/content?offset=0 HTTP/1.1\r\nHost: site\r\n"
            f"Authorization: Bearer {site.tokens['member']}\r\nContent-Length: {len(DATA)}\r\n\r\n"
        )
        with socket.create_connection((str(where.hostname), where.port or 0)) as client:
            client.sendall(head.encode() + DATA[:300_000])
        have = next((have for _ in range(5000) if (have := received(site)) == 300_000), 0)
    assert have == 300_000
    assert put(site, have, DATA[have:]).status_code == 204
    assert (folder(site) / "content").read_bytes() == DATA


def test_who_still_sends_changes_nothing_of_what_is_complete(site: Site) -> None:
    """What is complete is proven next, and then unpacked: nobody may write to it in between."""
    with served(site) as url:
        where = urlsplit(url)
        head = (
            "PUT /v1/images/large/content?offset=0 HTTP/1.1\r\nHost: site\r\nConnection: close\r\n"
            f"Authorization: Bearer {site.tokens['member']}\r\nContent-Length: {len(DATA)}\r\n\r\n"
        )
        with socket.create_connection((str(where.hostname), where.port or 0)) as slow:
            slow.sendall(head.encode())
            assert any((folder(site) / ".uploaded").exists() or received(site) for _ in range(5000))
            assert put(site, 0, DATA).status_code == 204
            slow.sendall(bytes(len(DATA)))
            answer = b"".join(iter(lambda: slow.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 409 ")
    assert (folder(site) / "content").read_bytes() == DATA


def test_the_files_beside_an_image_count_for_the_quota(site: Site) -> None:
    """A GiB each: beside small images they would be most of what a project has."""

    def in_use() -> int:
        return int(site.get("admin", "/v1/projects/alpha/quota").json()["in_use"]["image_bytes"])

    def send(name: str, size_bytes: int) -> Response:
        return site.call("member", "PUT", f"/v1/images/alpha-new/files/{name}", content=bytes(size_bytes))

    assert send("vmlinuz", 0).status_code == send("initrd", 0).status_code == 204
    before = in_use()
    site.call("admin", "PUT", "/v1/projects/alpha/quota", {"image_bytes": before + 3000})
    assert send("vmlinuz", 2000).status_code == 204
    assert in_use() == before + 2000
    refused = send("initrd", 1001)
    assert (refused.status_code, refused.json()["code"]) == (409, "quota-exceeded")
    assert (in_use(), send("initrd", 1000).status_code) == (before + 2000, 204)
    assert (send("vmlinuz", 1000).status_code, in_use()) == (204, before + 2000)


@pytest.mark.parametrize("state", [ImageState.IMPORTING, ImageState.FAILED])
def test_an_upload_that_nobody_finishes_expires(site: Site, state: ImageState) -> None:
    put(site, 0, DATA[:1000])
    with site.store.transaction() as tx:
        tx.images.change(site.ids["large"], state=state)
    assert expire(site, days=6.9) == 0
    with site.store.reading() as tx:
        before = tx.images.count()
    assert expire(site, days=7.1) == 2  # alpha-new as well
    assert site.get("member", "/v1/images/large").status_code == 404
    with site.store.reading() as tx:
        assert tx.images.count() == before - 2
        assert tx.operations.count(kind="delete-image") == 2
    events = site.get("member", "/v1/events?limit=1000&project=alpha").json()["items"]
    assert [e["data"]["name"] for e in events if e["kind"] == "image.upload-expired"] == ["alpha-new", "large"]
    assert expire(site, days=7.1) == 0


def test_what_is_being_sealed_or_still_comes_does_not_expire(site: Site) -> None:
    put(site, 0, DATA)
    assert site.post("member", "/v1/images/large/seal").status_code == 202
    late = (START + timedelta(days=30)).timestamp()
    os.utime(site.spool / str(site.ids["new:alpha"]) / "content", (late, late))
    assert expire(site, days=8) == 0


def expire(site: Site, *, days: float) -> int:
    """Look so many days after the last byte came."""
    for path in (site.spool / str(site.ids["new:alpha"]), folder(site)):
        for each in (path, *path.rglob("*")):
            if each.stat().st_mtime < START.timestamp() + 86_400 * 20:
                os.utime(each, (START.timestamp(), START.timestamp()))
    now = START + timedelta(days=days)
    return expire_uploads(site.store, site.spool, now=now, before=now - timedelta(days=7))


def test_others_see_nothing_of_an_upload(site: Site) -> None:
    assert site.get("other", "/v1/images/large/upload").status_code == 404
    assert site.call("other", "PUT", "/v1/images/large/content?offset=0", content=GOLDEN).status_code == 404
