"""The suites on a real Ceph, and what only Ceph can show. In one file, so that one cluster serves all."""

import dataclasses
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.ceph import Ceph, missing_for_ceph, running_ceph
from tests.contract.disks import rbd_flattening, rbd_threads, rbd_users, suite
from tests.contract.disks.conftest import MIB, Bench, refused
from tests.contract.disks.rbd_bench import (
    HOLD,
    SEAL,
    daemon_pid,
    empty,
    is_written_to,
    leftover,
    rbd_bench,
    rbd_names,
    rbd_targets,
    settings_of,
    stop,
)
from tests.contract.targets import conftest as targets
from tests.contract.targets import room as rooms
from tests.contract.targets import suite as target_suite
from tests.contract.targets.initiator import IoFailed
from tests.contract.targets.room import TgtRoom, missing_for_room, wait_until

from malleable.domain.errors import Refused, Unreachable
from malleable.domain.ids import DiskId, ImageId, ProjectId, new_id
from malleable.drivers.storage import rbd_index, rbd_rubbish, rbd_usage
from malleable.drivers.storage.folder import GIB
from malleable.drivers.storage.rbd import RbdDisks
from malleable.drivers.storage.rbd_cluster import RbdCluster, RbdPool, RbdSettings
from malleable.drivers.storage.rbd_library import rbd
from malleable.drivers.storage.rbd_process import DisksApart, RbdProcess, apart

pytestmark = [pytest.mark.room, pytest.mark.slow]


@pytest.fixture(scope="module")
def ceph() -> Iterator[Ceph]:
    """One real cluster for all tests."""
    if reason := missing_for_ceph():
        pytest.skip(reason)
    with running_ceph() as cluster:
        yield cluster


@pytest.fixture
def settings(ceph: Ceph, tmp_path: Path) -> RbdSettings:
    return settings_of(ceph, tmp_path / "cache")


@pytest.fixture(scope="module")
def one_connection(ceph: Ceph, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DisksApart]:
    disks = apart(settings_of(ceph, tmp_path_factory.mktemp("cache")))
    yield disks
    # Closed before the cluster goes: a client waits for it at its end.
    disks.close()


@pytest.fixture
def disks(one_connection: DisksApart) -> Iterator[DisksApart]:
    """The pool, emptied after the test."""
    yield one_connection
    empty(one_connection)


@pytest.fixture
def bench(disks: DisksApart, settings: RbdSettings, tmp_path: Path) -> Iterator[Bench]:
    with rbd_bench(disks, settings, tmp_path) as bench:
        yield bench


@pytest.mark.parametrize("rule", suite.RULES, ids=lambda rule: rule.__name__)
def test_pool_in_ceph_keeps_the_rule(rule: Callable[[Bench], None], bench: Bench) -> None:
    rule(bench)


@pytest.fixture(scope="module")
def tgt_room(ceph: Ceph) -> Iterator[TgtRoom]:
    """A real tgtd in a namespace with a way to Ceph."""
    if reason := missing_for_room():
        pytest.skip(reason)
    with rooms.tgt_room() as room:
        ceph.join(room.namespace)
        yield room
        ceph.part()


@pytest.fixture(scope="module")
def other_room() -> Iterator[TgtRoom]:
    """Another tenant's tgtd, whose disks are files."""
    with rooms.tgt_room() as room:
        yield room


@pytest.fixture
def pool(settings: RbdSettings) -> Iterator[RbdPool]:
    cluster = RbdCluster(settings)
    with cluster.opened("test") as pool:
        yield pool
    cluster.close()


@pytest.fixture
def clean(pool: RbdPool, settings: RbdSettings) -> None:
    """Wait until nothing of earlier tests is left: a daemon that just ended may hold a disk for half a minute."""

    def is_clean() -> bool:
        rbd_rubbish.sweep(pool, settings.leftover_age_s)
        return rbd_names(settings) == (set(), set())

    wait_until(is_clean, "nothing of earlier tests is left", deadline_s=60)


@pytest.fixture
def nodes(tgt_room: TgtRoom, tmp_path: Path) -> Iterator[targets.RealNodes]:
    nodes = targets.RealNodes(room=tgt_room, folder=tmp_path)
    yield nodes
    nodes.close()


@pytest.fixture
def tgt(
    tgt_room: TgtRoom, other_room: TgtRoom, nodes: targets.RealNodes, disks: RbdDisks, bench: Bench
) -> Iterator[targets.Bench]:
    """The real daemon on disks in Ceph, emptied after the test."""
    with rbd_targets(disks, bench, nodes, other_room) as found:
        yield found
    targets.empty(tgt_room)
    targets.empty(other_room)


@pytest.mark.parametrize("rule", target_suite.RULES, ids=lambda rule: rule.__name__)
def test_target_of_disks_in_ceph_keeps_the_rule(rule: Callable[[targets.Bench], None], tgt: targets.Bench) -> None:
    rule(tgt)


def test_nobody_waits_for_the_daemon_that_was_killed(tgt: targets.Bench, tgt_room: TgtRoom) -> None:
    """It still has the disk as far as Ceph knows."""
    export = tgt.export()
    tgt.login(export).write(0, b"o" * 512)
    tgt_room.stop()
    tgt_room.start()
    tgt.targets.export(export)
    again = tgt.login(export)
    again.write(0, b"n" * 512)  # fails after five seconds
    again.flush()


def test_nodes_read_an_image_and_none_writes_it(tgt: targets.Bench, disks: DisksApart, tmp_path: Path) -> None:
    image_id, content = ImageId(new_id()), os.urandom(MIB + 100)
    (tmp_path / "golden").write_bytes(content)
    assert disks.seal(image_id, tmp_path / "golden", sha256=None).size_bytes == len(content)
    handle = disks.image_handle(image_id)
    mine, theirs = (
        dataclasses.replace(tgt.export(), handle=handle, size_bytes=MIB, is_read_only=True) for _ in range(2)
    )
    exports = [mine, theirs]
    for export in exports:
        tgt.targets.export(export)
    logins = [tgt.login(export) for export in exports]
    for login in logins:
        assert login.read(4096, 512) == content[4096:4608]
        assert login.read(MIB, 512) == content[MIB:].ljust(512, b"\0"), "the last sector"
        with pytest.raises(IoFailed):
            login.write(4096, b"x" * 512)
    tgt.targets.revoke(tgt.network_id, exports[0].iqn)
    assert logins[1].read(4096, 512) == content[4096:4608]
    tgt.targets.revoke(tgt.network_id, exports[1].iqn)
    disks.verify(image_id)


def test_a_disk_of_a_killed_daemon_is_deleted_at_once(tgt: targets.Bench, tgt_room: TgtRoom, disks: DisksApart) -> None:
    disk_id = DiskId(new_id())
    disks.make_blank(disk_id, size_bytes=MIB)
    login = tgt.login(tgt.export(disks.handle(disk_id)))
    login.write(0, b"x" * 512)
    tgt_room.stop()
    begun = time.monotonic()
    disks.delete_disk(disk_id)
    assert time.monotonic() - begun < 10
    assert not disks.list().disks


def test_a_daemon_that_lost_its_disk_writes_no_more(
    tgt: targets.Bench, disks: DisksApart, nodes: targets.RealNodes
) -> None:
    export = tgt.export()
    lost = tgt.login(export)
    lost.write(0, b"old" * 512)
    lost.flush()
    disks.shut_out(export.handle)

    def write_on() -> None:
        lost.write(0, b"new" * 512)
        lost.flush()

    with pytest.raises(IoFailed):
        write_on()
    tgt.targets.revoke(tgt.network_id, export.iqn)
    assert tgt.login(tgt.export(export.handle)).read(0, 1536) == b"old" * 512


def test_a_disk_in_use_is_snapshotted_and_grown(tgt: targets.Bench, disks: DisksApart, bench: Bench) -> None:
    disk_id = DiskId(new_id())
    disks.make_blank(disk_id, size_bytes=4 * MIB)
    login = tgt.login(tgt.export(disks.handle(disk_id)))
    login.write(0, b"first" * 512)
    snapshot_id = bench.snapshot(disk_id)
    login.write(0, b"later" * 512)
    disks.grow(disk_id, size_bytes=8 * MIB)
    login.flush()
    assert bench.read(bench.clone_snapshot(snapshot_id), 0, 5) == b"first"
    assert (bench.read(disk_id, 0, 5), bench.size_bytes(disk_id)) == (b"later", 8 * MIB)


def test_what_cannot_be_opened_is_refused_and_what_is_away_is_unreachable(tgt: targets.Bench, tmp_path: Path) -> None:
    handle = tgt.new_disk()
    with refused("no-such-disk"):
        tgt.export(dataclasses.replace(handle, path="malleable/none"))
    with refused("bad-export"):
        tgt.export(dataclasses.replace(handle, path="malleable/namespace/none"))
    (tmp_path / "empty.conf").touch()
    empty_conf = str(tmp_path / "empty.conf")
    for wrong in (dataclasses.replace(handle, user="nobody"), dataclasses.replace(handle, config=empty_conf)):
        with pytest.raises(Unreachable):
            tgt.export(wrong)
    assert not tgt.targets.list(tgt.network_id)


def test_a_key_is_in_no_argument_and_no_log(tgt: targets.Bench, tgt_room: TgtRoom, ceph: Ceph) -> None:
    tgt.login(tgt.export())
    key = ceph.layout.keyring(ceph.layout.USER).read_text().split("key = ")[1].split()[0]
    said = (tgt_room.folder / "log").read_text() + Path(f"/proc/{tgt_room.pid}/cmdline").read_text()
    assert "bs_rbd_init" in said
    assert key not in said


@pytest.mark.usefixtures("clean")
def test_rubbish_of_a_crash_is_never_seen_and_swept_once_it_is_old(
    pool: RbdPool, disks: DisksApart, settings: RbdSettings
) -> None:
    name = leftover(pool)
    assert not disks.list().disks
    rbd_rubbish.sweep(pool, 3600)
    assert rbd_names(settings)[0] == {name}
    rbd_rubbish.sweep(pool, 0)
    assert rbd_names(settings) == (set(), {name})
    (item,) = rbd().RBD().trash_list(pool.ioctx)
    assert (item["deferment_end_time"] - item["deletion_time"]).days == 7
    rbd().RBD().trash_remove(pool.ioctx, item["id"], force=True)


@pytest.mark.usefixtures("clean")
def test_a_name_without_an_image_is_swept_once_it_is_old(pool: RbdPool, settings: RbdSettings) -> None:
    name = leftover(pool)
    with pool.image(name) as image:
        header = f"rbd_header.{image.id()}"
    pool.ioctx.remove_object(header)
    owner = ProjectId(new_id())
    taken = rbd_usage.taken_by(pool, {owner: [rbd_index.Entry(rbd=name)]})
    assert taken == {owner: 0}, "as of what is deleted while it is measured"
    rbd_rubbish.sweep(pool, 3600)
    assert rbd_names(settings) == ({name}, set())
    rbd_rubbish.sweep(pool, 0)
    assert rbd_names(settings) == (set(), set())


@pytest.mark.usefixtures("clean")
def test_what_is_being_written_or_swept_by_another_is_left_alone(pool: RbdPool, settings: RbdSettings) -> None:
    name = leftover(pool)
    with pool.image(name, is_read_only=False) as image:
        image.write(b"x" * 512, 0)
        rbd_rubbish.sweep(pool, 0)
    pool.ioctx.lock_exclusive(rbd_index.OBJECT, rbd_rubbish.LOCK, "another", duration=60)
    rbd_rubbish.sweep(pool, 0)
    pool.ioctx.unlock(rbd_index.OBJECT, rbd_rubbish.LOCK, "another")
    assert rbd_names(settings) == ({name}, set())
    rbd().RBD().remove(pool.ioctx, name)


@pytest.mark.usefixtures("clean")
def test_a_deleted_image_goes_for_good_with_its_last_clone(
    pool: RbdPool, disks: DisksApart, bench: Bench, settings: RbdSettings
) -> None:
    image_id = bench.image()
    first, last = bench.clone(image_id), bench.clone(image_id)
    disks.delete_image(image_id)
    here, trash = rbd_names(settings)
    assert (len(here), len(trash)) == (2, 1)
    disks.delete_disk(first)
    rbd_rubbish.sweep(pool, 3600)
    assert rbd_names(settings)[1] == trash
    disks.delete_disk(last)
    rbd_rubbish.sweep(pool, 3600)
    assert rbd_names(settings) == (set(), set())


@pytest.mark.parametrize(
    "rule", [*rbd_flattening.RULES, *rbd_users.RULES, *rbd_threads.RULES], ids=lambda rule: rule.__name__
)
@pytest.mark.usefixtures("clean")
def test_in_ceph(
    rule: rbd_flattening.Rule, pool: RbdPool, disks: DisksApart, bench: Bench, settings: RbdSettings
) -> None:
    rule(pool, disks, bench, settings)


@pytest.mark.usefixtures("clean")
def test_rolled_back_and_deleted_disks_leave_nothing_once_their_snapshots_go(
    pool: RbdPool, disks: DisksApart, bench: Bench, settings: RbdSettings
) -> None:
    disk_id = DiskId(new_id())
    disks.make_blank(disk_id, size_bytes=MIB)
    first, second = bench.snapshot(disk_id), bench.snapshot(disk_id)
    disks.roll_back(disk_id, first)
    for snapshot_id in (first, second):
        assert bench.content(bench.clone_snapshot(snapshot_id)) == bytes(MIB)
        disks.delete_snapshot(snapshot_id)
    for disk in disks.list().disks:
        disks.delete_disk(disk)
    rbd_rubbish.sweep(pool, 3600)
    assert rbd_names(settings) == (set(), set())


@pytest.mark.usefixtures("clean")
def test_a_check_leaves_nothing(disks: DisksApart, settings: RbdSettings) -> None:
    disks.check()
    assert rbd_names(settings) == (set(), set())


def test_local_copies_of_files_go_with_their_image(
    disks: DisksApart, bench: Bench, settings: RbdSettings, ceph: Ceph, tmp_path: Path
) -> None:
    elsewhere = RbdDisks(settings_of(ceph, tmp_path / "elsewhere"))
    path, _ = bench.source(b"kernel")
    images = [ImageId(new_id()) for _ in range(2)]
    for image_id in images:
        disks.seal(image_id, path, sha256=None, files={"vmlinuz": path})
    copy = elsewhere.file(images[0], "vmlinuz")
    assert copy == elsewhere.file(images[0], "vmlinuz")
    disks.delete_image(images[0])
    elsewhere.file(images[1], "vmlinuz")
    assert not copy.exists()
    with refused("no-such-file"):
        elsewhere.file(images[0], "vmlinuz")
    elsewhere.close()


def test_a_ceph_that_does_not_answer_is_unreachable_in_time(
    ceph: Ceph, disks: DisksApart, bench: Bench, settings: RbdSettings
) -> None:
    image_id = bench.image()
    impatient = RbdDisks(dataclasses.replace(settings, timeout_s=2))
    impatient.clone(image_id, DiskId(new_id()), size_bytes=0)
    pid = daemon_pid(ceph, "osd")
    stop(pid)
    begun = time.monotonic()
    try:
        for call in (impatient.list, lambda: impatient.clone(image_id, DiskId(new_id()), size_bytes=0)):
            with pytest.raises(Unreachable):
                call()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert time.monotonic() - begun < 20
    disk_id = DiskId(new_id())
    impatient.clone(image_id, disk_id, size_bytes=0)
    assert disks.has_disk(disk_id)
    impatient.close()


def test_monitors_that_are_away_are_unreachable_in_time(settings: RbdSettings, tmp_path: Path) -> None:
    away = tmp_path / "away.conf"
    away.write_text(re.sub(r":[0-9]+\]", ":9]", settings.conf.read_text()))
    begun = time.monotonic()
    with pytest.raises(Unreachable):
        RbdDisks(dataclasses.replace(settings, conf=away, timeout_s=2)).list()
    assert time.monotonic() - begun < 20


@pytest.mark.usefixtures("clean")
def test_a_seal_that_was_killed_leaves_nothing_to_be_seen_and_is_repeated(
    pool: RbdPool, disks: DisksApart, settings: RbdSettings, tmp_path: Path
) -> None:
    source, image_id = tmp_path / "source", ImageId(new_id())
    source.write_bytes(os.urandom(MIB) * 256)
    words = [str(settings.conf), settings.pool, str(source), str(image_id)]
    with subprocess.Popen([sys.executable, "-c", SEAL, *words]) as sealing:
        wait_until(lambda: is_written_to(pool), "the seal began to write", 30)
        sealing.kill()
    (half,) = rbd_names(settings)[0]
    assert not disks.list().images
    disks.seal(image_id, source, sha256=None)
    disks.verify(image_id)
    rbd_rubbish.shut_out(pool, half)  # or 30 s later
    rbd_rubbish.sweep(pool, 0)
    assert rbd_names(settings)[1] == {half}
    (item,) = rbd().RBD().trash_list(pool.ioctx)
    rbd().RBD().trash_remove(pool.ioctx, item["id"], force=True)


def test_a_client_that_was_shut_out_comes_back(disks: DisksApart, settings: RbdSettings, ceph: Ceph) -> None:
    mine = RbdDisks(settings)
    mine.list()
    cluster: RbdCluster = mine._cluster
    with cluster.opened("test") as pool:
        address = pool.client.get_addrs().rpartition("/")
    with RbdCluster(dataclasses.replace(settings, conf=ceph.layout.cluster_conf, user="admin")).opened("test") as admin:
        admin.client.blocklist_add(f"{address[0].removeprefix('v2:')}/{address[2]}")
        admin.client.wait_for_latest_osdmap()
        pool.client.wait_for_latest_osdmap()
    with pytest.raises(Unreachable):
        mine.list()
    assert mine.list() == suite.NOTHING
    mine.close()


def test_a_library_that_ends_its_process_costs_no_more_than_a_repeated_call(
    settings: RbdSettings, disks: DisksApart, tmp_path: Path
) -> None:
    mine = RbdProcess(settings)
    first = mine.process.started()._running
    image_id, disk_id = ImageId(new_id()), DiskId(new_id())
    (tmp_path / "source").write_bytes(os.urandom(MIB))
    disks.seal(image_id, tmp_path / "source", sha256=None)
    with mine.open_image(image_id) as stream:
        first.send_signal(signal.SIGABRT)
        first.wait()
        with pytest.raises(Unreachable, match="ended amid a read"):
            stream.read()
    mine.clone(image_id, disk_id, size_bytes=0)
    second = mine.process.started()._running
    assert second.pid != first.pid
    assert disks.has_disk(disk_id)
    folder = Path(mine.process.started()._folder)
    assert folder.stat().st_mode & 0o077 == 0
    mine.close()
    assert second.poll() is not None
    assert not folder.exists()


def test_the_process_ends_with_its_server_even_when_that_is_killed(settings: RbdSettings) -> None:
    command = [sys.executable, "-c", HOLD, str(settings.conf), settings.pool]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        pid, folder = server.stdout.readline().decode().split()
        server.kill()
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the process is gone", 30)
    assert not Path(folder).exists()


def asked(settings: RbdSettings, **changes: Any) -> str:
    """Tell with what code a pool is refused."""
    with pytest.raises(Refused) as caught:
        RbdDisks(dataclasses.replace(settings, **changes)).check()
    assert caught.value.fix
    return caught.value.code


def test_what_is_set_wrong_is_said(settings: RbdSettings, tmp_path: Path) -> None:
    keyless = tmp_path / "keyless.conf"
    keyless.write_text(settings.conf.read_text().replace("keyring = ", "keyring = /nowhere"))
    assert asked(settings, conf=tmp_path / "none.conf") == "no-ceph-conf"
    assert asked(settings, conf=keyless) == "pool-credentials"
    assert asked(settings, user="nobody") == "pool-credentials"
    assert asked(settings, pool="none") == "no-such-pool"
    assert asked(settings, pool="device_health_metrics") == "pool-credentials"


def test_clone_takes_a_time_that_does_not_grow_with_the_size(disks: DisksApart, bench: Bench) -> None:
    snapshots, times_ms = [], ([], [])  # type: ignore[var-annotated]
    for size_bytes in (2 * GIB, 20 * GIB):
        disk_id = DiskId(new_id())
        disks.make_blank(disk_id, size_bytes=size_bytes)
        bench.write(disk_id, 0, b"x" * 32 * MIB)
        snapshots.append(bench.snapshot(disk_id))
    for _ in range(15):
        for snapshot_id, found in zip(snapshots, times_ms, strict=True):
            begun = time.perf_counter()
            bench.clone_snapshot(snapshot_id)
            found.append(1e3 * (time.perf_counter() - begun))
    small_ms, large_ms = (statistics.median(found) for found in times_ms)
    assert large_ms < 2 * small_ms, f"2 GiB {small_ms:.1f} ms, 20 GiB {large_ms:.1f} ms"
