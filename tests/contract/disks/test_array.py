"""The skeleton of docs/howto/add-an-array.md keeps the contract of every pool, on an array of files."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.contract.disks import suite
from tests.contract.disks.array import IMAGE, ArrayDisks, FolderArray
from tests.contract.disks.conftest import Bench

from malleable.domain.ids import DiskId, ImageId
from malleable.domain.ports import Disks
from malleable.drivers.storage import refusals
from malleable.drivers.storage.sealing import sha256_of


@pytest.fixture
def array_bench(tmp_path: Path) -> Bench:
    array = FolderArray(tmp_path / "array")

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

    def verify(image_id: ImageId) -> None:
        if sha256_of(Path(disks.image_handle(image_id).path)) not in array.volumes()[f"{IMAGE}{image_id}"].note:
            raise refusals.corrupt(image_id, "it has another SHA-256")

    return Bench(
        disks=disks,
        folder=tmp_path,
        read=read,
        write=write,
        size_bytes=lambda disk_id: path_of(disk_id).stat().st_size,
        damage=lambda image_id: array.resize(f"{IMAGE}{image_id}", 512),
        fill=lambda: pool(1 << 60),
        verify=verify,
    )


@pytest.mark.parametrize("rule", suite.RULES, ids=lambda rule: rule.__name__)
def test_skeleton_keeps_the_rule(rule: Callable[[Bench], None], array_bench: Bench) -> None:
    rule(array_bench)
