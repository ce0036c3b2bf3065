"""Bringing an image from the server: the disk alone, or all of it, so that it can be imported again."""

import json
import os
import subprocess
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from tests.unit.cli.desk import Desk, ago, id_of, problem

from malleable.cli.image_upload import read_source

MIB = 1 << 20
DISK, KERNEL = b"disk" * 1000 + bytes(200_000), b"kernel" + bytes(70_000)
FACTS = {
    "os": "busybox",
    "architecture": "x86_64",
    "firmwares": ["bios"],
    "boot_ways": ["san", "kernel"],
    "up_proof": "iscsi-login",
    "cmdline": "root=LABEL=rootfs ro",
    "default_user": "demo",
    "wants_seed_disk": True,
    "has_multipath": True,
}


def view(**changes: object) -> dict[str, object]:
    return {
        "id": id_of(71),
        "name": "tiny",
        "project_id": None,
        "project": None,
        "state": "sealed",
        "size_bytes": len(DISK),
        "sha256": sha256(DISK).hexdigest(),
        "kernel": "vmlinuz",
        "initrd": "initrd",
        "kernel_sha256": sha256(KERNEL).hexdigest(),
        "initrd_sha256": sha256(b"initrd").hexdigest(),
        "created_at": ago(1),
        **FACTS,
        **changes,
    }


@pytest.fixture
def giving(desk: Desk) -> Desk:
    """A server that has the image."""
    desk.answers |= {
        "GET /v1/images/tiny": view(),
        f"GET /v1/images/{id_of(71)}/content": lambda _: httpx.Response(200, content=DISK),
        f"GET /v1/images/{id_of(71)}/files/vmlinuz": lambda _: httpx.Response(200, content=KERNEL),
        f"GET /v1/images/{id_of(71)}/files/initrd": lambda _: httpx.Response(200, content=b"initrd"),
    }
    return desk


def test_to_a_file_comes_the_disk_alone(giving: Desk, tmp_path: Path) -> None:
    ran = giving.m2("image", "export", "tiny", str(tmp_path / "disk"))
    assert (ran.code, (tmp_path / "disk").read_bytes()) == (0, DISK), ran.err
    assert "FOLDER" in ran.err


@pytest.mark.parametrize(
    ("words", "begins"),
    [
        (["disk.raw.zst"], b"\x28\xb5\x2f\xfd"),
        (["disk.QCOW2"], b"QFI\xfb"),
        (["disk.qcow2", "--format", "raw"], DISK[:4]),
        (["disk.img"], DISK[:4]),
    ],
)
def test_a_file_is_what_its_name_says_unless_a_format_is_named(
    giving: Desk, tmp_path: Path, words: list[str], begins: bytes
) -> None:
    file, *options = words
    ran = giving.m2("image", "export", "tiny", str(tmp_path / file), *options)
    assert ran.code == 0, ran.err
    assert (tmp_path / file).read_bytes()[:4] == begins


@pytest.mark.parametrize("ending", ["qcow2", "vmdk", "vhd", "vhdx"])
def test_what_is_packed_is_the_very_disk(giving: Desk, tmp_path: Path, ending: str) -> None:
    """Byte for byte and of the same size: a backup partition table stands at a disk's end."""
    disk = b"begin".ljust(5 * MIB, b"\0") + b"end".ljust(512, b"\0")
    giving.answers["GET /v1/images/tiny"] = view(size_bytes=len(disk), sha256=sha256(disk).hexdigest())
    giving.answers[f"GET /v1/images/{id_of(71)}/content"] = lambda _: httpx.Response(200, content=disk)
    packed, raw = tmp_path / f"disk.{ending}", tmp_path / "raw"
    ran = giving.m2("image", "export", "tiny", str(packed))
    assert ran.code == 0, ran.err
    name = {"vhd": "vpc"}.get(ending, ending)
    subprocess.run(["qemu-img", "convert", "-f", name, "-O", "raw", packed, raw], check=True)
    assert raw.read_bytes() == disk


@pytest.mark.parametrize("as_format", ["raw", "zstd"])
def test_what_comes_into_a_folder_is_the_image_when_it_is_imported(
    giving: Desk, tmp_path: Path, as_format: str
) -> None:
    ran = giving.m2("image", "export", "tiny", str(tmp_path), "--format", as_format)
    assert ran.code == 0, ran.err
    found = read_source(tmp_path / "tiny.json", None, None)
    assert (found.name, found.image_format) == ("tiny", as_format)
    assert found.sha256 == sha256(found.file.read_bytes()).hexdigest()
    assert as_format != "raw" or found.file.read_bytes() == DISK
    sums = {name: view()[name] for name in ("kernel_sha256", "initrd_sha256")}
    assert found.facts == {**FACTS, **sums}
    assert {part: path.read_bytes() for part, path in found.files.items()} == {"kernel": KERNEL, "initrd": b"initrd"}
    assert len(list(tmp_path.glob("*"))) == len(list(tmp_path.iterdir())) == 4
    again = giving.m2("image", "export", "tiny", str(tmp_path))
    assert (again.code, "there already" in again.err) == (1, True)


def test_an_image_without_a_kernel_comes_with_its_manifest(giving: Desk, tmp_path: Path) -> None:
    giving.answers["GET /v1/images/tiny"] = view(kernel="", initrd="", kernel_sha256="", initrd_sha256="")
    assert giving.m2("image", "export", "tiny", str(tmp_path)).code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.raw", "tiny.json"}
    assert read_source(tmp_path / "tiny.json", None, None).files == {}


@pytest.mark.parametrize("name", ["../secret", "..", "/etc/passwd", "tiny.raw", "tiny.json"])
def test_no_file_is_written_elsewhere_or_over_another(giving: Desk, tmp_path: Path, name: str) -> None:
    """Whoever owns the image chose its kernel's name."""
    giving.answers["GET /v1/images/tiny"] = view(kernel=name)
    ran = giving.m2("image", "export", "tiny", str(tmp_path))
    assert (ran.code, list(tmp_path.iterdir())) == (1, [])


@pytest.mark.parametrize("answer", [httpx.Response(200, content=b"other"), problem(404, "not-found", "No file.")])
def test_what_does_not_come_whole_leaves_nothing(giving: Desk, tmp_path: Path, answer: httpx.Response) -> None:
    giving.answers[f"GET /v1/images/{id_of(71)}/files/initrd"] = answer
    ran = giving.m2("image", "export", "tiny", str(tmp_path))
    assert (ran.code, list(tmp_path.iterdir())) == (1, [])
    assert json.dumps(FACTS) not in ran.out


@pytest.mark.parametrize(("as_format", "program"), [("qcow2", "qemu-img"), ("zstd", "zstd")])
def test_what_cannot_be_packed_leaves_nothing(
    giving: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_format: str, program: str
) -> None:
    programs, folder = tmp_path / "programs", tmp_path / "folder"
    programs.mkdir()
    folder.mkdir()
    failing = '#!/bin/sh\nfor last; do :; done\necho half > "$last"\necho "no room left" >&2\nexit 1\n'
    (programs / program).write_text(failing)
    (programs / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    ran = giving.m2("image", "export", "tiny", str(folder / "disk"), "--format", as_format)
    assert (ran.code, "no room left" in ran.err) == (1, True), ran.err
    assert not list(folder.iterdir())


def test_what_is_packed_takes_no_name_that_appeared_meanwhile(giving: Desk, tmp_path: Path) -> None:
    def late(_: httpx.Request) -> httpx.Response:
        (tmp_path / "disk").write_bytes(b"other")
        return httpx.Response(200, content=DISK)

    giving.answers[f"GET /v1/images/{id_of(71)}/content"] = late
    assert giving.m2("image", "export", "tiny", str(tmp_path / "disk"), "--format", "qcow2").code == 1
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("disk", b"other")]
