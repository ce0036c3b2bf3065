"""The live console: what came since the last look, once, and an end when the node is given back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.cli.desk import Desk, problem

from malleable.cli.node_console import fresh


@pytest.mark.parametrize(
    ("before", "latest", "news"),
    [
        ("", "boot", "boot"),
        ("boot", "boot", ""),
        ("boot\nlog", "boot\nlogin:", "in:"),
        ("a\nb\nc", "b\nc\nd", "\nd"),
        ("a\nb\nlo", "b\nlogin:\nok", "gin:\nok"),
        ("a\nb", "firmware", "\nfirmware"),  # it was started again
        ("a\nb", "", ""),
    ],
)
def test_only_what_is_new_is_told(before: str, latest: str, news: str) -> None:
    assert fresh(before, latest) == news


@given(st.lists(st.text("xyz", min_size=1), min_size=1, unique=True), st.data())
def test_nothing_is_lost_or_told_twice_while_windows_overlap(lines: list[str], data: st.DataObject) -> None:
    whole = "\n".join(f"{number} {line}" for number, line in enumerate(lines))
    told, before = "", ""
    for end in sorted(data.draw(st.lists(st.integers(1, len(whole)), min_size=1))):
        latest = whole[:end]
        told, before = told + fresh(before, latest), latest
    assert told == before


def test_the_console_ends_with_the_token_and_waits_when_asked_too_often(desk: Desk) -> None:
    too_many = problem(429, "too-many-calls", "Node node-01 is asked for its console too often.")
    answers = iter([{"text": "boot"}, too_many, {"text": "boot\nlogin:"}, problem(401, "unauthenticated", "It ended.")])
    desk.answers["GET /v1/nodes/node-01/console"] = lambda _: next(answers)
    ran = desk.m2("node", "console", "node-01", "--follow")
    assert (ran.code, ran.out) == (0, "boot\nlogin:\n")
    assert "The console has ended: It ended." in ran.err


def test_a_bmc_that_is_busy_or_silent_for_a_while_does_not_end_it(desk: Desk) -> None:
    trouble = [problem(503, "busy", "BMC is busy."), problem(504, "unreachable", "BMC did not answer.")]
    ended = problem(401, "unauthenticated", "It ended.")
    answers = iter([{"text": "boot"}, *trouble * 10, {"text": "boot\nlogin:"}, *trouble, ended])
    desk.answers["GET /v1/nodes/node-01/console"] = lambda _: next(answers)
    ran = desk.m2("node", "console", "node-01", "--follow")
    assert (ran.code, ran.out) == (0, "boot\nlogin:\n")


def test_a_bmc_that_stays_silent_ends_it_with_the_reason(desk: Desk) -> None:
    first = iter([{"text": "boot"}])
    desk.answers["GET /v1/nodes/node-01/console"] = lambda _: next(first, problem(504, "unreachable", "No answer."))
    ran = desk.m2("node", "console", "node-01", "--follow")
    assert ran.code != 0
    assert "No answer." in ran.err


def test_the_console_is_followed_until_the_node_is_given_back(desk: Desk) -> None:
    looks = iter(["boot", "boot\nlogin:", "boot\nlogin:\x1b[31m"])

    def look(_: object) -> object:
        text = next(looks, None)
        return {"text": text} if text else problem(409, "console-closed", "Node node-01 is releasing.")

    desk.answers["GET /v1/nodes/node-01/console"] = look
    ran = desk.m2("node", "console", "node-01", "--follow")
    assert (ran.code, ran.out) == (0, "boot\nlogin:[31m\n")
    assert "has ended: Node node-01 is releasing." in ran.err
