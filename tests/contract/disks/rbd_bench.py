"""A pool in a real Ceph, in the shape of every pool."""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.ceph import Ceph
from tests.contract.disks.conftest import MAX_CHAIN, MIB, Bench
from tests.contract.targets import conftest as targets
from tests.contract.targets.room import TgtRoom, wait_until

from malleable.domain.ids import DiskId, ImageId, NetworkId, new_id
from malleable.domain.ports import DiskHandle
from malleable.drivers.storage import rbd_index, rbd_rubbish, rbd_sealing
from malleable.drivers.storage.rbd_cluster import FEATURES, RbdCluster, RbdPool, RbdSettings
from malleable.drivers.storage.rbd_library import rbd
from malleable.drivers.storage.rbd_process import DisksApart, apart
from malleable.drivers.target.tgt import TgtTargets
from malleable.sim import ceph as sim_ceph

#: Names that are user's names, too.
PROJECT_POOLS = ("first-pool", "second-pool")


def settings_of(cluster: Ceph, cache_dir: Path) -> RbdSettings:
    """Use the cluster's pool as the user of least rights."""
    layout = cluster.layout
    return RbdSettings(
        conf=layout.conf,
        user=layout.USER,
        pool=layout.spec.pool,
        portal_user=layout.PORTAL_USER,
        reserve_bytes=0,
        max_chain=MAX_CHAIN,
        cache_dir=cache_dir,
        timeout_s=60,
    )


@contextmanager
def rbd_bench(disks: DisksApart, settings: RbdSettings, folder: Path) -> Iterator[Bench]:
    cluster = RbdCluster(settings)

    @contextmanager
    def opened(disk_id: DiskId, *, is_read_only: bool = True) -> Iterator[Any]:
        name = disks.handle(disk_id).path
        with cluster.opened("test") as pool, pool.image(name, is_read_only=is_read_only) as image:
            yield image

    def read(disk_id: DiskId, offset: int, length: int) -> bytes:
        with opened(disk_id) as image:
            return bytes(image.read(offset, length))

    def write(disk_id: DiskId, offset: int, data: bytes) -> None:
        with opened(disk_id, is_read_only=False) as image:
            image.write(data, offset)

    def size_bytes(disk_id: DiskId) -> int:
        with opened(disk_id) as image:
            return int(image.size())

    def damage(image_id: ImageId) -> None:
        """Take the snapshot away and make it again of less."""
        with cluster.opened("test") as pool:
            name = rbd_index.key(rbd_index.IMAGE, image_id)
            entry = rbd_index.read(pool.ioctx, [name])[name]
            with pool.image(entry.rbd, is_read_only=False) as image:
                image.remove_snap(rbd_sealing.SNAPSHOT)
                image.resize(entry.size_bytes - 512)
                image.create_snap(rbd_sealing.SNAPSHOT)

    full = apart(replace(settings, reserve_bytes=1 << 60))
    yield Bench(
        disks=disks,
        folder=folder,
        read=read,
        write=write,
        size_bytes=size_bytes,
        damage=damage,
        fill=lambda: full,
        verify=disks.verify,
        has_chains=True,
        project_pools=PROJECT_POOLS,
    )
    # Closed before the cluster goes: a client waits for it at its end.
    cluster.close()
    full.close()


@contextmanager
def rbd_targets(disks: DisksApart, bench: Bench, nodes: targets.RealNodes, other: TgtRoom) -> Iterator[targets.Bench]:
    """Present disks in Ceph; the neighbour's disks are files."""

    def new_disk(content: bytes = b"") -> DiskHandle:
        disk_id = DiskId(new_id())
        disks.make_blank(disk_id, size_bytes=targets.DISK_BYTES)
        if content:
            bench.write(disk_id, 0, content)
        return disks.handle(disk_id)

    def neighbour() -> targets.Bench:
        theirs = targets.RealNodes(room=other, folder=nodes.folder)
        closing.callback(theirs.close)
        return targets.real_bench(TgtTargets(other.socket_of), NetworkId(new_id()), theirs)

    driver = TgtTargets(nodes.room.socket_of, shut_out=disks.shut_out)
    with ExitStack() as closing:
        bare = targets.real_bench(driver, NetworkId(new_id()), nodes, neighbour)
        # Each LUN of tgt-rbd has a connection to the cluster of its own, with some 19 threads.
        yield replace(bare, new_disk=new_disk, many=20)


def empty(disks: DisksApart) -> None:
    """Delete all that a test left."""
    things = disks.list()
    for disk_id in things.disks:
        disks.delete_disk(disk_id)
    for snapshot_id in things.snapshots:
        disks.delete_snapshot(snapshot_id)
    for image_id in things.images:
        disks.delete_image(image_id)


def rbd_names(settings: RbdSettings) -> tuple[set[str], set[str]]:
    """Name the RBD images of the pool, and those in Ceph's trash."""
    with RbdCluster(settings).opened("test") as pool:
        here = set(rbd().RBD().list(pool.ioctx))
        return here, {item["name"] for item in rbd().RBD().trash_list(pool.ioctx)}


def is_written_to(pool: RbdPool) -> bool:
    """Tell whether somebody has an RBD image open to write."""
    with suppress(rbd().ImageNotFound):
        for name in rbd().RBD().list(pool.ioctx):
            with pool.image(name) as image:
                return bool(list(image.watchers_list()))
    return False


def leftover(pool: RbdPool, pool_name: str = "") -> str:
    """Leave what a crash amid a clone leaves."""
    name = rbd_rubbish.new_name("disk", new_id(), pool_name)
    rbd().RBD().create(*pool.place(name), MIB, features=FEATURES, old_format=False)
    return name


def daemon_pid(ceph: Ceph, daemon: str) -> int:
    status = sim_ceph.status(ceph.layout.spec.directory)
    assert status is not None
    pid = status.daemons[daemon]
    assert pid is not None
    return pid


def stop(pid: int) -> None:
    """Have a process stand still, all its threads: one that has not heard it yet would still answer."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: all(_state(task) == "T" for task in Path(f"/proc/{pid}/task").iterdir()), "it stands still")


def _state(task: Path) -> str:
    return (task / "stat").read_text().rpartition(")")[2].split()[0]


#: Seals an image; its arguments: configuration, pool, source, id.
SEAL = """
import sys
from pathlib import Path
from uuid import UUID
from malleable.drivers.storage.rbd import RbdDisks
from malleable.drivers.storage.rbd_cluster import RbdSettings
conf, pool, source, image_id = sys.argv[1:]
settings = RbdSettings(conf=Path(conf), user="malleable", pool=pool, reserve_bytes=0, cache_dir=Path("/nowhere"))
RbdDisks(settings).seal(UUID(image_id), Path(source), sha256=None)
"""

#: Runs the process that speaks to Ceph, says its pid and its folder; its arguments: configuration, pool.
HOLD = """
import sys
from pathlib import Path
from malleable.drivers.storage.rbd_cluster import RbdSettings
from malleable.drivers.storage.rbd_process import RbdProcess
conf, pool = sys.argv[1:]
settings = RbdSettings(conf=Path(conf), user="malleable", pool=pool, cache_dir=Path("/nowhere"))
process = RbdProcess(settings).process.started()
print(process._running.pid, process._folder, flush=True)
sys.stdin.read()
"""
