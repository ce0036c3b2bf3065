"""Bearer tokens, and the end of those for one node."""

from datetime import datetime

from sqlalchemy import bindparam, delete, update

from malleable.domain.ids import NodeId
from malleable.domain.projects import Token
from malleable.store.rows import TableRows
from malleable.store.schema import tokens
from malleable.store.types import Instant

_OF_NODE = tokens.c.node_id == bindparam("of_node", type_=tokens.c.node_id.type)
_NOW = bindparam("now", type_=Instant)
# Also those whose time is over: by another server's clock, or by this one when it was set back, it is not.
_REVOKE = (
    update(tokens).where(_OF_NODE, tokens.c.revoked_at.is_(None)).values(revoked_at=_NOW).returning(tokens.c.expires_at)
)
_FORGET = delete(tokens).where(_OF_NODE, tokens.c.expires_at <= _NOW)


class BearerTable(TableRows[Token]):
    """``domain.store.TokenRows``."""

    __slots__ = ()

    def revoke_of_node(self, node_id: NodeId, now: datetime) -> int:
        """Revoke every token that is narrowed to a node, in one statement; return how many were good until now."""
        ends = self._session.write(_REVOKE, {"of_node": node_id, "now": now}).scalars()
        return sum(end > now for end in ends)

    def forget_of_node(self, node_id: NodeId, now: datetime) -> None:
        """Drop the tokens that are narrowed to a node and whose time is over."""
        self._session.write(_FORGET, {"of_node": node_id, "now": now})
