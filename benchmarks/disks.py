"""Disks ready to boot: through the whole API with durable state, and what the real pool and daemon take for it."""

import contextlib
import os
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.contract.targets.room import NODE, TgtRoom, missing_for_room

from benchmarks.databases import SQLITE, database
from benchmarks.figures import Figure, Result, at_least
from benchmarks.processes import cpu_s
from benchmarks.provisions import Crowd, watching
from benchmarks.server import DURABLE_DIR, Server, simulated_server
from malleable.client import Client
from malleable.domain.disks import new_iqn
from malleable.domain.ids import DiskId, ImageId, NetworkId, new_id
from malleable.domain.ports import Export
from malleable.domain.secrets import chap_secret
from malleable.drivers.storage.folder import GIB, ReflinkSettings
from malleable.drivers.storage.reflink import ReflinkDisks
from malleable.drivers.storage.sealing import sha256_of
from malleable.drivers.target.tgt import TgtTargets
from malleable.wire.disks import DiskBatchRequest, DiskRequest
from malleable.wire.nodes import ProvisionRequest

NAME = "disks"
TITLE = "Disks ready a second"
HOW = """\
Through the whole API, SQLite, simulated devices, eight connections. A clone alone is `POST /v1/disks`: a durable
operation with its events and hash chains; the clock stops at the event of the last. In batches it is
`POST /v1/disks/batch`, 100 disks a request. A target is made only for a node that has the disk, so a clone with its
target is a provision up to its step `export-target`, power-off and port included: from the first request to the last
export, as the operations' own times tell, while the boots go on beside it. In batches, nodes are provisioned with 16
more disks each, made by batch within the clock; the CPU is all of it, until the last node is up. By the drivers alone:
a clone on a real reflink pool with target, LUN, CHAP and address bind on a real tgtd, one after the other."""
IMAGE_BYTES = 64 << 20
NODES = 100
BATCH = 100
FLEET, DATA_DISKS = 24, 16


def run(*, is_quick: bool) -> Result:
    """Measure both."""
    nodes, count, repeats = (24, 50, 2) if is_quick else (NODES, 300, 3)
    with database(SQLITE) as (url, _), simulated_server(nodes, database=url) as server:
        crowd = Crowd(server, nodes)
        targets = tuple(_exports(server, crowd, nodes) for _ in range(repeats + 1))[1:]
        clones = [_clones(server, crowd, count) for _ in range(repeats + 1)][1:]  # the first compiles every statement
        batches = [_batches(server, crowd, count) for _ in range(repeats + 1)][1:]
        fleets = [_fleet(server, crowd) for _ in range(repeats + 1)][1:]
        crowd.close()
    figures = [
        Figure(
            name="clone + target through the whole API, in batches",
            unit="1/s",
            values=tuple(r[0] for r in fleets),
            bar=at_least(300),
        ),
        Figure(name="clone + target, in batches: server CPU for each", unit="ms", values=tuple(r[1] for r in fleets)),
        Figure(
            name="clone alone through the whole API, in batches",
            unit="1/s",
            values=tuple(r[0] for r in batches),
            bar=at_least(300),
        ),
        Figure(name="clone alone, in batches: server CPU for each", unit="ms", values=tuple(r[1] for r in batches)),
        Figure(name="clone + target through the whole API", unit="1/s", values=targets, bar=at_least(300)),
        Figure(
            name="clone alone through the whole API", unit="1/s", values=tuple(r[0] for r in clones), bar=at_least(300)
        ),
        Figure(name="clone alone: server CPU for each", unit="ms", values=tuple(r[1] for r in clones)),
    ]
    if not missing_for_room():
        rates = _by_drivers(count, repeats)
        figures.append(Figure(name="clone + target by the drivers", unit="1/s", values=rates))
    return Result(name=NAME, title=TITLE, how=HOW, figures=tuple(figures))


def _exports(server: Server, crowd: Crowd, nodes: int) -> float:
    """Provision all nodes at once; return how many a second got their clone and target."""
    crowd.provision(nodes)
    with server.client() as client:
        began, ended = _exported(client, nodes)
    crowd.release(nodes)
    return nodes / (ended - began).total_seconds()


def _exported(client: Client, nodes: int) -> tuple[datetime, datetime]:
    """Return when the latest provisions of as many nodes were asked for, and when the last had exported everything."""
    latest = {operation.node: operation.id for operation in client.operation_list(kind="provision")}
    operations = [client.operation_get(operation_id) for operation_id in sorted(latest.values())[-nodes:]]
    exports = [step for operation in operations for step in operation.steps if step.name.startswith("export-")]
    ends = [step.finished_at for step in exports if step.finished_at]
    if len({step.name for step in exports}) * nodes != len(ends):
        raise RuntimeError(f"{len(ends)} exports for {nodes} nodes")
    return min(operation.created_at for operation in operations), max(ends)


def _batches(server: Server, crowd: Crowd, count: int) -> tuple[float, float]:
    """Make disks by batch; return as ``_clones``."""
    before_s, began_s = cpu_s(server.pid), time.perf_counter()
    _make(server, crowd, [f"b{number}" for number in range(count)])
    seconds, cpu = time.perf_counter() - began_s, cpu_s(server.pid) - before_s
    crowd.delete_disks()
    return count / seconds, 1000 * cpu / count


def _make(server: Server, crowd: Crowd, names: Sequence[str]) -> None:
    """Make disks by batch; return when all are there."""
    batches = [tuple(names[at : at + BATCH]) for at in range(0, len(names), BATCH)]

    def one(client: Client, number: int) -> object:
        return client.disk_create_batch(DiskBatchRequest(names=batches[number], project="alice", image="debian-12"))

    with watching(server, "disk.created", len(names)) as seen:
        crowd.each(len(batches), one)
        seen()


def _fleet(server: Server, crowd: Crowd) -> tuple[float, float]:
    """Make data disks and provision nodes with them; return disks with target a second, and the CPU as ``_clones``."""
    names = [[f"f{node}-{number}" for number in range(DATA_DISKS)] for node in range(FLEET)]

    def provision(client: Client, node: int) -> object:
        return client.provision(
            ProvisionRequest(
                project="alice",
                network="net0",
                image="debian-12",
                node=crowd.names[node],
                data_disks=tuple(names[node]),
            )
        )

    before_s, asked = cpu_s(server.pid), datetime.now(UTC)
    _make(server, crowd, [name for of_one in names for name in of_one])
    with watching(server, "node.up", FLEET) as seen:
        crowd.each(FLEET, provision)
        seen()
    cpu = cpu_s(server.pid) - before_s
    with server.client() as client:
        _, ended = _exported(client, FLEET)
    crowd.release(FLEET)
    count = FLEET * (1 + DATA_DISKS)
    return count / (ended - asked).total_seconds(), 1000 * cpu / count


def _clones(server: Server, crowd: Crowd, count: int) -> tuple[float, float]:
    """Make disks; return how many a second, and the server's milliseconds of CPU for each."""

    def one(client: Client, number: int) -> object:
        return client.disk_create(DiskRequest(name=f"d{number}", project="alice", image="debian-12"))

    before_s, began_s = cpu_s(server.pid), time.perf_counter()
    with watching(server, "disk.created", count) as seen:
        crowd.each(count, one)
        seen()
    seconds, cpu = time.perf_counter() - began_s, cpu_s(server.pid) - before_s
    crowd.delete_disks()
    return count / seconds, 1000 * cpu / count


def _by_drivers(count: int, repeats: int) -> tuple[float, ...]:
    with (
        tempfile.TemporaryDirectory(prefix="m2bd", dir=DURABLE_DIR) as folder,
        contextlib.closing(TgtRoom(Path(folder))) as room,
        contextlib.closing(ReflinkDisks(ReflinkSettings(pool_dir=Path(folder) / "pool", size_bytes=8 * GIB))) as pool,
    ):
        source = Path(folder) / "image"
        source.write_bytes(os.urandom(1 << 20) * (IMAGE_BYTES >> 20))
        image_id = ImageId(new_id())
        pool.seal(image_id, source, sha256=sha256_of(source))
        targets = TgtTargets(room.socket_of)
        return tuple(_ready(pool, targets, image_id, count) for _ in range(repeats))


def _ready(pool: ReflinkDisks, targets: TgtTargets, image_id: ImageId, count: int) -> float:
    network_id, made = NetworkId(new_id()), []
    began_s = time.perf_counter()
    for _ in range(count):
        disk_id = DiskId(new_id())
        pool.clone(image_id, disk_id, size_bytes=IMAGE_BYTES)
        export = Export(
            network_id=network_id,
            iqn=new_iqn(),
            lun=1,
            serial=disk_id.hex[-20:],
            handle=pool.handle(disk_id),
            chap_username=f"b{disk_id.hex[-12:]}",
            chap_password=chap_secret(),
            initiator_address=NODE,
            size_bytes=IMAGE_BYTES,
        )
        targets.export(export)
        made.append((disk_id, export.iqn))
    rate = count / (time.perf_counter() - began_s)
    for disk_id, iqn in made:
        targets.revoke(network_id, iqn)
        pool.delete_disk(disk_id)
    return rate
