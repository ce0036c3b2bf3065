"""What every disk pool must do, as plain functions so that a wrong pool can be shown to fail them."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from tests.contract.disks.conftest import CONTENT, MIB, Bench

from malleable.domain.errors import Refused
from malleable.domain.ids import DiskId, ImageId, new_id
from malleable.domain.ports import StoredThings

NOTHING = StoredThings(images=frozenset(), disks=frozenset())


@contextmanager
def refused(code: str) -> Iterator[None]:
    """Want a refusal with this code."""
    with pytest.raises(Refused) as caught:
        yield
    assert caught.value.code == code


def works_and_tells_its_size(bench: Bench) -> None:
    bench.disks.check()
    capacity = bench.disks.capacity()
    assert 0 < capacity.free_bytes <= capacity.total_bytes


def a_clone_equals_its_image(bench: Bench) -> None:
    disk_id = bench.clone(bench.image())
    assert bench.size_bytes(disk_id) == len(CONTENT)
    assert bench.read(disk_id, 0, len(CONTENT)) == CONTENT


def a_clone_grows_with_zeros_and_never_shrinks(bench: Bench) -> None:
    image_id = bench.image()
    grown, small = bench.clone(image_id, 8 * MIB), bench.clone(image_id, 512)
    assert bench.size_bytes(grown) == 8 * MIB
    assert bench.read(grown, 0, 8 * MIB) == CONTENT.ljust(8 * MIB, b"\0")
    assert bench.size_bytes(small) == len(CONTENT)


def holes_read_as_zeros(bench: Bench) -> None:
    content = b"head" * 128 + bytes(40 * MIB) + b"tail" * 128 + bytes(MIB)
    disk_id = bench.clone(bench.image(content))
    assert bench.read(disk_id, 0, len(content)) == content


def writes_reach_neither_sibling_nor_image(bench: Bench) -> None:
    image_id = bench.image()
    mine, sibling = bench.clone(image_id), bench.clone(image_id)
    for offset in (0, 4096 + 512, len(CONTENT) - 512):
        bench.write(mine, offset, b"x" * 512)
        assert bench.read(mine, offset, 512) == b"x" * 512
    assert bench.read(sibling, 0, len(CONTENT)) == CONTENT
    later = bench.clone(image_id)
    assert bench.read(later, 0, len(CONTENT)) == CONTENT
    bench.verify(image_id)


def a_source_changed_later_changes_nothing(bench: Bench) -> None:
    image_id = ImageId(new_id())
    path, sha256 = bench.source()
    bench.disks.seal(image_id, path, sha256=sha256)
    path.write_bytes(b"other")
    assert bench.read(bench.clone(image_id), 0, len(CONTENT)) == CONTENT


def cloning_again_keeps_what_was_written(bench: Bench) -> None:
    image_id = bench.image()
    disk_id = bench.clone(image_id)
    bench.write(disk_id, 0, b"precious" * 64)
    bench.disks.clone(image_id, disk_id, size_bytes=8 * MIB)
    assert bench.read(disk_id, 0, 512) == b"precious" * 64


def sealing_again_is_the_same_image(bench: Bench) -> None:
    image_id = ImageId(new_id())
    path, sha256 = bench.source()
    for _ in range(2):
        assert bench.disks.seal(image_id, path, sha256=sha256) == len(CONTENT)
    assert bench.disks.list().images == {image_id}


def a_wrong_checksum_leaves_nothing(bench: Bench) -> None:
    image_id = ImageId(new_id())
    path, _ = bench.source()
    with refused("checksum"):
        bench.disks.seal(image_id, path, sha256="0" * 64, files={"kernel": path})
    assert not bench.disks.list().images
    with refused("no-such-image"):
        bench.clone(image_id)
    with refused("no-such-file"):
        bench.disks.file(image_id, "kernel")
    path, sha256 = bench.source()
    bench.disks.seal(image_id, path, sha256=sha256)


def files_are_kept_beside_the_image(bench: Bench) -> None:
    image_id = ImageId(new_id())
    path, sha256 = bench.source()
    kernel, _ = bench.source(b"kernel")
    bench.disks.seal(image_id, path, sha256=sha256, files={"vmlinuz": kernel})
    assert bench.disks.file(image_id, "vmlinuz").read_bytes() == b"kernel"
    for name in ("initrd", "../vmlinuz", "", ".", "..", "/etc/passwd", "image.raw", "manifest.json"):
        with refused("no-such-file"):
            bench.disks.file(image_id, name)


def a_missing_image_is_refused(bench: Bench) -> None:
    with refused("no-such-image"):
        bench.clone(ImageId(new_id()))
    assert not bench.disks.list().disks


def a_damaged_image_is_refused(bench: Bench) -> None:
    image_id = bench.image()
    before = bench.clone(image_id)
    bench.damage(image_id)
    with refused("image-corrupt"):
        bench.clone(image_id)
    with refused("image-corrupt"):
        bench.verify(image_id)
    assert bench.disks.list().disks == {before}


def a_full_pool_makes_nothing_and_loses_nothing(bench: Bench) -> None:
    image_id = bench.image()
    disk_id = bench.clone(image_id)
    full = bench.fill()
    with refused("pool-full"):
        full.clone(image_id, DiskId(new_id()), size_bytes=0)
    path, sha256 = bench.source(b"other" * 4096)
    with refused("pool-full"):
        full.seal(ImageId(new_id()), path, sha256=sha256)
    assert full.list() == StoredThings(images=frozenset({image_id}), disks=frozenset({disk_id}))
    bench.write(disk_id, 0, b"y" * 512)
    assert bench.read(disk_id, 0, 512) == b"y" * 512


def deleting_is_done_once_or_many_times(bench: Bench) -> None:
    image_id = bench.image()
    disk_id = bench.clone(image_id)
    for _ in range(2):
        bench.disks.delete_disk(disk_id)
        assert not bench.disks.has_disk(disk_id)
    with refused("no-such-disk"):
        bench.disks.handle(disk_id)
    for _ in range(2):
        bench.disks.delete_image(image_id)
    assert bench.disks.list() == NOTHING


def disks_outlive_their_image(bench: Bench) -> None:
    image_id = bench.image()
    disk_id = bench.clone(image_id)
    bench.disks.delete_image(image_id)
    assert bench.disks.has_disk(disk_id)
    assert bench.read(disk_id, 0, len(CONTENT)) == CONTENT


def all_that_is_there_is_listed(bench: Bench) -> None:
    assert bench.disks.list() == NOTHING
    images = {bench.image(), bench.image(b"other" * 1024)}
    disks = {bench.clone(image_id) for image_id in images for _ in range(3)}
    assert bench.disks.list() == StoredThings(images=frozenset(images), disks=frozenset(disks))
    assert len({bench.disks.handle(disk_id).path for disk_id in disks}) == len(disks)


def many_threads_make_the_same_disk_once(bench: Bench) -> None:
    image_id = bench.image()
    shared = DiskId(new_id())
    own = [DiskId(new_id()) for _ in range(8)]

    def clone(disk_id: DiskId) -> None:
        bench.disks.clone(image_id, shared, size_bytes=0)
        bench.disks.clone(image_id, disk_id, size_bytes=0)

    threads = [threading.Thread(target=clone, args=(disk_id,)) for disk_id in own]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bench.disks.list().disks == {shared, *own}
    assert all(bench.read(disk_id, 0, len(CONTENT)) == CONTENT for disk_id in (shared, *own))


RULES: tuple[Callable[[Bench], None], ...] = (
    works_and_tells_its_size,
    a_clone_equals_its_image,
    a_clone_grows_with_zeros_and_never_shrinks,
    holes_read_as_zeros,
    writes_reach_neither_sibling_nor_image,
    a_source_changed_later_changes_nothing,
    cloning_again_keeps_what_was_written,
    sealing_again_is_the_same_image,
    a_wrong_checksum_leaves_nothing,
    files_are_kept_beside_the_image,
    a_missing_image_is_refused,
    a_damaged_image_is_refused,
    a_full_pool_makes_nothing_and_loses_nothing,
    deleting_is_done_once_or_many_times,
    disks_outlive_their_image,
    all_that_is_there_is_listed,
    many_threads_make_the_same_disk_once,
)
