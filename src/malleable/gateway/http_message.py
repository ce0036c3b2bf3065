"""Just as much HTTP/1.1 as firmware, busybox and curl speak: one request per connection, small, and soon.

Written out because it faces tenants: the standard library's server has no limit on the time a request may take.
"""

import os
import socket
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from pathlib import Path
from typing import TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

HEAD_LIMIT_BYTES = 8 << 10
BODY_LIMIT_BYTES = 64 << 10
REQUEST_DEADLINE_S = 10.0
#: A reader slower than this is given up: it holds a worker that other nodes need.
SLOWEST_BYTES_PER_S = 100_000
_STALL_S = 20.0
_SENDFILE_BYTES = 1 << 20
METHODS = ("GET", "HEAD", "POST")


class BadRequest(Exception):
    """The peer did not send a request that we answer."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


class Gone(Exception):
    """The peer went away, or was too slow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request. ``source`` is the peer's IPv4 address, ``source_port`` its port."""

    method: str
    path: str
    source: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)  #: names in lower case; the last of equal ones
    source_port: int = 0
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One answer: ``body``, or a file's content."""

    status: HTTPStatus = HTTPStatus.OK
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    file: Path | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Returns the answer once there is one; until then the peer waits. This one is given to whom there is no room for.
    later: "Later | None" = None


#: Looks for an answer; None: there is none yet.
Later: TypeAlias = Callable[[], Response | None]


def text(body: str, status: HTTPStatus = HTTPStatus.OK, *, later: Later | None = None) -> Response:
    """Answer with plain text."""
    return Response(status=status, body=body.encode(), later=later)


def refusal(status: HTTPStatus) -> Response:
    """Answer with nothing but the status."""
    return text(f"{status.value} {status.phrase}\n", status)


def read_request(wire: socket.socket, source: str) -> Request:
    """Read one request within 10 s; its body is small.

    Errors: BadRequest with the status to answer; Gone.
    """
    deadline = time.monotonic() + REQUEST_DEADLINE_S
    head, rest = _read_head(wire, deadline)
    request = parse_head(head, source)
    body = _read_body(wire, request, rest, deadline)
    try:
        return replace(request, source_port=wire.getpeername()[1], body=body)
    except OSError as e:
        raise Gone from e


def parse_head(head: bytes, source: str) -> Request:
    """Parse a request's head, without its final empty line. Errors: BadRequest."""
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise BadRequest(HTTPStatus.BAD_REQUEST)
    if words[0] not in METHODS:
        raise BadRequest(HTTPStatus.METHOD_NOT_ALLOWED)
    try:
        url = urlsplit(words[1])
        query = dict(parse_qsl(url.query, max_num_fields=16))
    except ValueError as e:
        raise BadRequest(HTTPStatus.BAD_REQUEST) from e
    return Request(method=words[0], path=unquote(url.path), source=source, query=query, headers=_headers(lines[1:]))


def _headers(lines: list[str]) -> dict[str, str]:
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise BadRequest(HTTPStatus.BAD_REQUEST)
        headers[name.lower()] = value.strip()
    return headers


def _read_head(wire: socket.socket, deadline: float) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        if len(data) > HEAD_LIMIT_BYTES:
            raise BadRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        data += _receive(wire, deadline)
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def _read_body(wire: socket.socket, request: Request, received: bytes, deadline: float) -> bytes:
    if "transfer-encoding" in request.headers:
        raise BadRequest(HTTPStatus.NOT_IMPLEMENTED)
    length = request.headers.get("content-length", "0")
    if not (length.isascii() and length.isdecimal() and len(length) < 12):
        raise BadRequest(HTTPStatus.BAD_REQUEST)
    if int(length) > BODY_LIMIT_BYTES:
        raise BadRequest(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    if request.headers.get("expect", "").lower() == "100-continue":
        _send(wire, b"HTTP/1.1 100 Continue\r\n\r\n", deadline)
    while len(received) < int(length):
        received += _receive(wire, deadline)
    return received[: int(length)]


def _receive(wire: socket.socket, deadline: float) -> bytes:
    _set_timeout(wire, deadline)
    try:
        data = wire.recv(HEAD_LIMIT_BYTES)
    except OSError as e:  # reset (OVMF does so once per boot), or past the deadline
        raise Gone from e
    if not data:
        raise Gone
    return data


def write_response(wire: socket.socket, request_method: str, response: Response) -> None:
    """Send an answer; a file goes from the page cache to the wire without passing through us. Errors: Gone."""
    if response.file is None:
        body = b"" if request_method == "HEAD" else response.body
        _send(wire, _head(response, len(response.body)) + body, time.monotonic() + _STALL_S)
        return
    with response.file.open("rb") as content:
        size = os.fstat(content.fileno()).st_size
        deadline = time.monotonic() + _STALL_S + size / SLOWEST_BYTES_PER_S
        _send(wire, _head(response, size), deadline)
        if request_method != "HEAD":
            _send_file(wire, content.fileno(), size, deadline)


def _send_file(wire: socket.socket, file: int, size: int, deadline: float) -> None:
    offset = 0
    wire.setblocking(True)
    while offset < size:
        _limit_stall(wire, deadline)
        try:
            # Blocking with SO_SNDTIMEO: sendfile(2) itself waits, and returns short or EAGAIN when the peer stalls.
            offset += os.sendfile(wire.fileno(), file, offset, min(_SENDFILE_BYTES, size - offset))
        except OSError as e:
            raise Gone from e


def _limit_stall(wire: socket.socket, deadline: float) -> None:
    left_s = min(deadline - time.monotonic(), _STALL_S)
    if left_s <= 0:
        raise Gone
    timeval = struct.pack("@ll", int(left_s), int(left_s % 1 * 1e6))
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)


def _send(wire: socket.socket, data: bytes, deadline: float) -> None:
    _set_timeout(wire, deadline)
    try:
        wire.sendall(data)
    except OSError as e:
        raise Gone from e


def _set_timeout(wire: socket.socket, deadline: float) -> None:
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise Gone
    wire.settimeout(left_s)


def _head(response: Response, length: int) -> bytes:
    lines = [
        f"HTTP/1.1 {response.status.value} {response.status.phrase}",
        f"Content-Length: {length}",
        f"Content-Type: {response.content_type}",
        "Cache-Control: no-store",
        "Connection: close",
        *(f"{name}: {value}" for name, value in response.headers.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
