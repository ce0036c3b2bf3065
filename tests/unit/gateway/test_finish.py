"""The hook that reports the end of a first boot, run as a node runs it."""

import http.server
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from malleable.domain.hooks import finish
from malleable.domain.secrets import Secret

GATEWAY = "127.0.0.1"


class Desk(http.server.HTTPServer):
    """A gateway's port; it answers as rehearsed, and is not there before ``open``."""

    answers: list[int]
    heard: list[tuple[str, bytes]]

    def __init__(self) -> None:
        super().__init__((GATEWAY, 0), Answer, bind_and_activate=False)
        self.server_bind()
        self.answers, self.heard = [], []

    def open(self) -> None:
        self.server_activate()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


class Answer(http.server.BaseHTTPRequestHandler):
    server: Desk

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.heard.append((self.path, body))
        self.send_response(self.server.answers.pop(0))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def desk() -> Iterator[Desk]:
    with Desk() as made:
        yield made
        made.shutdown()


@pytest.fixture(params=["curl", "busybox"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Programs of a system that has one of the two."""
    for program in ("sh", "tail", "tr", "sleep", "cat", request.param):
        found = shutil.which(program)
        assert found is not None
        (tmp_path / program).symlink_to(found)
    return str(tmp_path)


def start(desk: Desk, path: str, log: Path) -> subprocess.Popen[bytes]:
    script = finish(f"{GATEWAY}:{desk.server_port}", Secret("once")).replace("sleep 5", "sleep 0.05")
    return subprocess.Popen(["/bin/sh", "-c", script, "finish", "3", str(log)], env={**os.environ, "PATH": path})


@pytest.mark.parametrize(("answers", "status"), [([503, 200], 0), ([503, 409], 0), ([403], 1)])
def test_a_report_is_repeated_until_it_was_taken(
    desk: Desk, path: str, tmp_path: Path, answers: list[int], status: int
) -> None:
    desk.answers = list(answers)
    (tmp_path / "log").write_text("the\nend")
    reporting = start(desk, path, tmp_path / "log")  # nobody listens yet
    desk.open()
    assert reporting.wait(30) == status
    assert desk.heard == [("/metadata/finish?status=3", b"the\nend")] * len(answers)
