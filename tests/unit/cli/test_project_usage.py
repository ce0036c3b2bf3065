"""m2 project usage."""

import json

from tests.unit.cli.desk import Desk, ago, id_of


def record(number: int, taken_bytes: int | None) -> dict[str, object]:
    return {
        "id": id_of(number),
        "at": ago(3600 * number),
        "disks": 3,
        "snapshots": 2,
        "images": 1,
        "disk_bytes": 3 << 30,
        "image_bytes": 1 << 30,
        "taken_bytes": taken_bytes,
    }


def test_usage_is_a_table_and_json(desk: Desk) -> None:
    desk.answers["GET /v1/projects/alice/usage"] = {"items": [record(2, None), record(1, 1 << 20)], "next": None}
    shown = desk.m2("project", "usage", "alice", "--since", "30d").out
    assert "?" in shown
    assert ":00 " in shown, "an hour, for the record is of some time in it"
    assert "1 MiB" in shown
    told = json.loads(desk.m2("--json", "project", "usage", "alice").out)
    assert [one["taken_bytes"] for one in told] == [None, 1 << 20]


def test_no_record_yet_is_told(desk: Desk) -> None:
    desk.answers["GET /v1/projects/alice/usage"] = {"items": [], "next": None}
    ran = desk.m2("project", "usage", "alice")
    assert "one is made every hour" in ran.out + ran.err
