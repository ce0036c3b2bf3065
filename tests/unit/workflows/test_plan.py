"""The pure plan: every walk ends, and unwinding visits what was done or is at hand, in reverse."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from malleable.domain.ids import OperationId, new_id
from malleable.domain.operations import Direction, Operation
from malleable.workflows import plan
from malleable.workflows.plan import Place, UnknownStep
from malleable.workflows.steps import Context, Done, Step, Workflow

NOW = datetime(2026, 11, 20, tzinfo=UTC)
OPERATION = Operation(
    id=OperationId(new_id()),
    kind="w",
    node_id=None,
    project_id=None,
    actor_id=None,
    arguments={},
    next_due_at=NOW,
    created_at=NOW,
)


def _done(context: Context) -> Done:
    return Done()


def _yes(operation: Operation) -> bool:
    return True


def _no(operation: Operation) -> bool:
    return False


def _workflow(mix: list[tuple[bool, bool]]) -> Workflow:
    """Make a workflow of (has undo, is needed) steps."""
    steps = tuple(
        Step(name=str(number), do=_done, undo=_done if has_undo else None, needed=_yes if is_needed else _no)
        for number, (has_undo, is_needed) in enumerate(mix)
    )
    return Workflow(name="w", steps=steps, on_done=lambda tx, operation, now: None, on_undone=None)


def _at(place: Place) -> Operation:
    return replace(OPERATION, step=place.step.name, direction=place.direction)


def _walk(workflow: Workflow, place: Place | None) -> list[Place]:
    """Follow the plan from a place to the end, looking each place up again as after a crash."""
    walked: list[Place] = []
    while place is not None:
        assert len(walked) <= len(workflow.steps), "a walk without end"
        assert plan.current(workflow, _at(place)) == place
        walked.append(place)
        place = plan.following(workflow, _at(place), place)
    return walked


def _names(walked: list[Place], direction: Direction) -> list[int]:
    assert {place.direction for place in walked} <= {direction}
    assert all(place.function is _done for place in walked)
    return [int(place.step.name) for place in walked]


MIXES = st.lists(st.tuples(st.booleans(), st.booleans()), max_size=12)


@given(MIXES)
def test_a_walk_does_every_needed_step_once_in_order(mix: list[tuple[bool, bool]]) -> None:
    workflow = _workflow(mix)
    walked = _walk(workflow, plan.current(workflow, OPERATION))
    assert _names(walked, Direction.DO) == [number for number, (_, needed) in enumerate(mix) if needed]


@given(MIXES, st.integers(min_value=0))
def test_unwinding_visits_what_was_done_or_is_at_hand_in_reverse(mix: list[tuple[bool, bool]], turn: int) -> None:
    workflow = _workflow(mix)
    walked = _walk(workflow, plan.current(workflow, OPERATION))
    if not walked:
        assert plan.unwinding(workflow, OPERATION) is None
        return
    at_hand = walked[turn % len(walked)]
    undone = _walk(workflow, plan.unwinding(workflow, _at(at_hand)))
    last = int(at_hand.step.name)
    expected = [number for number, (has_undo, needed) in enumerate(mix) if number <= last and has_undo and needed]
    assert _names(undone, Direction.UNDO) == expected[::-1]


@given(MIXES.filter(bool), st.integers(min_value=0))
def test_an_undo_that_an_upgrade_took_away_is_passed_over(mix: list[tuple[bool, bool]], at: int) -> None:
    workflow = _workflow([(False, needed) for _, needed in mix])
    stands = replace(OPERATION, step=str(at % len(mix)), direction=Direction.UNDO)
    assert plan.current(workflow, stands) is None


@given(MIXES, st.sampled_from(Direction))
def test_a_step_that_is_gone_is_named(mix: list[tuple[bool, bool]], direction: Direction) -> None:
    workflow, stands = _workflow(mix), replace(OPERATION, step="gone", direction=direction)
    for look in (plan.current, plan.unwinding):
        with pytest.raises(UnknownStep, match="'gone'"):
            look(workflow, stands)


def test_a_place_without_an_undo_has_no_function() -> None:
    [step] = _workflow([(False, True)]).steps
    with pytest.raises(AssertionError):
        _ = Place(step=step, direction=Direction.UNDO).function
