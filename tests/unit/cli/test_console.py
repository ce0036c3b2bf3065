"""The live console: what came since the last look, once, and an end when the node is given back."""

import json
import os
import pty
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.cli.desk import Desk, problem

from malleable.cli.node_attach import terminal_keys
from malleable.cli.node_console import fresh
from malleable.domain.access import INPUT_MAX_CHARS


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


class Terminal:
    """What is typed at the terminal, look by look; one that is not there when there is nothing."""

    def __init__(self) -> None:
        self.typed: list[str] = []

    @contextmanager
    def keys(self) -> Iterator[Callable[[float], str | None]]:
        yield lambda _within_s: self.typed.pop(0) if self.typed else None


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    terminal = Terminal()
    monkeypatch.setattr("malleable.cli.node.terminal_keys", terminal.keys)
    return terminal


def test_keys_are_passed_on_as_they_are_until_the_escape_key(desk: Desk, terminal: Terminal) -> None:
    typed: list[str] = []

    def take(request: httpx.Request) -> object:
        typed.append(json.loads(request.content)["text"])
        return problem(429, "too-many-calls", "Typed at too often.") if len(typed) == 2 else {"bytes": 1}

    desk.answers["POST /v1/nodes/node-01/console"] = take
    desk.answers["GET /v1/nodes/node-01/console"] = lambda _: {"text": "\n".join(["login:", *typed])}
    desk.answers["DELETE /v1/nodes/node-01/console"] = ""
    pasted = "x" * (INPUT_MAX_CHARS + 1)
    terminal.typed = ["", "root\r\x03", pasted, "", "!\x1drest"]
    ran = desk.m2("node", "console", "node-01", "--attach")
    assert ran.code == 0, ran.err
    assert typed == ["", *["root\r\x03"] * 2, pasted[:-1], "x", "!"], "what was refused is typed again"
    assert ran.out.startswith("login:")
    assert desk.requests[-1].method == "DELETE"


def test_a_console_that_somebody_else_types_at_is_an_error_at_once(desk: Desk, terminal: Terminal) -> None:
    desk.answers["GET /v1/nodes/node-01/console"] = {"text": "login:"}
    desk.answers["POST /v1/nodes/node-01/console"] = problem(409, "console-taken", "ann types at the console.")
    ran = desk.m2("node", "console", "node-01", "--attach")
    assert ran.code != 0
    assert "ann types at the console." in ran.err


def test_a_release_ends_the_typing(desk: Desk, terminal: Terminal) -> None:
    answers = iter([{"bytes": 0}, problem(409, "console-closed", "Node node-01 is releasing.")])
    desk.answers["GET /v1/nodes/node-01/console"] = {"text": "login:"}
    desk.answers["POST /v1/nodes/node-01/console"] = lambda _: next(answers)
    terminal.typed = ["x"]
    ran = desk.m2("node", "console", "node-01", "--attach")
    assert (ran.code, "has ended: Node node-01 is releasing." in ran.err) == (0, True)


def test_without_a_terminal_nothing_is_typed(desk: Desk) -> None:
    desk.answers["GET /v1/nodes/node-01/console"] = {"text": "login:"}
    ran = desk.m2("node", "console", "node-01", "--attach")
    assert ran.code == 2
    assert "no terminal" in ran.err


def test_a_terminal_is_raw_while_its_keys_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    keyboard, screen = pty.openpty()
    with os.fdopen(screen, "r") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        before = termios.tcgetattr(screen)
        with terminal_keys() as keys:
            os.write(keyboard, b"\x03\r")
            assert keys(10.0) == "\x03\r", "neither obeyed nor changed"
            assert keys(0.0) == ""
        assert termios.tcgetattr(screen) == before
    os.close(keyboard)
