"""The site behind a real HTTP server on a free port, for what streams."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from tests.contract.api.site import Site

from malleable.api.app import close_streams


@contextmanager
def served(site: Site) -> Iterator[str]:
    """Serve a site; yield its URL."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        server = uvicorn.Server(uvicorn.Config(site.app, log_level="warning", timeout_graceful_shutdown=5))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            close_streams(site.app)
            server.should_exit = True
            thread.join(10)
            assert not thread.is_alive(), "the server did not stop"
