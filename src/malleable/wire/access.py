"""Access: tokens for one node."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field

from malleable.domain.access import Verb
from malleable.wire.shapes import Answer, Line, Open, Request
from malleable.wire.users import Ttl


class AccessRequest(Request):
    """A token for one node, to hand on."""

    name: Line
    verbs: Annotated[tuple[Verb, ...], Field(min_length=1, max_length=len(Verb))]
    ttl_s: Ttl = 3600


class AccessIssued(Answer):
    """A new token for one node; this is the only time its secret is shown."""

    id: Open[UUID]
    token: Open[str] = Field(repr=False)
    node_id: Open[UUID]
    verbs: Open[tuple[Verb, ...]]
    expires_at: Open[datetime]
