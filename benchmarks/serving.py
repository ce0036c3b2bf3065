"""Reads of one node and of a thousand, an idle room, and what a server costs: simulated devices, SQLite, HTTP."""

import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from urllib.parse import urlsplit

from benchmarks.figures import Figure, Published, Result, at_least, at_most
from benchmarks.processes import cpu_s, resident_bytes
from benchmarks.published import IRONIC
from benchmarks.server import Server, simulated_server

NAME = "serving"
TITLE = "Serving"
HOW = """\
One server process on SQLite with simulated nodes; one plain HTTP client on one connection that is kept open. "Per core"
is one second divided by the server's own CPU for a read, so the client's share of the machine is left out. An idle room
is watched for one round of power polls: every node's power is read once, every switch's ports three times."""
NODES = 1000
MB = 1_000_000
POLL_S = 60.0
#: A poll begins a minute after the last one has ended: one second more than a minute sees one in any case.
IDLE_S = POLL_S + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one request takes."""

    seconds: float
    cpu_s: float  #: the server's


def run(*, is_quick: bool) -> Result:
    """Measure one server with a thousand enrolled nodes."""
    nodes, gets, lists, idle_s, repeats = (100, 200, 5, 5.0, 1) if is_quick else (NODES, 2000, 30, IDLE_S, 3)
    with simulated_server(nodes, power_poll_s=POLL_S) as server:
        with _reading(server) as read:
            one = [_cost(server, read, "/v1/nodes/n001", gets) for _ in range(repeats)]
            listed = f"/v1/nodes?limit={nodes}"
            if len(read(listed)["items"]) != nodes:
                raise RuntimeError(f"{listed} does not list {nodes} nodes")
            many = [_cost(server, read, listed, lists) for _ in range(repeats)]
        idle = _idle(server, idle_s)
        resident = resident_bytes(server.pid) / MB
    return Result(name=NAME, title=TITLE, how=HOW, figures=_figures(nodes, one, many, (idle, resident)))


def _figures(nodes: int, one: list[Cost], many: list[Cost], idle: tuple[float, float]) -> tuple[Figure, ...]:
    per_s, list_ms = Published(whose=IRONIC, value=275.0), Published(whose=IRONIC, value=112.0)
    return (
        Figure(
            name="GET one node, per core",
            unit="1/s",
            values=tuple(1 / cost.cpu_s for cost in one),
            bar=at_least(1000),
            published=per_s,
        ),
        Figure(name="GET one node, on one connection", unit="1/s", values=tuple(1 / cost.seconds for cost in one)),
        Figure(
            name=f"list of {nodes:,} nodes, CPU",
            unit="ms",
            values=tuple(1e3 * cost.cpu_s for cost in many),
            bar=at_most(20),
            published=list_ms,
        ),
        Figure(name=f"list of {nodes:,} nodes, time", unit="ms", values=tuple(1e3 * cost.seconds for cost in many)),
        Figure(
            name=f"{nodes:,} idle nodes, power polled every 60 s", unit="% of a core", values=idle[:1], bar=at_most(10)
        ),
        Figure(
            name=f"resident memory with {nodes:,} simulated nodes inside", unit="MB", values=idle[1:], bar=at_most(150)
        ),
    )


@contextmanager
def _reading(server: Server) -> "Iterator[Read]":
    """Keep a connection open; give what reads a path over it."""
    place = urlsplit(server.url)
    with closing(HTTPConnection(str(place.hostname), place.port, timeout=60)) as connection:
        yield Read(connection, {"Authorization": f"Bearer {server.token.reveal()}"})


class Read:
    """Reads of one path after the other. A heavy client would take the core that the server needs."""

    def __init__(self, connection: HTTPConnection, headers: dict[str, str]) -> None:
        self._connection, self._headers = connection, headers

    def __call__(self, path: str) -> dict[str, list[object]]:
        found: dict[str, list[object]] = json.loads(self.raw(path))
        return found

    def raw(self, path: str) -> bytes:
        """Read the bytes. Errors: RuntimeError for any answer but 200."""
        self._connection.request("GET", path, headers=self._headers)
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"GET {path} answered {answer.status}")
        return body


def _cost(server: Server, read: Read, path: str, count: int) -> Cost:
    """Read a path many times, after a tenth as often to warm up."""
    for _ in range(-(-count // 10)):
        read.raw(path)
    before_s, began_s = cpu_s(server.pid), time.perf_counter()
    for _ in range(count):
        read.raw(path)
    return Cost(seconds=(time.perf_counter() - began_s) / count, cpu_s=(cpu_s(server.pid) - before_s) / count)


def _idle(server: Server, seconds: float) -> float:
    """Return the server's share of a core, in percent, while nobody asks anything."""
    before_s, began_s = cpu_s(server.pid), time.monotonic()
    time.sleep(seconds)
    return 100 * (cpu_s(server.pid) - before_s) / (time.monotonic() - began_s)
