"""The main job from the keyboard: an operator sets a room up, two tenants use it, everything is given back."""

import json
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest
from tests.system.cli.hall import Hall

PASSWORD = "a long enough password"


@pytest.fixture
def room(hall: Hall, tmp_path: Path) -> Hall:
    """Three free machines, a golden image, and two projects with a person each."""
    hall.admin("fabric", "vlans", "default", "100-199")
    hall.admin("switch", "create", "tor1", "--driver", "sim", "--address", "sim://tor1")
    hall.admin("switch", "port", "create", "tor1")
    for number in range(3):
        enrol(hall, number)
    hall.admin("image", "import", str(tiny_image(tmp_path)), "--golden")
    for project, person in (("blue", "ann"), ("red", "bob")):
        hall.admin("project", "create", project)
        hall.admin("user", "create", person, "--password-file", "-", typed=PASSWORD)
        hall.admin("project", "member", "set", project, person)
        hall.do(person, "login", person, "--password-file", "-", typed=PASSWORD)
        hall.do(person, "network", "create", "lab")
    return hall


def enrol(hall: Hall, number: int) -> None:
    machine = hall.site.machines[number]
    words = ["node", "enrol", f"m{number + 1}", "--driver", "sim", "--bmc", machine.bmc_address, "--user", "admin"]
    words += ["--wire", f"{machine.mac}={machine.switch}/{machine.port}", "--password-file", "-"]
    hall.admin(*words, typed=machine.bmc_password.reveal())


def tiny_image(folder: Path) -> Path:
    (folder / "tiny.raw").write_bytes(b"tiny disk" * 1000)
    (folder / "tiny.vmlinuz").write_bytes(b"kernel")
    (folder / "tiny.initrd").write_bytes(b"initrd")
    manifest = {
        "name": "tiny",
        "format": "raw",
        "size_bytes": 9000,
        "sha256": sha256(b"tiny disk" * 1000).hexdigest(),
        "firmware": ["bios", "uefi"],
        "boot_ways": ["san", "kernel"],
        "kernel": "tiny.vmlinuz",
        "initrd": "tiny.initrd",
    }
    (folder / "tiny.json").write_text(json.dumps(manifest))
    return folder / "tiny.json"


def column(table: str, title: str) -> list[str]:
    """Read a column of words by where its title stands; a gap of two spaces ends it."""
    head, *rows = table.splitlines()
    begin = head.index(title)
    return [row[begin:].split("  ")[0].strip() for row in rows]


def test_two_tenants_share_a_room(room: Hall) -> None:
    hall = room
    assert column(hall.admin("node", "list").out, "STATE") == ["free"] * 3

    ran = hall.do("ann", "provision", "--image", "tiny", "--network", "lab", "--disk-name", "web")
    assert "provision m" in ran.out
    assert "in lab" in ran.out
    assert "runs disk web" in ran.out
    hall.do("bob", "provision", "--image", "tiny", "--network", "lab", "--disk-name", "web")

    (mine,) = [found for found in listed(hall, "ann", "node") if found["project"] == "blue"]
    (other,) = [found for found in listed(hall, "bob", "node") if found["project"] == "red"]
    assert mine["name"] != other["name"]
    assert (mine["boot"], mine["power"]) == ("up", "on")
    assert "login:" in hall.do("ann", "node", "console", str(mine["name"])).out

    refused = hall.run("bob", "node", "release", str(mine["name"]))
    assert refused.code == 1
    assert refused.err.startswith("error: ")

    free = next(f"m{n}" for n in (1, 2, 3) if f"m{n}" not in (mine["name"], other["name"]))
    moved = hall.do("ann", "disk", "move", "web", "--node", free)
    assert f"move of web to {free} done" in moved.out
    (disk,) = listed(hall, "ann", "disk")
    assert disk["node"] == free

    shown = hall.do("ann", "node", "timeline", free).out
    assert "succeeded" in shown
    assert "█" in shown

    for person in ("ann", "bob"):
        for held in [found for found in listed(hall, person, "node") if found["project"]]:
            hall.do(person, "node", "release", str(held["name"]))
        hall.do(person, "disk", "delete", "web", "--yes")
        hall.do(person, "network", "delete", "lab", "--yes")
        assert "whole" in hall.do(person, "event", "verify").out
    assert column(hall.admin("node", "list").out, "STATE") == ["free"] * 3
    assert "BROKEN" not in hall.admin("event", "verify").out


def listed(hall: Hall, person: str, noun: str) -> list[dict[str, object]]:
    found = hall.do(person, noun, "list", "--json").json
    assert isinstance(found, list)
    return found


def test_every_list_and_show_works_for_people_and_programs(room: Hall) -> None:
    hall = room
    hall.do("ann", "provision", "--image", "tiny", "--network", "lab", "--disk-name", "web", "--node", "m1")
    looks: list[tuple[str, ...]] = [
        *[(noun, "list") for noun in ("node", "network", "image", "disk", "attachment", "target", "operation")],
        *[("event", "list"), ("event", "tail"), ("token", "list"), ("project", "list"), ("whoami",)],
        *[("node", "show", "m1"), ("network", "show", "lab"), ("image", "show", "tiny"), ("disk", "show", "web")],
        *[("operation", "show", "m1"), ("node", "timeline", "m1"), ("project", "member", "list", "blue")],
        *[("project", "show", "blue"), ("project", "quota", "show", "blue")],
        *[("ls", "blue"), ("showpro", "blue")],
    ]
    for words in looks:
        assert hall.do("ann", *words).out.strip(), words
        told = hall.do("ann", *words, "--json").out
        for line in told.splitlines() if words == ("event", "tail") else [told]:
            assert json.loads(line), words
    for words in [("user", "list"), ("fabric", "list"), ("switch", "list"), ("switch", "show", "tor1")]:
        assert hall.admin(*words).out.strip(), words
    wired = column(hall.admin("switch", "port", "list", "tor1").out, "NODE")
    assert [end for end in wired if end != "-"] == ["m1 nic0", "m2 nic0", "m3 nic0"]


def test_an_image_goes_in_as_qcow2_and_comes_back(room: Hall, tmp_path: Path) -> None:
    raw = tmp_path / "own.raw"
    raw.write_bytes((b"own disk" * 1000).ljust(1 << 20, b"\0"))
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, tmp_path / "own.qcow2"], check=True)
    assert (
        "import of own done" in room.do("ann", "image", "import", str(tmp_path / "own.qcow2"), "--project", "blue").out
    )

    for form in ("raw", "qcow2", "zstd"):
        told = room.do("ann", "image", "export", "own", str(tmp_path / f"back.{form}"), "--format", form)
        assert "proven by SHA-256" in told.out
        assert sha256((tmp_path / f"back.{form}").read_bytes()).hexdigest() in told.out
    assert (tmp_path / "back.raw").read_bytes() == raw.read_bytes()
    subprocess.run(["qemu-img", "compare", raw, tmp_path / "back.qcow2"], check=True, capture_output=True)
    unpacked = subprocess.run(["zstd", "-qdc", tmp_path / "back.zstd"], check=True, capture_output=True).stdout
    assert unpacked == raw.read_bytes()
    room.do("ann", "image", "import", str(tmp_path / "back.zstd"), "--project", "blue", "--name", "again")

    again = room.run("ann", "image", "export", "own", str(tmp_path / "back.raw"))
    assert (again.code, "is there already" in again.err) == (1, True)
    hidden = room.run("bob", "image", "export", "own", str(tmp_path / "stolen"))
    assert (hidden.code, (tmp_path / "stolen").exists()) == (1, False)


def test_no_wait_then_watch(room: Hall) -> None:
    id = room.do("ann", "provision", "--image", "tiny", "--network", "lab", "--no-wait").out.strip()
    assert "done in" in room.do("ann", "operation", "watch", id[-8:]).out


def test_bad_input_gets_a_clear_answer(room: Hall) -> None:
    told = {
        ("network", "create", "lab"): "lab",
        ("provision", "--image", "nothing", "--network", "lab"): "nothing",
        ("provision", "--image", "tiny", "--network", "nowhere"): "nowhere",
        ("node", "show", "../users"): "users",
        ("disk", "show", "a\nb"): "",
        ("user", "list"): "",
        ("operation", "cancel", "00000000-0000-7000-8000-000000000000"): "",
        ("image", "delete", "tiny", "--yes"): "",
        ("project", "member", "list", "red"): "red",
        ("disk", "create", "x" * 300, "--image", "tiny"): "300",
    }
    for words, about in told.items():
        ran = room.run("ann", *words)
        assert ran.code in (1, 2), ran
        assert ran.err.startswith("error: "), ran
        assert about in ran.err, ran
        assert ran.out == "", ran


def test_a_wrong_bmc_password_fails_with_the_reason(hall: Hall) -> None:
    words = ("node", "enrol", "m1", "--driver", "sim", "--bmc", hall.site.machines[0].bmc_address, "--user", "admin")
    ran = hall.run("admin", *words, "--password-file", "-", typed="wrong")
    assert ran.code == 1
    assert "enrol m1 failed" in ran.err
    assert "fix: " in ran.err


def test_a_logged_out_token_is_dead(room: Hall) -> None:
    token = room.do("ann", "token", "create", "ci", "--ttl", "1h").out.strip()
    assert token not in room.do("ann", "token", "list").out
    room.do("ann", "token", "delete", "ci")
    room.do("ann", "logout")
    ran = room.run("ann", "node", "list")
    assert ran.code == 1
    assert "m2 login" in ran.err
