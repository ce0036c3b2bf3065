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
from benchmarks.server import simulated_server
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
Through the API: `POST /v1/disks` (a durable create-disk operation: clone, events, hash chains) for many disks at once
by eight connections, until the event of the last; simulated pool, SQLite. A target is made only for a node that boots,
so clone + target through the API is part of the provisions above. By the drivers alone: clone on a real reflink pool
+ target, LUN, CHAP and address bind on a real tgtd, one after the other."""
IMAGE_BYTES = 64 << 20


def run(*, is_quick: bool) -> Result:
    """Measure both."""
    count, repeats = (50, 2) if is_quick else (500, 3)
    rounds = _through_api(count, repeats)
    figures = [
        Figure(name="disks through the whole API", unit="1/s", values=tuple(r[0] for r in rounds), bar=at_least(300)),
        Figure(name="server CPU for each", unit="ms", values=tuple(r[1] for r in rounds)),
    ]
    if not missing_for_room():
        rates = _by_drivers(count, repeats)
        figures.append(Figure(name="clone + target by the drivers", unit="1/s", values=rates))
    return Result(name=NAME, title=TITLE, how=HOW, figures=tuple(figures))


def _through_api(count: int, repeats: int) -> list[tuple[float, float]]:
    rounds = []
    with database(SQLITE) as (url, _), simulated_server(2, database=url) as server:
        crowd = Crowd(server, 2)
        for repeat in range(-1, repeats):
            before_s, began_s = cpu_s(server.pid), time.perf_counter()
            with watching(server, "disk.created", count) as seen:
                crowd.each(
                    count,
                    lambda client, number, r=repeat: client.disk_create(  # type: ignore[misc]
                        DiskRequest(name=f"d{r + 1}-{number}", project="alice", image="debian-12")
                    ),
                )
                seen()
            seconds, cpu = time.perf_counter() - began_s, cpu_s(server.pid) - before_s
            if repeat >= 0:  # the first compiles every statement
                rounds.append((count / seconds, 1000 * cpu / count))
        crowd.close()
    return rounds


def _by_drivers(count: int, repeats: int) -> tuple[float, ...]:
    with (
        tempfile.TemporaryDirectory(prefix="m2bd", dir="/var/tmp") as folder,
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
