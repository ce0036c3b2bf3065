"""A server with a certificate of its own: refused until its authority is named."""

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from malleable.cli.main import app
from malleable.cli.session import Surroundings
from malleable.wiring.clock import SystemClock
from malleable.wiring.tls import own_certificate


class Empty(BaseHTTPRequestHandler):
    """Answer every list with an empty one."""

    def do_GET(self) -> None:
        body = b'{"items": [], "next": null}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Serve over TLS; yield the URL and the certificate."""
    certificate, key = own_certificate(tmp_path, "127.0.0.1", SystemClock())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with HTTPServer(("127.0.0.1", 0), Empty) as listening:
        listening.socket = context.wrap_socket(listening.socket, server_side=True)
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"https://127.0.0.1:{listening.server_port}", certificate
        listening.shutdown()
        thread.join()


def node_list(tmp_path: Path, *options: str) -> tuple[int, str]:
    surroundings = Surroundings(config=lambda: tmp_path / "config.json", pause=lambda _: None)
    ran = CliRunner().invoke(app, ["node", "list", *options], obj=surroundings)
    return ran.exit_code, ran.stderr


def test_an_unknown_certificate_is_refused_with_advice(server: tuple[str, Path], tmp_path: Path) -> None:
    code, told = node_list(tmp_path, "--url", server[0])
    assert code == 1
    assert "is not trusted" in told
    assert "--cacert" in told


def test_a_named_authority_is_trusted(server: tuple[str, Path], tmp_path: Path) -> None:
    code, told = node_list(tmp_path, "--url", server[0], "--cacert", str(server[1]))
    assert (code, told.startswith("No nodes here")) == (0, True)


@pytest.mark.parametrize("content", [None, "not a certificate"])
def test_a_file_that_is_no_certificate_is_told(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    code, told = node_list(tmp_path, "--url", "https://127.0.0.1:1", "--cacert", str(file))
    assert code == 1
    assert "ca.pem" in told
