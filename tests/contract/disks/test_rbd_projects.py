"""Pools of projects in a real Ceph: each is opened by a user of its own, who can do nothing else."""

import dataclasses
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.ceph import Ceph, missing_for_ceph, running_ceph
from tests.contract.disks import project_suite, suite
from tests.contract.disks.conftest import CONTENT, MIB, Bench, refused
from tests.contract.disks.rbd_bench import PROJECT_POOLS, empty, leftover, rbd_bench, settings_of
from tests.contract.targets import conftest as targets
from tests.contract.targets import room as rooms
from tests.contract.targets.room import missing_for_room, wait_until

from malleable.domain.ids import DiskId, ImageId, NetworkId, ProjectId, new_id
from malleable.domain.ports import Disks, FlattenCall
from malleable.drivers.storage import rbd_chains, rbd_index, rbd_projects, rbd_rubbish
from malleable.drivers.storage.rbd_cluster import RbdCluster, RbdPool, RbdSettings
from malleable.drivers.storage.rbd_library import rbd
from malleable.drivers.storage.rbd_process import DisksApart, apart
from malleable.drivers.target.tgt import TgtTargets
from malleable.sim import ceph as sim_ceph

pytestmark = [pytest.mark.room, pytest.mark.slow]
FIRST, SECOND = PROJECT_POOLS

#: Of the suite, what makes RBD images or looks for them, each way once: another place is all that is new here.
PLACED = (
    suite.files_are_kept_beside_the_image,
    suite.a_full_pool_makes_nothing_and_loses_nothing,
    suite.a_snapshot_keeps_one_moment,
    suite.a_rolled_back_disk_is_its_snapshot,
    suite.all_outlive_what_they_came_from,
    suite.a_promoted_snapshot_is_an_image,
    suite.a_copy_that_is_ended_leaves_nothing,
    suite.a_blank_disk_is_zeros,
    suite.a_flattened_disk_stands_alone,
    suite.a_chain_that_is_too_deep_is_cut_by_flattening,
    suite.what_a_group_takes_counts_once,
)

#: What the user of the first project's pool may not do.
FORBIDDEN = (
    ("rados", "--pool", "malleable", "put", "mine", "/dev/null"),
    ("rados", "--pool", "malleable", "listomapkeys", "malleable.index"),
    ("rados", "--pool", "malleable", "setomapval", "malleable.index", "disk/mine", "mine"),
    ("rbd", "create", "malleable/mine", "--size", "1"),
    ("rados", "--pool", SECOND, "ls"),
    ("rados", "--pool", SECOND, "listomapkeys", "malleable.index"),
    ("rados", "--pool", SECOND, "put", "mine", "/dev/null"),
    ("ceph", "auth", "ls"),
    ("ceph", "osd", "blocklist", "add", "192.0.2.1:0/1"),
)


@pytest.fixture(scope="module")
def ceph() -> Iterator[Ceph]:
    """One real cluster with two pools for projects."""
    if reason := missing_for_ceph() or missing_for_room():
        pytest.skip(reason)
    with running_ceph() as cluster:
        for name in (*PROJECT_POOLS, PROJECT_POOLS[0]):
            sim_ceph.add_pool(cluster.layout, name)
        yield cluster


@pytest.fixture
def settings(ceph: Ceph, tmp_path: Path) -> RbdSettings:
    return settings_of(ceph, tmp_path / "cache")


@pytest.fixture(scope="module")
def one_connection(ceph: Ceph, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DisksApart]:
    disks = apart(settings_of(ceph, tmp_path_factory.mktemp("cache")))
    disks.within(FIRST).check()  # as a project is made
    yield disks
    disks.close()


@pytest.fixture
def disks(one_connection: DisksApart) -> Iterator[DisksApart]:
    yield one_connection
    empty(one_connection)


@pytest.fixture
def bench(disks: DisksApart, settings: RbdSettings, tmp_path: Path) -> Iterator[Bench]:
    with rbd_bench(disks, settings, tmp_path) as bench:
        yield bench


@pytest.fixture
def pool(settings: RbdSettings) -> Iterator[RbdPool]:
    cluster = RbdCluster(settings)
    with cluster.opened("test") as pool:
        yield pool
    cluster.close()


@pytest.mark.parametrize("rule", project_suite.RULES, ids=lambda rule: rule.__name__)
def test_pools_of_projects_in_ceph_keep_the_rule(rule: Callable[[Bench], None], bench: Bench) -> None:
    rule(bench)


@pytest.mark.parametrize("rule", PLACED, ids=lambda rule: rule.__name__)
def test_pool_of_a_project_in_ceph_keeps_the_rule(rule: Callable[[Bench], None], bench: Bench) -> None:
    rule(dataclasses.replace(bench, disks=bench.disks.within(FIRST), fill=lambda: bench.fill().within(FIRST)))


def made(bench: Bench) -> tuple[ImageId, DiskId]:
    """Make a golden image and a clone of it in the first project's pool."""
    image_id, disk_id = bench.image(), DiskId(new_id())
    bench.disks.within(FIRST).clone(image_id, disk_id, size_bytes=0)
    return image_id, disk_id


def tried(settings: RbdSettings, user: str, *words: str) -> subprocess.CompletedProcess[str]:
    program, *rest = words
    command = [program, "-c", str(settings.conf), "-n", f"client.{user}", *rest]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


def test_target_daemons_open_each_pool_by_a_user_of_its_own(
    ceph: Ceph, disks: DisksApart, bench: Bench, tmp_path: Path
) -> None:
    image_id, disk_id = made(bench)
    sites = bench.clone(image_id)
    mine, golden = disks.handle(disk_id), disks.within(FIRST).image_handle(image_id)
    assert (mine.path.partition("/")[0], mine.user) == (FIRST, FIRST)
    assert (golden.path.partition("/")[0], golden.user) == ("malleable", FIRST)
    assert (disks.handle(sites).path.partition("/")[0], disks.handle(sites).user) == ("malleable", "malleable-portal")
    with rooms.tgt_room() as room:
        ceph.join(room.namespace)
        nodes = targets.RealNodes(room=room, folder=tmp_path)
        try:
            driver = TgtTargets(room.socket_of, shut_out=disks.shut_out)
            tgt = targets.real_bench(driver, NetworkId(new_id()), nodes)
            node = tgt.login(tgt.export(mine))
            assert node.read(0, len(CONTENT)) == CONTENT
            node.write(0, b"mine" * 128)
            node.flush()
            bench.disks.snapshot(disk_id, snapshot_id := bench.snapshot(disk_id))
            while not disks.flatten(disk_id, seconds=1.0, call=FlattenCall.IN_USE).is_done:
                pass
            node.write(512, b"late" * 128)
            node.flush()
            assert node.read(0, len(CONTENT)) == b"mine" * 128 + b"late" * 128 + CONTENT[1024:]
            # What the daemon is given for one pool opens no disk of another.
            for handle in (
                dataclasses.replace(mine, user=SECOND),
                dataclasses.replace(disks.handle(sites), user=FIRST),
            ):
                with refused("pool-credentials", f"client.{handle.user}"):
                    tgt.export(handle)
            assert disks.usage(snapshot_id).own_bytes >= 0
        finally:
            nodes.close()
            targets.empty(room)
            ceph.part()
    assert bench.read(disk_id, 0, 1024) == b"mine" * 128 + b"late" * 128


def test_a_pools_user_has_that_pool_and_reads_the_sites(settings: RbdSettings, bench: Bench) -> None:
    image_id, disk_id = made(bench)
    for words in FORBIDDEN:
        outcome = tried(settings, FIRST, *words)
        assert outcome.returncode, f"{words}: {outcome}"
        assert "not permitted" in outcome.stderr or "denied" in outcome.stderr or "EACCES" in outcome.stderr, outcome
    path = bench.disks.handle(disk_id).path
    assert not tried(settings, FIRST, "rbd", "resize", path, "--size", "32M").returncode
    assert not tried(settings, FIRST, "rbd", "info", bench.disks.within(FIRST).image_handle(image_id).path).returncode


def test_what_would_not_keep_projects_apart_is_refused_before_anything_is_there(
    ceph: Ceph, settings: RbdSettings, disks: DisksApart
) -> None:
    with refused("pool-taken"):
        disks.within("malleable").check()
    # Target daemons with the server's own key could open every project's disks.
    strong = apart(dataclasses.replace(settings, portal_user=""))
    for within in (FIRST, ""):
        with refused("pool-not-apart"):
            strong.within(within).check()
    strong.close()
    disks.check()
    admin = ["ceph", "-c", str(ceph.layout.cluster_conf)]

    def caps(user: str, osd: str) -> None:
        subprocess.run([*admin, "auth", "caps", f"client.{user}", "mon", "profile rbd", "osd", osd], check=True)

    sim_ceph.add_pool(ceph.layout, "third")
    try:
        caps("third", "profile rbd")
        with refused("pool-not-apart"):
            disks.within("third").check()
        caps("third", f"profile rbd pool=third, profile rbd-read-only pool=malleable, allow r pool={FIRST}")
        with refused("pool-not-apart"):
            disks.within("third").check()
        caps("third", "profile rbd pool=third")
        with refused("pool-credentials"):
            disks.within("third").check()  # it cannot read what its disks are clones of
        right = "profile rbd pool={}, profile rbd-read-only pool=malleable"
        caps("third", right.format("third"))
        caps(FIRST, f"{right.format(FIRST)}, allow r pool=third")  # projects that are there already count as well
        with refused("pool-not-apart", f"client.{FIRST}"):
            disks.within("third").check()
        caps(FIRST, right.format(FIRST))
        ceph.layout.keyring("third").unlink()
        with refused("pool-credentials"):
            disks.within("third").check()
    finally:
        subprocess.run([*admin, "auth", "rm", "client.third"], check=True, capture_output=True)
    late = RbdCluster(settings)  # whose rights are those of now
    with late.opened("test") as now:
        assert not list(rbd().RBD().list(now.ioctx_of("third")))
    late.close()
    assert disks.list().disks == frozenset()


def test_two_sites_never_share_a_pool(
    ceph: Ceph, settings: RbdSettings, disks: DisksApart, pool: RbdPool, bench: Bench
) -> None:
    _, disk_id = made(bench)
    # Another site, whose own pool is the second: it may have neither this one's pool nor its projects'.
    other = RbdCluster(dataclasses.replace(settings, pool=SECOND))
    with other.opened("test") as theirs:
        for name in (FIRST, settings.pool):
            with refused("pool-taken"), rbd_projects.claim(theirs, name):
                pass
        rbd_rubbish.sweep(theirs, 0)
    other.close()
    assert bench.content(disk_id) == CONTENT
    # And a pool of projects is no site's.
    wrong = RbdCluster(dataclasses.replace(settings, pool=FIRST))
    with wrong.opened("test") as theirs, refused("pool-taken"):
        rbd_projects.want_unclaimed(theirs)
    wrong.close()


def test_rubbish_in_a_projects_pool_is_swept_and_a_pool_that_is_gone_holds_up_nobody(
    ceph: Ceph, disks: DisksApart, pool: RbdPool, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    _, disk_id = made(bench)
    name = leftover(pool, FIRST)
    claimed(pool, "gone")
    bare, lost = f"{rbd_index.BARE}/gone/disk", DiskId(new_id())
    for key in (bare, rbd_index.key(rbd_index.DISK, lost)):
        rbd_index.add(pool.ioctx, key, rbd_index.Entry(rbd="gone/disk"))
    rbd_chains.restore_maps(pool)
    rbd_rubbish.sweep(pool, 0)
    mine, theirs = ProjectId(new_id()), ProjectId(new_id())
    assert disks.taken_bytes({theirs: [lost], mine: [disk_id]}).keys() == {mine}
    disks.check()
    disks.delete_disk(lost)
    assert not disks.has_disk(lost)
    rbd_index.remove(pool.ioctx, bare)
    ioctx, there = pool.place(name)
    assert there not in rbd().RBD().list(ioctx)
    (item,) = (item for item in rbd().RBD().trash_list(ioctx) if item["name"] == there)
    rbd().RBD().trash_remove(ioctx, item["id"], force=True)
    assert "Pool gone of projects is not swept" in caplog.text
    rbd_index.remove(pool.ioctx, f"{rbd_projects.POOL}/gone")
    assert bench.content(disk_id) == CONTENT


def claimed(pool: RbdPool, name: str) -> None:
    """Let this site say that projects have a pool, whatever it says itself."""
    rbd_index.add(pool.ioctx, f"{rbd_projects.POOL}/{name}", rbd_index.Entry(rbd=name))


def test_isolation_is_not_proven_past_a_pool_that_cannot_be_read(
    ceph: Ceph, settings: RbdSettings, disks: DisksApart, pool: RbdPool
) -> None:
    """As where rights to a further pool were given, and those to the first taken by that."""
    narrow = apart(dataclasses.replace(settings, user="malleable-portal"))
    with refused("pool-credentials", FIRST):
        narrow.check()
    narrow.close()
    # A pool that was made anew by the same name has another's disks next, or none.
    claimed(pool, SECOND)
    with refused("pool-taken", SECOND):
        disks.check()
    rbd_index.remove(pool.ioctx, f"{rbd_projects.POOL}/{SECOND}")


def test_a_host_needs_no_keys_of_projects_that_it_does_not_serve(ceph: Ceph, disks: DisksApart) -> None:
    keyring = ceph.layout.keyring(FIRST)
    aside = keyring.rename(keyring.with_suffix(".aside"))
    try:
        disks.check()
        with refused("pool-credentials", FIRST):
            disks.within(FIRST).check()
    finally:
        aside.rename(keyring)


def test_a_pool_with_anything_in_it_is_not_taken(disks: DisksApart, pool: RbdPool) -> None:
    name = leftover(pool, SECOND)
    with refused("pool-taken"):
        disks.within(SECOND).check()
    ioctx, there = pool.place(name)
    rbd().RBD().trash_move(ioctx, there, 0)
    with refused("pool-taken"):
        disks.within(SECOND).check()
    (item,) = rbd().RBD().trash_list(ioctx)
    rbd().RBD().trash_remove(ioctx, item["id"])
    # And what another site has is not swept, even if this one believed it its own.
    name = leftover(pool, SECOND)
    claimed(pool, SECOND)
    rbd_rubbish.sweep(pool, 0)
    assert rbd().RBD().list(ioctx) == [name.rpartition("/")[2]]
    rbd().RBD().remove(*pool.place(name))
    rbd_index.remove(pool.ioctx, f"{rbd_projects.POOL}/{SECOND}")


def test_a_full_pool_can_be_emptied_and_holds_up_nobody(
    ceph: Ceph, disks: DisksApart, pool: RbdPool, bench: Bench
) -> None:
    _, disk_id = made(bench)
    name = leftover(pool, FIRST)
    with limited(ceph, FIRST, 1):
        wait_until(lambda: "running out of quota" in told_by(ceph, "health", "detail"), "Ceph finds the pool full")
        with refused("pool-full"):
            disks.within(FIRST).make_blank(DiskId(new_id()), size_bytes=MIB)
        disks.delete_disk(disk_id)
        rbd_rubbish.sweep(pool, 0)
        ioctx, there = pool.place(name)
        assert not rbd().RBD().list(ioctx)
        (item,) = rbd().RBD().trash_list(ioctx)
        rbd().RBD().trash_remove(ioctx, item["id"], force=True)
        assert item["name"] == there
        disks.check()
        assert bench.content(bench.clone(bench.image())) == CONTENT


def told_by(ceph: Ceph, *words: str) -> str:
    command = ["ceph", "-c", str(ceph.layout.cluster_conf), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


@contextmanager
def limited(ceph: Ceph, pool: str, quota_bytes: int) -> Iterator[None]:
    told_by(ceph, "osd", "pool", "set-quota", pool, "max_bytes", str(quota_bytes))
    try:
        yield
    finally:
        told_by(ceph, "osd", "pool", "set-quota", pool, "max_bytes", "0")


def test_a_pools_quota_is_its_room(ceph: Ceph, disks: DisksApart, bench: Bench) -> None:
    mine: Disks = disks.within(FIRST)
    before = mine.capacity()
    with limited(ceph, FIRST, 64 * MIB):
        assert mine.capacity().total_bytes <= 64 * MIB < before.total_bytes
        assert disks.capacity().total_bytes > 64 * MIB
