"""Every kind of disk pool, in one shape for one suite."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from malleable.domain.errors import Busy, Refused
from malleable.domain.ids import DiskId, ImageId, SnapshotId, new_id
from malleable.domain.ports import Disks, Sealed
from malleable.drivers.storage import blocks
from malleable.drivers.storage.folder import GIB, ReflinkSettings
from malleable.drivers.storage.qcow2 import Qcow2Disks, Qcow2Settings
from malleable.drivers.storage.reflink import ReflinkDisks
from malleable.sim.disks import PROJECT_POOLS, SimDisks

MIB = 1 << 20
MAX_CHAIN = 3  #: of pools that read clones through chains
CONTENT = bytes(range(256)) * 4096 * 3 + b"end of the image" * 32  #: 3 MiB and a bit, whole sectors


@dataclass(frozen=True, kw_only=True)
class Bench:
    """An empty pool, ways to use its disks as a node would, and ways to break it."""

    disks: Disks
    folder: Path
    read: Callable[[DiskId, int, int], bytes]
    write: Callable[[DiskId, int, bytes], None]
    size_bytes: Callable[[DiskId], int]
    damage: Callable[[ImageId], object]  #: cut the image's tail off
    fill: Callable[[], Disks]  #: the same pool with nothing left to give
    verify: Callable[[ImageId], None]
    has_chains: bool = False  #: clones are read through what they were made of, and so only so deep
    rolls_back_deep: bool = False  #: to whatever could be snapshotted, though it could not be cloned
    project_pools: tuple[str, str] | None = None  #: that projects may have

    def source(self, content: bytes = CONTENT) -> tuple[Path, str]:
        """Make a file to import; return it and its SHA-256."""
        path = self.folder / f"source-{new_id()}"
        path.write_bytes(content)
        return path, hashlib.sha256(content).hexdigest()

    def image(self, content: bytes = CONTENT) -> ImageId:
        """Seal an image of some content."""
        image_id = ImageId(new_id())
        path, sha256 = self.source(content)
        assert self.disks.seal(image_id, path, sha256=sha256) == Sealed(size_bytes=len(content), sha256=sha256)
        return image_id

    def clone(self, image_id: ImageId, size_bytes: int = 0) -> DiskId:
        """Clone an image."""
        disk_id = DiskId(new_id())
        self.disks.clone(image_id, disk_id, size_bytes=size_bytes)
        return disk_id

    def snapshot(self, disk_id: DiskId) -> SnapshotId:
        """Snapshot a disk."""
        snapshot_id = SnapshotId(new_id())
        self.disks.snapshot(disk_id, snapshot_id)
        return snapshot_id

    def clone_snapshot(self, snapshot_id: SnapshotId, size_bytes: int = 0) -> DiskId:
        """Clone a snapshot."""
        disk_id = DiskId(new_id())
        self.disks.clone_snapshot(snapshot_id, disk_id, size_bytes=size_bytes)
        return disk_id

    def flatten(self, disk_id: DiskId) -> None:
        """Flatten a disk, whatever number of calls it takes."""
        for _ in range(1000):
            if self.disks.flatten(disk_id, seconds=1.0).is_done:
                return
        raise AssertionError("it is never done")

    def content(self, disk_id: DiskId) -> bytes:
        """Read a whole disk."""
        return self.read(disk_id, 0, self.size_bytes(disk_id))


@contextmanager
def refused(code: str, naming: str | None = None) -> Iterator[None]:
    """Want a refusal with this code that names something."""
    with pytest.raises(Refused, match=naming) as caught:
        yield
    assert caught.value.code == code


def sim_bench(disks: SimDisks, folder: Path) -> Bench:
    disks.max_chain = MAX_CHAIN

    def fill() -> Disks:
        disks.reserve_bytes = 2 * disks.total_bytes
        return disks

    return Bench(
        disks=disks,
        folder=folder,
        read=disks.read,
        write=disks.write,
        size_bytes=disks.size_bytes,
        damage=disks.damage_image,
        fill=fill,
        verify=disks.verify,
        has_chains=True,
        project_pools=PROJECT_POOLS,
    )


def reflink_bench(disks: ReflinkDisks, settings: ReflinkSettings, folder: Path) -> Bench:
    return file_bench(disks, lambda: ReflinkDisks(replace(settings, reserve_bytes=1 << 60)), folder)


def qcow2_bench(disks: Qcow2Disks, settings: Qcow2Settings, folder: Path) -> Bench:
    bench = file_bench(disks, lambda: Qcow2Disks(replace(settings, reserve_bytes=1 << 60)), folder)
    return replace(bench, has_chains=True, rolls_back_deep=True)


def file_bench(disks: ReflinkDisks | Qcow2Disks, fill: Callable[[], Disks], folder: Path) -> Bench:
    def path_of(disk_id: DiskId) -> Path:
        return Path(disks.handle(disk_id).path)

    def read(disk_id: DiskId, offset: int, length: int) -> bytes:
        with path_of(disk_id).open("rb") as file:
            return os.pread(file.fileno(), length, offset)

    def write(disk_id: DiskId, offset: int, data: bytes) -> None:
        with path_of(disk_id).open("r+b") as file:
            os.pwrite(file.fileno(), data, offset)

    def damage(image_id: ImageId) -> None:
        image = disks.image_path(image_id).resolve()
        blocks.set_immutable(image, on=False)
        os.truncate(image, image.stat().st_size - 512)

    return Bench(
        disks=disks,
        folder=folder,
        read=read,
        write=write,
        size_bytes=lambda disk_id: path_of(disk_id).stat().st_size,
        damage=damage,
        fill=fill,
        verify=disks.verify,
    )


@pytest.fixture(scope="session")
def own_xfs() -> Iterator[ReflinkSettings]:
    """A real pool on an XFS of its own, for all tests.

    Not in pytest's folder: a mount that killed tests leave there would fail every later run, which tidies it up.
    """
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a pool")
    with tempfile.TemporaryDirectory(prefix="m2pool-", ignore_cleanup_errors=True) as folder:
        settings = ReflinkSettings(pool_dir=Path(folder) / "pool", size_bytes=2 * GIB, reserve_bytes=0)
        yield settings
        with suppress(Busy):
            # Another program on this host may have started with a copy of our mount: it goes with that program.
            ReflinkDisks(settings).close()


@pytest.fixture
def reflink(own_xfs: ReflinkSettings) -> Iterator[ReflinkDisks]:
    """The real pool, emptied after the test."""
    disks = ReflinkDisks(own_xfs)
    yield disks
    empty(disks)


@pytest.fixture(scope="session")
def qcow2_settings() -> Iterator[Qcow2Settings]:
    """A real pool of layers and its storage daemon, for all tests; on whatever filesystem there is."""
    if os.geteuid() != 0 or not Path("/dev/fuse").exists() or not shutil.which("qemu-storage-daemon"):
        pytest.skip("needs root, FUSE and qemu-storage-daemon")
    with tempfile.TemporaryDirectory(prefix="m2pool-", ignore_cleanup_errors=True) as folder:
        path = Path(folder)
        settings = Qcow2Settings(pool_dir=path / "pool", run_dir=path / "run", reserve_bytes=0, max_chain=MAX_CHAIN)
        yield settings
        Qcow2Disks(settings).close()


@pytest.fixture
def qcow2(qcow2_settings: Qcow2Settings) -> Iterator[Qcow2Disks]:
    """The real pool of layers, emptied after the test: nothing is left of it."""
    disks = Qcow2Disks(qcow2_settings)
    yield disks
    empty(disks)
    assert not list((qcow2_settings.pool_dir / "layers").iterdir())


def empty(disks: Disks) -> None:
    things = disks.list()
    for disk_id in things.disks:
        disks.delete_disk(disk_id)
    for image_id in things.images:
        disks.delete_image(image_id)
    for snapshot_id in things.snapshots:
        disks.delete_snapshot(snapshot_id)


@pytest.fixture(params=["sim", *(pytest.param(kind, marks=pytest.mark.room) for kind in ("reflink", "qcow2"))])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    if request.param == "sim":
        return sim_bench(SimDisks(), tmp_path)
    if request.param == "qcow2":
        return qcow2_bench(request.getfixturevalue("qcow2"), request.getfixturevalue("qcow2_settings"), tmp_path)
    settings: ReflinkSettings = request.getfixturevalue("own_xfs")
    return reflink_bench(request.getfixturevalue("reflink"), settings, tmp_path)
