"""Events: pages, a live stream, and chains."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from time import monotonic
from typing import Annotated
from uuid import UUID

from fastapi import Query
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from malleable.api.audience import Audience, audience_of, written
from malleable.api.calls import After, Edge, Limit, RefQuery, bearer, call_of, edge_of, ok, page_of
from malleable.api.routing import guarded
from malleable.domain.errors import MalleableError
from malleable.domain.events import Event
from malleable.domain.ids import UserId, parse_id
from malleable.domain.store import PAGE_MAX, Page
from malleable.services.events import EventFilter, look_back
from malleable.wire.events import EventView, LinkView
from malleable.wire.shapes import MAX_COUNT, Listing

routes = guarded("events")

#: Shorter than the idle timeouts of proxies, and how soon an expired token ends its stream.
HEARTBEAT_S = 15.0
#: Between a look that found something and the next: every look reads the last seconds again, and a hundred nodes at
#: once tell hundreds of events.
GATHER_S = 0.05
#: After one that found nothing, in lengths of that look; at most ``GATHER_S``.
REST_PER_LOOK = 10.0
EVENT_STREAM = "text/event-stream"


def event_view(event: Event) -> EventView:
    """Show an event."""
    return EventView(
        id=event.id,
        kind=event.kind,
        at=event.at,
        actor_id=event.actor_id,
        project_id=event.project_id,
        node_id=event.node_id,
        operation_id=event.operation_id,
        data=dict(event.data),
        detail=dict(event.detail),
        detail_hash=event.detail_hash,
    )


@routes.get("/events", response_model=Listing[EventView], responses={200: {"content": {EVENT_STREAM: {}}}})
async def event_list(
    request: Request,
    after: After = None,
    limit: Limit = 100,
    node: RefQuery = None,
    project: RefQuery = None,
    kind: RefQuery = None,
) -> Response:
    """List events; with ``Accept: text/event-stream`` follow them live, from now on or after ``Last-Event-ID``.

    A stream that goes on after an event tells the two seconds before it again: events commit in another order than
    they get their ids, so one of them may be new. Whoever follows drops the ids it has.
    """
    call = call_of(request)
    events = call.services.events
    only = await run_in_threadpool(events.event_filter, call.caller, node=node, project=project, kind=kind)
    if EVENT_STREAM in request.headers.get("accept", ""):
        last = parse_id(request.headers.get("last-event-id", "")) or after
        edge = edge_of(request)
        edge.check_streams(call.caller.user_id)
        seen = edge.events.count()  # before "now" is read: whatever comes after that changes it
        begin = look_back(last) if last is not None else events.event_start()
        followed = _follow(edge, bearer(request), only, begin, seen if last is None else None)
        stream = _counted(edge, call.caller.user_id, followed)
        return StreamingResponse(stream, media_type=EVENT_STREAM)
    page = await run_in_threadpool(events.event_list, call.caller, page_of(after, limit), only)
    items = tuple(event_view(event) for event in page.items)
    return ok(Listing[EventView](items=items, next=str(page.next) if page.next else None), call)


async def _counted(edge: Edge, user_id: UserId, stream: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Count a stream for as long as it runs."""
    with edge.streaming(user_id):
        async with aclosing(stream):
            async for piece in stream:
                yield piece


async def _follow(
    edge: Edge, token: str, only: EventFilter, begin: UUID, nothing_at: int | None
) -> AsyncGenerator[bytes, None]:
    """Send events as they happen, until the client goes, its token ends, or the server stops.

    ``nothing_at``: as long as this is the count of notifications there is nothing to read; None: there may be now.
    """
    yield b"retry: 2000\n\n"
    follower = _Follower(begin)
    if nothing_at is not None and not await edge.events.wait(nothing_at, HEARTBEAT_S):
        yield b": still here\n\n"
    while not edge.events.is_closed:
        seen, began_s = edge.events.count(), monotonic()
        try:
            events, audience = await run_in_threadpool(_read, edge, token, only, follower.ask_after())
        except MalleableError as e:
            yield f"event: end\ndata: {e.code}\n\n".encode()
            return
        fresh = follower.fresh(events)
        for event in fresh:
            yield b"id: %s\ndata: %s\n\n" % (str(event.id).encode(), written(event_view(event), audience))
        if len(events) < PAGE_MAX:
            await asyncio.sleep(GATHER_S if fresh else min(REST_PER_LOOK * (monotonic() - began_s), GATHER_S))
            if not await edge.events.wait(seen, HEARTBEAT_S):
                yield b": still here\n\n"


def _read(edge: Edge, token: str, only: EventFilter, after: UUID) -> tuple[tuple[Event, ...], Audience]:
    """Read what is new with the rights the token has now."""
    caller = edge.services.authentication.caller_of(token)
    page = edge.services.events.event_list(caller, Page(after=after, limit=PAGE_MAX), only)
    return page.items, audience_of(caller)


class _Follower:
    """Remembers what a stream has sent, because it looks back a little for events that commit late."""

    def __init__(self, begin: UUID) -> None:
        self._begin = self._last = begin
        self._is_behind = True  #: the last page was full, or there was none yet: no looking back
        self._sent: deque[UUID] = deque(maxlen=4 * PAGE_MAX)

    def ask_after(self) -> UUID:
        return self._last if self._is_behind else max(look_back(self._last), self._begin)

    def fresh(self, events: tuple[Event, ...]) -> list[Event]:
        """Keep what was not sent yet, and move on."""
        sent = set(self._sent)
        fresh = [event for event in events if event.id not in sent]
        self._sent.extend(event.id for event in fresh)
        self._is_behind = len(events) >= PAGE_MAX
        if events:
            self._last = max(self._last, events[-1].id)
        return fresh


@routes.get("/chains/{chain}", response_model=Listing[LinkView])
def chain_get(
    request: Request,
    chain: str,
    after: Annotated[int, Query(ge=0, le=MAX_COUNT)] = 0,
    limit: Limit = 100,
) -> Response:
    """Read a chain of events in order, to verify it: "project:<id>", "node:<id>" or "site"."""
    call = call_of(request)
    links = call.services.events.chain_get(call.caller, chain, after_position=after, limit=limit)
    items = tuple(
        LinkView(
            position=link.position,
            previous_hash=link.previous_hash,
            hash=link.hash,
            event=event_view(event) if event is not None else None,
        )
        for link, event in links
    )
    following = str(items[-1].position) if len(items) >= limit else None
    return ok(Listing[LinkView](items=items, next=following), call)
