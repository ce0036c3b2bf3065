"""The hash-chained log.

Events are kept until the transaction commits, then written together: the heads of all chains they belong to are locked
in one order at the very end, so chains cannot fork, writers wait for each other as briefly as can be, and two
transactions never wait for each other's chains in a circle.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Executable, Select, bindparam, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from malleable.domain.events import GENESIS, Event, Link, chains_of, link_hash
from malleable.domain.store import PAGE_MAX, Page
from malleable.store.records import Record
from malleable.store.rows import TableRows
from malleable.store.schema import event_chains, event_links
from malleable.store.session import Session
from malleable.store.types import in_utc


def _lock_heads(insert: Any) -> Any:
    """Build "make these chains' heads if there are none, lock them in this order, read them"."""
    return (
        insert(event_chains)
        .on_conflict_do_update(index_elements=["chain"], set_={"chain": insert(event_chains).excluded.chain})
        .returning(event_chains.c.chain, event_chains.c.position, event_chains.c.hash)
    )


def _move_heads(insert: Any) -> Any:
    new = insert(event_chains).excluded
    moved = {"position": new.position, "hash": new.hash}
    return insert(event_chains).on_conflict_do_update(index_elements=["chain"], set_=moved)


_INSERT = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
_LOCK_HEADS = {name: _lock_heads(insert) for name, insert in _INSERT.items()}
_MOVE_HEADS = {name: _move_heads(insert) for name, insert in _INSERT.items()}
_ADD_LINK = insert(event_links)
_LINK_NAMES = ("chain", "position", "event_id", "previous_hash", "hash")


def _add_one(record: Record[Event], chains: int) -> Executable:
    """Build "add an event and its links, and move the heads of its chains", one statement where most of them are."""
    places = [
        {name: bindparam(f"{name}_{n}", type_=event_links.c[name].type) for name in _LINK_NAMES} for n in range(chains)
    ]
    added = record.insert.values({c.name: bindparam(f"new_{c.name}", type_=c.type) for c in record.columns}).cte(
        "added"
    )
    linked = _ADD_LINK.values(places).cte("linked")
    heads = [{name: place[name] for name in ("chain", "position", "hash")} for place in places]
    moved: Executable = _MOVE_HEADS["postgresql"].values(heads).add_cte(added, linked)
    return moved


def _chain(record: Record[Event]) -> Select[Any]:
    """Build "read a chain's links with their events, in order"."""
    return (
        select(*(event_links.c[name] for name in _LINK_NAMES), *record.columns)
        .join_from(event_links, record.table)
        .where(event_links.c.chain == bindparam("of_chain"), event_links.c.position > bindparam("after"))
        .order_by(event_links.c.position)
        .limit(bindparam("limit"))
    )


class EventTable:
    """``domain.store.EventRows``."""

    __slots__ = ("_pending", "_record", "_session")

    def __init__(self, record: Record[Event], session: Session) -> None:
        self._record = record
        self._session = session
        self._pending: list[Event] = []

    def append(self, event: Event) -> None:
        """Add an event to its chains; chains never fork, however many writers."""
        self._session.require_writable()
        # As it will be read back, so that its hash can be computed again: instants in UTC, tuples as lists.
        data, detail = (json.loads(json.dumps(dict(part))) for part in (event.data, event.detail))
        self._pending.append(replace(event, at=in_utc(event.at), data=data, detail=detail))

    def list(self, page: Page, **equal: object) -> tuple[Event, ...]:
        """Read events in order of id; filters as in Rows."""
        self.flush()
        return TableRows(self._record, self._session).list(page, **equal)

    def chain(self, chain: str, after_position: int, limit: int) -> tuple[tuple[Link, Event], ...]:
        """Read a chain in order, for verifying it."""
        self.flush()
        statement = self._record.cached(("chain",), lambda: _chain(self._record))
        params = {"of_chain": chain, "after": after_position, "limit": min(limit, PAGE_MAX)}
        return tuple(self._linked(row) for row in self._session.read(statement, params).all())

    def _linked(self, row: Any) -> tuple[Link, Event]:
        cut = len(_LINK_NAMES)
        link = Link(**dict(zip(_LINK_NAMES, row[:cut], strict=True)))
        return link, self._record.value(row[cut:], self._session.seal)

    def flush(self) -> None:
        """Write what was appended; the commit does it."""
        events, self._pending = self._pending, []
        if not events:
            return
        session = self._session
        heads = self._heads(sorted({chain for event in events for chain in chains_of(event)}))
        links: list[dict[str, Any]] = []
        for event in events:
            for chain in chains_of(event):
                position, previous = heads[chain]
                hash = link_hash(event, chain, position + 1, previous)
                heads[chain] = (position + 1, hash)
                places = (chain, position + 1, event.id, previous, hash)
                links.append(dict(zip(_LINK_NAMES, places, strict=True)))
        if session.has_row_locks and len(events) == 1:
            statement = self._record.cached(("one", len(links)), lambda: _add_one(self._record, len(links)))
            params = {f"new_{name}": value for name, value in self._record.params(events[0], session.seal).items()}
            params |= {f"{name}_{n}": value for n, link in enumerate(links) for name, value in link.items()}
            session.write(statement, params)
            return
        session.write(self._record.insert, [self._record.params(event, session.seal) for event in events])
        session.write(_ADD_LINK, links)
        session.write(_MOVE_HEADS[session.dialect], _as_rows(heads))

    def _heads(self, chains: Iterable[str]) -> dict[str, tuple[int, str]]:
        new = _as_rows(dict.fromkeys(chains, (0, GENESIS)))
        heads = self._session.write(_LOCK_HEADS[self._session.dialect], new).all()
        return {head.chain: (head.position, head.hash) for head in heads}


def _as_rows(heads: Mapping[str, tuple[int, str]]) -> "list[dict[str, Any]]":
    return [{"chain": chain, "position": position, "hash": hash} for chain, (position, hash) in heads.items()]
