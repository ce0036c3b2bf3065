"""A disk of layers behind a real tgtd: the storage daemon is killed, and the node finds all that it flushed."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contract.targets.conftest import Bench
from tests.contract.targets.initiator import IoFailed
from tests.contract.targets.room import TgtRoom, wait_until

from malleable.domain.ids import DiskId, ImageId, new_id
from malleable.drivers.storage.qcow2 import Qcow2Disks, Qcow2Settings

pytestmark = pytest.mark.room
MIB = 1 << 20


@pytest.fixture
def pool(tgt_room: TgtRoom, tmp_path: Path) -> Iterator[Qcow2Disks]:
    """A pool whose storage daemon's socket has a short path."""
    if not Path("/dev/fuse").exists() or not shutil.which("qemu-storage-daemon"):
        pytest.skip("needs FUSE and qemu-storage-daemon")
    run_dir = tgt_room.folder / "pool"
    disks = Qcow2Disks(Qcow2Settings(pool_dir=tmp_path / "pool", run_dir=run_dir, reserve_bytes=0))
    yield disks
    for disk_id in disks.list().disks:
        disks.delete_disk(disk_id)
    disks.close()


def golden(pool: Qcow2Disks, folder: Path) -> tuple[ImageId, bytes]:
    source, image_id = folder / "source", ImageId(new_id())
    content = os.urandom(4 * MIB + 100)
    source.write_bytes(content)
    pool.seal(image_id, source, sha256=None)
    return image_id, content


def test_a_disk_of_layers_survives_its_storage_daemon(
    pool: Qcow2Disks, tgt: Bench, tgt_room: TgtRoom, tmp_path: Path
) -> None:
    image_id, content = golden(pool, tmp_path)
    disk_id = DiskId(new_id())
    pool.clone(image_id, disk_id, size_bytes=64 * MIB)
    shared = tgt.login(tgt.export(pool.image_handle(image_id)))
    assert shared.read(MIB, 4096) == content[MIB : MIB + 4096]
    assert shared.read(4 * MIB, 512) == content[4 * MIB :].ljust(512, b"\0"), "the last sector"
    with pytest.raises(IoFailed):
        shared.write(0, bytes(4096))
    login = tgt.login(tgt.export(pool.handle(disk_id)))
    for number in range(16):
        login.write(8 * MIB + number * 4096, bytes([number + 1]) * 4096)
    login.flush()
    os.kill(int((tgt_room.folder / "pool" / "storage.pid").read_text()), signal.SIGKILL)
    # A target daemon that has its files open could only answer with errors.
    wait_until(lambda: not pool.is_open(), "the storage daemon ends")
    pool.tend()
    wait_until(lambda: tgt_room.processes[0].poll() is not None, "tgtd ends")
    tgt_room.stop()
    tgt_room.start()
    again = tgt.login(tgt.export(pool.handle(disk_id)))
    assert all(again.read(8 * MIB + number * 4096, 4096) == bytes([number + 1]) * 4096 for number in range(16))
    assert again.read(0, MIB) == content[:MIB]
    pool.delete_image(image_id)
    assert again.read(2 * MIB, MIB) == content[2 * MIB : 3 * MIB]
