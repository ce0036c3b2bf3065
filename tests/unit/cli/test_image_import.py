"""Bringing an image: what is read here, what is sent, and taking up a broken upload."""

import json
from hashlib import sha256
from pathlib import Path

import pytest
from tests.unit.cli.desk import Desk, ago, id_of, operation, problem

from malleable.cli.image_upload import read_source
from malleable.domain.errors import Invalid

RAW = b"disk" * 1000


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """An image as the builder leaves it."""
    (tmp_path / "tiny.raw").write_bytes(RAW)
    (tmp_path / "tiny.vmlinuz").write_bytes(b"kernel")
    (tmp_path / "tiny.initrd").write_bytes(b"initrd")
    manifest = {
        "name": "tiny",
        "file": "tiny.raw",
        "format": "raw",
        "size_bytes": len(RAW),
        "sha256": sha256(RAW).hexdigest(),
        "kernel": "tiny.vmlinuz",
        "kernel_sha256": sha256(b"kernel").hexdigest(),
        "initrd": "tiny.initrd",
        "initrd_sha256": sha256(b"initrd").hexdigest(),
        "os": "busybox",
        "architecture": "x86_64",
        "firmware": ["bios"],
        "boot_ways": ["san", "kernel"],
        "cmdline": "root=LABEL=rootfs ro",
        "up_proof": "iscsi-login",
        "default_user": "demo",
    }
    (tmp_path / "tiny.json").write_text(json.dumps(manifest))
    return tmp_path


def image(state: str = "importing", content: bytes = RAW) -> dict[str, object]:
    return {
        "id": id_of(71),
        "name": "tiny",
        "project_id": None,
        "project": None,
        "state": state,
        "size_bytes": len(content),
        "sha256": sha256(content).hexdigest(),
        "os": "busybox",
        "architecture": "x86_64",
        "firmwares": ["bios"],
        "boot_ways": ["san"],
        "up_proof": "iscsi-login",
        "kernel": "",
        "initrd": "",
        "cmdline": "",
        "default_user": "",
        "created_at": ago(1),
    }


@pytest.fixture
def taking(desk: Desk) -> Desk:
    """A server that takes the image."""
    desk.answers |= {
        "GET /v1/images/tiny": problem(404, "not-found", "No such image."),
        "POST /v1/images": image(),
        f"GET /v1/images/{id_of(71)}/upload": {"received_bytes": 0, "size_bytes": len(RAW)},
        f"PUT /v1/images/{id_of(71)}/content": None,
        f"PUT /v1/images/{id_of(71)}/files/tiny.vmlinuz": None,
        f"PUT /v1/images/{id_of(71)}/files/tiny.initrd": None,
        f"POST /v1/images/{id_of(71)}/seal": operation("pending", kind="import-image", node=None),
        f"GET /v1/operations/{id_of(77)}": operation(kind="import-image", node=None),
    }
    return desk


@pytest.mark.parametrize("named", ["tiny.json", "tiny.raw"])
def test_an_image_is_described_uploaded_and_sealed(taking: Desk, built: Path, named: str) -> None:
    ran = taking.m2("image", "import", str(built / named), "--golden")
    assert ran.code == 0, ran.err
    described = taking.sent("POST /v1/images")
    assert described == {
        "name": "tiny",
        "format": "raw",
        "sha256": sha256(RAW).hexdigest(),
        "size_bytes": len(RAW),
        "os": "busybox",
        "architecture": "x86_64",
        "firmwares": ["bios"],
        "boot_ways": ["san", "kernel"],
        "up_proof": "iscsi-login",
        "kernel": "tiny.vmlinuz",
        "initrd": "tiny.initrd",
        "kernel_sha256": sha256(b"kernel").hexdigest(),
        "initrd_sha256": sha256(b"initrd").hexdigest(),
        "cmdline": "root=LABEL=rootfs ro",
        "default_user": "demo",
        "wants_seed_disk": False,
        "has_multipath": False,
    }
    uploads = {r.url.path.rsplit("/", 1)[1]: r.content for r in taking.requests if r.method == "PUT"}
    assert uploads == {"content": RAW, "tiny.vmlinuz": b"kernel", "tiny.initrd": b"initrd"}
    assert "import of tiny done" in ran.out


def test_a_disk_without_a_manifest_is_measured_here(taking: Desk, built: Path) -> None:
    (built / "tiny.json").unlink()
    assert taking.m2("image", "import", str(built / "tiny.raw"), "--golden").code == 0
    assert taking.sent("POST /v1/images")["sha256"] == sha256(RAW).hexdigest()


@pytest.mark.parametrize("have", [0, 1000, len(RAW)])
def test_a_broken_upload_goes_on_where_it_stopped(taking: Desk, built: Path, have: int) -> None:
    taking.answers["GET /v1/images/tiny"] = image()
    taking.answers[f"GET /v1/images/{id_of(71)}/upload"] = {"received_bytes": have, "size_bytes": len(RAW)}
    assert taking.m2("image", "import", str(built / "tiny.json"), "--golden").code == 0
    assert not any(r.method == "POST" and r.url.path == "/v1/images" for r in taking.requests)
    sent = [r for r in taking.requests if r.method == "PUT" and r.url.path.endswith("/content")]
    assert [(r.content, r.url.params["offset"]) for r in sent] == ([(RAW[have:], str(have))] if have < len(RAW) else [])


@pytest.mark.parametrize(
    ("there", "told"),
    [
        (image("sealed"), "already"),
        (image("sealed", b"x"), "another image"),
        (image("importing", b"x"), "another image"),
    ],
)
def test_a_name_in_use_is_told_before_the_upload(taking: Desk, built: Path, there: object, told: str) -> None:
    taking.answers["GET /v1/images/tiny"] = there
    ran = taking.m2("image", "import", str(built / "tiny.json"), "--golden")
    assert ran.code == 1
    assert told in ran.err
    assert not any(r.method == "PUT" for r in taking.requests)


def test_an_image_of_that_name_that_others_share_is_in_nobodys_way(taking: Desk, built: Path) -> None:
    theirs = {**image("sealed", b"x"), "project_id": id_of(50), "project": "alice"}
    taking.answers["GET /v1/images/tiny"] = theirs
    ran = taking.m2("-p", "bob", "image", "import", str(built / "tiny.json"))
    assert ran.code == 0, ran.err
    assert taking.sent("POST /v1/images")["project"] == "bob"
    for whose in ("alice", str(id_of(50))):
        ran = taking.m2("-p", whose, "image", "import", str(built / "tiny.json"))
        assert "another image" in ran.err


def test_an_import_that_failed_is_tried_again_under_its_name(taking: Desk, built: Path) -> None:
    taking.answers["GET /v1/images/tiny"] = image("failed")
    assert taking.m2("image", "import", str(built / "tiny.json"), "--golden").code == 0
    assert any(r.method == "POST" and r.url.path == "/v1/images" for r in taking.requests)


def test_a_missing_kernel_is_told_before_anything_is_sent(taking: Desk, built: Path) -> None:
    (built / "tiny.vmlinuz").unlink()
    ran = taking.m2("image", "import", str(built / "tiny.json"), "--golden")
    assert ran.code == 1
    assert "tiny.vmlinuz" in ran.err
    assert taking.requests == []


def change(built: Path, **facts: object) -> None:
    manifest = built / "tiny.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | facts))


def test_a_manifest_of_another_format_is_told(built: Path) -> None:
    change(built, format="qcow2")
    with pytest.raises(Invalid, match="is raw, its manifest says qcow2"):
        read_source(built / "tiny.json", None, None)


@pytest.mark.parametrize(
    ("begin", "found"),
    [
        (b"QFI\xfb", "qcow2"),
        (b"KDMV", "vmdk"),
        (b"vhdxfile", "vhdx"),
        (b"conectix", "vhd"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
    ],
)
def test_a_format_is_read_off_the_file(begin: bytes, found: str, tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(begin + bytes(600))
    assert read_source(tmp_path / "disk.img", None, None).image_format == found


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("folder", None, "is a folder"),
        ("disk.raw", b"", "is empty"),
        ("disk.qcow2", bytes(600), "does not begin as a .qcow2 file does"),
        ("flat.vmdk", b"# Disk DescriptorFile", "does not begin as a .vmdk file does"),
        ("disk.raw.xz", bytes(600), "not unpacked here"),
        ("disk.img.GZ", bytes(600), "not unpacked here"),
    ],
)
def test_what_is_no_disk_is_told_before_anything_is_sent(
    name: str, content: bytes | None, told: str, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.mkdir() if content is None else file.write_bytes(content)
    with pytest.raises(Invalid, match=told):
        read_source(file, None, None)


def test_a_manifest_of_another_disk_is_told(built: Path) -> None:
    change(built, size_bytes=1)
    with pytest.raises(Invalid, match="its manifest says 1"):
        read_source(built / "tiny.raw", None, None)


@pytest.mark.parametrize("text", ["", "[]", "\x00"])
def test_a_manifest_that_is_none_is_told(built: Path, text: str) -> None:
    (built / "tiny.json").write_text(text)
    with pytest.raises(Invalid):
        read_source(built / "tiny.json", None, None)


def test_a_wrong_fact_names_its_field(taking: Desk, built: Path) -> None:
    change(built, boot_ways=["floppy"])
    ran = taking.m2("image", "import", str(built / "tiny.json"), "--golden")
    assert ran.code == 2
    assert "boot-ways" in ran.err


URL = "https://mirror.example/Debian%2012.QCOW2?signature=x"


@pytest.fixture
def fetching(desk: Desk) -> Desk:
    """A server that reads the image itself."""
    fetched = operation("pending", kind="fetch-image", node=None) | {"arguments": {"name": "debian-12"}}
    desk.answers |= {
        "POST /v1/images/fetch": fetched,
        f"GET /v1/operations/{id_of(77)}": operation(kind="fetch-image", node=None),
    }
    return desk


def test_a_url_is_read_by_the_server(fetching: Desk) -> None:
    ran = fetching.m2("image", "import", URL, "--golden", "--sha256", "0" * 64, "--size", "2G")
    assert ran.code == 0, ran.err
    told = {"name": "debian-12", "url": URL, "sha256": "0" * 64, "size_bytes": 2 << 30}
    assert told.items() <= fetching.sent("POST /v1/images/fetch").items()
    assert "import of debian-12 done" in ran.out


def test_a_manifest_tells_of_what_is_at_a_url(fetching: Desk, built: Path) -> None:
    words = ("--project", "blue", "image", "import", URL, "--manifest", str(built / "tiny.json"))
    assert fetching.m2(*words).code == 0
    assert fetching.sent("POST /v1/images/fetch") == {
        "name": "tiny",
        "project": "blue",
        "url": URL,
        "sha256": sha256(RAW).hexdigest(),
        "size_bytes": len(RAW),
        "cosign": False,
        "os": "busybox",
        "architecture": "x86_64",
        "firmwares": ["bios"],
        "up_proof": "iscsi-login",
        "default_user": "demo",
        "wants_seed_disk": False,
        "has_multipath": False,
    }


@pytest.mark.parametrize("url", ["ftp://mirror.example/a.img", "https://user:secret@mirror.example/a.img"])
def test_what_cannot_be_fetched_is_told_before_anything_is_sent(fetching: Desk, url: str) -> None:
    ran = fetching.m2("image", "import", url, "--golden")
    assert ran.code == 2
    assert "secret" not in ran.err
    assert fetching.requests == []


def test_a_checksum_that_is_told_is_what_the_file_must_have(taking: Desk, built: Path) -> None:
    assert taking.m2("image", "import", str(built / "tiny.json"), "--golden", "--sha256", "0" * 64).code == 0
    assert taking.sent("POST /v1/images")["sha256"] == "0" * 64


def test_a_signature_goes_along_with_a_file_and_with_a_url(
    taking: Desk, fetching: Desk, built: Path, tmp_path: Path
) -> None:
    signature = tmp_path / "tiny.raw.minisig"
    signature.write_text("untrusted comment: signed\nRU\n")
    change(built, kernel="", initrd="")
    words = ("image", "import", "--golden", "--signature", str(signature))
    assert taking.m2(*words, str(built / "tiny.json")).code == 0
    assert taking.sent(f"POST /v1/images/{id_of(71)}/seal") == {"signature": signature.read_text()}
    assert fetching.m2(*words, URL).code == 0
    assert fetching.sent("POST /v1/images/fetch")["signature"] == signature.read_text()


def test_what_cannot_be_signed_is_told_before_anything_is_sent(taking: Desk, built: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("untrusted comment: minisign encrypted secret key\nRW\n")
    ran = taking.m2("image", "import", str(built / "tiny.json"), "--golden", "--signature", str(key))
    assert (ran.code, taking.requests) == (2, [])


def test_an_artifact_is_asked_for_by_architecture_and_signature(fetching: Desk, built: Path) -> None:
    words = ("image", "import", "oci://registry.example/web", "--golden", "--cosign", "--architecture", "aarch64")
    assert fetching.m2(*words).code == 0
    sent = fetching.sent("POST /v1/images/fetch")
    assert (sent["cosign"], sent["architecture"]) == (True, "aarch64")
    assert fetching.m2("image", "import", str(built / "tiny.json"), "--golden", "--cosign").code == 2


@pytest.mark.parametrize("part", ["file", "kernel", "initrd"])
@pytest.mark.parametrize("name", ["/etc/hostname", "../secret", ".."])
def test_a_manifest_names_no_files_elsewhere(taking: Desk, built: Path, part: str, name: str) -> None:
    """Whoever wrote it would read them from the image."""
    (built.parent / "secret").write_text("secret")
    change(built, **{part: name})
    ran = taking.m2("image", "import", str(built / "tiny.json"), "--golden")
    assert (ran.code, taking.requests) == (1, [])
    assert "beside" in ran.err


@pytest.mark.parametrize("way", ["../id_ed25519", "over", "below/deep", "../none"])
@pytest.mark.parametrize("name", ["tiny.raw", "tiny.vmlinuz", "tiny.initrd", "tiny.json"])
def test_a_link_beside_an_image_leads_nowhere_else(taking: Desk, built: Path, name: str, way: str) -> None:
    """An unpacked archive would have its reader send what is private."""
    (built / name).rename(built.parent / "id_ed25519")
    (built / "below").mkdir()
    (built / "below" / "deep").symlink_to(built.parent / "id_ed25519")
    (built / "over").symlink_to("below/deep")
    (built / name).symlink_to(way)
    named = "tiny.raw" if name == "tiny.json" else "tiny.json"
    ran = taking.m2("image", "import", str(built / named), "--golden")
    assert (ran.code, taking.requests) == (1, [])
    assert "elsewhere" in ran.err


def test_links_in_a_circle_are_told(taking: Desk, built: Path) -> None:
    (built / "tiny.raw").unlink()
    (built / "tiny.raw").symlink_to("tiny.raw")
    ran = taking.m2("image", "import", str(built / "tiny.json"), "--golden")
    assert (ran.code, taking.requests) == (1, [])


def test_a_manifest_that_is_a_link_brings_no_other_folder_in(taking: Desk, built: Path) -> None:
    theirs = built / "unpacked"
    theirs.mkdir()
    (theirs / "tiny.json").symlink_to(built / "tiny.json")
    (theirs / "tiny.raw").symlink_to(built / "tiny.raw")
    ran = taking.m2("image", "import", str(theirs / "tiny.json"), "--golden")
    assert (ran.code, taking.requests) == (1, [])
    assert "elsewhere" in ran.err


def test_files_beside_a_manifest_may_be_links_to_one_another(taking: Desk, built: Path) -> None:
    (built / "tiny.raw").rename(built / "2026-11.raw")
    (built / "tiny.raw").symlink_to("2026-11.raw")
    (built.parent / "over-there").symlink_to(built)
    for folder in (built, built.parent / "over-there"):
        ran = taking.m2("image", "import", str(folder / "tiny.json"), "--golden")
        assert ran.code == 0, ran.err


def test_of_an_image_with_a_kernel_the_manifest_is_signed(taking: Desk, built: Path, tmp_path: Path) -> None:
    """Byte for byte as it lies here."""
    manifest, signature = built / "tiny.json", tmp_path / "tiny.json.minisig"
    signature.write_text("untrusted comment: signed\nRU\n")
    manifest.write_bytes(manifest.read_bytes().replace(b", ", b",\r\n"))
    assert taking.m2("image", "import", "--golden", "--signature", str(signature), str(manifest)).code == 0
    sent = taking.sent(f"POST /v1/images/{id_of(71)}/seal")
    assert sent == {"signature": signature.read_text(), "manifest": manifest.read_bytes().decode()}


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("oci://registry.example/os/debian:12", "debian-12"),
        ("oci://registry.example:5000/web", "web"),
        ("oci://registry.example/web:latest#disk.qcow2", "web"),
        (f"oci://registry.example/os/web@sha256:{'0' * 64}", "web"),
    ],
)
def test_an_artifact_is_read_by_the_server_with_a_login_that_nobody_sees(
    fetching: Desk, tmp_path: Path, source: str, name: str
) -> None:
    (tmp_path / "password").write_text("let me in\n")
    login = ("--username", "ann", "--password-file", str(tmp_path / "password"))
    ran = fetching.m2("image", "import", source, "--golden", *login)
    assert ran.code == 0, ran.err
    told = {"name": name, "url": source, "username": "ann", "password": "let me in"}
    assert told.items() <= fetching.sent("POST /v1/images/fetch").items()
    assert "let me in" not in ran.out + ran.err


@pytest.mark.parametrize(
    "source", ["oci://", "oci://host", "oci://host/UPPER", "oci://u:p@host/a", "oci://host/a@sha256:1", "oci://h/a?b=c"]
)
def test_what_names_no_artifact_is_told(fetching: Desk, source: str) -> None:
    assert fetching.m2("image", "import", source, "--golden", "--name", "a").code == 2
    assert fetching.requests == []


def test_what_comes_by_standard_input_is_uploaded(taking: Desk) -> None:
    words = ("image", "import", "-", "--golden")
    assert "--name" in taking.m2(*words, typed="disk" * 1000).err
    assert taking.m2(*words, "--name", "tiny", typed="disk" * 1000).code == 0
    told = {"name": "tiny", "size_bytes": len(RAW), "sha256": sha256(RAW).hexdigest()}
    assert told.items() <= taking.sent("POST /v1/images").items()
