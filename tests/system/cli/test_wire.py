"""The client against the real API: lost replies, live streams, TLS, completion."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.system.cli.hall import Hall, open_furnished_hall

from malleable.client import Client
from malleable.domain.errors import Conflict
from malleable.wire.projects import ProjectRequest


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hall]:
    with open_furnished_hall(tmp_path_factory.mktemp("hall"), nodes=2) as hall:
        yield hall


class LosesReplies(httpx.BaseTransport):
    """A network that delivers every request and loses the replies to the first few changes."""

    def __init__(self, count: int) -> None:
        self._wrapped, self._left = httpx.HTTPTransport(), count
        self.lost = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = self._wrapped.handle_request(request)
        if request.method == "POST" and self._left:
            self._left -= 1
            self.lost += 1
            response.read()
            raise httpx.ReadError("the reply was lost")
        return response

    def close(self) -> None:
        self._wrapped.close()


def test_a_change_whose_reply_was_lost_is_done_once(furnished: Hall) -> None:
    network = LosesReplies(1)
    with Client(furnished.url, furnished.token, transport=network, pause=lambda _: None) as client:
        made = client.project_create(ProjectRequest(name="once"))
        assert network.lost == 1
        assert [p.id for p in client.project_list() if p.name == "once"] == [made.id]
        with pytest.raises(Conflict):
            client.project_create(ProjectRequest(name="once"))


def test_the_stream_begins_after_the_event_named(furnished: Hall) -> None:
    with Client(furnished.url, furnished.token) as client:
        first, second, *_ = client.event_list()
        with client.event_stream(after=first.id) as stream:
            # It begins a little earlier, for events that committed late: whoever listens drops those it has.
            assert next(event for event in stream if event.id > first.id) == second


def test_pages_join_without_gap_or_repeat(furnished: Hall) -> None:
    with Client(furnished.url, furnished.token) as client:
        whole = [event.id for event in client.event_list()]
        paged = [event.id for event in client.items("/v1/events", type(next(client.event_list())), {"limit": 3})]
    assert paged == whole


def test_the_shell_completes_names_from_the_server(furnished: Hall, tmp_path: Path) -> None:
    assert furnished.token is not None
    environment = {
        **os.environ,
        "M2_URL": furnished.url,
        "M2_TOKEN": furnished.token.reveal(),
        "XDG_CONFIG_HOME": str(tmp_path),
        "_M2_COMPLETE": "complete_zsh",
        "_TYPER_COMPLETE_ARGS": "m2 node show n0",
    }
    program = Path(sys.executable).with_name("m2")
    ran = subprocess.run([program], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert "n001" in ran.stdout
    assert "n002" in ran.stdout
