"""What every route gets: who calls and the services; and how it answers."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, TypeVar
from uuid import UUID

from anyio import CapacityLimiter, to_thread
from fastapi import Query
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from malleable.api.audience import Audience, audience_of, written
from malleable.api.fanout import Fanout
from malleable.api.gathering import Gathering
from malleable.api.plain import written_plainly
from malleable.domain.errors import TooMany, Unauthenticated
from malleable.domain.ids import UserId
from malleable.domain.operations import Operation
from malleable.domain.store import PAGE_MAX, Page
from malleable.services.all import Services
from malleable.services.caller import Caller
from malleable.services.idempotency import Asked

T = TypeVar("T")

#: Requests that wait for a device must not take the threads of those that do not.
DEVICE_CALLS_AT_ONCE = 16
#: Each hash takes 64 MiB; the others wait in line.
HASHES_AT_ONCE = 2
STREAMS_MAX = 500
#: Of one user: nobody shall keep everybody else from following.
STREAMS_PER_USER_MAX = 50


class Edge:
    """What one server process has besides the services; made once per app."""

    def __init__(self, services: Services, events: Fanout, gateway: Fanout) -> None:
        self.services, self.events, self.gateway = services, events, gateway
        self.begins, self.ends = Gathering(services.idempotency.begin), Gathering(services.idempotency.end)
        self._streams: Counter[UserId] = Counter()
        self._limiters: dict[str, CapacityLimiter] = {}

    @property
    def streams(self) -> int:
        """Say how many streams there are."""
        return self._streams.total()

    def check_streams(self, user_id: UserId) -> None:
        """Be sure that there is room for another stream of this user. Errors: TooMany."""
        if self.streams >= STREAMS_MAX:
            raise TooMany("Too many follow the events of this server.", code="too-many-streams", fix="Try again later.")
        if self._streams[user_id] >= STREAMS_PER_USER_MAX:
            raise TooMany(
                f"You follow the events {STREAMS_PER_USER_MAX} times already.",
                code="too-many-streams",
                fix="End one of these streams first.",
            )

    @contextmanager
    def streaming(self, user_id: UserId) -> Iterator[None]:
        """Count one stream of this user."""
        self._streams[user_id] += 1
        try:
            yield
        finally:
            # Subtracting drops whoever has none left.
            self._streams -= Counter([user_id])

    async def on_device(self, function: Callable[[], T]) -> T:
        """Run something that waits for a device."""
        return await to_thread.run_sync(function, limiter=self._limiter("device", DEVICE_CALLS_AT_ONCE))

    async def hashing(self, function: Callable[[], T]) -> T:
        """Run something that hashes a password."""
        return await to_thread.run_sync(function, limiter=self._limiter("hash", HASHES_AT_ONCE))

    def _limiter(self, name: str, tokens: int) -> CapacityLimiter:
        """Make limiters late: they belong to the running event loop."""
        if name not in self._limiters:
            self._limiters[name] = CapacityLimiter(tokens)
        return self._limiters[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """An authenticated request."""

    caller: Caller
    services: Services
    asked: Asked | None = None  #: what the service does once; else the route has seen to that

    @property
    def audience(self) -> Audience:
        return audience_of(self.caller)


def call_of(request: Request) -> Call:
    """Return who calls; routes without authentication have no call."""
    call: Call = request.scope["malleable.call"]
    return call


def edge_of(request: Request) -> Edge:
    """Return the process's edge."""
    edge: Edge = request.app.state.edge
    return edge


def bearer(request: Request) -> str:
    """Read the token. Errors: Unauthenticated."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated(fix="Log in with `m2 login`, or send `Authorization: Bearer <token>`.")
    return token.strip()


#: Query parameters of every list.
After = Annotated[UUID | None, Query(description="the `next` of the page before")]
Limit = Annotated[int, Query(ge=1, le=PAGE_MAX)]
#: An id or a name, as a filter.
RefQuery = Annotated[str | None, Query(max_length=200, description="id or name")]


def page_of(after: UUID | None, limit: int) -> Page:
    """Make a page of a list's query parameters."""
    return Page(after=after, limit=limit)


def ok(view: BaseModel, call: Call | None, *, status: int = 200) -> Response:
    """Answer with what the caller may read of a view; None is somebody without a token."""
    body = written(view, call.audience if call is not None else Audience.TENANT)
    return Response(body, status_code=status, media_type="application/json")


def ok_plainly(kind: type[BaseModel], fields: Mapping[str, object], call: Call) -> Response:
    """Answer with what the caller may read of the view that ``fields`` would make; see ``written_plainly``."""
    return Response(written_plainly(kind, fields, call.audience), media_type="application/json")


def created(view: BaseModel, call: Call | None) -> Response:
    """Answer that something new is there."""
    return ok(view, call, status=201)


def nothing() -> Response:
    """Answer that it is done."""
    return Response(status_code=204)


def accepted(view: BaseModel, call: Call, operation: Operation) -> Response:
    """Answer that an operation has begun."""
    response = ok(view, call, status=202)
    response.headers["Location"] = f"/v1/operations/{operation.id}"
    return response
