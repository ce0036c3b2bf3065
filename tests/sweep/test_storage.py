"""The sweep of everything that is done to images, disks and snapshots."""

from collections.abc import Callable
from dataclasses import dataclass
from shutil import rmtree
from uuid import UUID

import pytest
from tests.sweep import test_crash, test_faults
from tests.sweep.freeze_verbs import FREEZE_VERBS
from tests.sweep.image_verbs import IMAGE_VERBS
from tests.sweep.storage_verbs import NOBODY, STORAGE_VERBS
from tests.sweep.verb import Verb
from tests.sweep.world import World

from malleable.domain.disks import Disk, DiskState
from malleable.domain.errors import Conflict
from malleable.domain.ids import DiskId, ImageId, new_id
from malleable.domain.operations import Operation
from malleable.sim.faults import FaultKind
from malleable.workflows import storage

EVERY_VERB = pytest.mark.parametrize("verb", [*STORAGE_VERBS, *IMAGE_VERBS, *FREEZE_VERBS], ids=lambda verb: verb.name)
MAKES_IMAGE = pytest.mark.parametrize(
    "verb",
    [verb for verb in (*STORAGE_VERBS, *IMAGE_VERBS) if verb.name.startswith(("import", "fetch", "promote", "copy"))],
    ids=lambda verb: verb.name,
)
NewWorld = Callable[[], World]


@EVERY_VERB
def test_a_crash_at_any_boundary_changes_nothing_of_the_end(new_world: NewWorld, verb: Verb) -> None:
    test_crash.test_a_crash_at_any_boundary_changes_nothing_of_the_end(new_world, verb)


@EVERY_VERB
def test_a_cancel_at_any_boundary_is_clean_or_refused(new_world: NewWorld, verb: Verb) -> None:
    test_crash.test_a_cancel_at_any_boundary_is_clean_or_refused(new_world, verb)


@EVERY_VERB
def test_a_crash_while_undoing_still_ends_clean(new_world: NewWorld, verb: Verb) -> None:
    test_crash.test_a_crash_while_undoing_still_ends_clean(new_world, verb)


@EVERY_VERB
@pytest.mark.parametrize("kind", test_faults.PASSING)
def test_one_passing_fault_anywhere_is_got_over(new_world: NewWorld, verb: Verb, kind: FaultKind) -> None:
    test_faults.test_one_passing_fault_anywhere_is_got_over(new_world, verb, kind)


@pytest.mark.parametrize("name", ["import-raw", "import-qcow2"])
def test_an_upload_that_is_gone_is_told(new_world: NewWorld, name: str) -> None:
    world = new_world()
    verb = next(verb for verb in STORAGE_VERBS if verb.name == name)
    _, operation_id = verb.begin(world)
    for upload in world.spool.iterdir():
        if upload.is_dir():
            rmtree(upload)
    ended = world.run(operation_id)
    assert (ended.state, (ended.error or {})["code"]) == ("failed", "upload-missing"), ended
    assert str(world.spool) not in ended.public_reason
    verb.check_undone(world, NOBODY)


def test_what_can_never_fit_is_not_promoted(new_world: NewWorld) -> None:
    """Its holes would be read for days."""
    world = new_world()
    verb = next(verb for verb in STORAGE_VERBS if verb.name == "promote-snapshot")
    _, operation_id = verb.begin(world)
    world.disks.total_bytes = world.size_bytes - 1
    ended = world.run(operation_id)
    assert (ended.state, (ended.error or {})["code"]) == ("failed", "image-too-large"), ended
    verb.check_undone(world, NOBODY)


@dataclass
class CloneThenCancel:
    """At every boundary tries to clone the image that is being made; cancels when its last step has acted."""

    world: World
    verb: Verb
    refusals: int = 0

    def at(self, point: str, operation: Operation) -> None:
        try:
            self._clone(operation)
        except Conflict:
            self.refusals += 1
        if (operation.step, point) == (self.verb.last_step, "acted"):
            self.verb.cancel(self.world, operation.id)

    def _clone(self, operation: Operation) -> None:
        disk = Disk(
            id=DiskId(new_id()),
            name=f"clone-{new_id()}",
            project_id=self.world.project_id,
            image_id=ImageId(UUID(str(operation.arguments["image_id"]))),
            state=DiskState.CREATING,
            size_bytes=self.world.size_bytes,
            created_at=self.world.clock.now(),
        )
        with self.world.store.transaction() as tx:
            if tx.images.find(id=disk.image_id) is not None:
                storage.request_create(tx, self.world.clock.now(), disk=disk, actor_id=None)


@MAKES_IMAGE
def test_nobody_uses_an_image_that_may_yet_be_undone(new_world: NewWorld, verb: Verb) -> None:
    world = new_world()
    _, operation_id = verb.begin(world)
    with world.store.reading() as tx:
        before = tx.disks.count()
    probe = CloneThenCancel(world, verb)
    ended = world.run(operation_id, probe)
    assert (ended.state, probe.refusals > 3) == ("cancelled", True), ended
    verb.check_undone(world, NOBODY)
    with world.store.reading() as tx:
        assert tx.disks.count() == before


@EVERY_VERB
def test_a_pool_that_refuses_leaves_nothing_half_made(new_world: NewWorld, verb: Verb) -> None:
    world = new_world()
    _, operation_id = verb.begin(world)
    world.faults.add(None, FaultKind.REFUSED, times=1)
    ended = world.run(operation_id)
    if verb.can_cancel:
        assert ended.state == "failed", ended
        verb.check_undone(world, NOBODY)
    else:
        assert ended.state == "needs-operator", ended
    assert ended.reason
