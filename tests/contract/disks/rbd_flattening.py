"""What flattening must do in a real Ceph."""

import os
import random
import signal
import threading
from collections.abc import Callable
from typing import TypeAlias

import pytest
from tests.contract.disks.conftest import CONTENT, MIB, Bench, refused
from tests.contract.disks.rbd_bench import rbd_names
from tests.contract.targets.room import wait_until

from malleable.domain.ids import DiskId
from malleable.domain.ports import FlattenCall
from malleable.drivers.storage import rbd_chains, rbd_index
from malleable.drivers.storage.rbd_cluster import RbdPool, RbdSettings
from malleable.drivers.storage.rbd_library import rados, rbd
from malleable.drivers.storage.rbd_process import DisksApart, RbdProcess

Rule: TypeAlias = Callable[[RbdPool, DisksApart, Bench, RbdSettings], None]


def it_stops_in_time_goes_on_and_frees_what_nobody_else_needs(
    pool: RbdPool, disks: DisksApart, bench: Bench, settings: RbdSettings
) -> None:
    image_id = bench.image(os.urandom(24 * MIB))
    disk_id = bench.clone(image_id)
    snapshot_id = bench.snapshot(disk_id)
    disks.roll_back(disk_id, snapshot_id)
    kept = bench.content(disk_id)
    assert chain_of(pool, disks, disk_id) == 2
    disks.delete_image(image_id)
    begun = disks.flatten(disk_id, seconds=0.0)
    assert (begun.is_done, begun.left_bytes > 0) == (False, True)
    assert bench.content(disk_id) == kept
    ended = disks.flatten(disk_id, seconds=60.0, call=FlattenCall.NEXT)
    # The disk, and what it was before: both hold their own now.
    assert (ended.is_done, begun.copied_bytes + ended.copied_bytes) == (True, 48 * MIB)
    assert chain_of(pool, disks, disk_id) == 0
    assert rbd_names(settings)[1] == set()
    disks.delete_snapshot(snapshot_id)
    assert bench.content(disk_id) == kept
    assert disks.usage(disk_id).own_bytes == 24 * MIB


def chain_of(pool: RbdPool, disks: DisksApart, disk_id: DiskId) -> int:
    return rbd_chains.depth_of(pool, disks.handle(disk_id).path.rpartition("/")[2])


def it_dies_and_goes_on(_: RbdPool, disks: DisksApart, bench: Bench, settings: RbdSettings) -> None:
    """A kill amid it loses nothing and leaves nothing to be done by hand."""
    disk_id = bench.clone(bench.image(os.urandom(64 * MIB)))
    kept = bench.content(disk_id)
    doomed = RbdProcess(settings)
    pid = doomed.process.started()._running.pid
    copying = threading.Thread(
        target=doomed.flatten, args=(disk_id,), kwargs={"seconds": 60.0, "call": FlattenCall.NEXT}
    )
    copying.start()
    wait_until(lambda: disks.usage(disk_id).own_bytes > 0, "something is copied")
    os.kill(pid, signal.SIGKILL)
    assert bench.content(disk_id) == kept
    copying.join()  # it called once more, in another process
    doomed.close()
    assert disks.flatten(disk_id, seconds=1.0).is_done
    assert bench.content(disk_id) == kept


def nothing_is_copied_that_would_not_fit(_: RbdPool, disks: DisksApart, bench: Bench, _settings: RbdSettings) -> None:
    disk_id = bench.clone(bench.image())
    with refused("pool-full"):
        bench.fill().flatten(disk_id, seconds=1.0)
    assert bench.content(disk_id) == CONTENT


def it_goes_on_beside_a_node_that_writes(
    pool: RbdPool, disks: DisksApart, bench: Bench, _settings: RbdSettings
) -> None:
    """The node's client keeps the disk open and its lock all the while; snapshots keep what they are."""
    disk_id = bench.clone(bench.image(os.urandom(32 * MIB)))
    kept, snapshot_id = bench.content(disk_id), bench.snapshot(disk_id)
    name = disks.handle(disk_id).path.rpartition("/")[2]
    written = dict[int, bytes]()
    is_over = threading.Event()

    def write() -> None:
        with pool.image(name, is_read_only=False) as image:
            while not is_over.is_set():
                at, piece = 4096 * random.randrange(4096), os.urandom(4096)  # one half, for the other to be copied
                image.write(piece, at)
                written[at] = piece

    node = threading.Thread(target=write)
    node.start()
    wait_until(lambda: bool(written), "the node writes")
    try:
        begun = disks.flatten(disk_id, seconds=0.0, call=FlattenCall.IN_USE)
        assert (begun.is_done, begun.left_bytes > 0) == (False, True)
        assert maps_of(pool, name)[0] == 0
        disks.delete_image(bench.image())
        assert maps_of(pool, name) == (rbd_chains.MAPS, 0), "as it must be if that was all"
        assert disks.flatten(disk_id, seconds=60.0, call=FlattenCall.IN_USE).is_done
    finally:
        is_over.set()
        node.join()
    wanted = bytearray(kept)
    for at, piece in written.items():
        wanted[at : at + 4096] = piece
    assert bench.content(disk_id) == wanted
    assert bench.content(bench.clone_snapshot(snapshot_id)) == kept
    assert chain_of(pool, disks, disk_id) == 0
    assert maps_of(pool, name) == (rbd_chains.MAPS, 0)
    assert not rbd_index.read_all(pool.ioctx, rbd_index.BARE)


def maps_of(pool: RbdPool, name: str) -> tuple[int, int]:
    with pool.image(name) as image:
        return image.features() & rbd_chains.MAPS, image.flags()


def one_that_cannot_get_its_map_holds_up_nobody(
    pool: RbdPool, disks: DisksApart, bench: Bench, _settings: RbdSettings
) -> None:
    broken, whole = (disks.handle(bench.clone(bench.image())).path.rpartition("/")[2] for _ in range(2))
    for name in (broken, whole):
        rbd_index.add(pool.ioctx, f"{rbd_index.BARE}/{name}", rbd_index.Entry(rbd=name))
    with pool.image(broken) as image:
        header = f"rbd_header.{image.id()}"
    features = omap_value(pool, header, "features")
    set_omap_value(pool, header, "features", b"?")
    disks.delete_image(bench.image())
    assert set(rbd_index.read_all(pool.ioctx, rbd_index.BARE)) == {f"{rbd_index.BARE}/{broken}"}
    set_omap_value(pool, header, "features", features)
    disks.delete_image(bench.image())
    assert not rbd_index.read_all(pool.ioctx, rbd_index.BARE)
    assert maps_of(pool, broken) == (rbd_chains.MAPS, 0)


def a_copy_that_fails_is_noted_though_another_restored_the_map(
    pool: RbdPool, disks: DisksApart, bench: Bench, _settings: RbdSettings
) -> None:
    name = disks.handle(bench.clone(bench.image(os.urandom(8 * MIB)))).path.rpartition("/")[2]
    real = rbd_chains._foreign_objects

    def fail(image: object) -> dict[int, int]:
        """End the copying of the second object: it is outside the image."""
        rbd_chains.restore_maps(pool)
        found = real(image)
        return {min(found): found[min(found)], 1 << 40: 512}

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rbd_chains, "_foreign_objects", fail)
        with pytest.raises(rbd().Error):
            rbd_chains.cut_in_use(pool, [name], 60.0)
    assert set(rbd_index.read_all(pool.ioctx, rbd_index.BARE)) == {f"{rbd_index.BARE}/{name}"}
    disks.delete_image(bench.image())
    assert not rbd_index.read_all(pool.ioctx, rbd_index.BARE)


def omap_value(pool: RbdPool, name: str, key: str) -> bytes:
    with rados().ReadOpCtx() as op:
        found, _ = pool.ioctx.get_omap_vals_by_keys(op, (key,))
        pool.ioctx.operate_read_op(op, name)
        return dict(found)[key]  # type: ignore[no-any-return]


def set_omap_value(pool: RbdPool, name: str, key: str, value: bytes) -> None:
    with rados().WriteOpCtx() as op:
        pool.ioctx.set_omap(op, (key,), (value,))
        pool.ioctx.operate_write_op(op, name)


RULES: tuple[Rule, ...] = (
    it_stops_in_time_goes_on_and_frees_what_nobody_else_needs,
    it_dies_and_goes_on,
    it_goes_on_beside_a_node_that_writes,
    nothing_is_copied_that_would_not_fit,
    one_that_cannot_get_its_map_holds_up_nobody,
    a_copy_that_fails_is_noted_though_another_restored_the_map,
)
