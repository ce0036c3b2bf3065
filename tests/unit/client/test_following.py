"""Following an operation, the event stream, and checking a chain."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
import pytest

from malleable.client import Client
from malleable.client.chains import check_chain
from malleable.client.sse import Sent, parse_stream
from malleable.domain.errors import NotFound, RequestError, Unauthenticated, Unavailable
from malleable.domain.events import GENESIS, Event, link_hash
from malleable.domain.ids import EventId, NodeId, new_id
from malleable.domain.operations import OperationState
from malleable.wire.events import EventView, LinkView
from malleable.wire.operations import OperationDetail

NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
OPERATION = UUID("01980000-0000-7000-8000-000000000002")


def operation(state: str, step: str = "power-off") -> httpx.Response:
    body: dict[str, object] = {
        "id": str(OPERATION),
        "kind": "provision",
        "node_id": None,
        "node": None,
        "project_id": None,
        "project": None,
        "actor_id": None,
        "arguments": {},
        "state": state,
        "direction": "do",
        "step": step,
        "attempt": 0,
        "is_cancel_requested": False,
        "reason": "",
        "error": None,
        "result": {},
        "next_due_at": NOW.isoformat(),
        "step_deadline_at": None,
        "created_at": NOW.isoformat(),
        "started_at": None,
        "finished_at": None,
        "steps": [],
    }
    return httpx.Response(200, json=body)


def follow(*answers: httpx.Response | httpx.TransportError, timeout_s: float | None = None) -> list[OperationDetail]:
    """Wait for an operation whose looks are answered in turn; return what the follower saw."""
    turns, seen = iter(answers), list[OperationDetail]()

    def serve(request: httpx.Request) -> httpx.Response:
        answer = next(turns)
        if isinstance(answer, httpx.TransportError):
            raise answer
        return answer

    client = Client("http://test", transport=httpx.MockTransport(serve), pause=lambda _: None)
    ended = client.operation_wait(OPERATION, seen.append, timeout_s)
    assert ended == seen[-1]
    return seen


@pytest.mark.parametrize(("status", "kind"), [(401, Unauthenticated), (404, NotFound)])
def test_who_loses_the_right_to_look_is_told_that_it_goes_on(status: int, kind: type[RequestError]) -> None:
    gone = httpx.Response(
        status, json={"title": "No", "status": status, "detail": "No more.", "code": "gone", "fix": "Log in."}
    )
    with pytest.raises(kind, match="No more") as refused:
        follow(operation("running"), gone)
    assert refused.value.fix.startswith("Log in. ")
    assert f"{OPERATION} goes on" in refused.value.fix
    with pytest.raises(kind) as refused:
        follow(gone)
    assert refused.value.fix == "Log in.", "it was never there for this one to see"


@pytest.mark.parametrize("end", ["succeeded", "failed", "cancelled", "needs-operator"])
def test_a_wait_ends_with_the_operation(end: str) -> None:
    seen = follow(operation("pending"), operation("running"), operation("waiting"), operation(end))
    assert [look.state for look in seen] == ["pending", "running", "waiting", end]


def test_a_wait_outlives_a_restart_of_the_server() -> None:
    away = [httpx.ConnectError("no")] * 7
    seen = follow(operation("running"), *away, httpx.Response(503), operation("succeeded"))
    assert seen[-1].state is OperationState.SUCCEEDED


def test_a_wait_says_when_its_time_is_up() -> None:
    with pytest.raises(Unavailable, match="it goes on") as failed:
        follow(operation("running"), operation("running"), timeout_s=0.0)
    assert failed.value.code == "still-running"


def test_a_stream_is_cut_into_events() -> None:
    lines = [": beat", "", "id: 1", "event: node.freed", "data: {", "data: }", "", "data:x", "", "id: 3", ""]
    assert list(parse_stream(lines)) == [
        Sent(id="1", event="node.freed", data="{\n}"),
        Sent(id="1", event="message", data="x"),
    ]


def test_the_event_stream_goes_on_after_the_last_one_seen() -> None:
    events = chain(2)
    shown = [link.event for link in events if link.event is not None]

    def serve(request: httpx.Request) -> httpx.Response:
        assert request.headers["Last-Event-ID"] == str(shown[0].id)
        assert request.headers["Accept"] == "text/event-stream"
        return httpx.Response(200, text=f"id: {shown[1].id}\ndata: {shown[1].model_dump_json()}\n\n")

    client = Client("http://test", transport=httpx.MockTransport(serve))
    with client.event_stream(after=shown[0].id) as stream:
        assert list(stream) == [shown[1]]


def chain(length: int) -> list[LinkView]:
    return list(_links("node:n", length))


def _links(name: str, length: int) -> Iterator[LinkView]:
    previous = GENESIS
    node_id = NodeId(new_id())
    for position in range(1, length + 1):
        event = Event(
            id=EventId(new_id()),
            kind="node.freed",
            at=NOW + timedelta(seconds=position),
            actor_id=None,
            project_id=None,
            node_id=node_id,
            operation_id=None,
            data={"position": position},
        )
        own = link_hash(event, name, position, previous)
        view = EventView.model_validate(event, from_attributes=True)
        yield LinkView(position=position, previous_hash=previous, hash=own, event=view)
        previous = own


def test_a_whole_chain_is_whole() -> None:
    links = chain(5)
    report = check_chain("node:n", links)
    assert (report.length, report.head, report.problem) == (5, links[-1].hash, "")


def test_an_empty_chain_is_whole() -> None:
    assert check_chain("node:n", []).head == GENESIS


def test_a_chain_that_crossed_the_wire_is_whole() -> None:
    links = [LinkView.model_validate_json(link.model_dump_json()) for link in chain(3)]
    assert check_chain("node:n", links).problem == ""


def test_a_changed_event_breaks_the_chain_at_its_place() -> None:
    links = chain(5)
    changed = links[2].event
    assert changed is not None
    links[2] = links[2].model_copy(update={"event": changed.model_copy(update={"data": {"position": 99}})})
    report = check_chain("node:n", links)
    assert (report.broken_at, report.length) == (3, 2)
    assert "not what was written" in report.problem


def test_a_removed_event_breaks_the_chain_at_its_place() -> None:
    links = chain(5)
    del links[2]
    assert check_chain("node:n", links).problem == "position 3 is missing"


def test_a_rewritten_event_breaks_the_chain_at_the_next() -> None:
    links, other = chain(5), chain(5)
    links[2] = other[2].model_copy(update={"previous_hash": links[1].hash})
    assert check_chain("node:n", links).broken_at == 3
    forged = chain(2) + links[2:]
    assert check_chain("node:n", forged).broken_at == 3


def test_a_hidden_event_keeps_its_place() -> None:
    links = chain(3)
    links[1] = links[1].model_copy(update={"event": None})
    report = check_chain("node:n", links)
    assert (report.length, report.hidden, report.problem) == (3, 1, "")


def test_a_hidden_event_cannot_be_left_out() -> None:
    links = chain(3)
    links[1] = links[1].model_copy(update={"event": None, "hash": "0" * 64})
    assert check_chain("node:n", links).broken_at == 3


def test_a_chain_is_not_another_chain() -> None:
    assert check_chain("node:other", chain(1)).broken_at == 1
