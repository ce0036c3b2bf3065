"""The work queue: leases with fences, wake-ups, concurrency tokens and timelines."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Text,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    null,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql.dml import ReturningUpdate, Update

from malleable.domain.errors import FenceLost
from malleable.domain.ids import NodeId, OperationId
from malleable.domain.operations import Operation, OperationState, StepRecord
from malleable.domain.store import Standing
from malleable.store.conflicts import explain_write
from malleable.store.records import Record, Shape, padded
from malleable.store.rows import TableRows
from malleable.store.schema import ACTIVE, resource_tokens
from malleable.store.schema import operations as ops
from malleable.store.session import Session
from malleable.store.steps import StepTable
from malleable.store.tokens import TokenTable
from malleable.store.types import Instant

_S = OperationState

_now = bindparam("now", type_=Instant)
_lease_until = bindparam("lease_until", type_=Instant)
_worker = bindparam("by_worker", type_=ops.c.worker.type)


def _in(*states: OperationState) -> Any:
    """Build it with the names in the statement itself: lists of parameters are expanded anew at every execution."""
    return ops.c.state.in_([literal_column(f"'{state.value}'") for state in states])


_is_active = text(ACTIVE)

# A lone CTE: PostgreSQL runs it once, so never more than ``limit`` rows are locked (an IN subquery may run again).
_due = (
    select(ops.c.id)
    .where(ops.c.claimable_at <= _now)
    .order_by(ops.c.claimable_at)
    .limit(bindparam("limit"))
    .with_for_update(skip_locked=True)
    .cte("due")
)
_CLAIM = (
    update(ops)
    .where(ops.c.id.in_(select(_due.c.id)))
    .values(
        worker=_worker,
        lease_expires_at=_lease_until,
        state=case((_in(_S.PENDING, _S.WAITING), _S.RUNNING.value), else_=ops.c.state),
        started_at=func.coalesce(ops.c.started_at, _now),
        fence=ops.c.fence + 1,
        attempt=ops.c.attempt + 1,
        reason="",
        public_reason="",
        woken_at=None,
    )
)
# What another transaction is writing right now is passed over: that one may wait for what we have locked already.
# Nobody can claim it meanwhile, and its turn comes with the next renewal, long before its lease runs out.
_is_kept = and_(ops.c.worker == _worker, _is_active, _in(_S.RUNNING, _S.UNDOING), ops.c.lease_expires_at.is_not(None))
_NEXT_DUE = select(func.min(ops.c.claimable_at))

_is_claimed = _in(_S.RUNNING, _S.UNDOING) & ops.c.lease_expires_at.is_not(None)
_is_waiting = _in(_S.PENDING, _S.WAITING) | (_in(_S.UNDOING) & ops.c.lease_expires_at.is_(None))
_waits_longer = _is_waiting & (ops.c.next_due_at > _now)
_WAKE_NODE = (
    update(ops)
    .where(ops.c.node_id == bindparam("of_node", type_=ops.c.node_id.type), _is_active, or_(_is_claimed, _waits_longer))
    # What is being worked on cannot be made due; its next wait shall end at once instead (see ``write``).
    .values(woken_at=case((_is_claimed, _now)), next_due_at=case((_is_claimed, ops.c.next_due_at), else_=_now))
)
_resource = bindparam("for_resource", type_=ops.c.resource.type)
_waits_for_it = and_(ops.c.resource == _resource, _is_active, _waits_longer)
_WAKE_ALL = update(ops).where(_waits_for_it).values(next_due_at=_now)
_holds_it = select(resource_tokens.c.operation_id).where(resource_tokens.c.resource == _resource)
_WAKE_OLDEST = (
    update(ops)
    .where(
        ops.c.id.in_(
            select(ops.c.id)
            .where(_waits_for_it, ops.c.id.not_in(_holds_it))
            .order_by(ops.c.id)
            .limit(1)
            .scalar_subquery()
        )
    )
    .values(next_due_at=_now, woken_at=_now)  # woken: nobody passes it; see ``TokenTable.take``
)


def _told(places: Iterable[str]) -> ColumnElement[bool]:
    arguments = cast(ops.c.arguments, Text)
    return or_(*(arguments.like(bindparam(name, type_=Text)) for name in places))


def _write(record: Record[Operation], shape: Shape, changes: tuple[str, ...]) -> ReturningUpdate[Any]:
    """Build "change these fields under the fence and tell whether a cancel is asked for"."""
    statement = record.update(shape, changes)
    if "next_due_at" in changes:
        due = bindparam("set_next_due_at", type_=Instant)
        sooner = case((ops.c.woken_at < due, ops.c.woken_at), else_=due)
        statement = statement.values(next_due_at=sooner, woken_at=null())
    return statement.returning(ops.c.is_cancel_requested, ops.c.next_due_at)


class OperationTable(TableRows[Operation]):
    """``domain.store.OperationRows``."""

    __slots__ = ("_steps", "_tokens")

    def __init__(self, record: Record[Operation], steps: Record[StepRecord], session: Session) -> None:
        super().__init__(record, session)
        self._steps = StepTable(steps, session)
        self._tokens = TokenTable(session)

    def naming(self, ids: Collection[UUID], **equal: object) -> tuple[Operation, ...]:
        """Find by arguments what is active; see ``domain.store``. The database looks: there may be hundreds."""
        record = self._record
        shape, params = record.filter(equal)
        places = {f"naming_{number}": f"%{id}%" for number, id in enumerate(padded(list(ids)))}
        key = ("naming", shape, len(places))
        statement = record.cached(key, lambda: record.select(shape).where(_is_active, _told(places)))
        rows = self._session.read(statement, params | places).all()
        return tuple(record.value(row, self._session.seal) for row in rows)

    def claim(self, worker: str, now: datetime, lease_s: float, limit: int) -> tuple[Operation, ...]:
        """Take the lease of due operations, oldest due first; see ``domain.store``."""
        until = now + timedelta(seconds=lease_s)
        params = {"by_worker": worker, "now": now, "lease_until": until, "limit": limit}
        statement = self._record.cached(("claim",), lambda: _CLAIM.returning(*self._record.columns))
        claimed = [self._record.value(row, self._session.seal) for row in self._session.write(statement, params).all()]
        return tuple(sorted(claimed, key=lambda operation: (operation.next_due_at, operation.id)))

    def keep(self, ids: Collection[OperationId], worker: str, now: datetime, lease_s: float) -> int:
        """Renew leases that this worker holds in one statement; return how many."""
        if not ids:
            return 0
        places = {f"kept_{number}": id for number, id in enumerate(padded(list(ids)))}
        statement = self._record.cached(("keep", len(places)), lambda: _keeping(places))
        params = {"by_worker": worker, "lease_until": now + timedelta(seconds=lease_s)}
        return self._session.write(statement, params | places).rowcount

    def next_due(self) -> datetime | None:
        """Return when the earliest operation falls due or lease runs out; None when nothing waits."""
        found: datetime | None = self._session.read(_NEXT_DUE).scalar_one()
        return found

    def write(self, id: OperationId, fence: int, /, **changes: object) -> Standing:
        """Change the operation if the fence still holds; say how it stands then. Errors: FenceLost.

        A new ``next_due_at`` gives way to a wake-up that came while the worker held the operation.
        """
        record = self._record
        shape, params = record.filter({"id": id, "fence": fence})
        params.update(record.set_params(changes, self._session.seal))
        names = tuple(changes)
        statement = record.cached(("write", names), lambda: _write(record, shape, names))
        try:
            row = self._session.write(statement, params).first()
        except IntegrityError as e:
            raise explain_write(self._session, record, e, changes, id) from e
        if row is None:
            raise FenceLost(details={"operation_id": str(id), "fence": fence})
        return Standing(is_cancel_requested=bool(row.is_cancel_requested), next_due_at=row.next_due_at)

    def wake(self, *, now: datetime, resource: str | None = None, node_id: NodeId | None = None) -> int:
        """Make what waits for a resource (the oldest one only) or for a node due now; return how many.

        The oldest that is not due yet and holds no token of it: two tokens given back at once wake two.
        """
        woken = 0
        if resource is not None:
            woken += self._session.write(_WAKE_OLDEST, {"for_resource": resource, "now": now}).rowcount
        if node_id is not None:
            woken += self._session.write(_WAKE_NODE, {"of_node": node_id, "now": now}).rowcount
        return woken

    def wake_all(self, *, now: datetime, resource: str) -> int:
        """Make everything that waits for a resource due now, in one statement; return how many."""
        return self._session.write(_WAKE_ALL, {"for_resource": resource, "now": now}).rowcount

    def take_resource(self, resource: str, limit: int, id: OperationId, fence: int) -> bool:
        """Take one of ``limit`` concurrency tokens; True if held (again). Errors: FenceLost."""
        return self._tokens.take(resource, limit, id, fence)

    def release_resources(self, id: OperationId) -> tuple[str, ...]:
        """Give back all concurrency tokens of an operation; return their names."""
        return self._tokens.release(id)

    def add_step(self, line: StepRecord) -> None:
        """Add a line at the end of its operation's timeline, whatever its ordinal says."""
        self._steps.add(line)

    def steps(self, ids: Sequence[OperationId]) -> tuple[StepRecord, ...]:
        """Read timelines with their open lines, in order of operation and ordinal; one query for all of them."""
        return self._steps.list(ids)


def _keeping(places: Iterable[str]) -> Update:
    chosen = ops.c.id.in_([bindparam(place, type_=ops.c.id.type) for place in places])
    kept = select(ops.c.id).where(chosen, _is_kept).with_for_update(skip_locked=True)
    return update(ops).where(ops.c.id.in_(kept)).values(lease_expires_at=_lease_until)
