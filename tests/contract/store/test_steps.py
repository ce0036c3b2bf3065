"""Timelines."""

import pytest
from tests.contract.store import values
from tests.contract.store.values import NOW, later

from malleable.domain.errors import NotFound
from malleable.domain.ids import OperationId, new_id
from malleable.domain.operations import Direction, StepRecord
from malleable.store import SqlStore

DO, UNDO = Direction.DO, Direction.UNDO


def test_steps_are_lines_in_order_of_beginning(store: SqlStore) -> None:
    operation, other = values.operation(), values.operation()
    with store.transaction() as tx:
        tx.operations.add(operation)
        tx.operations.add(other)
        for at, (id, step, direction) in enumerate(
            [
                (operation.id, "power", DO),
                (other.id, "power", DO),
                (operation.id, "ports", DO),
                (operation.id, "ports", UNDO),
            ]
        ):
            record = tx.operations.begin_step(id, step, direction, later(at))
            assert (record.attempts, record.started_at, record.finished_at) == (1, later(at), None)
    with store.reading() as tx:
        lines = tx.operations.steps([other.id, operation.id])
        assert [(line.operation_id, line.ordinal, line.name, line.direction) for line in lines] == [
            (operation.id, 0, "power", DO),
            (operation.id, 1, "ports", DO),
            (operation.id, 2, "ports", UNDO),
            (other.id, 0, "power", DO),
        ]
        assert tx.operations.steps([]) == ()


def test_an_open_line_counts_attempts_and_keeps_its_memory(store: SqlStore) -> None:
    operation = values.operation()
    with store.transaction() as tx:
        tx.operations.add(operation)
        tx.operations.begin_step(operation.id, "power", DO, NOW)
        tx.operations.end_step(operation.id, "power", DO, evidence={"asked": True}, error="no answer")
        again = tx.operations.begin_step(operation.id, "power", DO, later(9))
    assert again == StepRecord(
        operation_id=operation.id,
        ordinal=0,
        name="power",
        direction=DO,
        attempts=2,
        started_at=NOW,
        evidence={"asked": True},
        error="no answer",
    )


def test_a_closed_line_stays_and_a_repeated_step_gets_a_new_one(store: SqlStore) -> None:
    operation = values.operation()
    with store.transaction() as tx:
        tx.operations.add(operation)
        tx.operations.begin_step(operation.id, "power", DO, NOW)
        tx.operations.end_step(operation.id, "power", DO, finished_at=later(1), evidence={"state": "off"})
        again = tx.operations.begin_step(operation.id, "power", DO, later(2))
        assert (again.ordinal, again.attempts) == (1, 1)
        first, _ = tx.operations.steps([operation.id])
        assert (first.finished_at, first.evidence) == (later(1), {"state": "off"})


def test_what_is_not_open_cannot_be_ended(store: SqlStore) -> None:
    with store.transaction() as tx, pytest.raises(NotFound, match="no open step power"):
        tx.operations.end_step(OperationId(new_id()), "power", DO, error="x")


def test_a_removed_operation_takes_its_timeline_along(store: SqlStore) -> None:
    operation = values.operation()
    with store.transaction() as tx:
        tx.operations.add(operation)
        tx.operations.begin_step(operation.id, "power", DO, NOW)
        tx.operations.take_resource("bmc:1", 1, operation.id, 0)
        assert tx.operations.remove(operation.id)
        assert tx.operations.steps([operation.id]) == ()
