"""m2 pool: what is told, what is asked for, and when it fails."""

import json

from tests.unit.cli.desk import Desk, ago, id_of, operation

AUDIT, COLLECT = "GET /v1/pool/audit", "POST /v1/pool/collect"
STOCK = {"in_pool": 3, "in_database": 3}
POOL = {
    "total_bytes": 64 << 30,
    "free_bytes": 2 << 30,
    "reserve_bytes": 1 << 30,
    "is_full": False,
    "images": STOCK,
    "disks": {"in_pool": 5, "in_database": 3},
    "snapshots": STOCK,
}
ORPHAN: dict[str, object] = {
    "kind": "orphan",
    "noun": "disk",
    "id": id_of(1),
    "name": "",
    "project": None,
    "network": None,
    "made_at": ago(7200),
    "reason": "Nobody knows it.",
    "remedy": "remove",
}
LOST: dict[str, object] = {
    **ORPHAN,
    "kind": "lost",
    "id": id_of(2),
    "name": "root",
    "project": "blue",
    "remedy": "tell",
}


def audit(*differences: dict[str, object], **more: object) -> dict[str, object]:
    kinds = [difference["kind"] for difference in differences]
    counts = {"lost": kinds.count("lost"), "orphans": kinds.count("orphan"), "removable": kinds.count("orphan")}
    return {"at": ago(0), **counts, "differences": differences, "unseen": [], **more}


def test_show_tells_how_full_it_is_and_what_does_not_add_up(desk: Desk) -> None:
    desk.answers["GET /v1/pool"] = POOL
    ran = desk.m2("pool", "show")
    assert ran.code == 0
    for told in ("64 GiB", "2 GiB", "accepted", "5 (3 in the database; `m2 pool audit` tells why)"):
        assert told in ran.out
    desk.answers["GET /v1/pool"] = {**POOL, "is_full": True}
    assert "refused: less than the reserve is free" in desk.m2("pool", "show").out
    assert desk.m2("pool", "show", "--json").json == {**POOL, "is_full": True}


def test_audit_is_content_with_orphans_and_fails_for_what_is_lost(desk: Desk) -> None:
    desk.answers[AUDIT] = audit(ORPHAN)
    ran = desk.m2("pool", "audit", "--older-than", "30m")
    assert ran.code == 0
    assert id_of(1) in ran.out
    assert "removes it" in ran.out
    assert desk.requests[-1].url.params["older_than_s"] == "1800"
    desk.answers[AUDIT] = audit(LOST, ORPHAN)
    for words in (("pool", "audit"), ("pool", "audit", "--json")):
        ran = desk.m2(*words)
        assert ran.code == 1
        assert "1 lost" in ran.err
    assert json.loads(ran.out)["differences"][0]["name"] == "root"


def test_audit_says_when_all_is_well_and_only_then(desk: Desk) -> None:
    well = "hold what the database says, and nothing else"
    desk.answers[AUDIT] = audit()
    assert well in desk.m2("pool", "audit").out
    desk.answers[AUDIT] = audit(unseen=[{"place": "pool", "reason": "Ceph does not answer."}])
    ran = desk.m2("pool", "audit")
    assert well not in ran.out
    assert "Nobody could look at pool: Ceph does not answer." in ran.err
    desk.answers[AUDIT] = {**audit(ORPHAN), "orphans": 5000}
    assert "4999 more are not shown" in desk.m2("pool", "audit").err


def test_collect_does_nothing_without_yes(desk: Desk) -> None:
    desk.answers[AUDIT] = audit(LOST, ORPHAN)
    ran = desk.m2("pool", "collect")
    assert ran.code == 0
    assert "`m2 pool collect --yes` does it" in ran.err
    assert [request.method for request in desk.requests] == ["GET"]


def test_collect_says_what_went(desk: Desk) -> None:
    ended = operation(
        kind="collect-pool", node_id=None, node=None, result={"disks": 2, "targets": 0}, arguments={"networks": ["x"]}
    )
    desk.answers[COLLECT] = desk.answers[f"GET /v1/operations/{id_of(77)}"] = ended
    ran = desk.m2("pool", "collect", "--yes", "--older-than", "7d")
    assert ran.code == 0, ran.err
    assert "Removed: 2 disks. Targets that were lost are being restored." in ran.out
    assert desk.sent(COLLECT) == {"older_than_s": 604800}
    desk.answers[f"GET /v1/operations/{id_of(77)}"] = {**ended, "result": {}, "arguments": {"networks": []}}
    assert "Removed: nothing.\n" in desk.m2("pool", "collect", "--yes").out


def test_too_short_a_grace_is_told_before_anything_is_sent(desk: Desk) -> None:
    ran = desk.m2("pool", "collect", "--yes", "--older-than", "5s")
    assert ran.code == 2
    assert desk.requests == []
