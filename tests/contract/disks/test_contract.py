"""The suite on every pool, and on pools that are wrong."""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from tests.contract.disks import project_suite, suite
from tests.contract.disks.conftest import Bench, sim_bench

from malleable.domain.errors import Busy, DriverError, Malformed, Refused, Unreachable
from malleable.domain.ids import DiskId, ImageId, SnapshotId, new_id
from malleable.domain.ports import FlattenCall, Flattening, Sealed
from malleable.domain.progress import OnProgress
from malleable.sim.disks import PROJECT_POOLS, SimDisks
from malleable.sim.faults import FaultKind

Rule = Callable[[Bench], None]


@pytest.mark.parametrize("rule", suite.RULES, ids=lambda rule: rule.__name__)
def test_pool_keeps_the_rule(rule: Rule, bench: Bench) -> None:
    rule(bench)


@pytest.mark.parametrize("rule", project_suite.RULES, ids=lambda rule: rule.__name__)
def test_pools_of_projects_keep_the_rule(rule: Rule, tmp_path: Path) -> None:
    rule(sim_bench(SimDisks(), tmp_path))


@pytest.mark.parametrize("rule", suite.RULES, ids=lambda rule: rule.__name__)
def test_pool_of_a_project_keeps_the_rule(rule: Rule, tmp_path: Path) -> None:
    bench, mine = sim_bench(SimDisks(), tmp_path), PROJECT_POOLS[0]
    rule(replace(bench, disks=bench.disks.within(mine), fill=lambda: bench.fill().within(mine)))


class Mixing(SimDisks):
    """Clones whatever is there, wherever it is."""

    def _want_near(self, stored_id: UUID) -> None:
        return


class Sharing(SimDisks):
    """All clones of an image are one."""

    def clone(self, image_id: ImageId, disk_id: DiskId, *, size_bytes: int) -> None:
        super().clone(image_id, disk_id, size_bytes=size_bytes)
        sibling = next(iter(self._disks.values()))
        self._disks[disk_id] = sibling


class Overwriting(SimDisks):
    """Clones again although the disk is there."""

    def clone(self, image_id: ImageId, disk_id: DiskId, *, size_bytes: int) -> None:
        self._disks.pop(disk_id, None)
        super().clone(image_id, disk_id, size_bytes=size_bytes)


class Trusting(SimDisks):
    """Takes any content for the one that was meant."""

    def seal(self, image_id: ImageId, source: Path, **wish: Any) -> Sealed:
        return super().seal(image_id, source, **{**wish, "sha256": hashlib.sha256(source.read_bytes()).hexdigest()})


class Silent(SimDisks):
    """Copies without a word."""

    def _copy(self, image_id: ImageId, size_bytes: int, on_progress: OnProgress) -> None:
        return


class Deaf(SimDisks):
    """Goes on with a copy that nobody wants."""

    def _copy(self, image_id: ImageId, size_bytes: int, on_progress: OnProgress) -> None:
        with suppress(Exception):
            super()._copy(image_id, size_bytes, on_progress)


class Blind(SimDisks):
    """Clones an image whatever became of it."""

    def _sound(self, image_id: ImageId) -> bytes:
        self._damaged.discard(image_id)
        return super()._sound(image_id)


class Greedy(SimDisks):
    """Knows no watermark."""

    def _want_free(self, size_bytes: int) -> None:
        return


class Leaky(SimDisks):
    """Forgets to delete."""

    def delete_disk(self, disk_id: DiskId) -> None:
        return


class Living(SimDisks):
    """Its snapshots go on with their disk."""

    def snapshot(self, disk_id: DiskId, snapshot_id: SnapshotId) -> None:
        super().snapshot(disk_id, snapshot_id)
        self._snapshots[snapshot_id] = self._disks[disk_id]


class Retaking(SimDisks):
    """Takes a snapshot anew that it has."""

    def snapshot(self, disk_id: DiskId, snapshot_id: SnapshotId) -> None:
        self._snapshots.pop(snapshot_id, None)
        super().snapshot(disk_id, snapshot_id)


class Stretching(SimDisks):
    """Rolls the content back but not the size."""

    def roll_back(self, disk_id: DiskId, snapshot_id: SnapshotId) -> None:
        size_bytes = self._disks[disk_id].size_bytes
        super().roll_back(disk_id, snapshot_id)
        self._disks[disk_id].size_bytes = size_bytes


class Dragging(SimDisks):
    """Takes a disk's snapshots along when it deletes the disk."""

    def delete_disk(self, disk_id: DiskId) -> None:
        super().delete_disk(disk_id)
        self._snapshots.clear()


class Severing(SimDisks):
    """Cuts a disk off without a copy."""

    def flatten(self, disk_id: DiskId, *, seconds: float, call: FlattenCall = FlattenCall.FIRST) -> Flattening:
        self._known(disk_id).image = b""
        return super().flatten(disk_id, seconds=seconds, call=call)


class Uncut(SimDisks):
    """Copies, but goes on to read through the chain."""

    def flatten(self, disk_id: DiskId, *, seconds: float, call: FlattenCall = FlattenCall.FIRST) -> Flattening:
        depth = self._known(disk_id).depth
        found = super().flatten(disk_id, seconds=seconds, call=call)
        for clone in (*self._disks.values(), *self._snapshots.values()):
            clone.depth = max(clone.depth, depth)
        return found


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        (Mixing, project_suite.what_is_in_a_projects_pool_is_cloned_nowhere_else),
        (Sharing, suite.writes_reach_neither_sibling_nor_image),
        (Overwriting, suite.cloning_again_keeps_what_was_written),
        (Trusting, suite.a_wrong_checksum_leaves_nothing),
        (Silent, suite.a_copy_tells_how_far_it_is),
        (Deaf, suite.a_copy_that_is_ended_leaves_nothing),
        (Blind, suite.a_damaged_image_is_refused),
        (Greedy, suite.a_full_pool_makes_nothing_and_loses_nothing),
        (Leaky, suite.deleting_is_done_once_or_many_times),
        (Living, suite.a_snapshot_keeps_one_moment),
        (Retaking, suite.a_snapshot_taken_again_is_the_first),
        (Stretching, suite.a_rolled_back_disk_is_its_snapshot),
        (Dragging, suite.all_outlive_what_they_came_from),
        (Severing, suite.a_flattened_disk_stands_alone),
        (Uncut, suite.a_chain_that_is_too_deep_is_cut_by_flattening),
    ],
)
def test_wrong_pool_breaks_the_rule(wrong: type[SimDisks], rule: Rule, tmp_path: Path) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception, Refused)):
        rule(sim_bench(wrong(), tmp_path))


@pytest.mark.parametrize(
    ("kind", "error", "is_made"),
    [
        (FaultKind.LOST_REQUEST, Unreachable, False),
        (FaultKind.LOST_REPLY, Unreachable, True),
        (FaultKind.BUSY, Busy, False),
        (FaultKind.REFUSED, Refused, False),
        (FaultKind.MALFORMED, Malformed, False),
    ],
)
def test_sim_fails_as_ordered(kind: FaultKind, error: type[DriverError], is_made: bool, tmp_path: Path) -> None:
    disks = SimDisks()
    image_id, disk_id = sim_bench(disks, tmp_path).image(), DiskId(new_id())
    disks.faults.add("clone", kind, key=str(disk_id))
    with pytest.raises(error):
        disks.clone(image_id, disk_id, size_bytes=0)
    assert disks.has_disk(disk_id) is is_made
    disks.clone(image_id, disk_id, size_bytes=0)
    assert disks.has_disk(disk_id)
