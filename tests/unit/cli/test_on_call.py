"""What who is on call reads when something went wrong: what is broken, what became of the node, and the way back."""

from typing import Any

import pytest
from tests.unit.cli.desk import Desk, Turn, ago, id_of, node, operation, problem, step

OPERATION = id_of(77)
DEAD = "Switch tor1 does not answer."


def failed_release(**more: object) -> dict[str, object]:
    error = {"code": "unreachable", "message": DEAD, "fix": "Check its cable.", "details": {}}
    return operation("failed", kind="release", error=error, reason=f"shut-ports: {DEAD}", **more)


@pytest.fixture
def desk(desk: Desk) -> Desk:
    """A server at which a release of node-01 failed."""
    desk.answers |= {
        "POST /v1/nodes/node-01/release": operation("pending", kind="release"),
        f"GET /v1/operations/{OPERATION}": failed_release(),
    }
    return desk


def test_a_node_left_in_quarantine_is_not_called_undone(desk: Desk) -> None:
    desk.answers[f"GET /v1/nodes/{id_of(1)}"] = node(state="quarantined")
    ran = desk.m2("node", "release", "node-01")
    assert ran.code == 1
    assert ran.err.splitlines() == [
        f"error: release node-01 failed and left node-01 quarantined after 40.0 s: shut-ports: {DEAD}",
        "fix: Check its cable. An operator removes the cause, then runs `m2 node readmit node-01`.",
    ]


@pytest.mark.parametrize(
    ("direction", "end"), [("do", "failed after 40.0 s"), ("undo", "failed and could not be undone after 40.0 s")]
)
def test_what_was_not_undone_is_not_called_so(desk: Desk, direction: str, end: str) -> None:
    desk.answers[f"GET /v1/nodes/{id_of(1)}"] = node(state="allocated")
    desk.answers[f"GET /v1/operations/{OPERATION}"] = operation(
        "failed",
        kind="detach",
        step="disconnect-port",
        direction=direction,
        reason=f"disconnect-port: {DEAD}",
        error={"code": "unreachable", "message": DEAD, "fix": "Check its cable.", "details": {}},
    )
    assert desk.m2("operation", "watch", OPERATION).err.splitlines() == [
        f"error: detach node-01 {end}: disconnect-port: {DEAD}",
        "fix: Check its cable. Once the switch answers, the port is shut, and then carries again what the node is"
        " still on.",
    ]


def test_what_was_undone_is_called_so(desk: Desk) -> None:
    desk.answers[f"GET /v1/nodes/{id_of(1)}"] = node(state="allocated")
    assert "failed and was undone after 40.0 s" in desk.m2("node", "release", "node-01").err
    desk.answers[f"GET /v1/nodes/{id_of(1)}"] = problem(404, "not-found", "There is no such node.")
    assert "failed and was undone after 40.0 s" in desk.m2("node", "release", "node-01").err


@pytest.mark.parametrize(
    ("state", "reason", "way"),
    [
        ("quarantined", DEAD, "an operator removes the cause; then `m2 node readmit node-01`"),
        ("inspected", "no switch port is known for nic0", "m2 node wire node-01"),
        ("maintenance", "new fans", "m2 node maintenance node-01 --end"),
    ],
)
def test_a_node_out_of_use_says_the_way_back(desk: Desk, state: str, reason: str, way: str) -> None:
    desk.answers |= {
        "GET /v1/nodes/node-01": node(state=state, state_reason=reason, state_since=ago(0.2)),
        f"GET /v1/nodes/{id_of(1)}/nics": [],
    }
    ran = desk.m2("node", "show", "node-01")
    assert reason in ran.out
    assert way in ran.out
    assert "just now" in ran.out


def test_a_quarantine_tells_why_what_is_proven_and_the_way_back(desk: Desk) -> None:
    reason = f"release could not prove it clean: shut-ports: {DEAD}"
    steps = [
        step(0, "power-off", 0.0, 1.0, evidence={"power": "off"}),
        step(1, "shut-ports", 1.0, 30.0, error=DEAD),
    ]
    desk.answers |= {
        "GET /v1/nodes/node-01": node(state="quarantined", state_reason=reason, state_since=ago(0.0)),
        "GET /v1/operations": [failed_release()],
        f"GET /v1/operations/{OPERATION}": failed_release(steps=steps),
    }
    out = desk.m2("node", "inspect-quarantine", "node-01").out
    for words in (
        reason,
        "power: off",
        DEAD,
        "Check its cable.",
        "an operator's `m2 node readmit node-01`",
        "m2 node retire node-01",
    ):
        assert words in " ".join(out.split())

    desk.answers["GET /v1/nodes/node-01"] = node(state="free")
    ran = desk.m2("node", "inspect-quarantine", "node-01")
    assert (ran.code, "not quarantined" in ran.err) == (1, True)


def test_a_step_that_waits_gives_its_reason_once(desk: Desk) -> None:
    waits = [operation("waiting", kind="release", reason=reason) for reason in ("still on", "", "still on", "", "")]
    desk.answers[f"GET /v1/operations/{OPERATION}"] = [Turn(look) for look in [*waits, operation(kind="release")]]
    ran = desk.m2("node", "release", "node-01")
    assert ran.out.count("still on") == 1


def test_a_step_given_up_ends_where_the_next_began(desk: Desk) -> None:
    """A cancelled operation's last step never ends by itself; it must not seem to go on for ever."""
    steps = [
        step(0, "connect-port", 0.0, 1.0),
        step(1, "power-on", 1.0, None, error="BMC does not answer.", attempts=2),
        step(2, "power-on", 6.0, 34.0, direction="undo", error="BMC does not answer.", attempts=6),
    ]
    desk.answers[f"GET /v1/operations/{OPERATION}"] = operation("failed", steps=steps)
    ran = desk.m2("operation", "show", OPERATION)
    shown = {line.split("  ")[0]: line for line in ran.out.splitlines()}
    assert "5.0 s" in shown["power-on"]
    assert "…" not in ran.out
    assert "mostly power-on, 34.0 s" in ran.out
    assert "(2 attempts)" in ran.out
    watched = desk.m2("operation", "watch", OPERATION)
    assert "5.0 s  power-on" in watched.out


def test_one_attempt_is_not_counted(desk: Desk) -> None:
    steps = [step(0, "inspect", 0.0, 1.0, error="wrong password")]
    desk.answers[f"GET /v1/operations/{OPERATION}"] = operation("failed", steps=steps)
    ran = desk.m2("operation", "show", OPERATION)
    assert "wrong password" in ran.out
    assert "attempt" not in ran.out


def test_an_operation_without_a_node_says_what_it_is_about(desk: Desk) -> None:
    about: dict[str, Any] = {"node_id": None, "node": None, "kind": "delete-disk", "arguments": {"name": "web"}}
    desk.answers |= {
        "GET /v1/operations": [operation(**about)],
        f"GET /v1/operations/{OPERATION}": operation("failed", reason="The pool is full.", **about),
    }
    assert "delete-disk  web" in desk.m2("operation", "list").out
    shown = desk.m2("operation", "show", "web")
    assert shown.code == 0, shown.err
    assert "web" in shown.out
    assert "delete-disk web failed" in desk.m2("operation", "watch", "web").err


def test_a_bad_token_of_the_environment_is_told_to_be_one(desk: Desk) -> None:
    desk.answers["GET /v1/nodes"] = problem(401, "unauthenticated", "The token is not valid.", "Log in again.")
    assert "M2_TOKEN is set" in desk.m2("node", "list", environment={"M2_TOKEN": "old"}).err
    assert "Log in again." in desk.m2("node", "list", environment={"M2_TOKEN": ""}).err
    desk.answers["POST /v1/login"] = problem(401, "wrong-password", "Wrong.", "Try again.")
    ran = desk.m2("login", "ann", "--password-file", "-", typed="x\n", environment={"M2_TOKEN": "old"})
    assert "Try again." in ran.err


@pytest.mark.parametrize("ttl", ["0s", "31d", "9999d"])
def test_a_token_cannot_live_for_ever(desk: Desk, ttl: str) -> None:
    ran = desk.m2("token", "create", "ci", "--ttl", ttl)
    assert ran.code == 2
    assert f"cannot live {ttl}" in ran.err
    assert "30d" in ran.err
    assert desk.requests == []


def test_moving_a_disk_tells_of_the_node_it_leaves(desk: Desk) -> None:
    disk = {
        "id": id_of(9),
        "name": "web",
        "project_id": id_of(50),
        "project": "blue",
        "state": "ready",
        "image_id": id_of(8),
        "image": "tiny",
        "size_bytes": 1,
        "node_id": id_of(2),
        "node": "node-02",
        "created_at": ago(60),
    }
    desk.answers |= {
        "GET /v1/disks/web": disk,
        "POST /v1/disks/web/move": operation("pending"),
        f"GET /v1/operations/{OPERATION}": operation(),
        "GET /v1/attachments": [],
        "GET /v1/targets": [],
    }
    ran = desk.m2("disk", "move", "web", "--node", "node-01")
    assert ran.code == 0, ran.err
    assert "m2 node release node-02" in ran.err


def test_a_copy_is_told_with_its_bytes_and_rate_and_in_a_log_once_for_each_tenth(desk: Desk) -> None:
    gib = 1 << 30

    def look(done_gib: float) -> dict[str, object]:
        figures = {"done_bytes": int(done_gib * gib), "of_bytes": 10 * gib, "bytes_per_s": 200 << 20}
        return operation("running", steps=[step(0, "seal", 0.0, None, evidence=figures)])

    desk.answers[f"GET /v1/operations/{OPERATION}"] = look(1.5)
    assert "1.5 GiB of 10 GiB, 200 MiB/s" in desk.m2("operation", "show", OPERATION).out
    ended = operation(steps=[step(0, "seal", 0.0, 50.0, evidence={"size_bytes": 10 * gib})])
    looks = [Turn(look(done)) for done in (0, 0.5, 1.1, 1.5, 1.9, 2.0, 8.0)]
    desk.answers[f"GET /v1/operations/{OPERATION}"] = [*looks, Turn(ended)]
    told = [line for line in desk.m2("operation", "watch", OPERATION).out.splitlines() if "seal: " in line]
    assert [line.split()[1] for line in told] == ["512", "1.1", "2", "8"]


def test_a_copy_that_is_begun_anew_is_told_from_its_beginning_and_why(desk: Desk) -> None:
    def look(attempts: int, done_bytes: int, reason: str = "") -> Turn:
        told = {**step(0, "seal", 0.0, None, evidence={"done_bytes": done_bytes, "of_bytes": 10}), "attempts": attempts}
        return Turn({**operation("running", steps=[told]), "step": "seal", "reason": reason})

    again = "its worker ended amid this step"
    looks = [look(1, 8), look(2, 8, again), look(2, 1, again), look(2, 8, again)]
    desk.answers[f"GET /v1/operations/{OPERATION}"] = [*looks, Turn(operation(steps=[step(0, "seal", 0.0, 50.0)]))]
    told = [line.strip() for line in desk.m2("operation", "watch", OPERATION).out.splitlines() if "seal: " in line]
    assert told.count(f"seal: {again}") == 1
    assert [line for line in told if " of " in line][-2:] == ["seal: 1 B of 10 B", "seal: 8 B of 10 B"]
