"""Concurrency tokens: how many operations may use one resource (a BMC, a switch) at once.

On PostgreSQL no wake-up is lost and nobody waits in a circle, though one transaction gives one token back and takes
another. Takers of one resource queue on its lock until they commit. A taker that is refused holds on to the tokens it
saw (FOR KEY SHARE), so whoever gives one back meanwhile commits after it and finds it waiting. A token that is being
given back at that moment cannot be held on to; then the taker waits no time at all and looks again. After taking, a
transaction locks nothing but what opens the step that takes it (its own ports, disks or image; nobody who holds those
waits for a token) and the heads of event chains.

Nobody passes those who were woken to take a token: whoever comes later waits in line behind them. Without that, 100
operations at five switches had each to be woken eight times, to find the token gone again.
"""

from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, delete, func, insert, literal_column, or_, select, text, update

from malleable.domain.errors import FenceLost
from malleable.domain.ids import OperationId
from malleable.domain.operations import OperationState
from malleable.store.schema import ACTIVE
from malleable.store.schema import operations as ops
from malleable.store.schema import resource_tokens as tokens
from malleable.store.session import Session

#: A parked operation waits for a person: what it holds must not hold up the others.
_LIVE: list[ColumnElement[str]] = [
    literal_column(f"'{state.value}'")
    for state in (OperationState.PENDING, OperationState.RUNNING, OperationState.WAITING, OperationState.UNDOING)
]

_resource = bindparam("for_resource", type_=tokens.c.resource.type)
_operation = bindparam("operation", type_=ops.c.id.type)

_me = ops.alias("me")
_holder = ops.alias("holder")
_of_others = (
    select(tokens.c.operation_id)
    .join_from(tokens, _holder, tokens.c.operation_id == _holder.c.id)
    .where(tokens.c.resource == _resource, tokens.c.operation_id != _operation, _holder.c.state.in_(_LIVE))
)
_others = _of_others.with_only_columns(func.count()).scalar_subquery()
_mine = select(tokens.c.resource).where(tokens.c.resource == _resource, tokens.c.operation_id == _operation).exists()
# Woken, or claimed since, and not yet with the token: in its row stands what it waits for.
_heir = ops.alias("heir")
_is_claimed = _heir.c.state.in_([literal_column("'running'"), literal_column("'undoing'")])
_has_it = select(tokens.c.resource).where(tokens.c.resource == _resource, tokens.c.operation_id == _heir.c.id).exists()
_heirs = (
    select(func.count())
    .select_from(_heir)
    .where(
        _heir.c.resource == _resource,
        text(ACTIVE),
        _heir.c.id != _operation,
        or_(_heir.c.woken_at.is_not(None), and_(_is_claimed, _heir.c.lease_expires_at.is_not(None))),
        ~_has_it,
    )
    .scalar_subquery()
)
_LOOK = select(_me.c.fence, _others.label("others"), _heirs.label("heirs"), _mine.label("mine")).where(
    _me.c.id == _operation
)
_HOLD_ON = _of_others.with_for_update(key_share=True, read=True, skip_locked=True, of=tokens)
# The operation's next wait ends at once, as if it had been woken; see ``OperationTable.write``.
_LOOK_AGAIN = update(ops).where(ops.c.id == _operation).values(woken_at=ops.c.next_due_at)

_TAKE = insert(tokens).from_select(
    ["resource", "operation_id"],
    select(_resource, _me.c.id).where(
        _me.c.id == _operation,
        _me.c.fence == bindparam("under_fence", type_=ops.c.fence.type),
        _others + _heirs < bindparam("limit", type_=ops.c.fence.type),
        ~_mine,
    ),
)
_RELEASE = delete(tokens).where(tokens.c.operation_id == _operation).returning(tokens.c.resource)


class TokenTable:
    """The tokens inside one transaction."""

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    def take(self, resource: str, limit: int, id: OperationId, fence: int) -> bool:
        """Take one of ``limit`` tokens; True if held (again). Errors: FenceLost."""
        session, params = self._session, {"for_resource": resource, "operation": id}
        session.queue_on("resource", resource)
        if session.write(_TAKE, {**params, "under_fence": fence, "limit": limit}).rowcount == 1:
            return True
        seen: Any = session.read(_LOOK, params).first()
        if seen is None or seen.fence != fence:
            raise FenceLost(details={"operation_id": str(id), "fence": fence})
        if seen.mine:
            return True
        is_free_now = seen.others + seen.heirs < limit  # given back since we tried
        if session.has_row_locks and (is_free_now or len(session.write(_HOLD_ON, params).all()) < seen.others):
            session.write(_LOOK_AGAIN, {"operation": id})
        return False

    def release(self, id: OperationId) -> tuple[str, ...]:
        """Give back all tokens of an operation; return the names of their resources."""
        return tuple(sorted(self._session.write(_RELEASE, {"operation": id}).scalars()))
