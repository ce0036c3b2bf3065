"""What stands before each node's Redfish tree: its faults, its password, and the wall to the other nodes."""

import base64
import binascii
import contextlib
import hmac
import json
import re
import select
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from malleable.domain.errors import Refused
from malleable.sim import websocket
from malleable.sim.rack.bmc.accounts import Passwords
from malleable.sim.rack.bmc.driver import NODE_KEY
from malleable.sim.rack.faults import FaultFile, FaultKind

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

SILENCE_LIMIT_S = 600.0  #: after this a silent BMC gives up on a client that never hangs up

#: paths open to clients without credentials, DSP0266 section 13.3.3; sushy-tools has no sessions and says so
_PUBLIC = frozenset({"", "redfish", "redfish/v1", "redfish/v1/SessionService/Sessions"})
CONSOLE = "/redfish/v1/Systems/{}/SerialConsole"  #: where a machine is typed at
_HANDSHAKE = ("Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version")
_READS = ("GET", "HEAD", "OPTIONS")
_OWNED = re.compile(r"/redfish/v1/(?:Systems|Managers)/(?P<uuid>[^/]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """The WSGI application of one node's listener."""

    app: "WSGIApplication"
    node: str
    uuid: str
    username: str
    passwords: Passwords
    faults: FaultFile
    type_console: Callable[[bytes], None]  #: types at its machine's serial console

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        faults = self.faults.of(self.node)
        if FaultKind.BMC_SILENT in faults:
            _wait_for_hangup(environ["werkzeug.socket"])
            raise ConnectionAbortedError("silent by fault")
        if FaultKind.BMC_SLOW in faults:
            threading.Event().wait(faults[FaultKind.BMC_SLOW])
        if FaultKind.ERROR_500 in faults:
            return _refuse(start_response, "500 Internal Server Error", "The BMC has an internal error.")
        if not self._may_enter(environ):
            return _refuse(start_response, "401 Unauthorized", "Wrong user name or password.")
        owned = _OWNED.match(environ["PATH_INFO"])
        if owned is not None and owned["uuid"] != self.uuid:
            return _refuse(start_response, "404 Not Found", "There is no such system here.")
        if environ["PATH_INFO"] == CONSOLE.format(self.uuid):
            self._console(environ)
        environ[NODE_KEY] = self.uuid
        if FaultKind.LOST_REPLY in faults and environ["REQUEST_METHOD"] not in _READS:
            self._act_and_hang_up(environ)
        return self.app(environ, start_response)

    def _console(self, environ: "WSGIEnvironment") -> None:
        """Take what is typed by a WebSocket, and hang up."""
        headers = {
            "Host": environ.get("HTTP_HOST", ""),
            **{name: environ.get(f"HTTP_{name.upper().replace('-', '_')}", "") for name in _HANDSHAKE},
        }
        with contextlib.suppress(Refused):  # hanging up without a last word tells that it was not done
            websocket.serve(environ["werkzeug.socket"], environ["PATH_INFO"], headers, self.type_console)
        raise ConnectionAbortedError("the console was left")

    def _may_enter(self, environ: "WSGIEnvironment") -> bool:
        if environ["PATH_INFO"].strip("/") in _PUBLIC:
            return True
        scheme, _, token = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            given = base64.b64decode(token, validate=True)
        except (binascii.Error, ValueError):
            return False
        return hmac.compare_digest(given, f"{self.username}:{self.passwords.of(self.node).reveal()}".encode())

    def _act_and_hang_up(self, environ: "WSGIEnvironment") -> None:
        """Do what is asked, then end the connection instead of answering."""
        answer = self.app(environ, _no_response)
        for _ in answer:
            pass
        close: Callable[[], None] | None = getattr(answer, "close", None)
        if close is not None:
            close()
        connection: socket.socket = environ["werkzeug.socket"]
        connection.shutdown(socket.SHUT_RDWR)
        raise ConnectionAbortedError("reply lost by fault")


def _no_response(_status: str, _headers: list[tuple[str, str]], _exc_info: Any = None, /) -> Callable[[bytes], object]:
    return lambda _body: None


def _wait_for_hangup(connection: socket.socket) -> None:
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    poll.poll(SILENCE_LIMIT_S * 1000)


def _refuse(start_response: "StartResponse", status: str, message: str) -> Iterable[bytes]:
    """Answer with a Redfish error, DSP0266 section 8.6."""
    body = json.dumps({"error": {"code": "Base.1.0.GeneralError", "message": message}}).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    if status.startswith("401"):
        headers.append(("WWW-Authenticate", 'Basic realm="BMC"'))
    start_response(status, headers)
    return [body]
