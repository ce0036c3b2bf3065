"""What only the real pool of layers can show: one storage daemon, killed and asked again, and what it never loses."""

import ctypes
import os
import random
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from tests.contract.disks import suite
from tests.contract.disks.conftest import CONTENT, MAX_CHAIN, MIB, qcow2_bench, refused
from tests.contract.targets.room import wait_until

from malleable.domain.errors import Refused
from malleable.domain.ids import DiskId, ImageId, SnapshotId, new_id
from malleable.domain.ports import FlattenCall
from malleable.drivers.storage import qcow2_flatten, qcow2_merge
from malleable.drivers.storage.qcow2 import Qcow2Disks, Qcow2Settings
from malleable.drivers.storage.qcow2_daemon import StorageDaemon
from malleable.drivers.storage.qcow2_layers import Layer, Layers
from malleable.drivers.storage.qcow2_monitor import Denied

pytestmark = pytest.mark.room
PUNCH_HOLE = 1 | 2  #: FALLOC_FL_KEEP_SIZE too: how a target daemon discards


class Sharing(Qcow2Disks):
    """Makes every disk the same layer."""

    def clone(self, image_id: ImageId, disk_id: DiskId, *, size_bytes: int) -> None:
        others = self.list().disks
        if not others:
            return super().clone(image_id, disk_id, size_bytes=size_bytes)
        layer = self._layers.read(self._disk(next(iter(others))).readlink().name)
        return self._layers.link(self._disk(disk_id), layer, is_durable=False)


def kill_daemon(settings: Qcow2Settings) -> None:
    pid = int((settings.run_dir / "storage.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{pid}/exe").exists(), "it ends")


def test_pool_whose_clones_share_a_layer_breaks_the_rule(
    qcow2_settings: Qcow2Settings, qcow2: Qcow2Disks, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError):
        suite.writes_reach_neither_sibling_nor_image(qcow2_bench(Sharing(qcow2_settings), qcow2_settings, tmp_path))


def test_a_killed_daemon_loses_nothing_that_was_flushed_and_shows_all_again(
    qcow2_settings: Qcow2Settings, qcow2: Qcow2Disks, tmp_path: Path
) -> None:
    bench = qcow2_bench(qcow2, qcow2_settings, tmp_path)
    image_id = bench.image()
    disks = [bench.clone(image_id, 64 * MIB) for _ in range(2)]
    before = [Path(qcow2.handle(disk_id).path) for disk_id in disks]
    fd = os.open(before[0], os.O_RDWR)
    for number in range(8):
        os.pwrite(fd, bytes([number]) * MIB, 4 * MIB * number)
    os.fsync(fd)
    kill_daemon(qcow2_settings)
    with pytest.raises(OSError, match="connect"):
        os.pread(fd, 512, 0)
    with pytest.raises(OSError, match="connected"):
        os.close(fd)
    Qcow2Disks(qcow2_settings).tend()
    after = [path.parents[1] / next(path.parents[1].iterdir()).name / path.name for path in before]
    assert all(path.stat().st_size == 64 * MIB for path in after)
    assert [Path(qcow2.handle(disk_id).path) for disk_id in disks] == after != before
    assert all(bench.read(disks[0], 4 * MIB * n, MIB) == bytes([n]) * MIB for n in range(8))
    assert bench.read(disks[1], 0, len(CONTENT)) == CONTENT


def test_a_snapshot_is_of_one_moment_while_a_node_writes(
    qcow2_settings: Qcow2Settings, qcow2: Qcow2Disks, tmp_path: Path
) -> None:
    """Each write is flushed before the next: a snapshot has all up to one, and none after it."""
    bench = qcow2_bench(qcow2, qcow2_settings, tmp_path)
    disk_id = bench.clone(bench.image(), 16 * MIB)
    stop, written = threading.Event(), [0]

    def write(file: int) -> None:
        while not stop.is_set() and written[0] < 400:
            os.pwrite(file, written[0].to_bytes(8) * 64, 4096 * written[0])
            os.fsync(file)
            written[0] += 1

    fd = os.open(qcow2.handle(disk_id).path, os.O_RDWR)
    writer = threading.Thread(target=write, args=(fd,))
    writer.start()
    try:
        wait_until(lambda: written[0] > 5, "it writes")
        snapshot_id = bench.snapshot(disk_id)
    finally:
        stop.set()
        writer.join()
        os.close(fd)
    kept = bench.content(bench.clone_snapshot(snapshot_id))
    is_there = [n for n in range(written[0]) if kept[4096 * n : 4096 * n + 512] == n.to_bytes(8) * 64]
    assert is_there == list(range(len(is_there)))
    assert 5 < len(is_there) <= written[0]
    assert all(bench.read(disk_id, 4096 * n, 512) == n.to_bytes(8) * 64 for n in range(written[0]))


def test_a_snapshot_that_was_interrupted_is_taken_by_the_next_try(
    qcow2_settings: Qcow2Settings, qcow2: Qcow2Disks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Died(Exception):
        pass

    def die(*_: object) -> None:
        raise Died

    bench = qcow2_bench(qcow2, qcow2_settings, tmp_path)
    disk_id, snapshot_id = bench.clone(bench.image()), SnapshotId(new_id())
    bench.write(disk_id, 0, b"first" * 512)
    with monkeypatch.context() as patched:
        patched.setattr(StorageDaemon, "put_on", die)
        with pytest.raises(Died):
            qcow2.snapshot(disk_id, snapshot_id)
    (shown,) = (qcow2_settings.pool_dir / "exports").glob(f"*/{disk_id}.raw")
    with shown.open("r+b") as file:
        file.write(b"second" * 512)
    assert not qcow2.list().snapshots
    qcow2.snapshot(disk_id, snapshot_id)
    bench.write(disk_id, 0, b"third" * 512)
    assert bench.content(bench.clone_snapshot(snapshot_id))[:3072] == b"second" * 512
    kill_daemon(qcow2_settings)
    assert bench.read(disk_id, 0, 2560) == b"third" * 512


def test_a_disk_is_flattened_beside_who_writes_it(
    qcow2_settings: Qcow2Settings, qcow2: Qcow2Disks, tmp_path: Path
) -> None:
    bench = qcow2_bench(qcow2, qcow2_settings, tmp_path)
    content = os.urandom(16 * MIB)
    image_id = bench.image(content)
    disk_id = bench.clone(image_id)
    snapshot_id = bench.snapshot(disk_id)
    wanted, is_over = bytearray(content), threading.Event()
    fd = os.open(qcow2.handle(disk_id).path, os.O_RDWR)

    def write() -> None:
        while not is_over.is_set():
            at, piece = 512 * random.randrange(len(wanted) // 512), os.urandom(512)
            os.pwrite(fd, piece, at)
            wanted[at : at + 512] = piece

    with refused("pool-full"):
        Qcow2Disks(replace(qcow2_settings, reserve_bytes=1 << 60)).flatten(disk_id, seconds=1.0)
    node = threading.Thread(target=write)
    node.start()
    try:
        begun = qcow2.flatten(disk_id, seconds=0.0, call=FlattenCall.IN_USE)
        assert begun.is_done == (begun.left_bytes == 0)
        ended = qcow2.flatten(disk_id, seconds=60.0, call=FlattenCall.IN_USE)
        assert ended.is_done
        assert begun.copied_bytes + ended.copied_bytes >= len(content)
    finally:
        is_over.set()
        node.join()
        os.close(fd)
    bench.disks.delete_image(image_id)
    layers = [path.name for path in (qcow2_settings.pool_dir / "layers").iterdir()]
    assert all(name.startswith(f"{disk_id}.") for name in layers), "the image's own layer is not needed any more"
    assert bench.content(disk_id) == wanted
    assert bench.content(bench.clone_snapshot(snapshot_id)) == content


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look after merges more often."""
    monkeypatch.setattr("malleable.drivers.storage.qcow2.MERGE_LOOK_S", 0.01)


def merged(qcow2: Qcow2Disks, settings: Qcow2Settings) -> list[str]:
    """Tend the pool until no layers are left to be merged; name those there are."""
    note = settings.pool_dir / "merge"

    def is_merged() -> bool:
        qcow2.tend()
        return not note.exists()

    wait_until(is_merged, "layers are merged")
    return [path.name for path in (settings.pool_dir / "layers").glob("*.qcow2")]


@pytest.mark.usefixtures("soon")
def test_a_disk_that_is_written_to_can_be_snapshotted_for_ever(
    qcow2_settings: Qcow2Settings, qcow2: Qcow2Disks, tmp_path: Path
) -> None:
    """Layers that no snapshot needs go into one another, and what is shown never changes by it."""
    bench = qcow2_bench(qcow2, qcow2_settings, tmp_path)
    disk_id = bench.clone(bench.image(), 8 * MIB)
    wanted, kept = bytearray(CONTENT.ljust(8 * MIB, b"\0")), dict[SnapshotId, bytes]()
    fd = os.open(qcow2.handle(disk_id).path, os.O_RDWR)
    for number in range(4 * MAX_CHAIN + 2):
        at = 64 * 1024 * random.randrange(120)
        os.pwrite(fd, bytes([number + 1]) * 80_000, at)
        wanted[at : at + 80_000] = bytes([number + 1]) * 80_000
        kept[bench.snapshot(disk_id)] = bytes(wanted)
        if len(kept) > 2:
            gone = random.choice(list(kept))
            qcow2.delete_snapshot(gone)
            del kept[gone]
        if number % 7 == 6:
            assert len(merged(qcow2, qcow2_settings)) <= 1 + len(kept) + 1
    assert os.pread(fd, 8 * MIB, 0) == wanted
    os.close(fd)
    kill_daemon(qcow2_settings)
    for snapshot_id, content in kept.items():
        qcow2.roll_back(disk_id, snapshot_id)
        assert bench.content(disk_id) == content


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("moment", ["copied", "copied, and its daemon dies", "renamed"])
def test_a_merge_that_dies_changes_nothing_and_is_begun_anew(
    qcow2_settings: Qcow2Settings, qcow2: Qcow2Disks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    bench = qcow2_bench(qcow2, qcow2_settings, tmp_path)
    disk_id = bench.clone(bench.image())
    wanted, snapshots = CONTENT, list[SnapshotId]()
    for number in range(3):
        bench.write(disk_id, 512 * number, bytes([number]) * 4096)
        wanted = wanted[: 512 * number] + bytes([number]) * 4096 + wanted[512 * number + 4096 :]
        snapshots.append(bench.snapshot(disk_id))
    clone_id = bench.clone_snapshot(snapshots[1])
    kept = bench.content(clone_id)
    real = Layers.replace

    def die(self: Layers, upper: Layer, by: Layer) -> None:
        if moment == "renamed":
            real(self, upper, by)
        died.set()
        raise Refused("It died.", code="died")

    died = threading.Event()
    with monkeypatch.context() as patched:
        patched.setattr(Layers, "replace", die)
        qcow2.delete_snapshot(snapshots[0])
        qcow2.tend()
        wait_until(died.is_set, "it dies")
        qcow2.end_merging()
    if "daemon" in moment:
        kill_daemon(qcow2_settings)
    again = Qcow2Disks(qcow2_settings)
    assert (bench.content(disk_id), bench.content(clone_id)) == (wanted, kept)
    assert len(merged(again, qcow2_settings)) == 4, "the top, two snapshots, and a clone"
    kill_daemon(qcow2_settings)
    assert (bench.content(disk_id), bench.content(clone_id)) == (wanted, kept)


def test_a_merge_that_the_daemon_refuses_leaves_nothing_open(
    qcow2_settings: Qcow2Settings, qcow2: Qcow2Disks, tmp_path: Path
) -> None:
    bench = qcow2_bench(qcow2, qcow2_settings, tmp_path)
    qcow2.handle(bench.clone(bench.image()))  # so that the daemon runs
    layers, daemon = qcow2._layers, qcow2._daemon
    disks = [bench.clone(bench.image()) for _ in range(2)]
    upper, other = (layers.read(layers.links("disks")[disk_id]) for disk_id in disks)
    with layers.locked(), daemon.monitor() as monitor:
        before = monitor.ask("query-named-block-nodes", flat=True)
        with pytest.raises(Denied, match="block-commit"):
            qcow2_merge._begin(daemon, monitor, layers, upper, other)
        assert monitor.ask("query-named-block-nodes", flat=True) == before


def test_a_disk_without_snapshots_is_flattened_while_it_is_written_to(
    qcow2_settings: Qcow2Settings, qcow2: Qcow2Disks, tmp_path: Path
) -> None:
    bench = qcow2_bench(qcow2, qcow2_settings, tmp_path)
    image_id = bench.image()
    disk_id = bench.clone(image_id)
    with Path(qcow2.handle(disk_id).path).open("r+b", buffering=0) as file:
        file.write(b"first" * 512)
        assert qcow2.flatten(disk_id, seconds=60.0, call=FlattenCall.IN_USE).is_done
        assert qcow2.flatten(disk_id, seconds=60.0, call=FlattenCall.IN_USE).copied_bytes == 0
        file.write(b"later" * 512)
    qcow2.delete_image(image_id)
    kill_daemon(qcow2_settings)
    assert bench.content(disk_id) == b"first" * 512 + b"later" * 512 + CONTENT[5120:]


def test_a_snapshot_whose_clone_is_shown_amid_flattening_is_in_its_file_by_the_end(
    qcow2_settings: Qcow2Settings, qcow2: Qcow2Disks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the storage daemon never closes it: what it keeps of it would be lost by a kill."""
    bench = qcow2_bench(qcow2, qcow2_settings, tmp_path)
    disk_id = bench.clone(bench.image())
    clone_id = bench.clone_snapshot(bench.snapshot(disk_id))
    real = qcow2_flatten._follow

    def follow(daemon: StorageDaemon, layers: Layers, fill: qcow2_flatten.Fill, until_s: float) -> int:
        qcow2.handle(clone_id)
        return real(daemon, layers, fill, until_s)

    monkeypatch.setattr(qcow2_flatten, "_follow", follow)
    assert qcow2.flatten(disk_id, seconds=60.0).is_done
    kill_daemon(qcow2_settings)
    assert [bench.content(one) == CONTENT for one in (clone_id, disk_id)] == [True, True]


def test_what_a_node_discards_and_what_is_deleted_is_free_again(
    qcow2_settings: Qcow2Settings, qcow2: Qcow2Disks, tmp_path: Path
) -> None:
    bench = qcow2_bench(qcow2, qcow2_settings, tmp_path)
    disk_id = bench.clone(bench.image(), 64 * MIB)
    with Path(qcow2.handle(disk_id).path).open("r+b", buffering=0) as file:
        os.pwrite(file.fileno(), os.urandom(16 * MIB), 0)
        assert qcow2.usage(disk_id).own_bytes >= 16 * MIB
        _fallocate(file.fileno(), 0, 12 * MIB)
        assert os.pread(file.fileno(), 4096, MIB) == bytes(4096)
        os.fsync(file.fileno())
    assert qcow2.usage(disk_id).own_bytes <= 5 * MIB
    snapshot_id = bench.snapshot(disk_id)
    assert qcow2.usage(snapshot_id).own_bytes == 0, "the disk needs all of it"
    qcow2.delete_disk(disk_id)
    assert qcow2.usage(snapshot_id).own_bytes >= 4 * MIB


def _fallocate(fd: int, offset: int, length: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    assert libc.fallocate(fd, PUNCH_HOLE, offset, length) == 0, os.strerror(ctypes.get_errno())


def test_what_a_crash_left_is_swept_and_a_damaged_disk_can_be_deleted(
    qcow2_settings: Qcow2Settings, qcow2: Qcow2Disks, tmp_path: Path
) -> None:
    bench = qcow2_bench(qcow2, qcow2_settings, tmp_path)
    kept, broken = (bench.clone(bench.image()) for _ in range(2))
    layers = qcow2_settings.pool_dir / "layers"
    rubbish = layers / f"{new_id()}.0123456789ab.qcow2"
    rubbish.write_bytes((layers / (qcow2_settings.pool_dir / "disks" / str(kept)).readlink().name).read_bytes())
    blank = layers / f"{new_id()}.0123456789ac.qcow2"
    blank.touch()  # as a power cut leaves what was not synced
    image = (qcow2_settings.pool_dir / "disks" / str(broken)).resolve()
    image.unlink()
    with refused("pool-broken"):
        qcow2.handle(broken)
    qcow2.delete_disk(broken)
    assert not rubbish.exists()
    assert not blank.exists()
    assert bench.content(kept) == CONTENT
    stray = qcow2_settings.pool_dir / "disks" / str(new_id())
    stray.touch()
    assert qcow2.list().disks == {kept}
    assert set(qcow2.list().strays) == {f"disks/{stray.name}"}
    qcow2.delete_disk(kept)
    assert stray.exists()


def test_an_image_is_shown_and_nobody_writes_to_it(
    qcow2_settings: Qcow2Settings, qcow2: Qcow2Disks, tmp_path: Path
) -> None:
    image_id = qcow2_bench(qcow2, qcow2_settings, tmp_path).image()
    path = Path(qcow2.image_handle(image_id).path)
    assert path.read_bytes() == CONTENT
    with pytest.raises(OSError, match="ermi"), path.open("r+b", buffering=0) as file:
        file.write(bytes(512))
