"""Whether a chain of events is whole: recomputed here, from nothing but what the server shows."""

from collections.abc import Iterable
from dataclasses import dataclass

from malleable.domain.events import GENESIS, Event, detail_hash, link_hash
from malleable.domain.ids import EventId, NodeId, OperationId, ProjectId, UserId
from malleable.wire.events import EventView, LinkView


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainReport:
    """What checking a chain found."""

    chain: str
    length: int  #: links found good
    hidden: int = 0  #: of these, events that are not ours to see: their place was checked, their content could not be
    head: str  #: hash of the last good link; keep it to notice later that the end was cut off
    broken_at: int | None = None  #: position of the first bad link
    problem: str = ""


def check_chain(chain: str, links: Iterable[LinkView]) -> ChainReport:
    """Recompute every hash of a chain, in order, and stop at the first that does not fit."""
    previous, length, hidden = GENESIS, 0, 0
    for link in links:
        problem = _problem(chain, link, length + 1, previous)
        if problem:
            return ChainReport(
                chain=chain, length=length, hidden=hidden, head=previous, broken_at=length + 1, problem=problem
            )
        previous, length, hidden = link.hash, link.position, hidden + (link.event is None)
    return ChainReport(chain=chain, length=length, hidden=hidden, head=previous)


def _problem(chain: str, link: LinkView, expected_position: int, previous: str) -> str:
    """Say what is wrong with a link; "" when it fits."""
    if link.position != expected_position:
        return f"position {expected_position} is missing"
    if link.previous_hash != previous:
        return "it does not follow the event before it"
    if link.event is not None and link.event.detail and detail_hash(link.event.detail) != link.event.detail_hash:
        return f"the detail of the event {link.event.kind} is not what was written"
    if link.event is not None and link_hash(_event(link.event), chain, link.position, previous) != link.hash:
        return f"the event {link.event.kind} is not what was written"
    return ""


def _event(view: EventView) -> Event:
    return Event(
        id=EventId(view.id),
        kind=view.kind,
        at=view.at,
        actor_id=None if view.actor_id is None else UserId(view.actor_id),
        project_id=None if view.project_id is None else ProjectId(view.project_id),
        node_id=None if view.node_id is None else NodeId(view.node_id),
        operation_id=None if view.operation_id is None else OperationId(view.operation_id),
        data=view.data,
        detail=view.detail,
        detail_hash=view.detail_hash,
    )
