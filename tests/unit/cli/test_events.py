"""Events for people, streams that survive, chains that show where they break."""

import json
from datetime import datetime

import httpx
import pytest
from tests.unit.cli.desk import NOW, Desk, id_of, node, problem

from malleable.domain.events import GENESIS, Event, link_hash
from malleable.domain.ids import EventId, NodeId, parse_id

CHAIN = f"node:{id_of(1)}"


def event(number: int, **data: object) -> dict[str, object]:
    return {
        "id": id_of(number),
        "kind": "node.freed",
        "at": NOW.isoformat(),
        "actor_id": None,
        "project_id": None,
        "node_id": id_of(1),
        "operation_id": None,
        "data": data,
    }


def links(count: int) -> list[dict[str, object]]:
    made, previous = list[dict[str, object]](), GENESIS
    for position in range(1, count + 1):
        told = event(position, at=position)
        id, node_id = parse_id(str(told["id"])), parse_id(id_of(1))
        assert id is not None
        assert node_id is not None
        written = Event(
            id=EventId(id),
            kind="node.freed",
            at=datetime.fromisoformat(NOW.isoformat()),
            actor_id=None,
            project_id=None,
            node_id=NodeId(node_id),
            operation_id=None,
            data={"at": position},
        )
        own = link_hash(written, CHAIN, position, previous)
        made.append({"position": position, "previous_hash": previous, "hash": own, "event": told})
        previous = own
    return made


@pytest.fixture
def told(desk: Desk) -> Desk:
    desk.answers |= {
        "GET /v1/nodes": [node(1)],
        "GET /v1/nodes/node-01": node(1),
        "GET /v1/events": [event(90, disk="web-1", sessions=2)],
        "GET /v1/users": problem(403, "forbidden", "Admins only."),
    }
    return desk


def test_events_show_names(told: Desk) -> None:
    ran = told.m2("event", "list")
    assert ran.code == 0, ran.err
    words = ran.out.splitlines()[1].split()
    assert words[2:] == ["node.freed", "node-01", "-", "service", "disk=web-1", "sessions=2"]


def test_facts_are_short(told: Desk) -> None:
    ports = [f"Ethernet1/{n}" for n in range(1, 25)]
    told.answers["GET /v1/events"] = [event(90, ports=ports, image_id=id_of(1), sha256="ab" * 32, reason="", n=None)]
    assert told.m2("event", "list").out.rstrip().endswith("service  ports=Ethernet1/1,Ethernet1/2,Ethernet1/3,… (24)")


def test_a_whole_chain_is_told_with_its_head(told: Desk) -> None:
    told.answers[f"GET /v1/chains/{CHAIN}"] = links(3)
    ran = told.m2("event", "verify", "--node", "node-01")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("node node-01: 3 events, whole; head ")


def test_a_broken_chain_is_told_with_its_place_and_fails(told: Desk) -> None:
    chain = links(3)
    chain[1]["event"] = event(2, at="forged")
    told.answers[f"GET /v1/chains/{CHAIN}"] = chain
    ran = told.m2("event", "verify", "--node", "node-01")
    assert ran.code == 1
    assert "BROKEN at position 2" in ran.out
    shown = json.loads(told.m2("event", "verify", "--node", "node-01", "--json").out)
    assert (shown[0]["broken_at"], shown[0]["length"]) == (2, 1)


def test_following_goes_on_after_a_broken_stream(told: Desk) -> None:
    streams = [[91, 92], [91, 92, 93]]
    resumed: list[str | None] = []

    def serve(request: httpx.Request) -> object:
        if request.headers.get("Accept") != "text/event-stream":
            return {"items": [event(90)], "next": None}
        resumed.append(request.headers.get("Last-Event-ID"))
        if not streams:
            raise KeyboardInterrupt
        text = "".join(f"id: {id_of(n)}\ndata: {json.dumps(event(n))}\n\n" for n in streams.pop(0))
        return httpx.Response(200, text=text)

    told.answers["GET /v1/events"] = serve
    ran = told.m2("event", "tail", "--follow", "--json")
    assert ran.code == 0
    assert [json.loads(line)["id"] for line in ran.out.splitlines()] == [id_of(n) for n in (90, 91, 92, 93)]
    assert resumed == [id_of(90), id_of(92), id_of(93)]
