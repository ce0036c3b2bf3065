"""The hash-chained log."""

import threading
from collections import Counter
from dataclasses import replace
from datetime import timedelta, timezone
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from tests.contract.store import values
from tests.contract.store.values import NOW

from malleable.domain.events import GENESIS, Event, chains_of, link_hash
from malleable.domain.ids import NodeId, ProjectId, new_id
from malleable.domain.store import Page
from malleable.store import SqlStore


def verify(store: SqlStore, chain: str) -> list[UUID]:
    """Walk a chain as ``m2 event verify`` does; return its events' ids."""
    previous, ids = GENESIS, list[UUID]()
    with store.reading() as tx:
        for position, (link, event) in enumerate(tx.events.chain(chain, 0, 1000), start=1):
            assert (link.chain, link.position, link.event_id, link.previous_hash) == (
                chain,
                position,
                event.id,
                previous,
            )
            assert link.hash == link_hash(event, chain, position, previous)
            assert chain in chains_of(event)
            previous = link.hash
            ids.append(event.id)
    return ids


def test_an_event_joins_the_chains_of_its_node_and_project(store: SqlStore) -> None:
    node_id, project_id = NodeId(new_id()), ProjectId(new_id())
    both = values.event(node_id=node_id, project_id=project_id)
    events = [both, values.event(node_id=node_id), values.event(project_id=project_id), values.event()]
    for event in events:
        with store.transaction() as tx:
            tx.events.append(event)
    assert verify(store, f"node:{node_id}") == [both.id, events[1].id]
    assert verify(store, f"project:{project_id}") == [both.id, events[2].id]
    assert verify(store, "site") == [events[3].id]
    assert verify(store, "nobody") == []


def test_one_transaction_may_append_many(store: SqlStore) -> None:
    node_id = NodeId(new_id())
    events = [values.event(node_id=node_id) for _ in range(20)]
    with store.transaction() as tx:
        for event in events:
            tx.events.append(event)
        assert len(tx.events.chain(f"node:{node_id}", 0, 100)) == 20, "it sees what it appended"
        tx.events.append(values.event(node_id=node_id))
    assert len(verify(store, f"node:{node_id}")) == 21


AWKWARD: dict[str, dict[str, object]] = {
    "floats": {"big": 1e22, "small": 1e-7, "one": 1.0, "half": 0.5},
    "tuples": {"vids": (1, 2), "nested": [{"a": (None, True)}]},
    "text": {"ü": "\u2028", "nul": "\0", "half a pair": "\ud800"},
    "order": {"b": 1, "a": 2, "A": 3, "10": 4, "9": 5},
    "nothing": {},
}


@pytest.mark.parametrize("data", AWKWARD.values(), ids=AWKWARD.keys())
def test_whatever_an_event_holds_it_verifies(store: SqlStore, data: dict[str, object]) -> None:
    elsewhere = NOW.astimezone(timezone(timedelta(hours=-7)))
    with store.transaction() as tx:
        tx.events.append(values.event(data=data, at=elsewhere))
        tx.events.append(values.event(at=NOW.replace(microsecond=0)))
    assert len(verify(store, "site")) == 2


def test_events_are_listed_by_what_they_tell_of(store: SqlStore) -> None:
    node_id = NodeId(new_id())
    events = [values.event(kind=kind, node_id=id) for kind, id in (("a.b", node_id), ("c.d", node_id), ("a.b", None))]
    with store.transaction() as tx:
        for event in events:
            tx.events.append(event)
    with store.reading() as tx:
        assert tx.events.list(Page()) == tuple(events)
        assert tx.events.list(Page(limit=1, after=events[0].id)) == (events[1],)
        assert tx.events.list(Page(), node_id=node_id, kind="a.b") == (events[0],)
        assert tx.events.list(Page(), node_id=None) == (events[2],)
        assert tx.events.list(Page(), kind=["a.b", "x.y"]) == (events[0], events[2])


def test_a_chain_is_read_in_pieces(store: SqlStore) -> None:
    with store.transaction() as tx:
        for _ in range(7):
            tx.events.append(values.event())
    with store.reading() as tx:
        assert [link.position for link, _ in tx.events.chain("site", 2, 3)] == [3, 4, 5]


def test_a_changed_event_no_longer_verifies(store: SqlStore) -> None:
    with store.transaction() as tx:
        tx.events.append(values.event())
    with store.database.writing() as turn:
        turn.connection.execute(text("UPDATE events SET kind = 'node.released'"))
        turn.commit()
    with pytest.raises(AssertionError):
        verify(store, "site")


def test_chains_do_not_fork_under_concurrent_writers(store: SqlStore) -> None:
    """Eight writers on the same three nodes and one project, in orders that would deadlock if heads were taken so."""
    project_id, nodes = ProjectId(new_id()), [NodeId(new_id()) for _ in range(3)]
    written: list[Event] = []
    together = threading.Barrier(8)

    def write(writer: int) -> None:
        together.wait(timeout=10)
        for number in range(10):
            mine = [
                values.event(node_id=nodes[(writer + number + turn) % 3], project_id=project_id) for turn in range(2)
            ]
            with store.transaction() as tx:
                for event in mine:
                    tx.events.append(event)
            written.extend(mine)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(written) == 160
    assert Counter(verify(store, f"project:{project_id}")) == Counter(event.id for event in written)
    by_node = [id for node_id in nodes for id in verify(store, f"node:{node_id}")]
    assert Counter(by_node) == Counter(event.id for event in written)


def test_an_event_is_appended_once(store: SqlStore) -> None:
    event = values.event()
    with store.transaction() as tx:
        tx.events.append(event)
    with pytest.raises(IntegrityError), store.transaction() as tx:
        tx.events.append(replace(event, kind="other.kind"))
    assert verify(store, "site") == [event.id]
