"""m2 project quota: what is set, what is shown."""

import pytest
from tests.unit.cli.desk import Desk, ago, id_of

PATH = "/v1/projects/blue/quota"
PROJECT = {"id": id_of(50), "name": "blue", "created_at": ago(7200)}
QUOTA = {
    "project_id": id_of(50),
    "project": "blue",
    "limits": {
        "nodes": 4,
        "networks": None,
        "disks": 10,
        "disk_bytes": 2 << 40,
        "snapshots": 0,
        "images": None,
        "image_bytes": 3 << 30,
        "taken_bytes": 5 << 30,
        "attachments": None,
    },
    "in_use": {
        "nodes": 3,
        "networks": 2,
        "disks": 5,
        "disk_bytes": 40 << 30,
        "snapshots": 0,
        "images": 1,
        "image_bytes": 1 << 30,
        "taken_bytes": 6 << 30,
        "attachments": 6,
    },
}
SHOWN = [
    "nodes 3 of 4",
    "networks 2 (no limit)",
    "attachments 6 (no limit)",
    "disks 5 of 10",
    "disk size 40 GiB of 2 TiB",
    "snapshots 0 of 0",
]


def lines(out: str) -> list[str]:
    return [" ".join(line.split()) for line in out.splitlines()]


def test_what_a_project_has_stands_beside_what_it_may_have(desk: Desk) -> None:
    desk.answers |= {f"GET {PATH}": QUOTA, "GET /v1/projects/blue": PROJECT}
    assert lines(desk.m2("project", "quota", "show", "blue").out) == [
        *SHOWN,
        "images 1 (no limit)",
        "image size 1 GiB of 3 GiB",
        "taken size 6 GiB of 5 GiB",
    ]
    shown = desk.m2("project", "show", "blue")
    assert lines(shown.out)[:2] == ["name blue", "age 2 h"]
    assert lines(shown.out)[-9:-3] == SHOWN
    assert desk.m2("project", "show", "blue", "--json").json == {**PROJECT, "quota": QUOTA} | {
        "needs_signed_images": False,
        "pool": "",
        "created_at": "2026-11-20T10:00:00Z",
    }
    desk.answers["GET /v1/projects/blue"] = {**PROJECT, "pool": "blue-pool"}
    assert "pool blue-pool" in lines(desk.m2("project", "show", "blue").out)
    assert desk.m2("project", "quota", "show", "blue", "--json").json == QUOTA


def test_only_what_is_named_is_set_and_none_lifts_a_limit(desk: Desk) -> None:
    desk.answers[f"PUT {PATH}"] = QUOTA
    words = ("project", "quota", "set", "blue")
    ran = desk.m2(*words, "--nodes", "4", "--images", "none", "--disk-size", "2T", "--snapshots", "0")
    assert ran.code == 0, ran.err
    assert desk.sent(f"PUT {PATH}") == {"nodes": 4, "images": None, "disk_bytes": 2 << 40, "snapshots": 0}
    assert "nodes 3 of 4" in lines(ran.out)
    assert desk.m2(*words, "--disk-size", "none", "--networks", "7", "--disks", "8", "--image-size", "1G").code == 0
    assert desk.sent(f"PUT {PATH}") == {"disk_bytes": None, "networks": 7, "disks": 8, "image_bytes": 1 << 30}


@pytest.mark.parametrize(
    "options",
    [(), ("--nodes", "many"), ("--nodes", "-1"), ("--nodes", "1.5"), ("--disk-size", "big"), ("--disks", "9" * 20)],
)
def test_what_is_no_limit_is_told_before_anything_is_asked(desk: Desk, options: tuple[str, ...]) -> None:
    ran = desk.m2("project", "quota", "set", "blue", *options)
    assert ran.code != 0
    assert ran.err.startswith(("error:", "Usage:"))
    assert not desk.requests
