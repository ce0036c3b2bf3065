"""A server made of canned answers, and the command line in front of it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import httpx
from typer.testing import CliRunner

from malleable.cli.main import app
from malleable.cli.session import Surroundings

NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
URL = "http://127.0.0.1:8642"

Answer = object  #: JSON, or a function of the request


def id_of(number: int) -> str:
    """Return the same id for the same number."""
    return str(UUID(int=(0x0198 << 112) | (7 << 76) | (2 << 62) | number))


def ago(seconds: float) -> str:
    return (NOW - timedelta(seconds=seconds)).isoformat()


@dataclass
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> object:
        return json.loads(self.out)


@dataclass
class Desk:
    """Answer by "METHOD /path"; lists of answers are given in turn, the last one for ever."""

    config: Path
    answers: dict[str, Answer] = field(default_factory=dict)
    requests: list[httpx.Request] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        request.read()
        key = f"{request.method} {request.url.path}"
        if key not in self.answers:
            return problem(404, "not-found", f"There is no {key}.")
        answer = self.answers[key]
        if isinstance(answer, list) and key.startswith("GET") and answer and isinstance(answer[0], Turn):
            answer = answer.pop(0).body if len(answer) > 1 else answer[0].body
        if callable(answer):
            answer = answer(request)
        if isinstance(answer, httpx.Response):
            return answer
        if isinstance(answer, list):
            answer = {"items": answer, "next": None}
        return httpx.Response(204) if answer is None else httpx.Response(200, json=answer)

    def m2(self, *words: str, typed: str | None = None, environment: Mapping[str, str] = {}) -> Ran:
        """Run ``m2`` with these words."""
        surroundings = Surroundings(
            transport=httpx.MockTransport(self), config=lambda: self.config, now=lambda: NOW, pause=lambda _: None
        )
        result = CliRunner().invoke(app, words, obj=surroundings, input=typed, env=dict(environment))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ran(code=result.exit_code, out=result.stdout, err=result.stderr)

    def sent(self, key: str) -> dict[str, object]:
        """Return the body of the last request of this kind."""
        body = [r.content for r in self.requests if f"{r.method} {r.url.path}" == key][-1]
        sent = json.loads(body)
        assert isinstance(sent, dict)
        return sent


@dataclass
class Turn:
    """One of several answers that are given in turn."""

    body: object


Handler = Callable[[httpx.Request], object]


def problem(status: int, code: str, detail: str, fix: str = "") -> httpx.Response:
    body = {"title": "No", "status": status, "detail": detail, "code": code, "fix": fix}
    return httpx.Response(status, json=body, headers={"Content-Type": "application/problem+json"})


def node(number: int = 1, **more: object) -> dict[str, object]:
    return {
        "id": id_of(number),
        "name": f"node-{number:02}",
        "state": "free",
        "state_reason": "",
        "state_since": ago(3600),
        "project_id": None,
        "project": None,
        "boot": "none",
        "boot_device": "network",
        "power": "off",
        "power_seen_at": ago(12),
        "firmware": "uefi",
        "system_uuid": "",
        "vendor": "Acme",
        "model": "R7",
        "serial": "S1",
        "cpu_count": 32,
        "memory_mib": 131072,
        "created_at": ago(86400 * 9),
        "bmc": None,
        **more,
    }


def step(ordinal: int, name: str, began: float, took: float | None, **more: object) -> dict[str, object]:
    """Make a timeline's line: began and took in seconds after the operation's creation, a minute ago."""
    return {
        "ordinal": ordinal,
        "name": name,
        "direction": "do",
        "attempts": 1,
        "started_at": ago(60 - began),
        "finished_at": None if took is None else ago(60 - began - took),
        "evidence": {},
        "error": "",
        **more,
    }


def operation(state: str = "succeeded", **more: object) -> dict[str, object]:
    ended = state in ("succeeded", "failed", "cancelled")
    return {
        "id": id_of(77),
        "kind": "provision",
        "node_id": id_of(1),
        "node": "node-01",
        "project_id": id_of(50),
        "project": "blue",
        "actor_id": None,
        "arguments": {},
        "state": state,
        "direction": "do",
        "step": "await-boot",
        "attempt": 1,
        "is_cancel_requested": False,
        "reason": "",
        "error": None,
        "result": {},
        "next_due_at": ago(0),
        "step_deadline_at": None,
        "created_at": ago(60),
        "started_at": ago(60),
        "finished_at": ago(20) if ended else None,
        "steps": [],
        **more,
    }


STEPS = [
    step(0, "clone-disk", 0.1, 0.03),
    step(1, "power-off", 0.2, 2.1),
    step(2, "set-ports", 2.4, 0.4, attempts=2, error="the switch was busy"),
    step(3, "power-on", 3.0, 4.0),
    step(4, "await-boot", 7.0, 33.0, attempts=60),
]
