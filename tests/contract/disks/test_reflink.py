"""What only the real pool can show: sharing, durability of the seal, restarts, crashes."""

import os
import random
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from tests.contract.disks import suite
from tests.contract.disks.conftest import CONTENT, MIB, reflink_bench, refused

from malleable.domain.errors import Busy
from malleable.domain.ids import DiskId, ImageId, ProjectId, new_id
from malleable.domain.ports import FlattenCall
from malleable.drivers.storage import blocks, sealing
from malleable.drivers.storage.folder import GIB, ReflinkSettings, locked
from malleable.drivers.storage.reflink import ReflinkDisks

pytestmark = pytest.mark.room


def sparse(path: Path, size_bytes: int, data_bytes: int) -> Path:
    """Make a file with data at its head only."""
    path.write_bytes(os.urandom(MIB) * (data_bytes // MIB))
    os.truncate(path, size_bytes)
    return path


def sealed(disks: ReflinkDisks, path: Path) -> ImageId:
    image_id = ImageId(new_id())
    disks.seal(image_id, path, sha256=sealing.sha256_of(path))
    return image_id


def clone_ms(disks: ReflinkDisks, image_id: ImageId) -> float:
    """Time the median of many clones."""
    times = []
    for _ in range(200):
        disk_id = DiskId(new_id())
        begun = time.perf_counter()
        disks.clone(image_id, disk_id, size_bytes=0)
        times.append(1e3 * (time.perf_counter() - begun))
        disks.delete_disk(disk_id)
    return statistics.median(times)


class Sharing(ReflinkDisks):
    """Makes every disk the same file."""

    def clone(self, image_id: ImageId, disk_id: DiskId, *, size_bytes: int) -> None:
        others = self.list().disks
        if not others:
            return super().clone(image_id, disk_id, size_bytes=size_bytes)
        other = Path(self.handle(next(iter(others))).path)
        return os.link(other, other.with_stem(str(disk_id)))


def test_pool_whose_clones_share_bytes_breaks_the_rule(
    own_xfs: ReflinkSettings, reflink: ReflinkDisks, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError):
        suite.writes_reach_neither_sibling_nor_image(reflink_bench(Sharing(own_xfs), own_xfs, tmp_path))


def test_clone_takes_no_space_and_a_time_that_does_not_grow_with_the_size(
    reflink: ReflinkDisks, tmp_path: Path
) -> None:
    small = sealed(reflink, sparse(tmp_path / "small", 32 * MIB, 16 * MIB))
    large = sealed(reflink, sparse(tmp_path / "large", GIB, 16 * MIB))
    free_bytes = reflink.capacity().free_bytes
    small_ms, large_ms = clone_ms(reflink, small), clone_ms(reflink, large)
    for _ in range(50):
        reflink.clone(large, DiskId(new_id()), size_bytes=1024 * GIB)
    assert free_bytes - reflink.capacity().free_bytes < 16 * MIB
    assert large_ms < 5 * small_ms + 1, f"32 MiB {small_ms:.3f} ms, 1 GiB {large_ms:.3f} ms"
    assert large_ms < 10


def test_seal_lies_in_one_piece_and_keeps_holes(reflink: ReflinkDisks, tmp_path: Path) -> None:
    image = reflink.image_path(sealed(reflink, sparse(tmp_path / "sparse", 256 * MIB, 32 * MIB)))
    assert image.stat().st_blocks * 512 < 40 * MIB
    with image.open("rb") as file:
        assert blocks.extent_count(file.fileno()) <= 2


def test_sealed_image_cannot_be_changed_or_removed(reflink: ReflinkDisks, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(CONTENT)
    image = reflink.image_path(sealed(reflink, tmp_path / "source"))
    with pytest.raises(PermissionError):
        image.open("r+b")
    with pytest.raises(PermissionError):
        image.unlink()


def test_a_change_in_place_is_found_at_the_next_clone(reflink: ReflinkDisks, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(CONTENT)
    image_id = sealed(reflink, tmp_path / "source")
    image = reflink.image_path(image_id)
    blocks.set_immutable(image, on=False)
    with image.open("r+b") as file:
        file.write(b"changed")
    with refused("image-corrupt"):
        reflink.clone(image_id, DiskId(new_id()), size_bytes=0)
    with refused("image-corrupt"):
        reflink.verify(image_id)


def test_a_disk_is_unshared_in_place_beside_who_writes_it(
    own_xfs: ReflinkSettings, reflink: ReflinkDisks, tmp_path: Path
) -> None:
    source = sparse(tmp_path / "source", 256 * MIB, 24 * MIB)
    disk_id = DiskId(new_id())
    reflink.clone(sealed(reflink, source), disk_id, size_bytes=0)
    path, wanted, is_over = Path(reflink.handle(disk_id).path), bytearray(source.read_bytes()), threading.Event()

    def write() -> None:
        with path.open("r+b", buffering=0) as disk:
            while not is_over.is_set():
                at, piece = 512 * random.randrange(24 * MIB // 512), os.urandom(512)
                os.pwrite(disk.fileno(), piece, at)
                wanted[at : at + 512] = piece

    with refused("pool-full"):
        ReflinkDisks(replace(own_xfs, reserve_bytes=1 << 60)).flatten(disk_id, seconds=1.0)
    node = threading.Thread(target=write)
    node.start()
    try:
        begun = reflink.flatten(disk_id, seconds=0.0, call=FlattenCall.IN_USE)
        assert (begun.is_done, 0 < begun.copied_bytes <= blocks.UNSHARE_BYTES) == (False, True)
        assert reflink.flatten(disk_id, seconds=60.0, call=FlattenCall.IN_USE).is_done
    finally:
        is_over.set()
        node.join()
    assert path.read_bytes() == wanted
    # Holes stay holes.
    assert 24 * MIB <= reflink.usage(disk_id).own_bytes <= 25 * MIB


def test_an_image_is_read_once_however_many_projects_are_measured(
    reflink: ReflinkDisks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [sealed(reflink, sparse(tmp_path / f"image{n}", MIB, MIB)) for n in range(3)]
    groups = {ProjectId(new_id()): [DiskId(new_id())] for _ in range(10)}
    for ids in groups.values():
        reflink.clone(images[0], ids[0], size_bytes=0)
    read, extents = list[int](), blocks.extents

    def counting(fd: int) -> Iterator[tuple[int, int, bool]]:
        read.append(fd)
        return extents(fd)

    monkeypatch.setattr(blocks, "extents", counting)
    assert set(reflink.taken_bytes(groups).values()) == {0}
    assert len(read) == len(groups) + len(images)


def test_pool_is_found_mounted_or_mounted_again(
    own_xfs: ReflinkSettings, reflink: ReflinkDisks, tmp_path: Path
) -> None:
    bench = reflink_bench(reflink, own_xfs, tmp_path)
    disk_id = bench.clone(bench.image())
    assert ReflinkDisks(own_xfs).has_disk(disk_id)
    reflink.close()
    assert subprocess.run(["losetup", "-j", own_xfs.pool_dir / "pool.xfs"], capture_output=True).stdout == b""
    # An instance that believes the pool mounted must not take the empty mount point for it.
    assert reflink.has_disk(disk_id)
    assert bench.read(disk_id, 0, len(CONTENT)) == CONTENT


def test_pool_in_use_is_not_unmounted(own_xfs: ReflinkSettings, reflink: ReflinkDisks, tmp_path: Path) -> None:
    bench = reflink_bench(reflink, own_xfs, tmp_path)
    disk_id = bench.clone(bench.image())
    with Path(reflink.handle(disk_id).path).open("rb"), pytest.raises(Busy):
        reflink.close()
    assert reflink.has_disk(disk_id)


def test_rubbish_of_a_crash_is_swept_and_never_seen(
    own_xfs: ReflinkSettings, reflink: ReflinkDisks, tmp_path: Path
) -> None:
    bench = reflink_bench(reflink, own_xfs, tmp_path)
    root = Path(reflink.handle(bench.clone(bench.image())).path).parents[1]
    rubbish = root / "work" / f"{new_id()}.crashed"
    rubbish.mkdir()
    (rubbish / sealing.IMAGE).write_bytes(b"half")
    blocks.set_immutable(rubbish / sealing.IMAGE, on=True)
    assert len(reflink.list().images) == 1
    bench.image(b"next" * 1024)
    assert not rubbish.exists()
    assert not list((root / "work").iterdir())


def test_whoever_ends_meanwhile_is_in_nobodys_way(own_xfs: ReflinkSettings, reflink: ReflinkDisks) -> None:
    """Who begins sweeps the place of work, where others come and go."""
    reflink.check()

    def work(disks: ReflinkDisks) -> None:
        for _ in range(100):
            disks.delete_image(ImageId(new_id()))

    with ThreadPoolExecutor(8) as pool:
        for ended in [pool.submit(work, ReflinkDisks(own_xfs)) for _ in range(8)]:
            ended.result()


@pytest.mark.parametrize("kind", ["file", "link", "pipe"])
def test_nothing_odd_at_the_place_of_work_is_in_the_way(
    kind: str, own_xfs: ReflinkSettings, reflink: ReflinkDisks, tmp_path: Path
) -> None:
    bench = reflink_bench(reflink, own_xfs, tmp_path)
    odd = Path(reflink.handle(bench.clone(bench.image())).path).parents[1] / "work" / "odd\n\x1b[31m"
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    made: dict[str, Callable[[], None]] = {
        "file": odd.touch,
        "link": partial(odd.symlink_to, outside),
        "pipe": partial(os.mkfifo, odd),
    }
    made[kind]()
    bench.image(b"next" * 1024)
    assert not os.path.lexists(odd)
    assert (outside / "kept").exists()


def test_what_lies_in_the_pool_and_is_nothing_of_it_is_told_as_that(
    own_xfs: ReflinkSettings, reflink: ReflinkDisks, tmp_path: Path
) -> None:
    """A terminal may print its name, and no id can be read out of it by which it would be taken for somebody's."""
    bench = reflink_bench(reflink, own_xfs, tmp_path)
    disk_id = bench.clone(bench.image())
    snapshot_id = bench.snapshot(disk_id)
    kept, root = reflink.list(), Path(reflink.handle(disk_id).path).parents[1]
    assert (kept.sizes, kept.strays) == ({disk_id: len(CONTENT), snapshot_id: len(CONTENT)}, {})
    folder, link, file, none, bare = (new_id() for _ in range(5))
    (root / "disks" / f"{folder}.raw").mkdir()
    (root / "disks" / f"{link}.raw").symlink_to("/etc/passwd")
    os.link(root / "disks" / f"{disk_id}.raw", root / "disks" / f"{disk_id}.raw.bak")
    os.link(root / "disks" / f"{disk_id}.raw", root / "disks" / f"{str(disk_id).upper()}.raw")
    (root / "snapshots" / str(none)).touch()
    (root / "snapshots" / "evil\n\x1b[31m\udcff").touch()
    (root / "images" / str(file)).touch()
    (root / "images" / str(bare)).mkdir()
    (root / "images" / str(bare) / sealing.IMAGE).touch()
    found = reflink.list()
    assert (found.images, found.disks, found.snapshots) == (kept.images, kept.disks, kept.snapshots)
    assert set(found.strays) == {
        f"disks/{folder}.raw",
        f"disks/{link}.raw",
        f"disks/{disk_id}.raw.bak",
        f"disks/{str(disk_id).upper()}.raw",
        f"snapshots/{none}",
        r"snapshots/evil\n\x1b[31m\udcff",
        f"images/{file}",
        f"images/{bare}",
    }
    group = {ProjectId(new_id()): {disk_id, snapshot_id}}
    assert set(reflink.taken_bytes(group)) == set(group)


def test_what_a_crash_left_does_not_wait_for_the_next_work(
    own_xfs: ReflinkSettings, reflink: ReflinkDisks, tmp_path: Path
) -> None:
    bench = reflink_bench(reflink, own_xfs, tmp_path)
    work = Path(reflink.handle(bench.clone(bench.image())).path).parents[1] / "work"
    rubbish, begun = work / f"{new_id()}.crashed", work / f"{new_id()}.begun"
    for folder in (rubbish, begun):
        folder.mkdir()
        (folder / sealing.IMAGE).write_bytes(b"half")
    with locked(begun):
        reflink.tend()
    assert list(work.iterdir()) == [begun]
    with locked(work):
        reflink.tend()  # waits for nobody: it is called by whoever keeps nodes from filling the pool
    assert list(work.iterdir()) == [begun]
    reflink.tend()
    assert not list(work.iterdir())


def test_disk_full_amid_a_seal_leaves_nothing(own_xfs: ReflinkSettings, reflink: ReflinkDisks, tmp_path: Path) -> None:
    source = tmp_path / "large"
    with source.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 3 * GIB)
    with refused("pool-full"):
        reflink.seal(ImageId(new_id()), source, sha256="0" * 64)
    source.unlink()
    careless = ReflinkDisks(replace(own_xfs, reserve_bytes=-8 * GIB))
    sparse(source, 3 * GIB, MIB)
    with source.open("r+b") as file:
        for offset in range(0, 3 * GIB, 8 * MIB):
            os.pwrite(file.fileno(), b"x", offset)
    with refused("pool-full"):
        careless.seal(ImageId(new_id()), source, sha256="0" * 64)
    assert not reflink.list().images
    assert reflink.capacity().free_bytes > GIB


def test_handle_asks_for_direct_access_only_where_the_cache_is_below(
    own_xfs: ReflinkSettings, reflink: ReflinkDisks, tmp_path: Path
) -> None:
    bench = reflink_bench(reflink, own_xfs, tmp_path)
    disk_id = bench.clone(bench.image())
    private = ReflinkDisks(replace(own_xfs, shared_cache=False))
    assert (reflink.handle(disk_id).direct, private.handle(disk_id).direct) == (True, False)


def test_pool_on_a_filesystem_that_shares_blocks_needs_no_mount(
    own_xfs: ReflinkSettings, reflink: ReflinkDisks, tmp_path: Path
) -> None:
    reflink.check()
    inside = replace(own_xfs, pool_dir=own_xfs.pool_dir / "pool" / "inner")
    disks = ReflinkDisks(inside)
    bench = reflink_bench(disks, inside, tmp_path)
    image_id = bench.image()
    disk_id = bench.clone(image_id)
    assert Path(disks.handle(disk_id).path).is_relative_to(inside.pool_dir / "disks")
    assert disks.handle(disk_id).direct is False
    disks.close()
    disks.delete_disk(disk_id)
    disks.delete_image(image_id)


def test_a_folder_that_cannot_be_used_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with refused("pool-broken"):
        ReflinkDisks(ReflinkSettings(pool_dir=tmp_path / "file")).check()
