"""What every disk pool must do, as plain functions so that a wrong pool can be shown to fail them."""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import pairwise
from uuid import UUID

import pytest
from tests.contract.disks.conftest import CONTENT, MAX_CHAIN, MIB, Bench, refused

from malleable.domain.errors import Refused
from malleable.domain.ids import DiskId, ImageId, ProjectId, SnapshotId, new_id
from malleable.domain.ports import Sealed, StoredThings
from malleable.domain.progress import OnProgress, unheard

NOTHING = StoredThings()


class EndedError(Exception):
    """Nobody wants a copy any more."""


def works_and_tells_its_size(bench: Bench) -> None:
    bench.disks.check()
    capacity = bench.disks.capacity()
    assert 0 < capacity.free_bytes <= capacity.total_bytes


def a_pool_that_is_not_there_takes_nothing(bench: Bench) -> None:
    image_id = bench.image()
    with refused("no-such-pool"):
        bench.disks.within("nowhere").check()
    with refused("no-such-pool"):
        bench.disks.within("nowhere").clone(image_id, DiskId(new_id()), size_bytes=0)
    assert not bench.disks.list().disks


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
        assert bench.disks.seal(image_id, path, sha256=sha256).size_bytes == len(CONTENT)
    with refused("checksum"):
        bench.disks.seal(image_id, path, sha256="0" * 64)
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
    snapshot_id = bench.snapshot(disk_id)
    full = bench.fill()
    with refused("pool-full"):
        full.clone(image_id, DiskId(new_id()), size_bytes=0)
    path, sha256 = bench.source(b"other" * 4096)
    with refused("pool-full"):
        full.seal(ImageId(new_id()), path, sha256=sha256)
    with refused("pool-full"):
        full.clone_snapshot(snapshot_id, DiskId(new_id()), size_bytes=0)
    with refused("pool-full"):
        full.make_blank(DiskId(new_id()), size_bytes=MIB)
    with refused("pool-full"):
        full.snapshot(disk_id, SnapshotId(new_id()))
    assert full.list() == StoredThings(
        images=frozenset({image_id}), disks=frozenset({disk_id}), snapshots=frozenset({snapshot_id})
    )
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


def a_source_needs_no_checksum(bench: Bench) -> None:
    path, sha256 = bench.source()
    image_id = ImageId(new_id())
    assert bench.disks.seal(image_id, path, sha256=None) == Sealed(size_bytes=len(CONTENT), sha256=sha256)
    bench.verify(image_id)


def an_image_can_be_read(bench: Bench) -> None:
    with bench.disks.open_image(bench.image()) as file:
        assert file.read() == CONTENT
        assert file.seek(MIB) == MIB
        assert file.read(512) == CONTENT[MIB : MIB + 512]
    with refused("no-such-image"):
        bench.disks.open_image(ImageId(new_id()))


def a_snapshot_keeps_one_moment(bench: Bench) -> None:
    disk_id = bench.clone(bench.image())
    bench.write(disk_id, 4096, b"first" * 512)
    kept = bench.content(disk_id)
    snapshot_id = bench.snapshot(disk_id)
    bench.write(disk_id, 4096, b"later" * 512)
    again = bench.clone_snapshot(snapshot_id)
    assert bench.content(again) == kept
    bench.write(again, 0, b"other" * 512)
    assert bench.content(bench.clone_snapshot(snapshot_id)) == kept
    assert bench.read(disk_id, 4096, 5) == b"later"
    assert bench.disks.list().snapshots == {snapshot_id}


def a_snapshot_taken_again_is_the_first(bench: Bench) -> None:
    disk_id = bench.clone(bench.image())
    snapshot_id = bench.snapshot(disk_id)
    bench.write(disk_id, 0, b"later" * 512)
    bench.disks.snapshot(disk_id, snapshot_id)
    assert bench.content(bench.clone_snapshot(snapshot_id)) == CONTENT
    copy = bench.clone_snapshot(snapshot_id, 8 * MIB)
    bench.write(copy, 0, b"mine!" * 512)
    bench.disks.clone_snapshot(snapshot_id, copy, size_bytes=0)
    assert bench.content(copy) == (b"mine!" * 512 + CONTENT[2560:]).ljust(8 * MIB, b"\0")


def a_rolled_back_disk_is_its_snapshot(bench: Bench) -> None:
    disk_id = bench.clone(bench.image())
    snapshot_id = bench.snapshot(disk_id)
    bench.write(disk_id, 0, b"wrong" * 512)
    bench.disks.grow(disk_id, size_bytes=8 * MIB)
    for _ in range(2):
        bench.disks.roll_back(disk_id, snapshot_id)
        assert bench.content(disk_id) == CONTENT
    bench.write(disk_id, 0, b"right" * 512)
    assert bench.content(bench.clone_snapshot(snapshot_id)) == CONTENT


def all_outlive_what_they_came_from(bench: Bench) -> None:
    image_id = bench.image()
    disk_id = bench.clone(image_id)
    bench.write(disk_id, 0, b"state" * 512)
    kept = bench.content(disk_id)
    snapshot_id = bench.snapshot(disk_id)
    clone_id = bench.clone_snapshot(snapshot_id)
    bench.disks.delete_disk(disk_id)
    bench.disks.delete_image(image_id)
    assert bench.content(bench.clone_snapshot(snapshot_id)) == kept
    for _ in range(2):
        bench.disks.delete_snapshot(snapshot_id)
    assert bench.content(clone_id) == kept
    assert not bench.disks.list().snapshots


def a_promoted_snapshot_is_an_image(bench: Bench) -> None:
    disk_id = bench.clone(bench.image())
    bench.write(disk_id, 8192, b"ready" * 512)
    kept = bench.content(disk_id)
    snapshot_id, image_id = bench.snapshot(disk_id), ImageId(new_id())
    kernel, _ = bench.source(b"kernel")
    bench.write(disk_id, 0, b"later" * 512)
    for _ in range(2):
        sealed = bench.disks.promote(snapshot_id, image_id, files={"vmlinuz": kernel})
        assert sealed == Sealed(size_bytes=len(CONTENT), sha256=hashlib.sha256(kept).hexdigest())
    bench.disks.delete_snapshot(snapshot_id)
    bench.verify(image_id)
    assert bench.content(bench.clone(image_id)) == kept
    assert bench.disks.file(image_id, "vmlinuz").read_bytes() == b"kernel"


def _copies(bench: Bench) -> Iterator[Callable[[ImageId, OnProgress], Sealed]]:
    """Give both ways to copy bytes into an image: a hole among them, which is passed in pieces too."""
    content = b"head" * MIB + bytes(40 * MIB) + b"tail" * MIB
    source, _ = bench.source(content)
    kernel, _ = bench.source(b"kernel")
    files = {"vmlinuz": kernel}
    yield lambda image_id, tell: bench.disks.seal(image_id, source, sha256=None, files=files, on_progress=tell)
    golden = bench.image(content)
    snapshot_id = bench.snapshot(bench.clone(golden))
    bench.disks.delete_image(golden)
    yield lambda image_id, tell: bench.disks.promote(snapshot_id, image_id, files=files, on_progress=tell)


def a_copy_tells_how_far_it_is(bench: Bench) -> None:
    for copy in _copies(bench):
        told = list[tuple[int, int]]()
        sealed = copy(ImageId(new_id()), lambda done, of: told.append((done, of)))  # noqa: B023  called within
        done = [one for one, _ in told]
        assert {of for _, of in told} <= {sealed.size_bytes, sealed.size_bytes + len(b"kernel")}
        assert (done[:1], done) == ([0], sorted(done))
        assert all(after - before <= 8 * MIB for before, after in pairwise([*done, sealed.size_bytes]))


def a_copy_that_is_ended_leaves_nothing(bench: Bench) -> None:
    for copy in _copies(bench):
        image_id, before = ImageId(new_id()), bench.disks.list()
        for after_bytes in (0, 24 * MIB):
            told = list[int]()

            def end(done_bytes: int, _: int) -> None:
                told.append(done_bytes)  # noqa: B023  called within
                if done_bytes >= after_bytes:  # noqa: B023
                    raise EndedError

            with pytest.raises(EndedError):
                copy(image_id, end)
            assert told[-1] <= after_bytes + 8 * MIB
            assert bench.disks.list() == before
            with refused("no-such-image"):
                bench.clone(image_id)
        copy(image_id, unheard)
        bench.verify(image_id)


def a_blank_disk_is_zeros(bench: Bench) -> None:
    disk_id = DiskId(new_id())
    bench.disks.make_blank(disk_id, size_bytes=4 * MIB)
    assert bench.content(disk_id) == bytes(4 * MIB)
    bench.write(disk_id, MIB, b"data" * 128)
    bench.disks.make_blank(disk_id, size_bytes=8 * MIB)
    assert bench.size_bytes(disk_id) == 4 * MIB
    assert bench.read(disk_id, MIB, 512) == b"data" * 128


def disks_grow_and_never_shrink(bench: Bench) -> None:
    disk_id = bench.clone(bench.image())
    for _ in range(2):
        bench.disks.grow(disk_id, size_bytes=8 * MIB)
    assert bench.content(disk_id) == CONTENT.ljust(8 * MIB, b"\0")
    with refused("disk-shrinks"):
        bench.disks.grow(disk_id, size_bytes=4 * MIB)
    assert bench.size_bytes(disk_id) == 8 * MIB


def a_flattened_disk_stands_alone(bench: Bench) -> None:
    image_id = bench.image()
    first = bench.clone(image_id)
    bench.write(first, 4096, b"first" * 512)
    kept, snapshot_id = bench.content(first), bench.snapshot(first)
    bench.write(first, 0, b"later" * 512)
    later = bench.content(first)
    second = bench.clone_snapshot(snapshot_id)
    for disk_id in (second, first):
        bench.flatten(disk_id)
        assert bench.disks.flatten(disk_id, seconds=1.0).copied_bytes == 0
    assert (bench.content(first), bench.content(second)) == (later, kept)
    bench.disks.delete_image(image_id)
    bench.disks.delete_disk(first)
    assert bench.content(bench.clone_snapshot(snapshot_id)) == kept
    bench.disks.delete_snapshot(snapshot_id)
    assert bench.content(second) == kept
    bench.write(second, 0, b"again" * 512)
    assert bench.content(second) == b"again" * 512 + kept[2560:]


def a_chain_that_is_too_deep_is_cut_by_flattening(bench: Bench) -> None:
    disk_id = bench.clone(bench.image())
    content, times_refused = CONTENT, 0
    for generation in range(MAX_CHAIN + 2):
        piece = bytes([generation]) * 512
        bench.write(disk_id, 512 * generation, piece)
        content = content[: 512 * generation] + piece + content[512 * (generation + 1) :]
        snapshot_id = bench.snapshot(disk_id)
        before = disk_id
        try:
            disk_id = bench.clone_snapshot(snapshot_id)
        except Refused:
            times_refused += 1
            with nullcontext() if bench.rolls_back_deep else refused("chain-too-deep"):
                bench.disks.roll_back(disk_id, snapshot_id)
            bench.flatten(disk_id)
            disk_id = bench.clone_snapshot(snapshot_id)
        assert bench.content(disk_id) == bench.content(before) == content
    assert times_refused == bench.has_chains, "once, of so many"


def usage_counts_what_was_written(bench: Bench) -> None:
    image_id = bench.image()
    disk_id = bench.clone(image_id)
    before = bench.disks.usage(disk_id)
    bench.write(disk_id, 0, b"mine" * 4096)
    after = bench.disks.usage(disk_id)
    assert before.own_bytes < after.own_bytes <= before.own_bytes + 8 * MIB
    assert before.shared_bytes >= after.shared_bytes
    assert before.shared_bytes > 0
    blank_id = DiskId(new_id())
    bench.disks.make_blank(blank_id, size_bytes=4 * MIB)
    assert bench.disks.usage(blank_id).shared_bytes == 0
    assert after.pieces >= 1
    assert bench.disks.usage(bench.snapshot(disk_id)).pieces >= 1
    assert bench.disks.usage(image_id).pieces >= 1
    with refused("no-such-thing"):
        bench.disks.usage(DiskId(new_id()))


def what_a_group_takes_counts_once(bench: Bench) -> None:
    """Neither what its disk shares with its snapshot, nor with another's image, nor what is another's."""
    golden, mine, theirs = bench.image(), ProjectId(new_id()), ProjectId(new_id())
    disk_id, other = bench.clone(golden), bench.clone(golden)

    def taken(*ids: UUID) -> int:
        return bench.disks.taken_bytes({mine: ids, theirs: [other]})[mine]

    before = taken(disk_id)
    assert before <= 4096
    bench.write(disk_id, 0, os.urandom(2 * MIB))
    written = taken(disk_id)
    assert 2 * MIB <= written - before <= 8 * MIB
    snapshot_id = bench.snapshot(disk_id)
    assert taken(disk_id, snapshot_id) == written
    own = bench.image(os.urandom(4 * MIB))
    assert taken(disk_id, snapshot_id, own) >= written + 4 * MIB
    assert taken(DiskId(new_id())) == taken() == 0
    assert bench.disks.taken_bytes({mine: [disk_id], theirs: [other]})[theirs] <= 4096


def what_is_missing_is_refused(bench: Bench) -> None:
    nothing, no_snapshot = DiskId(new_id()), SnapshotId(new_id())
    disk_id = bench.clone(bench.image())
    with refused("no-such-disk"):
        bench.disks.snapshot(nothing, no_snapshot)
    with refused("no-such-disk"):
        bench.disks.grow(nothing, size_bytes=MIB)
    with refused("no-such-disk"):
        bench.disks.flatten(nothing, seconds=1.0)
    with refused("no-such-snapshot"):
        bench.disks.clone_snapshot(no_snapshot, nothing, size_bytes=0)
    with refused("no-such-snapshot"):
        bench.disks.promote(no_snapshot, ImageId(new_id()))
    with refused("no-such-snapshot"):
        bench.disks.roll_back(disk_id, no_snapshot)
    with refused("no-such-disk"):
        bench.disks.roll_back(nothing, bench.snapshot(disk_id))
    assert bench.disks.list().disks == {disk_id}
    assert bench.content(disk_id) == CONTENT


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
    a_pool_that_is_not_there_takes_nothing,
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
    a_source_needs_no_checksum,
    an_image_can_be_read,
    a_snapshot_keeps_one_moment,
    a_snapshot_taken_again_is_the_first,
    a_rolled_back_disk_is_its_snapshot,
    all_outlive_what_they_came_from,
    a_promoted_snapshot_is_an_image,
    a_copy_tells_how_far_it_is,
    a_copy_that_is_ended_leaves_nothing,
    a_blank_disk_is_zeros,
    disks_grow_and_never_shrink,
    a_flattened_disk_stands_alone,
    a_chain_that_is_too_deep_is_cut_by_flattening,
    usage_counts_what_was_written,
    what_a_group_takes_counts_once,
    what_is_missing_is_refused,
    many_threads_make_the_same_disk_once,
)
