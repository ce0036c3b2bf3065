"""A pool of files with a golden image, and the daemon that presents its clones."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.contract.targets.room import NODE, TgtRoom, missing_for_room, tgt_room

from benchmarks.server import DURABLE_DIR
from malleable.domain.disks import new_iqn
from malleable.domain.errors import Busy
from malleable.domain.ids import DiskId, ImageId, NetworkId, new_id
from malleable.domain.ports import DiskHandle, Export
from malleable.domain.secrets import chap_secret
from malleable.drivers.storage.folder import GIB, ReflinkSettings
from malleable.drivers.storage.reflink import ReflinkDisks
from malleable.drivers.target.tgt import TgtTargets
from malleable.wiring.pools import DIRECT_PORTAL_THREADS

MIB = 1 << 20


class PoolBench:
    """A pool with a golden image, and the daemon that presents its clones."""

    def __init__(self, pool: ReflinkDisks, room: TgtRoom, folder: Path, mib: int) -> None:
        self.pool, self.room, self.folder = pool, room, folder
        self.targets, self.network_id = TgtTargets(room.socket_of), NetworkId(new_id())
        self.source, self.image_id, self.size_bytes = folder / "image", ImageId(new_id()), mib * MIB
        with self.source.open("wb") as file:
            for _ in range(mib):
                file.write(os.urandom(MIB))
        pool.seal(self.image_id, self.source, sha256=None)

    def clone(self) -> DiskId:
        disk_id = DiskId(new_id())
        self.pool.clone(self.image_id, disk_id, size_bytes=0)
        return disk_id

    def export(self, handle: DiskHandle, address: str = NODE) -> Export:
        export = export_of(self.network_id, handle, address)
        self.targets.export(export)
        return export

    def empty(self) -> None:
        self.room.stop()
        self.room.start()
        for disk_id in self.pool.list().disks:
            self.pool.delete_disk(disk_id)


def export_of(network_id: NetworkId, handle: DiskHandle, address: str = NODE) -> Export:
    serial = new_id()
    return Export(
        network_id=network_id,
        iqn=new_iqn(),
        lun=1,
        serial=serial.hex[-20:],
        handle=handle,
        chap_username=f"b{serial.hex[-12:]}",
        chap_password=chap_secret(),
        initiator_address=address,
    )


def missing_for_pool() -> str:
    """Say what a pool and its daemon lack here; "" when nothing."""
    return missing_for_room() or ("" if shutil.which("qemu-img") else "no qemu-img")


@contextlib.contextmanager
def pool_bench(mib: int) -> Iterator[PoolBench]:
    """Make a pool with an image of so many MiB of noise on the host's disk, and remove it at the end."""
    with (
        tempfile.TemporaryDirectory(prefix="m2bt-", dir=DURABLE_DIR) as folder,
        tgt_room(DIRECT_PORTAL_THREADS) as room,
    ):
        pool = ReflinkDisks(ReflinkSettings(pool_dir=Path(folder) / "pool", size_bytes=16 * GIB))
        try:
            yield PoolBench(pool, room, Path(folder), mib=mib)
        finally:
            room.stop()
            # Busy: a namespace of somebody on this host has a copy of the mount; it goes with that.
            with contextlib.suppress(Busy):
                pool.close()
