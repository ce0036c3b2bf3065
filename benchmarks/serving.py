"""Reads of one node and of a thousand, an idle room, and what a server costs: simulated devices, SQLite, HTTP."""

import time

import httpx

from benchmarks.figures import Figure, Result, at_least, at_most
from benchmarks.processes import cpu_s, resident_bytes
from benchmarks.server import Server, simulated_server

NAME = "serving"
NODES = 1000
MIB = 1 << 20


def run(*, is_quick: bool) -> Result:
    """Measure one server with a thousand enrolled nodes."""
    nodes, gets, lists, idle_s = (100, 200, 5, 5) if is_quick else (NODES, 2000, 30, 60)
    with simulated_server(nodes, power_poll_s=60.0) as server:
        repeats = 1 if is_quick else 3
        one = [_get_one(server, gets) for _ in range(repeats)]
        many = [_list(server, nodes, lists) for _ in range(repeats)]
        idle = _idle(server, idle_s)
        resident = resident_bytes(server.pid) / MIB
    figures = (
        Figure(name="GET one node, per core", unit="1/s", values=tuple(1 / cpu for cpu in one), bar=at_least(1000)),
        Figure(
            name=f"list of {nodes} nodes: server CPU", unit="ms", values=tuple(1e3 * c for c in many), bar=at_most(20)
        ),
        Figure(
            name=f"{nodes} idle nodes, power polled every 60 s", unit="% of a core", values=(idle,), bar=at_most(10)
        ),
        Figure(name=f"resident memory with {nodes} nodes", unit="MiB", values=(resident,)),
    )
    how = (
        "One server process; one client on one connection. CPU is the server's own, so the client's share is left out."
    )
    return Result(name=NAME, title="Serving", how=how, figures=figures)


def _get_one(server: Server, count: int) -> float:
    """Return the server's CPU seconds for one read."""
    with server.client() as client:
        name = next(client.node_list()).name
        client.node_get(name)
        before = cpu_s(server.pid)
        for _ in range(count):
            client.node_get(name)
        return (cpu_s(server.pid) - before) / count


def _list(server: Server, nodes: int, count: int) -> float:
    """Return the server's CPU seconds for one list; the client parses nothing of it."""
    headers = {"Authorization": f"Bearer {server.token.reveal()}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=60.0) as http:
        before = cpu_s(server.pid)
        for _ in range(count):
            http.get("/v1/nodes", params={"limit": nodes}).raise_for_status()
        return (cpu_s(server.pid) - before) / count


def _idle(server: Server, seconds: float) -> float:
    before, began_s = cpu_s(server.pid), time.monotonic()
    time.sleep(seconds)
    return 100 * (cpu_s(server.pid) - before) / (time.monotonic() - began_s)
