"""Timelines: the steps of operations."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, func, select
from sqlalchemy.dialects import postgresql, sqlite

from malleable.domain.errors import NotFound
from malleable.domain.ids import OperationId
from malleable.domain.operations import Direction, StepRecord
from malleable.store.records import Record
from malleable.store.schema import steps
from malleable.store.session import Session

_operation = bindparam("operation", type_=steps.c.operation_id.type)


def _begin(insert: Any) -> Any:
    """Build "add a line at the end, or count one more attempt in the open line of this step" as one statement."""
    line = steps.alias()
    ordinal = select(func.coalesce(func.max(line.c.ordinal) + 1, 0)).where(line.c.operation_id == _operation)
    values = {
        "operation_id": _operation,
        "ordinal": ordinal.scalar_subquery(),
        "name": bindparam("step"),
        "direction": bindparam("way", type_=steps.c.direction.type),
        "attempts": 1,
        "started_at": bindparam("now", type_=steps.c.started_at.type),
        "evidence": {},
        "error": "",
        "public_error": "",
    }
    return (
        insert(steps)
        .values(values)
        .on_conflict_do_update(
            index_elements=["operation_id", "name", "direction"],
            index_where=steps.c.finished_at.is_(None),
            set_={"attempts": steps.c.attempts + 1},
        )
        .returning(*(steps.c[field.name] for field in fields(StepRecord)))
    )


_BEGIN = {"sqlite": _begin(sqlite.insert), "postgresql": _begin(postgresql.insert)}


class StepTable:
    """The timelines inside one transaction."""

    __slots__ = ("_record", "_session")

    def __init__(self, record: Record[StepRecord], session: Session) -> None:
        self._record = record
        self._session = session

    def begin(self, id: OperationId, name: str, direction: Direction, now: datetime) -> StepRecord:
        """Add the step's line, or add one to its attempts if its line is open."""
        statement = _BEGIN["postgresql" if self._session.has_row_locks else "sqlite"]
        params = {"operation": id, "step": name, "way": direction, "now": now}
        return self._record.value(self._session.write(statement, params).one(), self._session.seal)

    def end(self, id: OperationId, name: str, direction: Direction, changes: Mapping[str, object]) -> None:
        """Write into the open line. Errors: NotFound when none is open."""
        open_line = {"operation_id": id, "name": name, "direction": direction, "finished_at": None}
        shape, params = self._record.filter(open_line)
        params.update(self._record.set_params(changes, self._session.seal))
        if self._session.write(self._record.update(shape, tuple(changes)), params).rowcount != 1:
            raise NotFound(f"Operation {id} has no open step {name} ({direction}).")

    def list(self, ids: Sequence[OperationId]) -> tuple[StepRecord, ...]:
        """Read the timelines of these operations, in order of operation and ordinal."""
        shape, params = self._record.filter({"operation_id": tuple(ids)})
        in_order = (steps.c.operation_id, steps.c.ordinal)
        statement = self._record.cached(
            ("list", shape), lambda: select(*self._record.columns).where(self._record.where(shape)).order_by(*in_order)
        )
        return tuple(self._record.value(row, self._session.seal) for row in self._session.read(statement, params).all())
