"""Events: pages, a live stream, and chains."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from time import monotonic
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from malleable.api.calls import After, Edge, Limit, RefQuery, bearer, call_of, edge_of, ok, page_of
from malleable.api.routing import GuardedRoute
from malleable.domain.errors import MalleableError
from malleable.domain.events import Event
from malleable.domain.ids import UserId, parse_id
from malleable.domain.store import PAGE_MAX, Page
from malleable.services.events import EventFilter, look_back
from malleable.wire.events import EventView, LinkView
from malleable.wire.shapes import MAX_COUNT, Listing

routes = APIRouter(prefix="/v1", route_class=GuardedRoute, tags=["events"])

#: Shorter than the idle timeouts of proxies, and how soon an expired token ends its stream.
HEARTBEAT_S = 15.0
#: A look reads the last seconds again, and a hundred nodes at once tell hundreds of events: the longer it took, the
#: longer it rests.
REST_PER_LOOK = 4.0
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
    """List events; with ``Accept: text/event-stream`` follow them live, from now on or after ``Last-Event-ID``."""
    call = call_of(request)
    events = call.services.events
    only = await run_in_threadpool(events.event_filter, call.caller, node=node, project=project, kind=kind)
    if EVENT_STREAM in request.headers.get("accept", ""):
        begin = parse_id(request.headers.get("last-event-id", "")) or after or events.event_start()
        edge = edge_of(request)
        edge.check_streams(call.caller.user_id)
        stream = _counted(edge, call.caller.user_id, _follow(edge, bearer(request), only, begin))
        return StreamingResponse(stream, media_type=EVENT_STREAM)
    page = await run_in_threadpool(events.event_list, call.caller, page_of(after, limit), only)
    items = tuple(event_view(event) for event in page.items)
    return ok(Listing[EventView](items=items, next=str(page.next) if page.next else None))


async def _counted(edge: Edge, user_id: UserId, stream: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Count a stream for as long as it runs."""
    with edge.streaming(user_id):
        async with aclosing(stream):
            async for piece in stream:
                yield piece


async def _follow(edge: Edge, token: str, only: EventFilter, begin: UUID) -> AsyncGenerator[bytes, None]:
    """Send events as they happen, until the client goes, its token ends, or the server stops."""
    yield b"retry: 2000\n\n"
    follower = _Follower(begin)
    while not edge.events.is_closed:
        seen, began_s = edge.events.count(), monotonic()
        try:
            events = await run_in_threadpool(_read, edge, token, only, follower.ask_after())
        except MalleableError as e:
            yield f"event: end\ndata: {e.code}\n\n".encode()
            return
        for event in follower.fresh(events):
            yield b"id: %s\ndata: %s\n\n" % (str(event.id).encode(), event_view(event).model_dump_json().encode())
        if len(events) < PAGE_MAX:
            await asyncio.sleep(REST_PER_LOOK * (monotonic() - began_s))
            if not await edge.events.wait(seen, HEARTBEAT_S):
                yield b": still here\n\n"


def _read(edge: Edge, token: str, only: EventFilter, after: UUID) -> tuple[Event, ...]:
    """Read what is new with the rights the token has now."""
    caller = edge.services.authentication.caller_of(token)
    return edge.services.events.event_list(caller, Page(after=after, limit=PAGE_MAX), only).items


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
    return ok(Listing[LinkView](items=items, next=following))
