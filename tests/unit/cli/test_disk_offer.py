"""m2 disk give, accept, keep and offers."""

import pytest
from tests.unit.cli.desk import Desk, ago, id_of


def offer(number: int, disk: str = "web", owner: str = "alice") -> dict[str, object]:
    return {
        "id": id_of(number),
        "disk_id": id_of(number + 100),
        "disk": disk,
        "image": None,
        "size_bytes": 1 << 30,
        "owner_id": id_of(50),
        "owner": owner,
        "receiver_id": id_of(51),
        "receiver": "bob",
        "created_at": ago(60),
    }


def taken(name: str) -> dict[str, object]:
    return {
        "id": id_of(181),
        "name": name,
        "project_id": id_of(51),
        "project": "bob",
        "image_id": None,
        "image": None,
        "state": "ready",
        "size_bytes": 1 << 30,
        "node_id": None,
        "node": None,
        "created_at": ago(60),
    }


def of(*offers: dict[str, object]) -> dict[str, object]:
    return {"items": list(offers), "next": None}


def test_a_disk_is_offered_listed_and_taken_by_another_name(desk: Desk) -> None:
    desk.answers |= {
        "POST /v1/disks/web/offer": offer(81),
        "GET /v1/disk-offers": of(offer(81)),
        f"POST /v1/disk-offers/{id_of(81)}/accept": taken("theirs"),
    }
    assert "offered to project bob" in desk.m2("-p", "alice", "disk", "give", "web", "--to", "bob").out
    assert desk.sent("POST /v1/disks/web/offer") == {"receiver": "bob", "with_snapshots": False}
    desk.answers["POST /v1/disks/web/offer"] = offer(81) | {"snapshots": 2, "snapshot_bytes": 2 << 30}
    beside = desk.m2("-p", "alice", "disk", "give", "web", "--to", "bob", "--with-snapshots")
    assert "Disk web with 2 snapshots (2 GiB) is offered" in beside.out
    assert desk.sent("POST /v1/disks/web/offer")["with_snapshots"] is True
    listed = desk.m2("disk", "offers").out
    assert "alice" in listed
    assert "web" in listed
    assert (
        "Disk theirs of project alice is project bob's now"
        in desk.m2("-p", "bob", "disk", "accept", "web", "--name", "theirs").out
    )
    assert desk.sent(f"POST /v1/disk-offers/{id_of(81)}/accept") == {"name": "theirs", "unsigned": False}
    assert desk.m2("-p", "bob", "disk", "accept", "web", "--unsigned").code == 0
    assert desk.sent(f"POST /v1/disk-offers/{id_of(81)}/accept") == {"unsigned": True}


def test_of_several_the_one_that_is_meant_is_kept(desk: Desk) -> None:
    desk.answers |= {
        "GET /v1/disk-offers": of(offer(81), offer(82, owner="carol")),
        f"DELETE /v1/disk-offers/{id_of(82)}": None,
    }
    assert "Give the id" in desk.m2("disk", "keep", "web").err
    assert "stays project carol's" in desk.m2("disk", "keep", str(id_of(82))).out


@pytest.mark.parametrize("verb", ["accept", "keep"])
def test_what_nobody_offered_is_told(desk: Desk, verb: str) -> None:
    desk.answers["GET /v1/disk-offers"] = of(offer(81))
    ran = desk.m2("disk", verb, "other")
    assert ran.code == 1
    assert "not offered" in ran.err
