"""Kill the worker at every boundary of every workflow: another takes over and the end is the same."""

from collections.abc import Callable
from functools import partial

import pytest
from tests.sweep.disk_verbs import DISK_VERBS
from tests.sweep.verb import Verb
from tests.sweep.verbs import VERBS
from tests.sweep.world import Act, CrashAt, World

from malleable.domain.ids import NodeId, OperationId
from malleable.domain.nodes import NodeState

EVERY_VERB = pytest.mark.parametrize("verb", [*VERBS, *DISK_VERBS], ids=lambda verb: verb.name)


def _boundaries(new_world: Callable[[], World], verb: Verb) -> int:
    world = new_world()
    _, operation_id = verb.begin(world)
    probe = CrashAt(count=-1)
    assert world.run(operation_id, probe).state == "succeeded"
    assert len(probe.seen) > 3 * verb.steps, probe.seen
    return len(probe.seen)


@EVERY_VERB
def test_a_crash_at_any_boundary_changes_nothing_of_the_end(new_world: Callable[[], World], verb: Verb) -> None:
    for count in range(_boundaries(new_world, verb)):
        world = new_world()
        node_id, operation_id = verb.begin(world)
        probe = CrashAt(count)
        ended = world.run(operation_id, probe)
        assert ended.state == "succeeded", (probe.seen, ended)
        assert world.workers >= 2
        verb.check(world, node_id)


@pytest.mark.parametrize("name", ["provision", "release"])
def test_a_crash_where_reports_end_steps_changes_nothing_of_the_end(new_world: Callable[[], World], name: str) -> None:
    verb, count = next(verb for verb in VERBS if verb.name == name), 0
    while True:
        world = new_world()
        node_id, operation_id = verb.begin(world)
        world.has_glimpses, probe = True, CrashAt(count)
        assert world.run(operation_id, probe).state == "succeeded", probe.seen
        verb.check(world, node_id)
        if len(probe.seen) <= count:  # nobody died: there are no more boundaries
            break
        count += 1
    assert count > 2 * verb.steps
    asked, times = {"provision": ("arm-boot", 0), "release": ("disarm-boot", 1)}[name]
    assert probe.seen.count(f"{asked}:acted") == times, "the answer came by a glimpse"


@EVERY_VERB
def test_a_cancel_at_any_boundary_is_clean_or_refused(new_world: Callable[[], World], verb: Verb) -> None:
    for count in range(_boundaries(new_world, verb)):
        world = new_world()
        node_id, operation_id = verb.begin(world)
        outcome: list[str] = []
        probe = Act(count, partial(_cancel_into, outcome, verb, world, operation_id))
        ended = world.run(operation_id, probe)
        _check_cancelled(world, verb, node_id, (outcome, ended.state))


def _cancel_into(outcome: list[str], verb: Verb, world: World, operation_id: OperationId) -> None:
    outcome.append(verb.cancel(world, operation_id))


def _check_cancelled(world: World, verb: Verb, node_id: NodeId, came: tuple[list[str], str]) -> None:
    outcome, state = came
    if outcome == ["accepted"] and state == "cancelled":
        assert verb.can_cancel
        verb.check_undone(world, node_id)
    else:
        # Asked too late, or of something that only goes forward: then it is done, wholly.
        assert state == "succeeded", came
        verb.check(world, node_id)


@EVERY_VERB
def test_a_crash_while_undoing_still_ends_clean(new_world: Callable[[], World], verb: Verb) -> None:
    if not verb.can_cancel:
        return
    count = 0
    while True:
        world = new_world()
        node_id, operation_id = verb.begin(world)
        probe = CancelThenCrash(world, operation_id, verb, count)
        ended = world.run(operation_id, probe)
        assert ended.state in ("cancelled", "succeeded"), (probe.seen, ended)
        if ended.state == "cancelled":
            verb.check_undone(world, node_id)
        if not probe.has_crashed:
            return
        count += 1


class CancelThenCrash(CrashAt):
    """Cancels near the end of the workflow, then kills the worker at the n-th boundary after that."""

    def __init__(self, world: World, operation_id: OperationId, verb: Verb, count: int) -> None:
        super().__init__(count=-1)
        self.world, self.operation_id, self.verb, self.left = world, operation_id, verb, count
        self.has_cancelled = self.has_crashed = False

    def at(self, point: str, operation: object) -> None:
        from tests.sweep.world import Crash

        step = getattr(operation, "step", "")
        self.seen.append(f"{step}:{point}")
        if not self.has_cancelled:
            if step == self.verb.last_step and point == "begun":
                self.has_cancelled = True
                self.verb.cancel(self.world, self.operation_id)
            return
        self.left -= 1
        if self.left == -1:
            self.has_crashed = True
            raise Crash


def test_a_held_node_is_never_handed_out_again(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id, _ = world.running_node()
    assert world.node(node_id).state is NodeState.ALLOCATED
