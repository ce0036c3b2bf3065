"""What m2 and m2d say of a command line that makes no sense: what every error looks like, and exit code 2."""

import json
from pathlib import Path

import pytest
from tests.unit.cli.desk import Desk
from typer.testing import CliRunner

from malleable.wiring.main import app as m2d


@pytest.mark.parametrize(
    ("words", "said", "command"),
    [
        (["nod"], "No such command 'nod'. Did you mean 'node'?", "m2"),
        (["node", "show"], "Missing argument 'NODE'.", "m2 node show"),
        (["node", "list", "--nope"], "No such option: --nope (Possible options: --name).", "m2 node list"),
        (["event", "list", "a\x1b[31m"], "Got unexpected extra argument(s) (a\\x1b[31m).", "m2 event list"),
    ],
)
def test_one_line_what_and_one_what_to_do(desk: Desk, words: list[str], said: str, command: str) -> None:
    ran = desk.m2(*words)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.splitlines() == [f"error: {said}", f"fix: `{command} --help` says what it takes."]


def test_a_value_that_makes_no_sense_is_told_with_those_that_do(desk: Desk) -> None:
    ran = desk.m2("node", "list", "--state", "nope")
    assert ran.code == 2
    assert ran.err.startswith("error: Invalid value for '--state': 'nope' is not one of 'enrolled', ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["disk", "create", "web", "--image", "debian-12", "--size", "0"], "size: Input should be greater than"),
        (["image", "import", "{file}", "--golden", "--sha256", "xyz"], "sha256: It is not of the form ^[0-9a-f]{64}$."),
    ],
)
def test_a_value_that_cannot_be_sent_is_told_with_what_to_do(
    desk: Desk, tmp_path: Path, words: list[str], said: str
) -> None:
    (tmp_path / "disk.raw").write_bytes(bytes(512))
    ran = desk.m2(*(word.replace("{file}", str(tmp_path / "disk.raw")) for word in words))
    assert ran.code == 2
    assert f"error: {said}" in ran.err
    assert "fix: " in ran.err


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["project", "member", "set", "lab", "ann", "--role", "admin"], "'member', 'reader'"),
        (["user", "create", "ann", "--site-role", "member"], "'admin', 'operator', 'gateway'"),
    ],
)
def test_no_role_is_offered_that_is_refused_then(desk: Desk, words: list[str], offered: str) -> None:
    ran = desk.m2(*words)
    assert ran.code == 2
    assert f" is not one of {offered}." in ran.err


def test_programs_get_json(desk: Desk) -> None:
    ran = desk.m2("node", "show", "--json")
    assert ran.code == 2
    assert json.loads(ran.err)["code"] == "usage"


def test_no_words_show_the_help_alone(desk: Desk) -> None:
    ran = desk.m2("node")
    assert ran.code == 2
    assert "Commands" in ran.out + ran.err
    assert "error:" not in ran.err


def test_m2d_tells_it_the_same_way() -> None:
    ran = CliRunner().invoke(m2d, ["demo", "--nodes", "1"], prog_name="m2d")
    assert ran.exit_code == 2
    assert ran.stderr.splitlines() == [
        "error: Invalid value for '--nodes': Input should be greater than or equal to 2.",
        "fix: `m2d demo --help` says what it takes.",
    ]
