"""m2 node scrub, and what proves a step."""

import json
from pathlib import Path
from typing import Any

from tests.unit.cli.desk import Desk, node, operation, step
from tests.unit.cli.test_on_call import OPERATION


def line(scrub: str, demand: str, *, own: str | None = None, is_able: bool = True) -> dict[str, Any]:
    return {"scrub": scrub, "demand": demand, "own": own, "site": "skip", "is_able": is_able}


POLICY = {
    "items": [
        line("accounts", "best-effort", is_able=False),
        line("password", "skip"),
        line("bios", "best-effort"),
        line("tpm", "required", own="required"),
        line("disks", "required", is_able=False),
    ]
}


def test_a_policy_says_what_a_release_will_do(desk: Desk) -> None:
    desk.answers["GET /v1/nodes/node-01/scrubs"] = POLICY
    shown = {row.split()[0]: " ".join(row.split()) for row in desk.m2("node", "scrub", "node-01").out.splitlines()}
    assert shown["accounts"] == "accounts best-effort site cannot left as it is: it cannot be done"
    assert shown["password"] == "password skip site can left as it is"
    assert shown["bios"] == "bios best-effort site can done; a failure is an event"
    assert shown["tpm"] == "tpm required node can done, or the node is quarantined"
    assert shown["disks"] == "disks required site cannot quarantines the node"


def test_only_what_is_named_is_changed(desk: Desk) -> None:
    desk.answers["PUT /v1/nodes/node-01/scrubs"] = POLICY
    ran = desk.m2("node", "scrub", "node-01", "--tpm", "required", "--bios", "site", "--json")
    assert ran.code == 0
    assert json.loads(desk.requests[-1].content) == {"tpm": "required", "bios": None}


def test_proofs_are_shown_when_they_are_asked_for(desk: Desk) -> None:
    steps = [step(0, "check-accounts", 0.0, 1.0, evidence={"accounts": ["admin", "root"], "unknown": []})]
    desk.answers[f"GET /v1/operations/{OPERATION}"] = operation("succeeded", kind="release", steps=steps)
    assert "admin" not in desk.m2("operation", "show", OPERATION).out
    shown = desk.m2("operation", "show", OPERATION, "--proof").out
    assert "release check-accounts accounts: admin, root; unknown: none" in " ".join(shown.split())


def test_a_password_is_read_from_a_file_and_never_from_the_command_line(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret\n")
    desk.answers["PUT /v1/nodes/node-01/credentials"] = node()
    ran = desk.m2("node", "credentials", "node-01", "--password-file", str(tmp_path / "password"))
    assert (ran.code, ran.out.strip()) == (0, "The BMC of node-01 takes these credentials.")
    sent = {"username": None, "password": "s3cret", "address": None, "system": None}
    assert json.loads(desk.requests[-1].content) == sent
    assert "s3cret" not in ran.out + ran.err
