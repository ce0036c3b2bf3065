"""What is sent again and what is not, and every failure as an error of the domain."""

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import httpx
import pytest

from malleable.client import Client
from malleable.client.problems import UNEXPLAINED
from malleable.domain.errors import Conflict, Exhausted, Invalid, Malformed, MalleableError, NotFound, Unavailable
from malleable.domain.secrets import Secret
from malleable.wire.gateway import ReportsRequest
from malleable.wire.networks import NetworkRequest
from malleable.wire.projects import ProjectRequest
from malleable.wire.users import LoginRequest

PROJECT = {"id": "01980000-0000-7000-8000-000000000001", "name": "blue", "created_at": "2026-01-02T03:04:05Z"}
Answer = Callable[[httpx.Request], httpx.Response]


class Server:
    """Answer requests in turn; an exception among the answers breaks the connection."""

    def __init__(self, *answers: httpx.Response | httpx.TransportError) -> None:
        self._answers = iter(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = next(self._answers)
        if isinstance(answer, httpx.TransportError):
            raise answer
        return answer

    def client(self, token: Secret | None = None) -> Client:
        return Client("http://test", token, transport=httpx.MockTransport(self), pause=lambda _: None)


def problem(status: int, code: str, **more: object) -> httpx.Response:
    body = {"title": "No", "status": status, "detail": "It is taken.", "code": code, "fix": "Choose.", **more}
    return httpx.Response(status, json=body, headers={"Content-Type": "application/problem+json"})


def test_a_read_is_repeated_when_the_connection_breaks() -> None:
    server = Server(httpx.ReadError("cut"), httpx.ConnectError("no"), httpx.Response(200, json=PROJECT))
    assert server.client().project_get("blue").name == "blue"
    assert len(server.requests) == 3


def test_a_read_gives_up_after_three_tries() -> None:
    server = Server(*[httpx.ConnectError("no")] * 4)
    with pytest.raises(Unavailable, match="Nothing answers at http://test") as failed:
        server.client().project_get("blue")
    assert failed.value.code == "no-server"
    assert "m2d serve" in failed.value.fix
    assert len(server.requests) == 3


def test_a_change_is_repeated_once_with_its_key_when_the_reply_is_lost() -> None:
    server = Server(httpx.ReadError("cut"), httpx.Response(201, json=PROJECT))
    server.client().project_create(ProjectRequest(name="blue"))
    first, second = server.requests
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]
    assert first.content == second.content


def test_two_changes_have_two_keys() -> None:
    server = Server(httpx.Response(201, json=PROJECT), httpx.Response(201, json=PROJECT))
    client = server.client()
    client.project_create(ProjectRequest(name="blue"))
    client.project_create(ProjectRequest(name="blue"))
    assert len({request.headers["Idempotency-Key"] for request in server.requests}) == 2


def test_a_change_whose_reply_is_lost_twice_says_that_nobody_knows() -> None:
    server = Server(httpx.ReadError("cut"), httpx.ReadTimeout("late"))
    with pytest.raises(Unavailable) as failed:
        server.client().project_create(ProjectRequest(name="blue"))
    assert failed.value.code == "lost-reply"
    assert "before you repeat" in failed.value.fix


def test_an_upload_that_breaks_off_says_that_the_same_again_goes_on() -> None:
    server = Server(httpx.RemoteProtocolError("Server disconnected."))
    with pytest.raises(Unavailable) as failed:
        server.client().image_upload("web", iter([b"disk"]), 4, 0)
    assert failed.value.code == "lost-reply"
    assert failed.value.message.endswith("broke: Server disconnected.")
    assert failed.value.fix.startswith("Do the same again")


def test_a_repeated_change_waits_for_the_first_to_be_answered() -> None:
    busy = problem(409, "idempotency-key-busy")
    server = Server(httpx.ReadTimeout("late"), busy, busy, httpx.Response(201, json=PROJECT))
    assert server.client().project_create(ProjectRequest(name="blue")).name == "blue"
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.project_delete("blue"),
        lambda client: client.fabric_set_vlans("default", ["100-199"]),
        lambda client: client.login(LoginRequest(username="ann", password="long enough")),
    ],
    ids=["DELETE", "PUT", "login"],
)
def test_nothing_else_is_ever_sent_again(call: Callable[[Client], object]) -> None:
    server = Server(httpx.ReadError("cut"), httpx.Response(204))
    with pytest.raises(Unavailable):
        call(server.client())
    assert len(server.requests) == 1


def test_what_a_gateway_tells_is_told_again_without_a_key() -> None:
    server = Server(httpx.ReadError("cut"), httpx.Response(204))
    server.client().gateway_report(ReportsRequest(networks=(), removed=()))
    assert ["Idempotency-Key" in request.headers for request in server.requests] == [False, False]


def test_an_answer_that_is_an_error_is_not_repeated() -> None:
    server = Server(problem(503, "unavailable"))
    with pytest.raises(Unavailable):
        server.client().project_get("blue")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "not-found", NotFound),
        (409, "vlan-taken", Conflict),
        (409, "exhausted", Exhausted),
        (422, "invalid", Invalid),
        (413, "too-large", Invalid),
        (418, "teapot", MalleableError),
    ],
)
def test_problems_become_the_errors_they_were(status: int, code: str, kind: type[MalleableError]) -> None:
    server = Server(problem(status, code, details={"holder": "red"}))
    with pytest.raises(MalleableError) as failed:
        server.client().network_create(NetworkRequest(name="net"))
    assert type(failed.value) is kind
    assert (failed.value.code, failed.value.message, failed.value.fix) == (code, "It is taken.", "Choose.")
    assert failed.value.details == {"holder": "red"}


def test_a_proxy_that_says_nothing_is_still_an_error() -> None:
    with pytest.raises(Unavailable, match="502") as failed:
        Server(httpx.Response(502, text="<html>")).client().project_get("blue")
    assert failed.value.code == UNEXPLAINED


def test_a_redirect_is_not_followed_with_a_token() -> None:
    server = Server(httpx.Response(307, headers={"Location": "http://elsewhere/v1/projects/blue"}))
    with pytest.raises(Unavailable, match="elsewhere"):
        server.client(Secret("s3cret")).project_get("blue")
    assert len(server.requests) == 1


@pytest.mark.parametrize("body", ['{"name": 7}', "not json", "[]"])
def test_an_unreadable_answer_names_the_field_or_body(body: str) -> None:
    with pytest.raises(Malformed, match="ProjectView is not readable"):
        Server(httpx.Response(200, text=body)).client().project_get("blue")


def test_a_list_is_read_page_by_page() -> None:
    pages = [{"items": [PROJECT] * 2, "next": PROJECT["id"]}, {"items": [PROJECT], "next": None}]
    server = Server(*[httpx.Response(200, json=page) for page in pages])
    assert len(list(server.client().project_list())) == 3
    assert server.requests[1].url.params["after"] == PROJECT["id"]


def test_a_list_is_read_no_further_than_it_is_used() -> None:
    server = Server(httpx.Response(200, json={"items": [PROJECT], "next": PROJECT["id"]}))
    assert next(iter(server.client().project_list())).name == "blue"


def test_a_name_cannot_become_a_query() -> None:
    server = Server(problem(404, "not-found"))
    with pytest.raises(NotFound):
        server.client().project_get("a?x=1#%2f b")
    assert server.requests[0].url.raw_path == b"/v1/projects/a%3Fx%3D1%23%252f%20b"


@pytest.mark.parametrize("name", ["", ".", "..", "../users", "a/b"])
def test_a_name_cannot_become_another_path(name: str) -> None:
    server = Server()
    with pytest.raises(NotFound, match="Nothing is called"):
        server.client().project_get(name)
    assert server.requests == []


def test_a_port_may_have_slashes_in_its_name() -> None:
    server = Server(httpx.Response(204))
    server.client().port_delete("tor1", "Ethernet1/7")
    assert server.requests[0].url.raw_path == b"/v1/switches/tor1/ports/Ethernet1/7"


@pytest.mark.parametrize("url", ["", "127.0.0.1:8642", "ftp://x", "http://[", "http://x:port"])
def test_a_url_that_is_none_is_told(url: str) -> None:
    with pytest.raises((Invalid, Unavailable)) as failed:
        Client(url, pause=lambda _: None).project_get("blue")
    assert failed.value.fix


def test_an_upload_is_streamed_with_its_length() -> None:
    server = Server(httpx.Response(204))

    def chunks() -> Iterator[bytes]:
        yield b"ab"
        yield b"c"

    server.client().image_upload("tiny", chunks(), 3)
    assert server.requests[0].headers["Content-Length"] == "3"
    assert server.requests[0].read() == b"abc"


def test_a_query_leaves_out_what_was_not_asked() -> None:
    server = Server(httpx.Response(200, json={"items": [], "next": None}))
    assert list(server.client().node_list(project="blue")) == []
    assert dict(server.requests[0].url.params) == {"limit": "500", "project": "blue"}


def test_a_body_holds_no_nulls() -> None:
    server = Server(problem(409, "name-taken"))
    with pytest.raises(Conflict):
        server.client().network_create(NetworkRequest(name="net"))
    assert "project" not in json.loads(server.requests[0].content)


@pytest.mark.parametrize("scheme", ["http://", ""])
def test_the_environments_proxy_is_used_but_not_for_hosts_it_excepts(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        Thread(target=proxy.serve_forever, daemon=True).start()
        monkeypatch.setenv("http_proxy", f"{scheme}127.0.0.1:{proxy.server_port}")
        monkeypatch.setenv("no_proxy", "excepted.invalid")
        with Client("http://there.invalid:8642", pause=lambda _: None) as client:
            assert client.project_get("blue").name == "http://there.invalid:8642/v1/projects/blue"
        with Client("http://excepted.invalid:8642", pause=lambda _: None) as client, pytest.raises(Unavailable):
            client.project_get("blue")
        proxy.shutdown()


@pytest.mark.parametrize("proxy", ["ftp://secret@there", "socks5://there:1080"])
def test_a_proxy_that_is_none_is_told_as_that(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(Invalid) as failed:
        Client("http://there.invalid:8642")
    assert failed.value.code == "bad-proxy"
    assert "secret" not in str(failed.value)


class Proxy(BaseHTTPRequestHandler):
    """Answers whatever it is asked with a project named like the URL."""

    def do_GET(self) -> None:
        body = json.dumps({**PROJECT, "name": self.path}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
