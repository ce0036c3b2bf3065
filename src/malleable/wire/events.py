"""Events, and the chains that let anybody prove that none was changed."""

from datetime import datetime
from uuid import UUID

from malleable.wire.shapes import Answer, Open


class EventView(Answer):
    """Something that happened; null ``actor_id`` is the service itself."""

    id: Open[UUID]
    kind: Open[str]
    at: Open[datetime]
    actor_id: Open[UUID | None]
    project_id: Open[UUID | None]
    node_id: Open[UUID | None]
    operation_id: Open[UUID | None]
    data: Open[dict[str, object]]
    detail: dict[str, object] = {}  #: what more the provider knows of it
    detail_hash: Open[str] = ""  #: of ``detail``: who cannot read it can still verify the chain


class LinkView(Answer):
    """An event's place in a chain; ``domain.events.link_hash`` over it gives ``hash``."""

    position: Open[int]
    previous_hash: Open[str]
    hash: Open[str]
    event: Open[EventView | None]  #: null when it is not the caller's to see (an earlier holder of a node)
