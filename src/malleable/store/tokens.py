"""Concurrency tokens: how many operations may use one resource (a BMC, a switch) at once."""

from typing import Any

from sqlalchemy import bindparam, delete, func, insert, select
from sqlalchemy.dialects import postgresql

from malleable.domain.errors import FenceLost
from malleable.domain.ids import OperationId
from malleable.domain.operations import OperationState
from malleable.store.schema import operations as ops
from malleable.store.schema import resource_tokens as tokens
from malleable.store.schema import resources
from malleable.store.session import Session

#: A parked operation waits for a person: what it holds must not hold up the others.
_LIVE = [
    state.value
    for state in (OperationState.PENDING, OperationState.RUNNING, OperationState.WAITING, OperationState.UNDOING)
]

_resource = bindparam("for_resource", type_=tokens.c.resource.type)
_operation = bindparam("operation", type_=ops.c.id.type)

# Serializes takers and givers of one resource until the commit. So a taker that finds all tokens gone and writes that
# it waits is seen by the giver's wake-up, whichever comes first.
_insert_name = postgresql.insert(resources).values(name=_resource)
_LOCK = _insert_name.on_conflict_do_update(index_elements=["name"], set_={"name": _insert_name.excluded.name})

_me = ops.alias("me")
_holder = ops.alias("holder")
_of_others = (
    select(func.count())
    .select_from(tokens.join(_holder, tokens.c.operation_id == _holder.c.id))
    .where(tokens.c.resource == _resource, tokens.c.operation_id != _operation, _holder.c.state.in_(_LIVE))
)
_mine = select(func.count()).where(tokens.c.resource == _resource, tokens.c.operation_id == _operation)
_LOOK = select(_me.c.fence, _of_others.scalar_subquery().label("others"), _mine.scalar_subquery().label("mine")).where(
    _me.c.id == _operation
)

_TAKE = insert(tokens).values(resource=_resource, operation_id=_operation)
_RELEASE = delete(tokens).where(tokens.c.operation_id == _operation).returning(tokens.c.resource)


class TokenTable:
    """The tokens inside one transaction."""

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    def take(self, resource: str, limit: int, id: OperationId, fence: int) -> bool:
        """Take one of ``limit`` tokens; True if held (again). Errors: FenceLost."""
        self._lock(resource)
        params = {"for_resource": resource, "operation": id}
        seen: Any = self._session.read(_LOOK, params).first()
        if seen is None or seen.fence != fence:
            raise FenceLost(details={"operation_id": str(id), "fence": fence})
        if seen.others >= limit:
            return False
        if not seen.mine:
            self._session.write(_TAKE, params)
        return True

    def release(self, id: OperationId) -> tuple[str, ...]:
        """Give back all tokens of an operation; return the names of their resources."""
        released = sorted(self._session.write(_RELEASE, {"operation": id}).scalars())
        for resource in released:
            self._lock(resource)
        return tuple(released)

    def _lock(self, resource: str) -> None:
        if self._session.has_row_locks:
            self._session.write(_LOCK, {"for_resource": resource})
