"""Events: live streams and chains."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from time import monotonic
from typing import Any
from uuid import UUID

import httpx
import pytest
from tests.contract.api.serving import served
from tests.contract.api.site import Site, items

from malleable.api.calls import STREAMS_MAX, STREAMS_PER_USER_MAX
from malleable.domain.events import GENESIS, Event, link_hash
from malleable.domain.ids import EventId, ProjectId, UserId, new_id
from malleable.domain.store import Page
from malleable.services.caller import Caller
from malleable.services.events import EventFilter
from malleable.store import SqlStore
from malleable.wire.events import LinkView
from malleable.wire.shapes import Listing
from malleable.workflows.requests import record

STREAM = {"Accept": "text/event-stream"}


def _happen(site: Site, kind: str, project: str = "alpha") -> None:
    with site.store.transaction() as tx:
        record(tx, site.clock.now(), kind, project_id=ProjectId(site.ids[project]))


def _events(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """Read a stream's events; the empty one is the stream's beginning."""
    for line in response.iter_lines():
        if line.startswith("retry:"):
            yield {}
        if line.startswith("data:"):
            yield json.loads(line.removeprefix("data:"))


def _stream(site: Site, url: str, caller: str, **headers: str) -> httpx.Client:
    token = site.tokens[caller]
    return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}", **STREAM, **headers}, timeout=20)


def test_a_stream_tells_what_happens_and_only_ones_own(site: Site) -> None:
    with served(site) as url, _stream(site, url, "member") as client, client.stream("GET", "/v1/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        events = _events(response)
        assert next(events) == {}
        _happen(site, "test.foreign", "beta")
        _happen(site, "test.one")
        assert next(events)["kind"] == "test.one"
        _happen(site, "test.two")
        assert next(events)["kind"] == "test.two"


def test_a_stream_that_begins_now_looks_when_something_has_happened(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []
    assert isinstance(site.store, SqlStore)
    with served(site) as url, _stream(site, url, "member") as client, client.stream("GET", "/v1/events") as response:
        events = _events(response)
        next(events)
        monkeypatch.setattr(site.store.database.statements, "heard", heard.append)
        _happen(site, "test.one")
        assert next(events)["kind"] == "test.one"
    assert len([sql for sql in heard if "FROM events" in sql]) == 1


def test_a_stream_goes_on_where_it_broke_off(site: Site) -> None:
    for number in range(4):
        _happen(site, f"test.{number}")
    second = items(site.get("member", "/v1/events?limit=2"))[1]["id"]
    with (
        served(site) as url,
        _stream(site, url, "member", **{"Last-Event-ID": second}) as client,
        client.stream("GET", "/v1/events?kind=test.3") as response,
    ):
        events = list(islice(_events(response), 2))
    assert [event["kind"] for event in events[1:]] == ["test.3"]


def test_a_stream_sends_nothing_twice(small_site: Site) -> None:
    site = small_site
    begin = str(new_id())
    with (
        served(site) as url,
        _stream(site, url, "admin", **{"Last-Event-ID": begin}) as client,
        client.stream("GET", "/v1/events") as response,
    ):
        events = _events(response)
        next(events)
        kinds = []
        for number in range(5):
            _happen(site, f"test.{number}")
            kinds.append(next(events)["kind"])
    assert kinds == [f"test.{number}" for number in range(5)]


def test_a_stream_that_goes_on_tells_what_committed_late(small_site: Site) -> None:
    """Its id was drawn before that of the last event seen, its transaction took longer."""
    site = small_site
    _happen(site, "test.seen")
    seen = UUID(items(site.get("member", "/v1/events"))[0]["id"])
    late = replace(site.services.events.event_list(_caller(site), Page(), EventFilter()).items[0], kind="test.late")
    with site.store.transaction() as tx:
        tx.events.append(replace(late, id=EventId(UUID(int=seen.int - (500 << 80)))))
        tx.events.append(replace(late, id=EventId(UUID(int=seen.int - (5000 << 80))), kind="test.long-ago"))
    with (
        served(site) as url,
        _stream(site, url, "member", **{"Last-Event-ID": str(seen)}) as client,
        client.stream("GET", "/v1/events") as response,
    ):
        events = _events(response)
        assert next(events) == {}
        _happen(site, "test.new")
        assert [next(events)["kind"] for _ in range(3)] == ["test.late", "test.seen", "test.new"]


def _caller(site: Site) -> Caller:
    return site.services.authentication.caller_of(site.tokens["member"])


def test_a_stream_ends_with_its_token(site: Site) -> None:
    with served(site) as url, _stream(site, url, "member") as client, client.stream("GET", "/v1/events") as response:
        lines = response.iter_lines()
        next(lines)
        assert site.call("admin", "DELETE", f"/v1/tokens/{site.ids['token:member']}").status_code == 204
        assert "event: end" in list(lines)


def test_many_may_follow_at_once_but_not_any_number(small_site: Site) -> None:
    edge = small_site.app.state.edge
    with ExitStack() as streams:
        for _ in range(STREAMS_PER_USER_MAX):
            streams.enter_context(edge.streaming(UserId(small_site.ids["user:member"])))
        response = small_site.get("member", "/v1/events", headers=STREAM)
        assert (response.status_code, response.json()["code"]) == (429, "too-many-streams")
        edge.check_streams(UserId(small_site.ids["user:other"]))
        for _ in range(STREAMS_MAX - STREAMS_PER_USER_MAX):
            streams.enter_context(edge.streaming(UserId(new_id())))
        assert small_site.get("other", "/v1/events", headers=STREAM).status_code == 429
    edge.check_streams(UserId(small_site.ids["user:member"]))


def test_a_stream_counts_as_long_as_it_runs(small_site: Site) -> None:
    edge = small_site.app.state.edge
    with served(small_site) as url, _stream(small_site, url, "member") as client:
        with client.stream("GET", "/v1/events") as response:
            lines = response.iter_lines()  # closing it would hang up
            assert next(lines).startswith("retry")
            assert edge.streams == 1
        _happen(small_site, "test.one")
        deadline = monotonic() + 10
        while edge.streams and monotonic() < deadline:
            small_site.get("member", "/v1/whoami")
    assert edge.streams == 0


def _verified(site: Site, caller: str, chain: str) -> list[LinkView]:
    response = site.get(caller, f"/v1/chains/{chain}?limit=1000")
    assert response.status_code == 200, response.text
    links = Listing[LinkView].model_validate_json(response.content).items
    previous = GENESIS
    for number, link in enumerate(links, 1):
        assert (link.position, link.previous_hash) == (number, previous)
        if link.event is not None:
            event = Event(**link.event.model_dump())
            assert link_hash(event, chain, link.position, previous) == link.hash
        previous = link.hash
    return list(links)


def test_a_chain_can_be_verified_from_what_the_api_tells(site: Site) -> None:
    for number in range(3):
        _happen(site, f"test.{number}")
    links = _verified(site, "reader", f"project:{site.ids['alpha']}")
    assert [link.event.kind for link in links if link.event] == ["test.0", "test.1", "test.2"]


def test_a_chain_is_read_in_pages(site: Site) -> None:
    for number in range(3):
        _happen(site, f"test.{number}")
    chain = f"/v1/chains/project:{site.ids['alpha']}"
    first = site.get("reader", f"{chain}?limit=2").json()
    assert first["next"] == "2"
    rest = site.get("reader", f"{chain}?limit=2&after={first['next']}").json()
    assert [link["position"] for link in rest["items"]] == [3]
    assert rest["next"] is None


def test_a_nodes_holder_does_not_see_what_earlier_holders_did(site: Site) -> None:
    with site.store.transaction() as tx:
        node = tx.nodes.get(site.ids["held"])
        for project in ("beta", "alpha"):
            record(tx, site.clock.now(), "test.held", node=node, project_id=ProjectId(site.ids[project]))
    links = _verified(site, "member", f"node:{site.ids['held']}")
    assert [link.event is None for link in links] == [True, False]
    assert all(link.event for link in _verified(site, "operator", f"node:{site.ids['held']}"))
