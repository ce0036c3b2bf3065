"""The outermost ASGI layers: request ids, logs, security headers, measurements, faults, and the size of bodies."""

import re
from time import perf_counter

import structlog
from prometheus_client import CollectorRegistry, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from malleable.api import problem
from malleable.domain.ids import new_id
from malleable.wire.shapes import Problem

log = structlog.get_logger()

BODY_MAX_BYTES = 1024 * 1024
#: What may carry 1 MiB of user-data, in Base64.
_WITH_USER_DATA = re.compile(r"/v1/(provisions|disks/[^/]+/move)")
WITH_USER_DATA_MAX_BYTES = 2 * BODY_MAX_BYTES
#: A body that is refused is still read up to here, so that the client gets to read why.
DRAINED_MAX_BYTES = 64 * 1024 * 1024
#: Uploads have limits of their own, taken from the image.
_UPLOAD = re.compile(r"/v1/images/[^/]+/(content|files/[^/]+)")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Observed:
    """Gives every request an id, logs what matters, measures all, and turns a fault of ours into an answer."""

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self._app = app
        self._seconds = Histogram(
            "malleable_http_request_seconds",
            "Time to answer, by route.",
            ["method", "route", "status"],
            buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0),
            registry=registry,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = str(new_id())
        scope["malleable.request_id"] = request_id
        status, began_s = 0, perf_counter()

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_headers(MutableHeaders(scope=message), request_id)
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, sending)
            except Exception:
                log.exception("request failed", method=scope["method"], path=scope["path"])
                if status == 0:
                    await problem.reply(problem.internal(request_id), request_id)(scope, receive, sending)
            self._note(scope, status, perf_counter() - began_s)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        """Measure; log changes and refusals (reads that went well are too many to be worth a line)."""
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if route != "none" else "other"
        self._seconds.labels(method, route, status).observe(seconds)
        if method != "GET" or status >= 400:
            call = scope.get("malleable.call")
            user = call.caller.name if call is not None else None
            log.info("request", method=method, route=route, status=status, ms=round(seconds * 1000, 1), user=user)


class BodyLimit:
    """Refuses bodies of more than 1 or 2 MiB, also those that do not say their length; uploads excepted."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a counting ``receive``."""
        if scope["type"] != "http" or (scope["method"] == "PUT" and _UPLOAD.fullmatch(scope["path"])):
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "0")
        most_bytes = WITH_USER_DATA_MAX_BYTES if _WITH_USER_DATA.fullmatch(scope["path"]) else BODY_MAX_BYTES
        if length.isdecimal() and int(length) > most_bytes:
            await _drain(receive, int(length))
            await problem.reply(_too_large(most_bytes), scope["malleable.request_id"])(scope, receive, send)
            return
        received = 0

        async def receiving() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > most_bytes:
                if message.get("more_body", False):
                    await _drain(receive, DRAINED_MAX_BYTES)
                # An HTTPException passes through the framework's body reading as it is.
                raise HTTPException(413, _too_large(most_bytes).detail)
            return message

        await self._app(scope, receiving, send)


def _too_large(most_bytes: int) -> Problem:
    told = f"The body is larger than {most_bytes >> 20} MiB."
    return problem.make(413, told, code="too-large", fix="Send less at once.")


async def _drain(receive: Receive, most_bytes: int) -> None:
    """Read and drop a body, within bounds."""
    left = min(most_bytes, DRAINED_MAX_BYTES)
    while left > 0:
        message = await receive()
        left -= len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body", False):
            return


def _add_headers(headers: MutableHeaders, request_id: str) -> None:
    for name, value in _HEADERS.items():
        headers[name] = value
    headers["X-Request-Id"] = request_id
