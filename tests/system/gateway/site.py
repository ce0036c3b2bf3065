"""A control plane as far as a gateway can see: desired state over HTTP, with everything the gateway tells kept."""

import json
import threading
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

from malleable.wire.gateway import BootSign, BootStage, DesiredNetwork, DesiredView, ReportsRequest, SignsRequest


class Site:
    """The server's side of a gateway's life, on a port of its own. A context."""

    def __init__(self) -> None:
        self._news = threading.Condition()
        self._generation = 0
        self._networks: dict[UUID, DesiredNetwork] = {}
        self._is_closing = False
        self.files: dict[tuple[str, str], Path] = {}
        self.reports: list[ReportsRequest] = []
        self.finished = BootSign(boot_id=UUID(int=0), stage=BootStage.FINISHED)
        self.signs: list[tuple[UUID, str]] = []
        self.calls: list[str] = []

    def want(self, told: DesiredNetwork, **changes: Any) -> DesiredNetwork:
        """Have a network served like this; the generation grows by one."""
        with self._news:
            self._generation += 1
            plain = {**told.model_dump(mode="json"), **changes, "generation": self._generation}
            wanted = DesiredNetwork.model_validate_json(json.dumps(plain, default=str))
            self._networks[wanted.id] = wanted
            self._news.notify_all()
            return wanted

    def forget(self, network_id: UUID, *, generation: int | None = None) -> None:
        """Lose a network, as a restored database would."""
        with self._news:
            self._networks.pop(network_id)
            self._generation = self._generation if generation is None else generation
            self._news.notify_all()

    def served(self, wanted: DesiredNetwork) -> str:
        """Return the portal epoch reported for this generation of a network; "" until then."""
        told = [one for report in self.reports for one in report.networks if one.id == wanted.id]
        fresh = [one.portal_epoch for one in told if one.served_generation >= wanted.generation]
        return fresh[-1] if fresh else ""

    def removed(self, network_id: UUID) -> bool:
        """Say whether nothing is left of a network, as reported."""
        return any(network_id in report.removed for report in self.reports)

    def answer(self, method: str, target: str, body: bytes) -> tuple[int, bytes]:
        """Answer one call."""
        url = urlsplit(target)
        self.calls.append(f"{method} {url.path}")
        match [method, *url.path.split("/")[3:]]:
            case ["GET", "desired"]:
                return 200, self._desired({key: values[0] for key, values in parse_qs(url.query).items()})
            case ["POST", "reports"]:
                self.reports.append(ReportsRequest.model_validate_json(body))
                return 204, b""
            case ["POST", "signs"]:
                told = SignsRequest.model_validate_json(body)
                self.finished = next((sign for sign in told.signs if sign.stage == "finished"), self.finished)
                self.signs += [(sign.boot_id, sign.stage.value) for sign in told.signs]
                return 204, b""
            case ["GET", "images", image_id, "files", name] if (image_id, name) in self.files:
                return 200, self.files[image_id, name].read_bytes()
            case ["GET", "boots", boot_id, "documents", name] if (boot_id, name) in self.files:
                return 200, self.files[boot_id, name].read_bytes()
        return 404, b'{"title": "none", "status": 404, "detail": "none", "code": "not-found"}'

    def _desired(self, query: Mapping[str, str]) -> bytes:
        after = int(query["after"])
        with self._news:
            self._news.wait_for(lambda: self._is_closing or self._generation != after, timeout=float(query["wait_s"]))
            fresh = tuple(told for told in self._networks.values() if told.generation > after)
            return DesiredView(generation=self._generation, networks=fresh).model_dump_json().encode()

    def __enter__(self) -> "Site":
        self._is_closing = False
        self.listen(0)
        return self

    def listen(self, port: int) -> None:
        """Answer on a port; 0 takes a free one."""
        self._is_closing = False
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, answer = site.answer(self.command, self.path, body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.send_header("Connection", "close")
                self.end_headers()
                with suppress(ConnectionError):  # a gateway killed while it waited
                    self.wfile.write(answer)
                self.close_connection = True

            do_POST = do_GET  # noqa: N815 - the library's name

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def hang_up(self) -> None:
        """Be away: nothing answers on the port any more."""
        with self._news:
            self._is_closing = True
            self._news.notify_all()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __exit__(self, *_: object) -> None:
        self.hang_up()
