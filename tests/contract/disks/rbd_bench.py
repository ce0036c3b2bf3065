"""A pool in a real Ceph, in the shape of every pool."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.ceph import Ceph
from tests.contract.disks.conftest import Bench

from malleable.domain.ids import DiskId, ImageId
from malleable.drivers.storage import rbd_index, rbd_sealing
from malleable.drivers.storage.rbd_cluster import RbdCluster, RbdSettings
from malleable.drivers.storage.rbd_library import rbd
from malleable.drivers.storage.rbd_process import DisksApart, apart


def settings_of(cluster: Ceph, cache_dir: Path) -> RbdSettings:
    """Use the cluster's pool as the user of least rights."""
    layout = cluster.layout
    return RbdSettings(
        conf=layout.conf, user=layout.USER, pool=layout.spec.pool, reserve_bytes=0, cache_dir=cache_dir, timeout_s=60
    )


@contextmanager
def rbd_bench(disks: DisksApart, settings: RbdSettings, folder: Path) -> Iterator[Bench]:
    cluster = RbdCluster(settings)

    @contextmanager
    def opened(disk_id: DiskId, *, is_read_only: bool = True) -> Iterator[Any]:
        name = disks.handle(disk_id).path.rpartition("/")[2]
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
    )
    # Closed before the cluster goes: a client waits for it at its end.
    cluster.close()
    full.close()


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
