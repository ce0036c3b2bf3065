"""Events: what happened, and the chains that prove it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from malleable.domain.events import Event, Link
from malleable.domain.ids import NodeId, ProjectId, parse_id
from malleable.domain.store import Page, Transaction
from malleable.services.authorization import not_found, require
from malleable.services.caller import Caller
from malleable.services.finding import find_project, listed, shown
from malleable.services.operations import node_id_of
from malleable.services.parts import Listed, Parts

#: Two writers may commit in another order than they drew their ids. A follower looks this far back again.
OVERLAP = timedelta(seconds=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events; None does not narrow."""

    node_id: NodeId | None = None
    project_id: ProjectId | None = None
    kind: str | None = None


class Events:
    """The log."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def event_filter(self, caller: Caller, *, node: str | None, project: str | None, kind: str | None) -> EventFilter:
        """Resolve a filter once, for a list or for a stream. Errors: NotFound."""
        require(caller, "event_list")
        with self._parts.store.reading() as tx:
            return EventFilter(
                node_id=node_id_of(tx, node) if node is not None else None,
                project_id=find_project(tx, caller, project).id if project is not None else None,
                kind=kind if kind is None or kind.isprintable() else "",
            )

    def event_list(self, caller: Caller, page: Page, only: EventFilter) -> Listed[Event]:
        """List the events of one's projects; operators and admins: all."""
        require(caller, "event_list")
        wanted: dict[str, object] = {} if caller.is_operator else {"project_id": list(caller.memberships)}
        if only.project_id is not None:
            require(caller, "project_get", what="project", project_id=only.project_id)
            wanted["project_id"] = only.project_id
        if only.node_id is not None:
            wanted["node_id"] = only.node_id
        if only.kind is not None:
            wanted["kind"] = only.kind
        with self._parts.store.glance() as tx:
            return listed(tx.events.list(page, **wanted), page, {})

    def event_start(self) -> UUID:
        """Return where a stream begins that was not told where: now."""
        return floor_id(self._parts.now())

    def chain_get(
        self, caller: Caller, chain: str, *, after_position: int, limit: int
    ) -> tuple[tuple[Link, Event | None], ...]:
        """Read a chain in order. Errors: NotFound.

        A node's holder gets every link, but of other projects' events only the link: the chain can be seen to have no
        gap, and earlier holders stay private.
        """
        with self._parts.store.reading() as tx:
            self._require(tx, caller, chain)
            links = tx.events.chain(chain, after_position, limit)
        if caller.is_operator:
            return tuple(links)
        return tuple((link, event if event.project_id in caller.memberships else None) for link, event in links)

    def _require(self, tx: Transaction, caller: Caller, chain: str) -> None:
        what = f"chain {shown(chain)}"
        noun, _, raw = chain.partition(":")
        id = parse_id(raw)
        if chain == "site":
            require(caller, "chain_get", what=what)
        elif noun == "project" and id is not None:
            require(caller, "chain_get", what=what, project_id=ProjectId(id))
        elif noun == "node" and id is not None:
            node = tx.nodes.find(id=id)
            require(caller, "chain_get", what=what, project_id=node.project_id if node else None)
        else:
            raise not_found(what)


def floor_id(at: datetime) -> UUID:
    """Make the lowest UUIDv7 of a moment: everything later sorts after it."""
    return UUID(int=int(at.timestamp() * 1000) << 80)


def look_back(last: UUID) -> UUID:
    """Return where a follower that has seen ``last`` asks from, so as to miss nothing that commits late."""
    milliseconds = (last.int >> 80) - int(OVERLAP.total_seconds() * 1000)
    return UUID(int=max(milliseconds, 0) << 80)
