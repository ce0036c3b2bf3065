"""m2 signer."""

from pathlib import Path

import pytest
from tests.unit.cli.desk import Desk, ago, id_of

KEY = "RWSa4SLiN5e5wi7vVS3E5EQn8TKFAPKgItSDq45tkYw1XQyMlkJWbi0C"
SIGNER = {
    "id": id_of(91),
    "name": "builders",
    "project_id": id_of(50),
    "project": "alice",
    "key": KEY,
    "key_number": "C2B99737E222E19A",
    "created_at": ago(60),
}


@pytest.fixture
def key(tmp_path: Path) -> Path:
    file = tmp_path / "minisign.pub"
    file.write_text(f"untrusted comment: minisign public key C2B99737E222E19A\n{KEY}\n")
    return file


def test_signers_are_added_listed_and_taken_away(desk: Desk, key: Path) -> None:
    desk.answers |= {
        "POST /v1/signers": SIGNER,
        "GET /v1/signers": [SIGNER, {**SIGNER, "id": id_of(92), "name": "vendor", "project": None}],
        "DELETE /v1/signers/builders": None,
    }
    assert "C2B99737E222E19A" in desk.m2("-p", "alice", "signer", "add", "builders", str(key)).out
    assert desk.sent("POST /v1/signers") == {"name": "builders", "project": "alice", "key": key.read_text()}
    listed = desk.m2("signer", "list").out
    assert "alice" in listed
    assert "all (site)" in listed
    assert desk.m2("-p", "alice", "signer", "delete", "builders", "--yes").code == 0


def test_it_is_said_who_shall_trust_them(desk: Desk, key: Path) -> None:
    assert "--site" in desk.m2("signer", "add", "builders", str(key)).err
    desk.answers["POST /v1/signers"] = {**SIGNER, "project": None}
    assert desk.m2("-p", "alice", "signer", "add", "builders", str(key), "--site").code == 0
    assert "project" not in desk.sent("POST /v1/signers")


def test_a_secret_key_stays_here(desk: Desk, key: Path) -> None:
    key.write_text("untrusted comment: minisign encrypted secret key\nRWQAAEIy\n")
    ran = desk.m2("-p", "alice", "signer", "add", "builders", str(key))
    assert (ran.code, desk.requests) == (2, [])
    assert "secret" in ran.err


@pytest.mark.parametrize(("words", "is_needed"), [((), True), (("--off",), False)])
def test_a_project_needs_signatures_or_not(desk: Desk, words: tuple[str, ...], is_needed: bool) -> None:
    desk.answers["PUT /v1/projects/alice/signing"] = {
        "id": id_of(50),
        "name": "alice",
        "needs_signed_images": is_needed,
        "created_at": ago(60),
    }
    assert desk.m2("signer", "require", "alice", *words).code == 0
    assert desk.sent("PUT /v1/projects/alice/signing") == {"needs_signed_images": is_needed}
