"""Disks ready to boot: through the whole API with durable state, and what the real pool and daemon take for it."""

import contextlib
import os
import tempfile
import time
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
from malleable.wire.disks import DiskRequest

NAME = "disks"
TITLE = "Disks ready a second"
HOW = """\
Through the whole API, SQLite, simulated devices, eight connections. A clone alone is `POST /v1/disks`: a durable
operation with its events and hash chains; the clock stops at the event of the last. A target is made only for a node
that boots, so a clone with its target is a provision up to its step `export-target`, power-off and port included: from
the first request to the last export, as the operations' own times tell, while the boots go on beside it. By the drivers
alone: a clone on a real reflink pool with target, LUN, CHAP and address bind on a real tgtd, one after the other."""
IMAGE_BYTES = 64 << 20
NODES = 100


def run(*, is_quick: bool) -> Result:
    """Measure both."""
    nodes, count, repeats = (24, 50, 2) if is_quick else (NODES, 300, 3)
    with database(SQLITE) as (url, _), simulated_server(nodes, database=url) as server:
        crowd = Crowd(server, nodes)
        targets = tuple(_exports(server, crowd, nodes) for _ in range(repeats + 1))[1:]
        clones = [_clones(server, crowd, count) for _ in range(repeats + 1)][1:]  # the first compiles every statement
        crowd.close()
    figures = [
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
        latest = {operation.node: operation.id for operation in client.operation_list(kind="provision")}
        operations = [client.operation_get(operation_id) for operation_id in latest.values()]
    ends = [s.finished_at for o in operations for s in o.steps if s.name == "export-target" and s.finished_at]
    if len(ends) != nodes:
        raise RuntimeError(f"{len(ends)} targets were exported for {nodes} nodes")
    crowd.release(nodes)
    return nodes / (max(ends) - min(operation.created_at for operation in operations)).total_seconds()


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
