"""A server to measure: started as a process of its own, ended with all it made."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.processes import environment
from malleable.client import Client
from malleable.domain.secrets import Secret

STOP_S = 30.0
#: On the disk wherever the distribution keeps it: /tmp may be in memory, where being durable costs nothing.
DURABLE_DIR = "/var/tmp"
NEVER_S = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running server and how to talk to it."""

    url: str
    token: Secret
    pid: int

    def client(self) -> Client:
        """Make a client with the first admin's rights."""
        return Client(self.url, self.token, timeout_s=120.0)


@contextmanager
def simulated_server(nodes: int, *, database: str = "", power_poll_s: float = NEVER_S) -> Iterator[Server]:
    """Run a whole server on a simulated site of enrolled nodes, without any delay in its devices."""
    with tempfile.TemporaryDirectory(prefix="m2bench-", dir=DURABLE_DIR) as place:
        wish = {"nodes": nodes, "database": database, "power_poll_s": power_poll_s, "place": place}
        with child("benchmarks.site", wish) as (said, process):
            yield Server(url=said["url"], token=Secret(said["token"]), pid=process.pid)


@contextmanager
def child(module: str, wish: dict[str, Any]) -> Iterator[tuple[dict[str, Any], "subprocess.Popen[str]"]]:
    """Run one of our modules as a process; give what it says when it is ready."""
    words = [sys.executable, "-m", module, json.dumps(wish)]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, env=environment()
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"{module} ended before it was ready")
            yield json.loads(line), process
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
