"""The server on a real socket: bad requests, slow ones, many at once."""

import socket
import threading
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest

from malleable.domain.ids import NetworkId, new_id
from malleable.gateway import http_message
from malleable.gateway.http_message import Request, Response, text
from malleable.gateway.http_server import HttpServer
from malleable.gateway.settings import GatewaySettings

NETWORK = NetworkId(new_id())
OTHER_NETWORK = NetworkId(new_id())


class Counter:
    """A server on two ports whose answers can be held back, but for those to /free."""

    def __init__(self, directory: Path) -> None:
        self.requests: list[tuple[NetworkId, Request]] = []
        self.sent: list[str] = []
        self.arrived = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()
        self.file = directory / "file"
        settings = GatewaySettings(http_workers=4, http_workers_per_network=2, http_workers_per_source=2)
        self.server = HttpServer(settings, self.answer)
        self.ports = {key: self.listen(key) for key in (NETWORK, OTHER_NETWORK)}
        self.server.start()

    def listen(self, network_id: NetworkId) -> int:
        wire = socket.create_server(("127.0.0.1", 0))
        port: int = wire.getsockname()[1]
        self.server.add(network_id, wire)
        return port

    def answer(self, network_id: NetworkId, request: Request) -> tuple[Response, None]:
        self.requests.append((network_id, request))
        self.arrived.release()
        if request.path != "/free":
            self.gate.wait(10)
        if request.path == "/file":
            return Response(file=self.file), None
        return text(f"{request.method} {request.path}"), None

    def call(self, network_id: NetworkId = NETWORK) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.ports[network_id]), timeout=10)

    def say(self, data: bytes, network_id: NetworkId = NETWORK) -> bytes:
        with self.call(network_id) as wire:
            wire.sendall(data)
            return read_all(wire)


def read_all(wire: socket.socket) -> bytes:
    """Read until the peer closes; a reset ends it too."""
    got = b""
    try:
        while piece := wire.recv(1 << 16):
            got += piece
    except ConnectionResetError:
        pass
    return got


@pytest.fixture
def counter(tmp_path: Path) -> Iterator[Counter]:
    made = Counter(tmp_path)
    yield made
    made.gate.set()
    made.server.stop()


def test_a_request_and_its_answer(counter: Counter) -> None:
    got = counter.say(b"GET /a%20b?mac=1&x=2 HTTP/1.1\r\nHost: x\r\nX-Malleable-Token:  t \r\n\r\n")
    assert got.startswith(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n")
    assert got.endswith(b"GET /a b")
    network_id, request = counter.requests[0]
    assert (network_id, request.source) == (NETWORK, "127.0.0.1")
    assert dict(request.query) == {"mac": "1", "x": "2"}
    assert request.headers["x-malleable-token"] == "t"
    counter.say(b"GET / HTTP/1.0\r\n\r\n", OTHER_NETWORK)
    assert counter.requests[1][0] == OTHER_NETWORK


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/2\r\n\r\n", 400),
        (b"GET http://[ HTTP/1.1\r\n\r\n", 400),
        (b"PUT / HTTP/1.1\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n folded: x\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 10485760\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: \xb2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
        (b"GET /?" + b"&".join(b"a%d=1" % n for n in range(50)) + b" HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 9000, 431),
    ],
)
def test_what_is_not_a_request_we_answer_is_refused(counter: Counter, data: bytes, status: int) -> None:
    assert counter.say(data).startswith(b"HTTP/1.1 %d " % status)
    assert counter.requests == []


def test_a_file_is_sent_whole_and_head_sends_none_of_it(counter: Counter) -> None:
    counter.file.write_bytes(bytes(range(256)) * 20_000)
    head, _, body = counter.say(b"GET /file HTTP/1.1\r\n\r\n").partition(b"\r\n\r\n")
    assert body == counter.file.read_bytes()
    assert b"Content-Length: 5120000" in head
    assert counter.say(b"HEAD /file HTTP/1.1\r\n\r\n") == head + b"\r\n\r\n"
    counter.file.unlink()
    assert counter.say(b"GET /file HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 503")


def test_a_body_is_read_before_the_answer(counter: Counter) -> None:
    with counter.call() as wire:
        wire.sendall(b"POST /x HTTP/1.1\r\nContent-Length: 6\r\nExpect: 100-continue\r\n\r\n")
        assert wire.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        wire.sendall(b"abcdef")
        assert read_all(wire).endswith(b"POST /x")


def test_who_sends_too_slowly_is_dropped(counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_message, "REQUEST_DEADLINE_S", 0.2)
    with counter.call() as wire:
        wire.sendall(b"GET / HT")
        assert read_all(wire) == b""


def test_who_leaves_or_resets_disturbs_nobody(counter: Counter) -> None:
    counter.call().close()
    with counter.call() as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        wire.sendall(b"GET /file HTTP/1.1\r\n\r\n")
    assert counter.say(b"GET / HTTP/1.1\r\n\r\n").endswith(b"GET /")


def test_a_network_that_takes_all_it_may_does_not_stop_another(counter: Counter) -> None:
    counter.gate.clear()
    held = [counter.call() for _ in range(6)]
    for wire in held:
        wire.sendall(b"GET /held HTTP/1.1\r\n\r\n")
    with counter.call(OTHER_NETWORK) as wire:
        wire.sendall(b"GET /free HTTP/1.1\r\n\r\n")
        counter.gate.set()
        assert read_all(wire).endswith(b"GET /free")
    answers = [read_all(wire) for wire in held]
    assert sum(answer.endswith(b"GET /held") for answer in answers) >= 2
    for wire in held:
        wire.close()


def test_networks_that_hold_all_workers_together_do_not_stop_another(counter: Counter) -> None:
    counter.gate.clear()
    held = [counter.call(network_id) for network_id in (NETWORK, OTHER_NETWORK) for _ in range(2)]
    for wire in held:
        wire.sendall(b"GET /held HTTP/1.1\r\n\r\n")
        assert counter.arrived.acquire(timeout=10)
    third = NetworkId(new_id())
    counter.ports[third] = counter.listen(third)
    assert counter.say(b"GET /free HTTP/1.1\r\n\r\n", third).endswith(b"GET /free")
    for wire in held:
        wire.close()


def test_a_node_with_too_many_connections_is_turned_away(counter: Counter) -> None:
    settings = GatewaySettings(http_workers_per_network=8, http_workers_per_source=2)
    counter.server.stop()
    counter.server = HttpServer(settings, counter.answer)
    counter.ports[NETWORK] = counter.listen(NETWORK)
    counter.server.start()
    counter.gate.clear()
    held = [counter.call() for _ in range(2)]
    for wire in held:
        wire.sendall(b"GET /held HTTP/1.1\r\n\r\n")
        assert counter.arrived.acquire(timeout=10)
    assert counter.say(b"GET /free HTTP/1.1\r\n\r\n") == b""
    counter.gate.set()
    assert all(read_all(wire).endswith(b"GET /held") for wire in held)
    for wire in held:
        wire.close()


def test_a_removed_network_is_not_answered(counter: Counter) -> None:
    counter.server.remove(NETWORK)
    assert not counter.server.has(NETWORK)
    with pytest.raises(ConnectionRefusedError):
        counter.call()
    assert counter.say(b"GET / HTTP/1.1\r\n\r\n", OTHER_NETWORK).endswith(b"GET /")


def test_statuses_have_words() -> None:
    assert http_message.refusal(HTTPStatus.NOT_FOUND).body == b"404 Not Found\n"
