"""The power goes at any point of what the pool does: what was answered stays, and nothing is half there."""

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.contract.disks.conftest import CONTENT, MIB, Bench, reflink_bench

from malleable.domain.ids import DiskId, ImageId, SnapshotId, new_id
from malleable.drivers.storage.folder import ReflinkSettings
from malleable.drivers.storage.reflink import ReflinkDisks

pytestmark = pytest.mark.room
OTHER = b"other" * MIB  #: more than one write of a copy


@dataclass(frozen=True, kw_only=True)
class Power:
    """A pool whose power can be cut: what its filesystem had written is left, its journal not replayed."""

    bench: Bench
    pool: ReflinkDisks
    settings: ReflinkSettings

    @property
    def folder(self) -> Path:
        return self.settings.pool_dir

    def settle(self) -> None:
        """Let everything so far be of long ago."""
        subprocess.run(["sync", "--file-system", str(self.folder / "pool")], check=True)

    def fail(self) -> None:
        """Keep what is on the medium at this moment."""
        copy = ["cp", "--sparse=always", str(self.folder / "pool.xfs"), str(self.folder / "left")]
        subprocess.run(copy, check=True)

    def come_back(self) -> None:
        """Go on with what was kept."""
        self.pool.close()
        (self.folder / "left").replace(self.folder / "pool.xfs")


@pytest.fixture
def power(tmp_path: Path) -> Iterator[Power]:
    settings = ReflinkSettings(pool_dir=tmp_path / "pool", size_bytes=640 * MIB, reserve_bytes=0)
    pool = ReflinkDisks(settings)
    pool.check()
    yield Power(bench=reflink_bench(pool, settings, tmp_path), pool=pool, settings=settings)
    pool.close()


def written(power: Power) -> tuple[DiskId, SnapshotId]:
    """Make a disk that was written to after its snapshot, long ago."""
    disk_id = power.bench.clone(power.bench.image())
    snapshot_id = power.bench.snapshot(disk_id)
    power.bench.write(disk_id, 0, b"later" * 1024)
    power.settle()
    return disk_id, snapshot_id


def cut(power: Power) -> None:
    power.fail()
    power.come_back()


def test_a_sealed_image_stays(power: Power) -> None:
    power.settle()
    image_id = power.bench.image(OTHER)
    cut(power)
    power.bench.verify(image_id)
    assert power.bench.content(power.bench.clone(image_id)) == OTHER


def made_of(power: Power, origin: str) -> tuple[DiskId, bytes]:
    """Make a disk of something that is long there."""
    disk_id, snapshot_id = written(power)
    (image_id,) = power.pool.list().images
    if origin == "blank":
        blank_id = DiskId(new_id())
        power.pool.make_blank(blank_id, size_bytes=8 * MIB)
        return blank_id, bytes(8 * MIB)
    made = power.bench.clone(image_id) if origin == "image" else power.bench.clone_snapshot(snapshot_id)
    assert made != disk_id
    return made, CONTENT


@pytest.mark.parametrize("origin", ["image", "snapshot", "blank"])
def test_a_new_disk_is_there_with_its_nodes_first_flush(origin: str, power: Power) -> None:
    """It is made durable by nobody else."""
    disk_id, content = made_of(power, origin)
    with Path(power.pool.handle(disk_id).path).open("r+b") as file:
        os.pwrite(file.fileno(), b"mine" * 1024, 4096)
        os.fsync(file.fileno())
    cut(power)
    assert power.bench.content(disk_id) == content[:4096] + b"mine" * 1024 + content[8192:]


@pytest.mark.parametrize("origin", ["image", "snapshot", "blank"])
def test_a_new_disk_that_was_never_flushed_to_is_whole_or_is_not_there(origin: str, power: Power) -> None:
    disk_id, content = made_of(power, origin)
    cut(power)
    assert not power.pool.list().strays
    if disk_id in power.pool.list().disks:
        assert power.bench.content(disk_id) == content


def test_a_snapshot_that_was_taken_stays(power: Power) -> None:
    disk_id, _ = written(power)
    content = power.bench.content(disk_id)
    snapshot_id = power.bench.snapshot(disk_id)
    cut(power)
    assert power.bench.content(power.bench.clone_snapshot(snapshot_id)) == content


def test_a_disk_that_was_rolled_back_stays_so(power: Power) -> None:
    disk_id, snapshot_id = written(power)
    power.pool.roll_back(disk_id, snapshot_id)
    cut(power)
    assert power.bench.content(disk_id) == CONTENT


def test_a_disk_that_has_grown_stays_as_large(power: Power) -> None:
    disk_id, _ = written(power)
    power.pool.grow(disk_id, size_bytes=8 * MIB)
    cut(power)
    assert power.bench.size_bytes(disk_id) == 8 * MIB


@pytest.mark.parametrize("at", range(3))
def test_of_an_image_that_is_being_sealed_nothing_is_seen_and_it_is_sealed_again(at: int, power: Power) -> None:
    image_id, calls = ImageId(new_id()), list[int]()
    path, sha256 = power.bench.source(OTHER)

    def on_progress(done_bytes: int, of_bytes: int) -> None:
        if len(calls) == at:
            power.settle()  # at worst all of it is there, and not its name
            power.fail()
        calls.append(done_bytes)

    power.pool.seal(image_id, path, sha256=sha256, on_progress=on_progress)
    assert len(calls) > at
    power.come_back()
    assert not power.pool.list().images
    assert not power.pool.list().strays
    power.pool.seal(image_id, path, sha256=sha256)
    power.bench.verify(image_id)
    assert not list((power.folder / "pool" / "work").iterdir())


class Named(ReflinkDisks):
    """Loses its power the moment an image has its name."""

    power: Power

    def _publish(self, image_id: ImageId, folder: Path, final: Path) -> None:
        super()._publish(image_id, folder, final)
        self.power.settle()
        self.power.fail()


def test_an_image_that_has_its_name_is_whole(power: Power) -> None:
    pool, image_id = Named(power.settings), ImageId(new_id())
    pool.power = power
    path, sha256 = power.bench.source(OTHER)
    sealed = pool.seal(image_id, path, sha256=sha256)
    power.come_back()
    power.bench.verify(image_id)
    assert power.pool.seal(image_id, path, sha256=sha256) == sealed


@pytest.mark.parametrize("is_settled", [True, False])
def test_what_was_deleted_is_gone_or_whole(is_settled: bool, power: Power) -> None:
    disk_id, snapshot_id = written(power)
    (image_id,) = power.pool.list().images
    gone: list[Callable[[], None]] = [
        lambda: power.pool.delete_disk(disk_id),
        lambda: power.pool.delete_snapshot(snapshot_id),
        lambda: power.pool.delete_image(image_id),
    ]
    for delete in gone:
        delete()
    if is_settled:
        power.settle()
    cut(power)
    left = power.pool.list()
    assert not left.strays
    if is_settled:
        assert (left.images, left.disks, left.snapshots) == (frozenset(), frozenset(), frozenset())
    for image in left.images:
        power.bench.verify(image)
    for disk in left.disks:
        assert power.bench.content(disk)[:5] == b"later"
    for delete in gone:
        delete()
    assert not power.pool.list().snapshots


def test_a_disk_that_is_being_flattened_is_what_it_was(power: Power) -> None:
    disk_id = power.bench.clone(power.bench.image(OTHER))
    power.bench.write(disk_id, 0, b"later" * 1024)
    power.settle()
    content = power.bench.content(disk_id)
    assert not power.pool.flatten(disk_id, seconds=0).is_done
    cut(power)
    assert power.bench.content(disk_id) == content
    power.bench.flatten(disk_id)
    assert power.bench.content(disk_id) == content
