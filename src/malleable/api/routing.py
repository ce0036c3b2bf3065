"""How a request reaches its route: authenticated, understood, repeated when the database was busy, once per key."""

import asyncio
import json
import random
import re
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from hashlib import sha256
from typing import Any, TypeVar

from fastapi.routing import APIRoute, APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from malleable.api import problem
from malleable.api.bodies import JsonRequest
from malleable.api.calls import Call, bearer, call_of, edge_of
from malleable.api.queries import query_check
from malleable.domain.errors import Conflict, Invalid, StoreBusy
from malleable.domain.store import StoredReply
from malleable.services.caller import Caller
from malleable.services.idempotency import Answered, Asked
from malleable.wire.shapes import Problem

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Response])
Handler = Callable[[Request], Coroutine[Any, Any, Response]]
_KEY = re.compile(r"[\x21-\x7e]{1,200}")
#: StoreBusy means "nothing was done": PostgreSQL chose us to give way. Tries, and the first pause between them.
TRIES = 6
FIRST_PAUSE_S = 0.01

_PROBLEM = {"model": Problem, "content": {problem.MEDIA_TYPE: {}}}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    "4XX": {**_PROBLEM, "description": "The request cannot be granted"},
    "5XX": {**_PROBLEM, "description": "The service or a device cannot do it now"},
}


_RESERVES = "_malleable_reserves_its_key"


def reserves_its_key(endpoint: F) -> F:
    """Mark a route whose service is told the key (``Call.asked``), and keeps it in the transaction of its work."""
    setattr(endpoint, _RESERVES, True)
    return endpoint


class OpenRoute(APIRoute):
    """A route for everybody; only told what is special about every route here."""

    def get_route_handler(self) -> Handler:
        """Wrap the route's handler."""
        handler, check = super().get_route_handler(), _check_of(self)

        async def handle(request: Request) -> Response:
            request = JsonRequest(request.scope, request.receive)
            check(request)
            return await _patiently(lambda: handler(request))

        return handle


class GuardedRoute(APIRoute):
    """A route that needs a token. Who may do what is decided by the services."""

    def get_route_handler(self) -> Handler:
        """Wrap the route's handler."""
        handler, check = super().get_route_handler(), _check_of(self)
        is_post = "POST" in (self.methods or ())
        once = _once_by_service if getattr(self.endpoint, _RESERVES, False) else _once

        async def handle(request: Request) -> Response:
            request = JsonRequest(request.scope, request.receive)
            await _authenticate(request)
            check(request)
            key = request.headers.get("idempotency-key") if is_post else None
            if key is None:
                return await _patiently(lambda: handler(request))
            return await once(request, key, handler)

        return handle


def unguarded(noun: str) -> APIRouter:
    """Make the router of a noun's routes for everybody."""
    return APIRouter(prefix="/v1", route_class=OpenRoute, tags=[noun], responses=_ANSWERS)


def guarded(noun: str, *, prefix: str = "/v1") -> APIRouter:
    """Make the router of a noun's routes that need a token."""
    return APIRouter(prefix=prefix, route_class=GuardedRoute, tags=[noun], responses=_ANSWERS)


def _check_of(route: APIRoute) -> Callable[[Request], None]:
    """Make the check of a route's query parameters: those of its function, which has no dependencies with others."""
    return query_check({field.alias for field in route.dependant.query_params}, has_body=route.body_field is not None)


async def _authenticate(request: Request) -> None:
    """Find the caller: without the database if it was seen just now. Errors: Unauthenticated."""
    services = edge_of(request).services
    token = bearer(request)
    caller = services.authentication.remembered(token)
    if caller is None:
        caller = await run_in_threadpool(services.authentication.caller_of, token)
    request.scope["malleable.call"] = Call(caller=caller, services=services)


async def _patiently(attempt: Callable[[], Awaitable[T]]) -> T:
    """Try again after StoreBusy, which says that nothing was done. A busy device has its own pace."""
    pause_s = FIRST_PAUSE_S
    for _ in range(TRIES - 1):
        try:
            return await attempt()
        except StoreBusy:
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))
            pause_s *= 2
    return await attempt()


async def _once(request: Request, key: str, handler: Handler) -> Response:
    """Do a request once per key. Errors: Invalid for a bad key, Conflict for a reused or busy one."""
    edge, asked = edge_of(request), await _asked(request, key)
    kept = await _patiently(lambda: edge.begins.ask(asked))
    if isinstance(kept, Conflict):
        raise kept
    if kept is not None:
        return _repeat(kept)
    try:
        response = await _patiently(lambda: handler(request))
    except BaseException:
        await _patiently(lambda: edge.ends.ask(Answered(user_id=asked.user_id, key=key, status=None)))
        raise
    body = bytes(response.body).decode()
    answered = Answered(user_id=asked.user_id, key=key, status=response.status_code, body=body)
    await _patiently(lambda: edge.ends.ask(answered))
    return response


async def _once_by_service(request: Request, key: str, handler: Handler) -> Response:
    """Let a service do a request once per key. Errors: Invalid for a bad key, Conflict for a reused one."""
    request.scope["malleable.call"] = replace(call_of(request), asked=await _asked(request, key))
    return await _patiently(lambda: handler(request))


async def _asked(request: Request, key: str) -> Asked:
    if not _KEY.fullmatch(key):
        raise Invalid("The Idempotency-Key is not usable.", fix="Use 1 to 200 printable characters, e.g. a UUID.")
    caller = call_of(request).caller
    return Asked(user_id=caller.user_id, key=key, request_sha256=_digest(request, caller, await request.body()))


def _digest(request: Request, caller: Caller, body: bytes) -> str:
    """Tell one request from another; a narrower token of the same user does not get a wider one's answer again."""
    node = f"{caller.token_node_id} {sorted(caller.verbs)}" if caller.token_node_id else ""
    scope = f"{caller.token_project_id} {'reads' if caller.is_read_only else 'changes'} {node}"
    head = f"{scope} {request.method} {request.url.path}?{request.url.query}\n"
    return sha256(head.encode() + body).hexdigest()


def _repeat(kept: StoredReply) -> Response:
    """Give the first answer again."""
    status = kept.status or 200
    response = Response(kept.body, status_code=status, media_type="application/json" if kept.body else None)
    if status == 202:
        response.headers["Location"] = f"/v1/operations/{json.loads(kept.body)['id']}"
    return replayed(response)


def replayed(response: Response) -> Response:
    """Mark an answer as one to a request that was done before."""
    response.headers["Idempotency-Replayed"] = "true"
    return response
