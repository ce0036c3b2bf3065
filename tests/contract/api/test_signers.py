"""Signed images, with the real minisign: whom one trusts, what is refused, and who needs signatures."""

import json
import subprocess
from base64 import b64decode, b64encode
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from httpx import Response
from tests.contract.api.room import Room
from tests.contract.api.site import Site, items
from tests.contract.fetch.registries import public

from malleable.domain.ids import ImageId
from malleable.services.all import make_services

DISK = b"a disk" * 5000
PROVISION = {"project": "alpha", "node": "free", "network": "blue"}


@dataclass
class Hand:
    """Somebody with a key of minisign."""

    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self._run("-G", "-W", "-p", "key.pub", "-s", "key")
        self.key = (self.folder / "key.pub").read_text()

    def sign(self, content: bytes = DISK, *options: str) -> str:
        """Sign something."""
        (self.folder / "disk").write_bytes(content)
        self._run("-S", "-s", "key", "-m", "disk", *options)
        return (self.folder / "disk.minisig").read_text()

    def _run(self, *words: str) -> None:
        subprocess.run(["minisign", *words], cwd=self.folder, check=True, capture_output=True, timeout=60)


@pytest.fixture
def hand(tmp_path: Path) -> Hand:
    return Hand(tmp_path / "hand")


def trust(site: Site, hand: Hand, caller: str = "member", project: str | None = "alpha", name: str = "builders") -> str:
    answer = site.post(caller, "/v1/signers", {"name": name, "project": project, "key": hand.key})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["key_number"])


def announce(site: Site, **facts: Any) -> None:
    body = {"name": "mine", "project": "alpha", "sha256": sha256(DISK).hexdigest(), "size_bytes": len(DISK), **facts}
    assert site.post("member", "/v1/images", body).status_code == 201
    assert site.call("member", "PUT", "/v1/images/mine/content", content=DISK).status_code == 204


def seal(site: Site, signature: str | None) -> Response:
    return site.post("member", "/v1/images/mine/seal", {"signature": signature})


def imported(site: Site, signature: str | None) -> dict[str, Any]:
    """Import the disk; return the operation as its owner reads it at its end."""
    announce(site)
    answer = seal(site, signature)
    assert answer.status_code == 202, answer.text
    list(Room(site).work())
    operation: dict[str, Any] = site.get("member", f"/v1/operations/{answer.json()['id']}").json()
    return operation


def code(answer: Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_an_image_tells_who_signed_it_and_its_copy_only_where_that_is_trusted(small_site: Site, hand: Hand) -> None:
    number = trust(small_site, hand)
    assert number.lstrip("0") in hand.key  # minisign leaves noughts at the front away
    assert imported(small_site, hand.sign())["state"] == "succeeded"
    mine = small_site.get("reader", "/v1/images/mine").json()
    assert (mine["state"], mine["signed_by"], mine["signing_key"]) == ("sealed", "builders", number)
    assert small_site.post("admin", "/v1/images/mine/copy", {"project": "beta", "name": "copy"}).status_code == 202
    copy = small_site.get("other", "/v1/images/copy").json()
    assert (copy["signed_by"], copy["signing_key"]) == ("", "")


def test_a_shared_image_is_signed_by_whom_its_reader_knows(small_site: Site, hand: Hand) -> None:
    """Its owner may call his signer as the site calls another."""
    site = small_site
    number = trust(site, hand, name="the-site")
    assert imported(site, hand.sign())["state"] == "succeeded"
    grant = site.post("member", "/v1/images/mine/grants", {"grantee": str(site.ids["beta"])}).json()["id"]
    site.post("other", f"/v1/image-grants/{grant}/accept")

    def seen() -> set[tuple[str, str]]:
        found = [image for image in items(site.get("other", "/v1/images")) if image["name"] == "mine"]
        found.append(site.get("other", "/v1/images/mine").json())
        return {(image["signed_by"], image["signing_key"]) for image in found}

    assert seen() == {("", number)}
    trust(site, hand, "other", "beta", name="hand")
    assert seen() == {("hand", number)}
    assert site.get("reader", "/v1/images/mine").json()["signed_by"] == "the-site"


@pytest.mark.parametrize("change", ["content", "comment", "other"])
def test_a_wrong_signature_leaves_nothing_behind(small_site: Site, hand: Hand, tmp_path: Path, change: str) -> None:
    trust(small_site, hand)
    if change == "content":
        signature = hand.sign(DISK[:-1] + b"!")
    elif change == "comment":
        signature = hand.sign(DISK, "-t", "version 7").replace("version 7", "version 8")
    else:  # the key's number of one, the signature of another
        theirs = Hand(tmp_path / "other").sign().splitlines()
        mixed = b64decode(hand.sign().splitlines()[1])[:10] + b64decode(theirs[1])[10:]
        signature = "\n".join([theirs[0], b64encode(mixed).decode(), *theirs[2:]])
    before = small_site.disks.list()
    operation = imported(small_site, signature)
    assert operation["state"] == "failed"
    assert operation["error"]["code"] == "signature"
    assert "builders" in operation["error"]["message"]
    assert small_site.get("member", "/v1/images/mine").status_code == 404
    assert small_site.disks.list() == before
    assert not any("content" in path.name for path in small_site.spool.rglob("taken/*"))
    assert imported(small_site, hand.sign())["state"] == "succeeded"


def test_what_cannot_be_trusted_is_refused_before_anything_is_read(small_site: Site, hand: Hand) -> None:
    announce(small_site)
    assert code(seal(small_site, hand.sign())) == (409, "signer-unknown")
    trust(small_site, hand)
    for bad in ("hello", hand.key, hand.sign(DISK, "-l")):
        assert code(seal(small_site, bad)) == (422, "signature-malformed")
    assert seal(small_site, hand.sign()).status_code == 202


CMDLINE = "root=LABEL=rootfs ro"
MANIFEST = {
    "sha256": sha256(DISK).hexdigest(),
    "kernel_sha256": sha256(b"vmlinuz").hexdigest(),
    "initrd_sha256": sha256(b"initrd").hexdigest(),
    "cmdline": CMDLINE,
}


def announce_kernel(site: Site) -> None:
    ways = {"boot_ways": ["san", "kernel"], "kernel": "vmlinuz", "initrd": "initrd", "cmdline": CMDLINE}
    announce(site, **ways)
    for name in ("vmlinuz", "initrd"):
        answer = site.call("member", "PUT", f"/v1/images/mine/files/{name}", content=name.encode())
        assert answer.status_code == 204


def seal_by(site: Site, signature: str | None, manifest: str) -> Response:
    return site.post("member", "/v1/images/mine/seal", {"signature": signature, "manifest": manifest})


def test_kernel_initrd_and_command_line_are_signed_by_the_manifest(small_site: Site, hand: Hand) -> None:
    """Whoever needs signed images boots them by their kernel, until the kernel is another."""
    site = small_site
    trust(site, hand)
    site.call("member", "PUT", "/v1/projects/alpha/signing", json={"needs_signed_images": True})
    announce_kernel(site)
    signed = json.dumps(MANIFEST, indent=2)
    assert code(seal(site, hand.sign())) == (409, "signature-kernel")
    assert code(seal_by(site, None, signed)) == (409, "image-not-signed")
    for bad in ("{", "[]", "[" * 9000, '{"sha256": 1, "sha256": 2}'):
        assert code(seal_by(site, hand.sign(bad.encode()), bad)) == (422, "manifest-malformed")
    assert seal_by(site, hand.sign(signed.encode()), signed).status_code == 202
    room = Room(site)
    list(room.work())
    image = site.get("member", "/v1/images/mine").json()
    assert {name: image[name] for name in MANIFEST} == MANIFEST
    assert (image["state"], image["signed_by"]) == ("sealed", "builders")
    refused = site.call("member", "PUT", "/v1/images/mine/description", json={"cmdline": "init=/bin/sh"})
    assert code(refused) == (409, "image-signed")
    assert site.call("member", "PUT", "/v1/images/mine/description", json={"os": "mine"}).status_code == 200
    boot = {**PROVISION, "image": "mine", "way": "kernel"}
    assert ended(site, room, site.post("member", "/v1/provisions", boot))["state"] == "succeeded"
    assert site.post("member", "/v1/nodes/free/release").status_code == 202
    list(room.work())
    kernel = site.disks.file(ImageId(UUID(image["id"])), "vmlinuz")
    kernel.write_bytes(b"another")
    failed = ended(site, room, site.post("member", "/v1/provisions", boot))
    assert (failed["state"], failed["error"]["code"]) == ("failed", "image-corrupt")
    assert "vmlinuz" in failed["error"]["message"]


def ended(site: Site, room: Room, answer: Response) -> dict[str, Any]:
    assert answer.status_code == 202, answer.text
    list(room.work())
    operation: dict[str, Any] = site.get("member", f"/v1/operations/{answer.json()['id']}").json()
    return operation


@pytest.mark.parametrize("fact", [*MANIFEST, "format", "signature"])
def test_a_manifest_of_something_else_leaves_nothing_behind(small_site: Site, hand: Hand, fact: str) -> None:
    site = small_site
    trust(site, hand)
    announce_kernel(site)
    told = json.dumps({**MANIFEST, fact: "another"})
    signature = hand.sign(b"{}" if fact == "signature" else told.encode())
    failed = ended(site, Room(site), seal_by(site, signature, told))
    assert (failed["state"], failed["error"]["code"]) == ("failed", "signature")
    assert "builders" in failed["error"]["message"]
    assert site.get("member", "/v1/images/mine").status_code == 404


def test_a_command_line_changed_while_it_is_proven_is_not_signed(small_site: Site, hand: Hand) -> None:
    site = small_site
    trust(site, hand)
    announce_kernel(site)
    signed = json.dumps(MANIFEST)
    begun = seal_by(site, hand.sign(signed.encode()), signed)
    changed = site.call("member", "PUT", "/v1/images/mine/description", json={"cmdline": "init=/bin/sh"})
    assert changed.status_code == 200
    assert ended(site, Room(site), begun)["error"]["code"] == "signature"


def test_an_announced_kernel_is_what_comes(small_site: Site) -> None:
    announce(small_site, boot_ways=["kernel"], kernel="vmlinuz", initrd="initrd", kernel_sha256="0" * 64)
    for name in ("vmlinuz", "initrd"):
        small_site.call("member", "PUT", f"/v1/images/mine/files/{name}", content=b"kernel")
    failed = ended(small_site, Room(small_site), seal(small_site, None))
    assert (failed["error"]["code"], "kernel" in failed["error"]["message"]) == ("checksum", True)


def test_a_signer_taken_away_while_the_image_waits_is_not_trusted(small_site: Site, hand: Hand) -> None:
    trust(small_site, hand)
    announce(small_site)
    operation = seal(small_site, hand.sign()).json()
    assert small_site.call("member", "DELETE", "/v1/signers/builders?project=alpha").status_code == 204
    list(Room(small_site).work())
    assert small_site.get("member", f"/v1/operations/{operation['id']}").json()["error"]["code"] == "signature"


def test_who_needs_signed_images_imports_copies_promotes_and_boots_nothing_else(small_site: Site, hand: Hand) -> None:
    site = small_site
    trust(site, hand)
    signing = "/v1/projects/alpha/signing"
    changed = site.call("member", "PUT", signing, json={"needs_signed_images": True})
    assert changed.json()["needs_signed_images"]
    announce(site)
    url = {"name": "fetched", "project": "alpha", "url": "https://mirror.example/disk.img"}
    for answer in (
        seal(site, None),
        site.post("member", "/v1/images/fetch", url),
        site.post("member", "/v1/images/tiny/copy", {"project": "alpha", "name": "copy"}),
        site.post("member", "/v1/snapshots/kept/promote", {"name": "promoted"}),
        site.post("member", "/v1/provisions", {**PROVISION, "image": "tiny"}),
        site.post("member", "/v1/provisions", {**PROVISION, "disk": "root"}),
    ):
        assert code(answer) == (409, "image-not-signed"), answer.text
    assert [image["name"] for image in items(site.get("member", "/v1/images?project=alpha"))].count("fetched") == 0
    assert seal(site, hand.sign()).status_code == 202
    list(Room(site).work())
    with site.store.transaction() as tx:
        signed = tx.images.find(name="mine")
        assert signed is not None
        golden = tx.images.get(site.image(tx, "golden", "golden", None).id)
        tx.images.change(golden.id, signing_key=signed.signing_key)
    assert site.post("member", "/v1/provisions", {**PROVISION, "image": "golden"}).status_code == 202
    assert site.call("member", "DELETE", "/v1/signers/builders?project=alpha").status_code == 204
    assert code(site.post("member", "/v1/provisions", {**PROVISION, "image": "mine"})) == (409, "image-not-signed")


def test_a_site_that_needs_signed_images_holds_for_all(small_site: Site, hand: Hand) -> None:
    """Only the site's own signers are good for golden images."""
    parts = replace(small_site.services.parts, needs_signed_images=True)
    small_site.app.state.edge.services = make_services(parts)
    assert code(small_site.post("member", "/v1/provisions", {**PROVISION, "image": "tiny"})) == (
        409,
        "image-not-signed",
    )
    trust(small_site, hand)
    golden = {"name": "gold", "sha256": sha256(DISK).hexdigest(), "size_bytes": len(DISK)}
    assert small_site.post("admin", "/v1/images", golden).status_code == 201
    assert small_site.call("admin", "PUT", "/v1/images/gold/content", content=DISK).status_code == 204
    body = {"signature": hand.sign()}
    assert code(small_site.post("admin", "/v1/images/gold/seal", {})) == (409, "image-not-signed")
    assert code(small_site.post("admin", "/v1/images/gold/seal", body)) == (409, "signer-unknown")
    trust(small_site, hand, "admin", None)
    assert small_site.post("admin", "/v1/images/gold/seal", body).status_code == 202


def test_artifacts_are_signed_by_cosign_for_whom_the_project_trusts(small_site: Site, hand: Hand) -> None:
    """Those who have only keys of minisign sign none."""
    site, pem = small_site, public(ec.generate_private_key(ec.SECP256R1()))
    trust(site, hand)
    site.call("member", "PUT", "/v1/projects/alpha/signing", json={"needs_signed_images": True})
    plain = {"name": "fetched", "project": "alpha", "url": "oci://registry.example/disk:1"}
    assert code(site.post("member", "/v1/images/fetch", plain)) == (409, "image-not-signed")
    wish = {**plain, "cosign": True}
    assert code(site.post("member", "/v1/images/fetch", wish)) == (409, "signer-unknown")
    key = {"name": "pipeline", "project": "alpha", "key": pem}
    added = site.post("member", "/v1/signers", key)
    assert added.status_code == 201, added.text
    assert code(site.post("member", "/v1/signers", {**key, "name": "again"})) == (409, "signer-exists")
    shown = {"name": "again", "project": "alpha", "key": added.json()["key"]}
    assert code(site.post("member", "/v1/signers", shown)) == (409, "signer-exists")
    for other in ({"url": "https://mirror.example/disk.img"}, {"signature": hand.sign()}):
        assert code(site.post("member", "/v1/images/fetch", {**wish, **other})) == (422, "invalid")
    assert site.post("member", "/v1/images/fetch", wish).status_code == 202


def test_a_key_has_one_name_and_only_public_ones_are_taken(small_site: Site, hand: Hand) -> None:
    trust(small_site, hand)
    again = {"name": "again", "project": "alpha", "key": hand.key.splitlines()[1]}
    assert code(small_site.post("member", "/v1/signers", again)) == (409, "signer-exists")
    secret = (hand.folder / "key").read_text()
    p384, mine = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP256R1())
    kind = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for bad in ("", "hello", secret, hand.sign(), public(p384), mine.private_bytes(*kind).decode(), "-----BEGIN"):
        assert code(small_site.post("member", "/v1/signers", {**again, "key": bad})) == (422, "signer-key")
    listed = items(small_site.get("reader", "/v1/signers"))
    assert [(signer["name"], signer["project"]) for signer in listed] == [
        ("signer", None),
        ("signer-alpha", "alpha"),
        ("builders", "alpha"),
    ]
    assert [signer["name"] for signer in items(small_site.get("other", "/v1/signers"))] == ["signer"]
