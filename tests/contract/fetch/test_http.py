"""Reading files from the web: honest servers, broken connections, and servers that mean harm."""

import gzip
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from shutil import disk_usage

import pytest
from tests.contract.fetch.server import Asked, Web, breaking, head, honest, saying, serving

from malleable.domain.errors import Busy, Conflict, MalleableError
from malleable.drivers.fetch.guard import Guard
from malleable.drivers.fetch.http import HttpFetcher
from malleable.drivers.fetch.web import REDIRECTS_MAX

CONTENT = bytes(range(256)) * 1000
MAX_BYTES = 1 << 30


@pytest.fixture
def web() -> Iterator[Web]:
    with serving() as web:
        yield web


@dataclass
class Client:
    """A fetcher that may ask loopback, with a target."""

    target: Path
    fetcher: HttpFetcher = field(
        default_factory=lambda: HttpFetcher(Guard(["127.0.0.0/8"]), reserve_bytes=0, window_s=30)
    )
    told: list[tuple[int, int]] = field(default_factory=list)

    def fetch(self, url: str, size_bytes: int | None = None, max_bytes: int = MAX_BYTES) -> int:
        return self.fetcher.fetch(
            url,
            self.target,
            size_bytes=size_bytes,
            max_bytes=max_bytes,
            on_progress=lambda have, of: self.told.append((have, of)),
        ).size_bytes

    def refusal(self, url: str, size_bytes: int | None = None, max_bytes: int = MAX_BYTES) -> MalleableError:
        with pytest.raises(MalleableError) as caught:
            self.fetch(url, size_bytes, max_bytes)
        assert not self.target.exists()
        return caught.value


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(tmp_path / "content")


def test_a_file_comes_whole_and_nothing_else_is_left(web: Web, client: Client) -> None:
    assert client.fetch(web.file("/a.img", CONTENT)) == len(CONTENT)
    assert client.target.read_bytes() == CONTENT
    assert list(client.target.parent.iterdir()) == [client.target]
    assert client.told[0] == (0, len(CONTENT))
    assert (web.asked[0].headers["accept-encoding"], "range" in web.asked[0].headers) == ("identity", False)


def test_what_is_there_already_is_not_asked_for(web: Web, client: Client) -> None:
    client.target.write_bytes(b"whole")
    assert client.fetch(web.url("/a.img")) == 5
    assert web.asked == []


def test_a_broken_file_is_gone_on_with_where_it_stopped(web: Web, client: Client) -> None:
    web.scripts["/a.img"] = breaking(CONTENT, 100_000)
    for came in (100_000, 200_000):
        assert client.refusal(web.url("/a.img")).code == "unreachable"
        assert client.told[-1][1] == len(CONTENT)
        assert client.target.with_name(".content.fetched").stat().st_size == came
    assert client.fetch(web.url("/a.img")) == len(CONTENT)
    assert client.target.read_bytes() == CONTENT
    assert [asked.begin for asked in web.asked] == [0, 100_000, 200_000]


@pytest.mark.parametrize("etag", ['"two"', 'W/"one"', ""])
def test_what_may_be_another_file_is_begun_anew(web: Web, client: Client, etag: str) -> None:
    web.scripts["/a.img"] = breaking(b"x" * len(CONTENT), 100_000, '"one"' if etag == '"two"' else etag)
    client.refusal(web.url("/a.img"))
    web.scripts["/a.img"] = honest(CONTENT, etag)
    assert client.fetch(web.url("/a.img")) == len(CONTENT)
    assert client.target.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "answer",
    [
        head("206 Partial Content", Content_Length=5, Content_Range="bytes 0-4/256000") + b"wrong",
        head("206 Partial Content", Content_Length=5) + b"wrong",
        head("206 Partial Content", Content_Length=5, Content_Range="bytes 100000-100004/9") + b"wrong",
        head("206 Partial Content", Content_Length=5, Content_Range=f"bytes 100000-100004/{'9' * 5000}") + b"wrong",
        head("416 Range Not Satisfiable", Content_Length=0),
    ],
)
def test_a_rest_that_was_not_asked_for_is_thrown_away(web: Web, client: Client, answer: bytes) -> None:
    web.scripts["/a.img"] = breaking(CONTENT, 100_000)
    client.refusal(web.url("/a.img"))
    web.scripts["/a.img"] = saying(answer)
    assert client.refusal(web.url("/a.img")).code == "malformed"
    web.scripts["/a.img"] = honest(CONTENT)
    client.fetch(web.url("/a.img"))
    assert client.target.read_bytes() == CONTENT


def test_whoever_stops_it_finds_the_part_again(web: Web, client: Client) -> None:
    def stop(_have: int, _of: int) -> None:
        raise Conflict("stop")

    url = web.file("/a.img", CONTENT)
    with pytest.raises(Conflict):
        client.fetcher.fetch(url, client.target, size_bytes=None, max_bytes=MAX_BYTES, on_progress=stop)
    client.fetch(url)
    assert client.target.read_bytes() == CONTENT


def test_what_somebody_else_wrote_to_as_well_is_fetched_anew(web: Web, client: Client) -> None:
    """A worker that lost the operation while it stood still writes on until it hears of that."""

    def writing(_have: int, _of: int) -> None:
        with (client.target.parent / f".{client.target.name}.fetched").open("ab") as part:
            part.write(b"late")

    url = web.file("/a.img", CONTENT)
    with pytest.raises(Busy):
        client.fetcher.fetch(url, client.target, size_bytes=None, max_bytes=MAX_BYTES, on_progress=writing)
    assert not list(client.target.parent.iterdir())
    client.fetch(url)
    assert client.target.read_bytes() == CONTENT


# -- sizes and encodings ----------------------------------------------------------------------------------------------


def test_an_endless_body_is_cut_off(web: Web, client: Client) -> None:
    def endless(_asked: Asked, to: socket.socket) -> None:
        to.sendall(head("200 OK", Transfer_Encoding="chunked"))
        while not web.closing.is_set():
            to.sendall(b"10000\r\n" + bytes(0x10000) + b"\r\n")

    web.scripts["/endless"] = endless
    assert client.refusal(web.url("/endless"), size_bytes=1_000_000).code == "wrong-size"
    refused = client.refusal(web.url("/endless"))
    assert (refused.code, "how large" in refused.message) == ("url-answer", True)


def test_a_body_of_no_told_size_is_taken_when_it_is_announced(web: Web, client: Client) -> None:
    web.scripts["/a.img"] = saying(head("200 OK", Transfer_Encoding="chunked") + b"5\r\nwhole\r\n0\r\n\r\n")
    assert client.refusal(web.url("/a.img"), size_bytes=6).code == "wrong-size"
    assert client.fetch(web.url("/a.img"), size_bytes=5) == 5


def test_more_than_was_announced_or_fits_is_never_taken(web: Web, client: Client) -> None:
    url = web.file("/a.img", CONTENT)
    assert client.refusal(url, size_bytes=len(CONTENT) - 1).code == "wrong-size"
    assert client.refusal(url, max_bytes=len(CONTENT) - 1).code == "url-too-large"
    assert client.refusal(web.file("/empty", b"")).code == "url-too-large"
    assert client.told == []


def test_less_than_was_told_is_not_whole(web: Web, client: Client) -> None:
    web.scripts["/a.img"] = saying(head("200 OK", Content_Length=10) + b"short")
    assert client.refusal(web.url("/a.img")).code == "unreachable"


def test_nothing_is_ever_decompressed(web: Web, client: Client) -> None:
    bomb = gzip.compress(bytes(10_000_000))
    web.scripts["/bomb"] = saying(head("200 OK", Content_Length=len(bomb), Content_Encoding="gzip") + bomb)
    assert client.refusal(web.url("/bomb")).code == "url-answer"
    assert client.fetch(web.file("/bomb.gz", bomb)) == len(bomb)
    assert client.target.read_bytes() == bomb


def test_the_disk_is_never_filled(web: Web, tmp_path: Path) -> None:
    full = HttpFetcher(Guard(["127.0.0.0/8"]), reserve_bytes=disk_usage(tmp_path).total)
    client = Client(tmp_path / "content", full)
    assert client.refusal(web.file("/a.img", CONTENT)).code == "spool-full"


# -- answers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("404 Not Found", "url-answer"),
        ("401 Unauthorized", "url-answer"),
        ("204 No Content", "url-answer"),
        ("300 Multiple Choices", "url-answer"),
        ("429 Too Many Requests", "busy"),
        ("503 Service Unavailable", "busy"),
    ],
)
def test_any_other_answer_is_told(web: Web, client: Client, status: str, code: str) -> None:
    web.scripts["/a.img"] = saying(head(status, Content_Length=0))
    refused = client.refusal(web.url("/a.img"))
    assert refused.code == code
    assert status[:3] in refused.public().message


@pytest.mark.parametrize(
    "answer",
    [
        b"220 mail.example ESMTP\r\n\r\n",
        b"\0" * 100,
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000,
        head("200 OK", Content_Length="9" * 5000),
    ],
)
def test_what_is_no_http_is_told(web: Web, client: Client, answer: bytes) -> None:
    web.scripts["/a.img"] = saying(answer)
    assert client.refusal(web.url("/a.img")).code == "malformed"


@pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 200 OK\r\n", head("200 OK", Content_Length=1000) + b"some"])
def test_a_server_that_says_too_little_is_left(web: Web, tmp_path: Path, begin: bytes) -> None:
    """A byte now and then keeps no time-out from ending it."""

    def drip(_asked: Asked, to: socket.socket) -> None:
        to.sendall(begin)
        while not web.closing.wait(0.05):
            to.sendall(b"x")

    web.scripts["/slow"] = drip
    client = Client(tmp_path / "content", HttpFetcher(Guard(["127.0.0.0/8"]), reserve_bytes=0, window_s=0.3))
    assert client.refusal(web.url("/slow")).code == "unreachable"


def test_nobody_there_is_told(client: Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert client.refusal(f"http://127.0.0.1:{port}/a.img").code == "unreachable"


# -- redirects and addresses ------------------------------------------------------------------------------------------


def test_redirects_are_followed_so_far(web: Web, client: Client) -> None:
    web.file("/here/a.img", CONTENT)
    web.scripts["/r0"] = saying(head("302 Found", Location="here/a.img", Content_Length=0))
    for n in range(1, REDIRECTS_MAX + 1):
        web.scripts[f"/r{n}"] = saying(head("307 Temporary Redirect", Location=web.url(f"/r{n - 1}")))
    assert client.refusal(web.url(f"/r{REDIRECTS_MAX}")).code == "url-refused"
    assert client.fetch(web.url(f"/r{REDIRECTS_MAX - 1}")) == len(CONTENT)


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:{port}/secret",
        "http://localhost:{port}/secret",
        "http://[::ffff:127.0.0.1]:{port}/secret",
        "http://0x7f000001:{port}/secret",
        "http://2130706433:{port}/secret",
        "http://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        "ftp://mirror.example/a",
        "http://user:secret@mirror.example/a",
        "http://mirror.example:22/a",
        "http://[::1",
        "",
    ],
)
def test_a_redirect_leads_nowhere_inside(web: Web, tmp_path: Path, location: str) -> None:
    """The named host is allowed; where it sends us is not."""
    web.file("/secret", CONTENT)
    to = location.format(port=web.port)
    web.scripts["/r"] = saying(head("302 Found", Location=to, Content_Length=0))
    guard = Guard(["mirror.example"], resolve=lambda host, port: [_real(host, port)])
    refused = Client(tmp_path / "content", HttpFetcher(guard)).refusal(web.url("/r", "mirror.example"))
    assert refused.code == ("url-refused" if location else "url-answer")
    assert [asked.path for asked in web.asked] == ["/r"]


def _real(host: str, port: int) -> str:
    """Resolve as the system does, but for the one name of these tests."""
    return "127.0.0.1" if host == "mirror.example" else str(socket.getaddrinfo(host, port)[0][4][0])


def test_a_name_that_changes_its_mind_is_asked_once(web: Web, client: Client) -> None:
    """What was checked is what is connected to (DNS rebinding)."""
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])
    guard = Guard(["127.0.0.0/8"], resolve=lambda _host, _port: next(answers))
    fetcher = HttpFetcher(guard, reserve_bytes=0)
    web.file("/a.img", CONTENT)
    assert Client(client.target, fetcher).fetch(web.url("/a.img", "mirror.example")) == len(CONTENT)
    assert next(answers) == ["10.0.0.1"]
    assert web.asked[0].headers["host"] == f"mirror.example:{web.port}"


def test_proxies_of_the_environment_are_not_used(web: Web, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert client.fetch(web.file("/a.img", CONTENT)) == len(CONTENT)
