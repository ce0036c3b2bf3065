"""Provisions through the whole control plane, with simulated devices that take no time."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event, Thread

from benchmarks.databases import POSTGRESQL, SQLITE, database, durable_write_ms
from benchmarks.figures import Figure, Published, Result, at_most
from benchmarks.processes import cpu_s, cpu_with_ended_s
from benchmarks.published import IRONIC, M2
from benchmarks.server import Server, simulated_server
from malleable.client import Client
from malleable.wire.networks import NetworkRequest
from malleable.wire.nodes import ProvisionRequest

NAME = "provision"
TITLE = "Provisions at once, simulated devices"
HOW = """\
One server process (API, worker, watch, gateway and simulated devices without any delay) and one client process with
eight connections. N provisions are asked for at once; the clock runs from the first request to the last `node.up` on
the event stream, and is divided by N. CPU is the server's own, the simulated devices' in it, as what is published of
Ironic is that of its processes; that of the whole PostgreSQL server, which is durable, stands beside it. 50 nodes a
network. One provision alone waits for about ten durable writes, one after the other: how long one took, after each
round, stands beside it. The cost is flat when a node of 500 at once takes no longer than a node of 24."""

SIZES = (1, 24, 100, 500)
NETWORK_NODES = 50
CONNECTIONS = 8
WARM_UP = 100
FLAT = (24, 500)
#: No further repeat once a size has taken so long: with the release and the deletes outside the clock.
BUDGET_S = 40.0
WAIT_S = 300.0


class Crowd:
    """N provisions at once, and back."""

    def __init__(self, server: Server, nodes: int) -> None:
        self._server = server
        self._clients = [server.client() for _ in range(CONNECTIONS)]
        self._pool = ThreadPoolExecutor(CONNECTIONS)
        self.names = [f"n{number + 1:03d}" for number in range(nodes)]
        for number in range(-(-nodes // NETWORK_NODES)):
            self._clients[0].network_create(NetworkRequest(name=f"net{number}", project="alice"))

    def close(self) -> None:
        """Give up the connections."""
        self._pool.shutdown()
        for client in self._clients:
            client.close()

    def provision(self, count: int) -> float:
        """Provision the first ``count`` nodes at once; return the seconds until all are up."""
        with watching(self._server, "node.up", count) as seen:
            began_s = time.perf_counter()
            self.each(count, self._provision_one)
            seen()
            return time.perf_counter() - began_s

    def release(self, count: int) -> float:
        """Give them back, and delete their disks outside the clock; return the seconds until all are free."""
        with watching(self._server, "node.freed", count) as seen:
            began_s = time.perf_counter()
            self.each(count, lambda client, number: client.node_release(self.names[number]))
            seen()
            seconds = time.perf_counter() - began_s
        self.delete_disks()
        return seconds

    def delete_disks(self) -> None:
        """Delete all disks and wait for their end."""
        disks = [disk.name for disk in self._clients[0].disk_list(project="alice")]
        with watching(self._server, "disk.deleted", len(disks)) as seen:
            self.each(len(disks), lambda client, number: client.disk_delete(disks[number], project="alice"))
            seen()

    def _provision_one(self, client: Client, number: int) -> object:
        network = f"net{number // NETWORK_NODES}"
        return client.provision(
            ProvisionRequest(project="alice", network=network, image="debian-12", node=self.names[number])
        )

    def each(self, count: int, ask: Callable[[Client, int], object]) -> None:
        def stripe(lane: int) -> None:
            for number in range(lane, count, CONNECTIONS):
                ask(self._clients[lane], number)

        for _ in self._pool.map(stripe, range(CONNECTIONS)):
            pass


@contextmanager
def watching(server: Server, kind: str, count: int) -> Iterator[Callable[[], None]]:
    """Follow the event stream; what it gives waits until an event was seen ``count`` times."""
    done, listening = Event(), Event()

    def follow() -> None:
        with (
            server.client() as client,
            client.stream("/v1/events", {"kind": kind}, {"Accept": "text/event-stream"}) as response,
        ):
            left = count
            for line in response.iter_lines():
                listening.set()  # the stream's first line comes before any event
                left -= line.startswith("data:")
                if left <= 0:
                    done.set()
                    return

    def wait() -> None:
        if not done.wait(WAIT_S):
            raise RuntimeError(f"{count} times {kind} did not happen within {WAIT_S:.0f} s")

    if count > 0:
        Thread(target=follow, daemon=True).start()
        listening.wait(WAIT_S)
    else:
        done.set()
    yield wait


def run(*, is_quick: bool) -> Result:
    """Measure on both databases."""
    figures: list[Figure] = []
    facts: dict[str, object] = {}
    sizes, repeats = ((1, 24), 2) if is_quick else (SIZES, 3)
    for kind in (SQLITE, POSTGRESQL):
        figures += _measure(kind, sizes, repeats, facts)
    return Result(name=NAME, title=TITLE, how=HOW, figures=tuple(figures), facts=facts)


def _measure(kind: str, sizes: tuple[int, ...], repeats: int, facts: dict[str, object]) -> list[Figure]:
    figures = []
    with database(kind) as (url, database_pids), simulated_server(max(sizes), database=url) as server:
        crowd = Crowd(server, max(sizes))
        warm_up = min(WARM_UP, max(sizes))
        crowd.provision(warm_up)  # the first ones compile every statement
        crowd.release(warm_up)
        for size in sizes:
            rounds = list(_rounds(crowd, size, max(repeats, 24 // size), (server.pid, database_pids)))
            facts[f"{kind} {size}"] = rounds
            figures += _figures(kind, size, rounds)
        crowd.close()
    return [*figures, *_flatness(kind, figures)]


def _rounds(crowd: Crowd, size: int, repeats: int, pids: tuple[int, tuple[int, ...]]) -> Iterator[dict[str, float]]:
    began_s = time.monotonic()
    for _ in range(repeats):
        yield _round(crowd, size, *pids)
        if time.monotonic() - began_s > BUDGET_S:
            return


def _round(crowd: Crowd, size: int, server: int, database_pids: tuple[int, ...]) -> dict[str, float]:
    before_s, database_before_s = cpu_s(server), _database_s(database_pids)
    seconds = crowd.provision(size)
    cpu, database_cpu = cpu_s(server) - before_s, _database_s(database_pids) - database_before_s
    return {
        "seconds_each": seconds / size,
        "cpu_ms_each": 1000 * cpu / size,
        "database_cpu_ms_each": 1000 * database_cpu / size,
        "release_seconds_each": crowd.release(size) / size,
        "durable_write_ms": durable_write_ms(),
    }


def _database_s(pids: tuple[int, ...]) -> float:
    return sum(cpu_with_ended_s(pid) for pid in pids)


def _figures(kind: str, size: int, rounds: list[dict[str, float]]) -> list[Figure]:
    def values(name: str) -> tuple[float, ...]:
        return tuple(one[name] for one in rounds)

    told = f"{kind}, {size} at once"
    serial, deploy = Published(whose=M2, value=0.96), Published(whose=IRONIC, value=89.0)
    figures = [
        Figure(
            name=_time_name(kind, size), unit="s", values=values("seconds_each"), bar=at_most(0.02), published=serial
        )
    ]
    if size == 1:
        written = values("durable_write_ms")
        figures.append(Figure(name=f"{told}: one durable write on this disk then", unit="ms", values=written))
    if size > 1:  # the clock of a process's CPU ticks every 10 ms
        cpu = values("cpu_ms_each")
        figures += [
            Figure(name=f"{told}: CPU each", unit="ms", values=cpu, bar=at_most(30), published=deploy),
            Figure(name=f"{told}: release, time per node", unit="s", values=values("release_seconds_each")),
        ]
    if kind == POSTGRESQL and size > 1:
        figures.append(
            Figure(
                name=f"{told}: CPU of the database server beside it", unit="ms", values=values("database_cpu_ms_each")
            )
        )
    return figures


def _time_name(kind: str, size: int) -> str:
    return f"{kind}, {size} at once: time per node"


def _flatness(kind: str, figures: Sequence[Figure]) -> list[Figure]:
    """Compare many at once with few: no figure where one of the two was not measured."""
    few, many = (next((f for f in figures if f.name == _time_name(kind, size)), None) for size in FLAT)
    if few is None or many is None:
        return []
    name, ratio = f"{kind}: time per node, {FLAT[1]} at once against {FLAT[0]}", many.median / few.median
    return [Figure(name=name, unit="times", values=(ratio,), bar=at_most(1.25))]
