"""A pool that gets full under a node that writes: what is new is refused, what runs goes on. Decision 0011."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.contract.targets.conftest import Bench, Login
from tests.contract.targets.initiator import IoFailed
from tests.contract.targets.room import wait_until

from malleable.domain.errors import Refused
from malleable.domain.ids import DiskId, ImageId, SnapshotId, new_id
from malleable.drivers.storage.folder import ReflinkSettings
from malleable.drivers.storage.reflink import ReflinkDisks

pytestmark = pytest.mark.room
MIB = 1 << 20
RESERVE = 96 * MIB


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[ReflinkDisks]:
    """A pool on an XFS as small as mkfs.xfs makes one."""
    disks = ReflinkDisks(ReflinkSettings(pool_dir=tmp_path / "pool", size_bytes=320 * MIB, reserve_bytes=RESERVE))
    yield disks
    disks.close()


def golden(pool: ReflinkDisks, folder: Path) -> ImageId:
    source, image_id = folder / "source", ImageId(new_id())
    source.write_bytes(os.urandom(MIB) * 16)
    pool.seal(image_id, source, sha256=None)
    return image_id


def node_with(pool: ReflinkDisks, image_id: ImageId, tgt: Bench, size_bytes: int) -> tuple[DiskId, Login]:
    disk_id = DiskId(new_id())
    pool.clone(image_id, disk_id, size_bytes=size_bytes)
    return disk_id, tgt.login(tgt.export(pool.handle(disk_id)))


def refusals(pool: ReflinkDisks, image_id: ImageId, disk_id: DiskId, source: Path) -> list[str]:
    """Try to make everything that is new; return the codes."""
    calls: list[Callable[[], object]] = [
        lambda: pool.clone(image_id, DiskId(new_id()), size_bytes=0),
        lambda: pool.make_blank(DiskId(new_id()), size_bytes=MIB),
        lambda: pool.snapshot(disk_id, SnapshotId(new_id())),
        lambda: pool.seal(ImageId(new_id()), source, sha256=None),
    ]
    codes = []
    for call in calls:
        with pytest.raises(Refused) as caught:
            call()
        codes.append(caught.value.code)
    return codes


def block(number: int) -> bytes:
    return number.to_bytes(8) * (MIB // 8)


def test_below_its_reserve_a_pool_makes_nothing_new_and_a_node_writes_on_as_far_as_the_reserve(
    pool: ReflinkDisks, tgt: Bench, tmp_path: Path
) -> None:
    image_id = golden(pool, tmp_path)
    free = pool.capacity().free_bytes
    assert free > RESERVE
    # All of this node's disk fits: past the watermark it eats into the reserve, and leaves a third of it.
    size = (free - RESERVE // 3) // MIB * MIB
    disk_id, login = node_with(pool, image_id, tgt, size)
    written = 0
    while pool.capacity().free_bytes >= RESERVE:
        login.write(written * MIB, block(written))
        written += 1
    login.flush()
    assert written * MIB < size
    assert refusals(pool, image_id, disk_id, tmp_path / "source") == ["pool-full"] * 4
    for number in range(written, size // MIB):
        login.write(number * MIB, block(number))
    login.flush()
    assert all(login.read(number * MIB, MIB) == block(number) for number in range(0, size // MIB, 7))
    assert refusals(pool, image_id, disk_id, tmp_path / "source") == ["pool-full"] * 4
    (iqn,) = tgt.targets.list(tgt.network_id)
    tgt.targets.revoke(tgt.network_id, iqn)
    pool.delete_disk(disk_id)
    # Its blocks go a moment later than its name.
    wait_until(lambda: pool.capacity().free_bytes > RESERVE, "there is room again")
    pool.clone(image_id, DiskId(new_id()), size_bytes=0)


def fill(login: Login) -> int:
    """Write until it fails; return the last block that was flushed."""
    number = 0
    try:
        while True:
            login.write(number * MIB, block(number))
            login.flush()
            number += 1
    except IoFailed:
        return number - 1


def test_of_a_pool_that_promised_too_much_a_node_sees_an_error_and_loses_nothing_that_was_flushed(
    pool: ReflinkDisks, tgt: Bench, tmp_path: Path
) -> None:
    image_id = golden(pool, tmp_path)
    image = (tmp_path / "source").read_bytes()
    spare = DiskId(new_id())
    pool.make_blank(spare, size_bytes=64 * MIB)
    with Path(pool.handle(spare).path).open("r+b") as file:
        file.write(os.urandom(MIB) * 64)
    _, other = node_with(pool, image_id, tgt, 0)
    _, greedy = node_with(pool, image_id, tgt, 1024 * MIB)
    flushed = fill(greedy)
    assert other.read(0, len(image)) == image
    pool.delete_disk(spare)
    wait_until(lambda: pool.capacity().free_bytes > 32 * MIB, "there is room again")
    greedy.write((flushed + 1) * MIB, block(flushed + 1))
    greedy.flush()
    assert all(greedy.read(number * MIB, MIB) == block(number) for number in range(0, flushed + 2, 5))


def test_a_pool_gone_read_only_refuses_what_is_new_and_is_well_again_afterwards(
    pool: ReflinkDisks, tmp_path: Path
) -> None:
    image_id = golden(pool, tmp_path)
    disk_id = DiskId(new_id())
    pool.clone(image_id, disk_id, size_bytes=0)
    remount = ["mount", str(tmp_path / "pool" / "pool"), "-o"]
    subprocess.run([*remount, "remount,ro"], check=True)
    try:
        codes = refusals(pool, image_id, disk_id, tmp_path / "source")
        with pytest.raises(Refused, match="Read-only"):
            pool.check()
    finally:
        subprocess.run([*remount, "remount,rw"], check=True)
    assert codes == ["pool-broken"] * 4
    assert Path(pool.handle(disk_id).path).read_bytes() == (tmp_path / "source").read_bytes()
    pool.check()
    pool.clone(image_id, DiskId(new_id()), size_bytes=0)
