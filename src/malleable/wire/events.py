"""Events, and the chains that let anybody prove that none was changed."""

from datetime import datetime
from uuid import UUID

from malleable.wire.shapes import Answer


class EventView(Answer):
    """Something that happened; null ``actor_id`` is the service itself."""

    id: UUID
    kind: str
    at: datetime
    actor_id: UUID | None
    project_id: UUID | None
    node_id: UUID | None
    operation_id: UUID | None
    data: dict[str, object]


class LinkView(Answer):
    """An event's place in a chain; ``domain.events.link_hash`` over it gives ``hash``."""

    position: int
    previous_hash: str
    hash: str
    event: EventView | None  #: null when it is not the caller's to see (an earlier holder of a node)
