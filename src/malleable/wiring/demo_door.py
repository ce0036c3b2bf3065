"""How another terminal reaches a running demo's room: one line of JSON each way, over loopback, for its owner alone."""

import hmac
import json
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer

from malleable.domain.errors import Invalid, Malformed, MalleableError, NotFound, Unavailable
from malleable.domain.secrets import random_secret
from malleable.wiring.keys import write_private

PLACE_PREFIX = "malleable-demo-"
_FILE = "room.json"
_TIMEOUT_S = 5.0
_LINE_MAX_BYTES = 4096

Answerer = Callable[[Mapping[str, str]], Mapping[str, object]]


@contextmanager
def open_door(place: Path, url: str, answer: Answerer) -> Iterator[None]:
    """Answer whoever can read a private file in ``place``, in threads of their own, while the context lasts."""
    key = random_secret().reveal()

    class Handler(StreamRequestHandler):
        timeout = _TIMEOUT_S

        def handle(self) -> None:
            """Answer one request."""
            reply = _answered(self.rfile.readline(_LINE_MAX_BYTES), key, answer)
            self.wfile.write(json.dumps(reply).encode() + b"\n")

    with ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True)
        thread.start()
        write_private(place / _FILE, json.dumps({"port": server.server_address[1], "key": key, "url": url}) + "\n")
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def _answered(line: bytes, key: str, answer: Answerer) -> Mapping[str, object]:
    try:
        asked = {str(name): str(value) for name, value in json.loads(line).items()}
        if not hmac.compare_digest(asked.pop("key", "").encode(), key.encode()):
            raise Invalid("That is not this room's key.")
        return {"said": answer(asked)}
    except (ValueError, AttributeError):
        return {"error": "That is not a request.", "fix": ""}
    except MalleableError as e:
        return {"error": e.message, "fix": e.fix}


def ask(request: Mapping[str, str], url: str | None = None) -> Mapping[str, object]:
    """Ask the running demo, the one whose API is at ``url`` if several run; return what it says.

    Errors: NotFound when none runs; Invalid for what the room refuses, and when several run and none is named.
    """
    rooms = {str(found["url"]): found for found in _rooms() if url in (None, found["url"])}
    if not rooms:
        where = f"at {url}" if url else "here"
        raise NotFound(f"No demo of yours runs {where}.", fix="Start one with `m2d demo`, in a terminal of its own.")
    if len(rooms) > 1:
        raise Invalid(f"{len(rooms)} demos run: {', '.join(sorted(rooms))}.", fix="Name one with --url.")
    (room,) = rooms.values()
    reply = _exchange(room, request)
    if "error" in reply:
        raise Invalid(str(reply["error"]), fix=str(reply.get("fix", "")))
    said = reply.get("said")
    if not isinstance(said, dict):
        raise Malformed("The demo's answer makes no sense.")
    return said


def _rooms() -> Iterator[Mapping[str, object]]:
    """Find the rooms whose file is ours and whose door is open; one that was killed leaves its file behind."""
    for path in Path(tempfile.gettempdir()).glob(f"{PLACE_PREFIX}*/{_FILE}"):
        try:
            if path.stat().st_uid != os.geteuid():
                continue
            room = json.loads(path.read_text())
            socket.create_connection(("127.0.0.1", room["port"]), timeout=_TIMEOUT_S).close()
        except (OSError, ValueError, KeyError, TypeError):
            continue
        yield room


def _exchange(room: Mapping[str, object], request: Mapping[str, str]) -> Mapping[str, object]:
    try:
        with socket.create_connection(("127.0.0.1", int(str(room["port"]))), timeout=_TIMEOUT_S) as connection:
            connection.sendall(json.dumps({**request, "key": room["key"]}).encode() + b"\n")
            with connection.makefile("rb") as lines:
                reply = json.loads(lines.readline())
    except (OSError, ValueError) as e:
        raise Unavailable(f"The demo at {room['url']} does not answer: {e}.", fix="Start it again.") from e
    if not isinstance(reply, dict):
        raise Malformed("The demo's answer makes no sense.")
    return reply
