"""A pool that gets full under a node that writes: what is new is refused, what runs goes on. Decision 0011."""

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
from tests.contract.targets.conftest import Bench, Login
from tests.contract.targets.initiator import Initiator, IoFailed, within
from tests.contract.targets.room import NODE, TgtRoom, wait_until

from malleable.domain.errors import Refused, Unreachable
from malleable.domain.gateways import held_note
from malleable.domain.ids import DiskId, ImageId, SnapshotId, new_id
from malleable.domain.ports import Export
from malleable.drivers.storage.folder import ReflinkSettings
from malleable.drivers.storage.reflink import ReflinkDisks
from malleable.drivers.target.tgt import TgtTargets
from malleable.gateway.pool_guard import Held, PoolGuard
from malleable.gateway.process import identify, send

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


def test_where_no_gateway_looks_after_the_pool_a_node_sees_an_error_and_loses_nothing_that_was_flushed(
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


@dataclass(frozen=True, kw_only=True)
class Crowd:
    """A pool that is nearly full."""

    pool: ReflinkDisks
    image_id: ImageId
    spare: DiskId


@contextmanager
def guarded(pool: ReflinkDisks, *rooms: TgtRoom) -> Iterator[PoolGuard]:
    """Have a gateway's guard look after the pool, and the target daemons that open it."""

    def portals() -> list[Held]:
        daemons = [(identify(room.pid), held_note(room.socket)) for room in rooms]
        return [Held(daemon=daemon, note=note) for daemon, note in daemons if daemon]

    guard, stop = PoolGuard(pool, portals), threading.Event()
    running = threading.Thread(target=guard.run, args=(stop,))
    running.start()
    try:
        yield guard
    finally:
        stop.set()
        running.join()
        for portal in portals():
            send(portal.daemon, signal.SIGCONT)
            portal.note.unlink(missing_ok=True)


@dataclass
class Writer:
    """A node that writes, one block after another, and never gives up waiting; until it is done or sees an error."""

    login: Initiator
    blocks: int
    written: int = 0
    error: IoFailed | None = None

    def begin(self, namespace: str) -> threading.Thread:
        thread = threading.Thread(target=lambda: within(namespace, self._write))
        thread.start()
        return thread

    def _write(self) -> None:
        try:
            while self.written < self.blocks:
                self.login.write(self.written * MIB, block(self.written))
                self.login.flush()
                self.written += 1
        except IoFailed as e:
            self.error = e


def patient(export: Export, room: TgtRoom) -> Initiator:
    """Log in as an operating system does."""
    login = Initiator(name="iqn.2026-11.org.malleable:node:patient", iqn=export.iqn, lun=1, is_patient=True)
    login.login(room.namespace, NODE, (export.chap_username, export.chap_password))
    return login


@pytest.fixture
def crowded(tmp_path: Path) -> Iterator[Crowd]:
    """A pool with little more than its reserve free, and a disk in it that can be deleted to make room.

    The reserve is as large as it is that a guard which gets no processor for a while is not too late.
    """
    settings = ReflinkSettings(pool_dir=tmp_path / "pool", size_bytes=640 * MIB, reserve_bytes=2 * RESERVE)
    pool = ReflinkDisks(settings)
    image_id, spare = golden(pool, tmp_path), DiskId(new_id())
    size_bytes = pool.capacity().free_bytes - 2 * RESERVE - 32 * MIB
    pool.make_blank(spare, size_bytes=size_bytes)
    with Path(pool.handle(spare).path).open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, size_bytes)
    yield Crowd(pool=pool, image_id=image_id, spare=spare)
    pool.close()


def test_a_node_that_fills_the_pool_waits_until_there_is_room_and_others_read_on(
    crowded: Crowd, tgt: Bench, tgt_room: TgtRoom, other_room: TgtRoom, tmp_path: Path
) -> None:
    pool, image_id = crowded.pool, crowded.image_id
    image = (tmp_path / "source").read_bytes()
    neighbour = tgt.neighbour()
    _, reader = node_with(pool, image_id, neighbour, 0)
    disk_id = DiskId(new_id())
    pool.clone(image_id, disk_id, size_bytes=1024 * MIB)
    greedy = tgt.export(pool.handle(disk_id))
    with guarded(pool, tgt_room, other_room) as guard:
        # More than there is: without the guard it would see an error.
        writer = Writer(patient(greedy, tgt_room), blocks=pool.capacity().free_bytes // MIB + 16)
        writing = writer.begin(tgt_room.namespace)
        wait_until(lambda: guard.held == 1, "the writer is held")
        assert 0 < pool.capacity().free_bytes < RESERVE
        assert [trouble.holds_writers for trouble in guard.troubles()] == [True]
        stood_at = writer.written
        assert reader.read(0, len(image)) == image
        assert refusals(pool, image_id, disk_id, tmp_path / "source") == ["pool-full"] * 4
        with pytest.raises(Unreachable, match="pool is nearly full"):
            TgtTargets(lambda _: tgt_room.socket, timeout_s=0.2).sessions(tgt.network_id, greedy.iqn)
        assert (writer.written, writer.error) == (stood_at, None)
        pool.delete_disk(crowded.spare)
        writing.join(timeout=30)
        assert (writer.written, writer.error) == (writer.blocks, None)
        wait_until(lambda: guard.held == 0, "nobody is held")
        assert not guard.troubles()
    assert all(writer.login.read(n * MIB, MIB) == block(n) for n in range(0, writer.blocks, 9))
    writer.login.close()


def test_room_is_made_by_taking_a_disk_from_the_very_node_that_waits(
    crowded: Crowd, tgt: Bench, tgt_room: TgtRoom
) -> None:
    pool, disk_id = crowded.pool, DiskId(new_id())
    pool.clone(crowded.image_id, disk_id, size_bytes=1024 * MIB)
    greedy = tgt.export(pool.handle(disk_id))
    with guarded(pool, tgt_room) as guard:
        login = tgt.login(greedy)
        writer = Writer(cast(Initiator, login), blocks=pool.capacity().free_bytes // MIB + 16)
        writing = writer.begin(tgt_room.namespace)
        wait_until(lambda: guard.held == 1, "the writer is held")
        tgt.targets.revoke(tgt.network_id, greedy.iqn)
        writing.join(timeout=30)
        assert writer.error is not None, "it is cut off"
        assert pool.capacity().free_bytes > 0
        pool.delete_disk(disk_id)
        wait_until(lambda: guard.held == 0 and not held_note(tgt_room.socket).exists(), "nobody is held")
    assert not tgt.targets.list(tgt.network_id)


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
        with pytest.raises(Refused, match="Read-only") as refused:
            pool.check()
        assert "mount it for writing again" in refused.value.fix
        assert pool.capacity().is_read_only
    finally:
        subprocess.run([*remount, "remount,rw"], check=True)
    assert codes == ["pool-broken"] * 4
    assert Path(pool.handle(disk_id).path).read_bytes() == (tmp_path / "source").read_bytes()
    pool.check()
    assert not pool.capacity().is_read_only
    pool.clone(image_id, DiskId(new_id()), size_bytes=0)
