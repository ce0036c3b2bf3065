"""What every kind of pool keeps that has others beside it for projects."""

from collections.abc import Callable

from tests.contract.disks.conftest import CONTENT, MIB, Bench, refused

from malleable.domain.ids import DiskId, ImageId, new_id
from malleable.domain.ports import Disks, StoredThings


def _pools(bench: Bench) -> tuple[Disks, Disks]:
    assert bench.project_pools is not None
    first, second = bench.project_pools
    return bench.disks.within(first), bench.disks.within(second)


def a_project_keeps_clones_of_the_sites_images_in_a_pool_of_its_own(bench: Bench) -> None:
    mine, _ = _pools(bench)
    mine.check()
    image_id, disk_id = bench.image(), DiskId(new_id())
    mine.clone(image_id, disk_id, size_bytes=0)
    bench.write(disk_id, 0, b"mine")
    snapshot_id, clone_id = bench.snapshot(disk_id), DiskId(new_id())
    mine.clone_snapshot(snapshot_id, clone_id, size_bytes=len(CONTENT) + MIB)
    bench.write(disk_id, 0, b"late")
    bench.disks.delete_image(image_id)
    bench.disks.roll_back(disk_id, snapshot_id)
    bench.flatten(disk_id)
    promoted = ImageId(new_id())
    mine.promote(snapshot_id, promoted)
    again = DiskId(new_id())
    mine.clone(promoted, again, size_bytes=0)
    bench.disks.grow(again, size_bytes=len(CONTENT) + MIB)
    for made in (disk_id, clone_id, again):
        assert bench.content(made)[: len(CONTENT)] == b"mine" + CONTENT[4:]
    assert bench.disks.list() == StoredThings(
        images=frozenset({promoted}),
        disks=frozenset({disk_id, clone_id, again}),
        snapshots=frozenset({snapshot_id}),
    )


def what_is_in_a_projects_pool_is_cloned_nowhere_else(bench: Bench) -> None:
    mine, other = _pools(bench)
    image_id, disk_id = ImageId(new_id()), DiskId(new_id())
    mine.seal(image_id, bench.source()[0], sha256=None)
    mine.clone(image_id, disk_id, size_bytes=0)
    snapshot_id = bench.snapshot(disk_id)
    for disks in (other, bench.disks):
        with refused("in-another-pool"):
            disks.clone(image_id, DiskId(new_id()), size_bytes=0)
        with refused("in-another-pool"):
            disks.clone_snapshot(snapshot_id, DiskId(new_id()), size_bytes=0)
        with refused("in-another-pool"):
            disks.image_handle(image_id)
        # A copy is no clone: nothing of it is read through another.
        disks.promote(snapshot_id, ImageId(new_id()))
    assert bench.disks.list().disks == {disk_id}


RULES: tuple[Callable[[Bench], None], ...] = (
    a_project_keeps_clones_of_the_sites_images_in_a_pool_of_its_own,
    what_is_in_a_projects_pool_is_cloned_nowhere_else,
)
