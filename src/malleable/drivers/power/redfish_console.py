"""The serial console over Redfish: read from OpenBMC's log, typed at by the WebSocket that a BMC names."""

import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.frames import CloseCode
from websockets.sync.client import connect

from malleable.domain.errors import Busy, DriverError, Malformed, Refused, Unreachable
from malleable.domain.ports import Bmc
from malleable.drivers.power.redfish_session import BUSY_STATUSES, BmcSession

_LOG = "HostLogger"  #: OpenBMC's log service for the host's serial console
OUTPUT_MAX_BYTES = 1024 * 1024  #: what a console may say meanwhile, in one message

#: A BMC answers the end of a conversation at once; some then leave the connection open for ever.
LAST_WORD_S = 5.0

Body = Mapping[str, Any]


def read_log(session: BmcSession, system: Body, lines: int) -> Sequence[Body]:
    """Read the last entries of OpenBMC's console log; none where there is no such log."""
    services = _path(system, "LogServices")
    if not services or lines <= 0:
        return []
    get = session.connector.get
    members = [str(member["@odata.id"]) for member in get(services).json()["Members"]]
    host_logger = next((path for path in members if path.rstrip("/").endswith(f"/{_LOG}")), "")
    entries = _path(get(host_logger).json(), "Entries") if host_logger else ""
    if not entries:
        return []
    page = get(entries).json()
    count = page.get("Members@odata.count", 0)
    if count > len(page["Members"]):  # the BMC sent the first page only
        page = get(f"{entries}?$skip={max(0, count - lines)}&$top={lines}").json()
    found: Sequence[Body] = page["Members"][-lines:]
    return found


def input_path(bmc: Bmc, system: Body) -> str:
    """Find where the BMC takes what is typed. Errors: Refused with code "no-console-input".

    Source: DSP0268, ComputerSystem, SerialConsole.WebSocket (ConsoleURI, Interactive, ServiceEnabled).
    """
    found = _object(_object(system, "SerialConsole"), "WebSocket")
    path = found.get("ConsoleURI")
    if isinstance(path, str) and path and found.get("Interactive") is True and found.get("ServiceEnabled") is True:
        return path
    raise Refused(
        f"BMC {bmc.address} offers no WebSocket to type at its machine's serial console.",
        fix="Log in to the system over its network. Where the BMC has such a service, switch it on.",
        code="no-console-input",
    )


def type_at(session: BmcSession, bmc: Bmc, path: str, data: bytes, *, until_s: float) -> None:
    """Send ``data`` and prove by the closing handshake that the BMC has read it; not after ``until_s`` (monotonic).

    Errors: the four of drivers.
    """
    url = urljoin(bmc.address, path)
    if urlsplit(url)[:2] != urlsplit(bmc.address)[:2]:
        raise Malformed(f"The BMC at {bmc.address} has its console at another host.")
    left_s = until_s - time.monotonic()
    if left_s <= 0:
        raise Busy(f"BMC {bmc.address} had no time for what was typed.")
    try:
        _send(session, url, data, until_s, left_s)
    except InvalidStatus as e:
        raise _told(bmc, e.response.status_code) from e
    except (OSError, WebSocketException, ValueError) as e:
        # Also a redirect: it would carry the credentials elsewhere, and is not followed.
        raise Unreachable(f"BMC {bmc.address} ended the connection to its serial console.") from e


def _send(session: BmcSession, url: str, data: bytes, until_s: float, left_s: float) -> None:
    place = urlsplit(url)
    port = place.port or (443 if place.scheme == "https" else 80)
    with (
        socket.create_connection((place.hostname or "", port), timeout=left_s) as connection,
        connect(
            place._replace(scheme="wss" if place.scheme == "https" else "ws").geturl(),
            sock=connection,
            ssl=_tls(session.connector.verify) if place.scheme == "https" else None,
            additional_headers=_credentials(session, url),
            proxy=None,
            compression=None,
            open_timeout=left_s,
            close_timeout=min(left_s, LAST_WORD_S),
            ping_interval=None,
            max_size=OUTPUT_MAX_BYTES,
            max_queue=None,  # what the console says is not read here, and must not hold the handshake up
        ) as console,
    ):
        if time.monotonic() >= until_s:
            raise TimeoutError
        console.send(data)
        console.close()
        if console.close_code != CloseCode.NORMAL_CLOSURE:
            raise ConnectionError


def _credentials(session: BmcSession, url: str) -> dict[str, str]:
    """Write the headers that the session's own requests have."""
    prepared = session.connector.prepared(requests.Request("GET", url))
    return {name: str(prepared.headers[name]) for name in ("X-Auth-Token", "Authorization") if name in prepared.headers}


def _tls(verify: bool | str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=verify if isinstance(verify, str) else None)
    if verify is False:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _told(bmc: Bmc, status: int) -> DriverError:
    said = f"BMC {bmc.address} lets nobody type at its serial console: HTTP {status}."
    if status in BUSY_STATUSES:
        return Busy(said)
    return Unreachable(said) if status >= 500 else Refused(said)


def _path(body: Body, key: str) -> str:
    path = _object(body, key).get("@odata.id")
    return path if isinstance(path, str) else ""


def _object(body: Body, key: str) -> Body:
    value = body.get(key)
    return value if isinstance(value, dict) else {}
