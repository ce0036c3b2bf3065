"""Timelines."""

from typing import Any

import pytest
from tests.contract.store import values
from tests.contract.store.values import NOW, later

from malleable.domain.operations import Direction, Operation, StepRecord
from malleable.store import SqlStore

DO, UNDO = Direction.DO, Direction.UNDO


def line(operation: Operation, name: str, direction: Direction = DO, **more: Any) -> StepRecord:
    about: dict[str, Any] = {"operation_id": operation.id, "ordinal": 0, "attempts": 1, "started_at": NOW}
    return StepRecord(**{**about, "name": name, "direction": direction, **more})


def test_lines_stand_in_the_order_in_which_they_were_added(store: SqlStore) -> None:
    operation, other = values.operation(), values.operation()
    with store.transaction() as tx:
        tx.operations.add(operation)
        tx.operations.add(other)
        for one in (line(operation, "power"), line(other, "power"), line(operation, "ports")):
            tx.operations.add_step(one)
        tx.operations.add_step(line(operation, "ports", UNDO, finished_at=later(1), evidence={"state": "off"}))
    with store.reading() as tx:
        lines = tx.operations.steps([other.id, operation.id])
        assert [(line.operation_id, line.ordinal, line.name, line.direction) for line in lines] == [
            (operation.id, 0, "power", DO),
            (operation.id, 1, "ports", DO),
            (operation.id, 2, "ports", UNDO),
            (other.id, 0, "power", DO),
        ]
        assert (lines[2].finished_at, lines[2].evidence) == (later(1), {"state": "off"})
        assert tx.operations.steps([]) == ()


def test_the_step_at_hand_is_the_last_line_once_it_is_begun(store: SqlStore) -> None:
    operation = values.operation()
    with store.transaction() as tx:
        tx.operations.add(operation)
        (claimed,) = tx.operations.claim("w", NOW, 2.0, 1)
        tx.operations.add_step(line(operation, "power", finished_at=later(1)))
        tx.operations.write(operation.id, claimed.fence, step="ports")
        assert [one.name for one in tx.operations.steps([operation.id])] == ["power"]
        begun: dict[str, Any] = {"step_began_at": later(2), "step_attempts": 2, "step_evidence": {"asked": True}}
        tx.operations.write(operation.id, claimed.fence, **begun, step_error="no answer", step_public_error="wait")
        _, at_hand = tx.operations.steps([operation.id])
        told: dict[str, Any] = {"attempts": 2, "started_at": later(2), "error": "no answer", "public_error": "wait"}
        assert at_hand == line(operation, "ports", ordinal=1, evidence={"asked": True}, **told)
        assert tx.operations.get(operation.id).line() == line(operation, "ports", evidence={"asked": True}, **told)


def test_a_step_that_is_not_begun_has_no_line() -> None:
    with pytest.raises(ValueError, match="step 'power' is not begun"):
        values.operation(step="power").line()


def test_a_removed_operation_takes_its_timeline_along(store: SqlStore) -> None:
    operation = values.operation()
    with store.transaction() as tx:
        tx.operations.add(operation)
        tx.operations.add_step(line(operation, "power"))
        tx.operations.take_resource("bmc:1", 1, operation.id, 0)
        assert tx.operations.remove(operation.id)
        assert tx.operations.steps([operation.id]) == ()
