"""SimRedfish: one simulated BMC as a real Redfish service over HTTP, its faults as broken connections and answers.

Says what RedfishPower and other clients need of DSP0266 and DSP0268: service root, sessions, one system for each
machine with reset, boot override, NICs and console log, and one manager for each with a virtual medium.
"""

import base64
import binascii
import json
import secrets
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from malleable.domain.errors import Busy, Malformed, Refused, Unreachable
from malleable.domain.ports import Bmc
from malleable.domain.secrets import Secret
from malleable.sim import websocket
from malleable.sim.bmcs import SimBmcs
from malleable.sim.faults import Faults
from malleable.sim.redfish_scrub import Accepted
from malleable.sim.redfish_tree import ROOT, SESSIONS, Quirk, RedfishTree, Request

BODY_MAX_BYTES = 1 << 20
REQUESTS_KEPT = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An HTTP answer."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    type_in: Callable[[bytes], None] | None = None  #: instead: a WebSocket, and what takes what is typed there


def reply(body: object, status: int = 200) -> Reply:
    """Make an answer of a JSON value."""
    return Reply(status=status, body=json.dumps(body).encode())


def failure(status: int, message: str, message_id: str = "Base.1.0.GeneralError") -> Reply:
    """Make an error answer. Source: DSP0266, error responses."""
    info = [{"MessageId": message_id, "Message": message, "Severity": "Warning"}]
    return reply({"error": {"code": message_id, "message": message, "@Message.ExtendedInfo": info}}, status)


class SimRedfish:
    """One BMC's listener on a free port of this host; use it in a ``with`` statement.

    ``faults`` are keyed like SimPower's: by the method they meet on the way and the BMC's simulated address. A request
    that is not to arrive, or an answer that is to be lost, ends the connection.
    """

    def __init__(
        self, bmcs: SimBmcs, address: str, *, faults: Faults | None = None, quirks: Iterable[Quirk] = ()
    ) -> None:
        """Show the BMC ``address`` of ``bmcs``."""
        self.faults = faults or Faults()
        #: method and path of the latest requests, oldest first
        self.requests: deque[tuple[str, str]] = deque(maxlen=REQUESTS_KEPT)
        self._address = address
        self._tree = RedfishTree(bmcs=bmcs, address=address, faults=self.faults, quirks=frozenset(quirks))
        self._tokens: dict[str, Bmc] = {}
        handler = type("Handler", (_Handler,), {"face": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def url(self) -> str:
        """Return the address for a Redfish client."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def forget_sessions(self) -> None:
        """End all sessions, as a BMC that restarts."""
        self._tokens.clear()

    @property
    def open_sessions(self) -> int:
        """Count the sessions that no client has ended."""
        return len(self._tokens)

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Reply | None:
        """Answer one request; None ends the connection without an answer."""
        self.requests.append((method, target))
        try:
            return self._answer(method, target, headers, body)
        except Unreachable:
            return None
        except Busy as e:
            return failure(503, e.message, e.code)
        except Malformed:
            return Reply(body=b'{"Id": ')
        except Refused as e:
            return failure({"bmc-credentials": 401, "no-such-system": 404}.get(e.code, 400), e.message, e.code)
        except (ValueError, LookupError, TypeError, AttributeError) as e:
            return failure(400, f"The request cannot be understood: {e!r}.")

    def _answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Reply:
        url = urlsplit(target)
        path = url.path.rstrip("/")
        asked: Any = json.loads(body) if body else {}
        if path == ROOT and method == "GET":
            return reply(self._tree.root())
        if Quirk.NO_SESSIONS not in self._tree.quirks and path.startswith(SESSIONS):
            return self._session(method, path, asked)
        bmc = self._whoever(headers)
        query = {key: int(values[0]) for key, values in parse_qs(url.query).items()}
        if headers.get("Upgrade", "").lower() == "websocket":
            return Reply(type_in=self._tree.console(bmc, path))
        found = self._tree.answer(Request(bmc=bmc, method=method, path=path, body=asked, query=query))
        if isinstance(found, Accepted):
            return Reply(status=202, headers={"Location": found.task})
        return Reply(status=204) if found is None else reply(found)

    def _session(self, method: str, path: str, asked: Any) -> Reply:
        if method == "DELETE":
            self._tokens.pop(path.removeprefix(f"{SESSIONS}/"), None)
            return Reply(status=204)
        bmc = Bmc(address=self._address, username=asked["UserName"], password=Secret(asked["Password"]))
        self._tree.bmcs.machines(bmc)
        token = secrets.token_urlsafe(16)
        self._tokens[token] = bmc
        headers = {"X-Auth-Token": token, "Location": f"{SESSIONS}/{token}"}
        return Reply(status=201, body=b"{}", headers=headers)

    def _whoever(self, headers: Mapping[str, str]) -> Bmc:
        """Tell who asks. Errors: as SimBmcs.machines."""
        bmc = self._tokens.get(headers.get("X-Auth-Token", ""))
        if bmc is None:
            username, password = _basic(headers.get("Authorization", ""))
            bmc = Bmc(address=self._address, username=username, password=Secret(password))
        self._tree.bmcs.machines(bmc)
        return bmc


def _basic(header: str) -> tuple[str, str]:
    """Read HTTP basic credentials; empty ones when there are none."""
    scheme, _, encoded = header.partition(" ")
    try:
        username, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return (username, password) if scheme.lower() == "basic" else ("", "")


class _Handler(BaseHTTPRequestHandler):
    face: SimRedfish
    protocol_version = "HTTP/1.1"

    def serve(self) -> None:
        """Answer one request."""
        size_bytes = int(self.headers.get("Content-Length") or 0)
        if size_bytes > BODY_MAX_BYTES:
            self.send_error(413)
            self.close_connection = True
            return
        answer = self.face.answer(self.command, self.path, dict(self.headers), self.rfile.read(size_bytes))
        if answer is not None and answer.type_in is not None:
            with suppress(Unreachable):  # the reply is lost
                websocket.serve(self.connection, self.path, dict(self.headers), answer.type_in)
            self.close_connection = True
            return
        if answer is None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(answer.status)
        for name, value in {"Content-Type": "application/json", **answer.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        # No "Connection: close" although it ends here: some BMCs do not announce it, and clients must live with that.
        self.end_headers()
        self.wfile.write(answer.body)

    do_GET = do_POST = do_PATCH = do_DELETE = serve  # noqa: N815  http.server looks for these names

    def handle(self) -> None:
        """Serve one connection; a client that gave up waiting is not worth a traceback."""
        with suppress(ConnectionError):
            super().handle()

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet; ``SimRedfish.requests`` has it all."""
