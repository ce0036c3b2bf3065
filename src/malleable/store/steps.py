"""Timelines: the steps of operations.

The line of the step at hand is kept with its operation, where it costs no statement; here it comes once it has ended.
"""

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam, func, insert, null, select, union_all

from malleable.domain.ids import OperationId
from malleable.domain.operations import StepRecord
from malleable.store.records import Record
from malleable.store.schema import operations as ops
from malleable.store.schema import steps
from malleable.store.session import Session

_NAMES = tuple(field.name for field in fields(StepRecord))


def _next_ordinal(operation_id: Any) -> ColumnElement[int]:
    line = steps.alias()
    last = select(func.max(line.c.ordinal)).where(line.c.operation_id == operation_id)
    return func.coalesce(last.scalar_subquery() + 1, 0)


_values = {name: bindparam(f"new_{name}", type_=steps.c[name].type) for name in _NAMES}
_ADD = insert(steps).values({**_values, "ordinal": _next_ordinal(_values["operation_id"])})

#: The line of the step at hand; NULL where only an ended one has something.
_OPEN: dict[str, ColumnElement[Any]] = {
    "operation_id": ops.c.id,
    "ordinal": _next_ordinal(ops.c.id),
    "name": ops.c.step,
    "direction": ops.c.direction,
    "attempts": ops.c.step_attempts,
    "started_at": ops.c.step_began_at,
    "finished_at": null(),
    "evidence": ops.c.step_evidence,
    "error": ops.c.step_error,
    "public_error": ops.c.step_public_error,
}


def _lines(params: Iterable[str]) -> Select[Any]:
    """Build "read the ended and the open lines of these operations, in order"."""
    ids = [bindparam(name, type_=ops.c.id.type) for name in params]
    ended = select(steps).where(steps.c.operation_id.in_(ids))
    is_begun = ops.c.step_began_at.is_not(None)
    opened = select(*(_OPEN[column.name].label(column.name) for column in steps.c)).where(ops.c.id.in_(ids), is_begun)
    both = union_all(ended, opened).subquery()
    return select(*(both.c[name] for name in _NAMES)).order_by(both.c.operation_id, both.c.ordinal)


class StepTable:
    """The timelines inside one transaction."""

    __slots__ = ("_record", "_session")

    def __init__(self, record: Record[StepRecord], session: Session) -> None:
        self._record = record
        self._session = session

    def add(self, line: StepRecord) -> None:
        """Add a line at the end of its operation's timeline, whatever its ordinal says."""
        values = self._record.params(line, self._session.seal)
        del values["ordinal"]
        self._session.write(_ADD, {f"new_{name}": value for name, value in values.items()})

    def list(self, ids: Sequence[OperationId]) -> tuple[StepRecord, ...]:
        """Read the timelines of these operations, in order of operation and ordinal."""
        if not ids:
            return ()
        shape, params = self._record.filter({"operation_id": tuple(ids)})
        statement = self._record.cached(("lines", shape), lambda: _lines(params))
        return tuple(self._record.value(row, self._session.seal) for row in self._session.read(statement, params).all())
