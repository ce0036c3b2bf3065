"""A disk of the pool in a sparse file behind a real tgtd: how it is opened, and what becomes of what it gives up."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.contract.targets.conftest import Bench, RealNodes
from tests.contract.targets.room import NODE, TgtRoom, wait_until

from malleable.domain.ids import DiskId, ImageId, new_id
from malleable.drivers.storage.folder import GIB, ReflinkSettings
from malleable.drivers.storage.reflink import ReflinkDisks

pytestmark = pytest.mark.room
MIB = 1 << 20


@pytest.fixture
def settings(tmp_path: Path) -> ReflinkSettings:
    return ReflinkSettings(pool_dir=tmp_path / "pool", size_bytes=GIB, reserve_bytes=0)


@pytest.fixture
def pool(settings: ReflinkSettings) -> Iterator[ReflinkDisks]:
    disks = ReflinkDisks(settings)
    yield disks
    disks.close()


def clone(pool: ReflinkDisks, folder: Path) -> DiskId:
    """Make a disk whose first 64 MiB are an image's."""
    source, image_id, disk_id = folder / "source", ImageId(new_id()), DiskId(new_id())
    source.write_bytes(os.urandom(64 * MIB))
    pool.seal(image_id, source, sha256=None)
    source.unlink()
    pool.clone(image_id, disk_id, size_bytes=128 * MIB)
    return disk_id


def opened(pid: int, path: str) -> int:
    """Tell the flags with which a process has a file open."""
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        if fd.is_symlink() and str(fd.readlink()) == path:
            (flags,) = (
                line.split()[1]
                for line in Path(f"/proc/{pid}/fdinfo/{fd.name}").read_text().splitlines()
                if line.startswith("flags")
            )
            return int(flags, 8)
    raise AssertionError(f"{path} is not open")


@pytest.mark.parametrize("is_shared", [True, False], ids=["shared", "private"])
def test_a_disk_is_read_past_the_page_cache_only_where_one_below_is_shared(
    settings: ReflinkSettings, pool: ReflinkDisks, tgt: Bench, tgt_room: TgtRoom, tmp_path: Path, *, is_shared: bool
) -> None:
    disk_id = clone(pool, tmp_path)
    handle = ReflinkDisks(replace(settings, shared_cache=is_shared)).handle(disk_id)
    export = tgt.export(handle)
    assert bool(opened(tgt_room.pid, handle.path) & os.O_DIRECT) is is_shared
    tgt.targets.revoke(tgt.network_id, export.iqn)


def test_what_a_node_gives_up_and_what_is_deleted_is_free_again_on_the_host(
    settings: ReflinkSettings, pool: ReflinkDisks, tgt: Bench, nodes: RealNodes, tmp_path: Path
) -> None:
    disk_id, file = clone(pool, tmp_path), settings.pool_dir / "pool.xfs"

    def on_host() -> int:
        os.sync()
        return file.stat().st_blocks * 512

    before, free = on_host(), pool.capacity().free_bytes
    export = tgt.export(pool.handle(disk_id))
    node = nodes.open(export.iqn, (export.chap_username, export.chap_password), NODE)
    for at in range(0, 64 * MIB, MIB):
        node.write(at, os.urandom(MIB))
    node.flush()
    assert on_host() >= before + 64 * MIB
    node.discard(0, 32 * MIB)
    node.flush()
    wait_until(lambda: on_host() <= before + 40 * MIB, "what a node gave up is free on the host")
    assert pool.capacity().free_bytes >= free - 40 * MIB
    assert node.read(MIB, 4096) == bytes(4096)
    tgt.targets.revoke(tgt.network_id, export.iqn)
    pool.delete_disk(disk_id)
    wait_until(lambda: on_host() <= before + 8 * MIB, "a deleted disk's bytes are free on the host")
    assert pool.capacity().free_bytes >= free - 8 * MIB
