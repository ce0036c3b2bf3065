"""The skeleton of docs/howto/add-an-array.md keeps the contract of every pool, on an array of files."""

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.contract.disks import suite
from tests.contract.disks.array import IMAGE, ArrayDisks, ArrayError, FolderArray, Missing
from tests.contract.disks.conftest import MIB, Bench

from malleable.domain.errors import Unreachable
from malleable.domain.ids import DiskId, ImageId, new_id
from malleable.domain.ports import Disks
from malleable.drivers.storage import refusals
from malleable.drivers.storage.sealing import sha256_of


class DeviceArray(FolderArray):
    """The same with block devices, as arrays give them: a device has no size that ``stat`` tells."""

    def __init__(self, folder: Path) -> None:
        """Begin empty."""
        super().__init__(folder)
        self._lock, self.loops = threading.Lock(), dict[int, Path]()

    def device(self, name: str) -> Path:
        path = super().device(name)
        with self._lock:
            inode = path.stat().st_ino
            if inode not in self.loops:
                self.loops[inode] = Path(losetup("--find", "--show", str(path)).strip())
            return self.loops[inode]

    def resize(self, name: str, size_bytes: int) -> None:
        os.truncate(super().device(name), size_bytes)
        losetup("--set-capacity", str(self.device(name)))

    def restore(self, name: str, source: str) -> None:
        self.resize(name, super().device(source).stat().st_size)
        super().restore(name, source)

    def delete(self, name: str) -> None:
        with suppress(Missing):
            path = super().device(name)
            with self._lock:
                loop = self.loops.pop(path.stat().st_ino, None)
            if loop is not None:
                losetup("--detach", str(loop))
        super().delete(name)


def losetup(*words: str) -> str:
    return subprocess.run(["losetup", *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture(params=["files", pytest.param("devices", marks=pytest.mark.room)])
def array(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FolderArray]:
    if request.param == "files":
        yield FolderArray(tmp_path / "array")
        return
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        pytest.skip("needs root and loop devices")
    devices = DeviceArray(tmp_path / "array")
    yield devices
    for name in devices.volumes():
        devices.delete(name)


@pytest.fixture
def array_bench(array: FolderArray, tmp_path: Path) -> Bench:
    def pool(reserve_bytes: int) -> Disks:
        return ArrayDisks(array, reserve_bytes=reserve_bytes, files_dir=tmp_path / "files")

    disks = pool(0)

    def path_of(disk_id: DiskId) -> Path:
        return Path(disks.handle(disk_id).path)

    def read(disk_id: DiskId, offset: int, length: int) -> bytes:
        return path_of(disk_id).read_bytes()[offset : offset + length]

    def write(disk_id: DiskId, offset: int, data: bytes) -> None:
        with path_of(disk_id).open("r+b") as file:
            file.seek(offset)
            file.write(data)

    def size_bytes(disk_id: DiskId) -> int:
        with path_of(disk_id).open("rb") as file:
            return file.seek(0, os.SEEK_END)

    def verify(image_id: ImageId) -> None:
        if sha256_of(Path(disks.image_handle(image_id).path)) not in array.volumes()[f"{IMAGE}{image_id}"].note:
            raise refusals.corrupt(image_id, "it has another SHA-256")

    return Bench(
        disks=disks,
        folder=tmp_path,
        read=read,
        write=write,
        size_bytes=size_bytes,
        damage=lambda image_id: array.resize(f"{IMAGE}{image_id}", 512),
        fill=lambda: pool(1 << 60),
        verify=verify,
    )


@pytest.mark.parametrize("rule", suite.RULES, ids=lambda rule: rule.__name__)
def test_skeleton_keeps_the_rule(rule: Callable[[Bench], None], array_bench: Bench) -> None:
    rule(array_bench)


def test_a_copy_that_is_ended_leaves_no_volume(array_bench: Bench, array: FolderArray) -> None:
    def end(done_bytes: int, _: int) -> None:
        raise suite.EndedError(done_bytes)

    source, _ = array_bench.source()
    with pytest.raises(suite.EndedError):
        array_bench.disks.seal(ImageId(new_id()), source, sha256=None, on_progress=end)
    assert not array.volumes()


class Deaf(FolderArray):
    """Makes a clone, and loses every request to grow one."""

    is_deaf = True

    def resize(self, name: str, size_bytes: int) -> None:
        if self.is_deaf:
            raise ArrayError("no answer")
        super().resize(name, size_bytes)


def test_a_clone_that_could_not_be_grown_is_grown_by_the_next_try(tmp_path: Path) -> None:
    array = Deaf(tmp_path / "array")
    disks = ArrayDisks(array, reserve_bytes=0, files_dir=tmp_path / "files")
    source, image_id, disk_id = tmp_path / "source", ImageId(new_id()), DiskId(new_id())
    source.write_bytes(bytes(MIB))
    disks.seal(image_id, source, sha256=None)
    with pytest.raises(Unreachable):
        disks.clone(image_id, disk_id, size_bytes=2 * MIB)
    array.is_deaf = False
    disks.clone(image_id, disk_id, size_bytes=2 * MIB)
    assert Path(disks.handle(disk_id).path).stat().st_size == 2 * MIB
