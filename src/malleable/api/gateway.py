"""The gateway's routes."""

from time import monotonic
from typing import Annotated
from uuid import UUID

from fastapi import Query
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from malleable.api.calls import call_of, edge_of, nothing, ok
from malleable.api.gateway_words import desired_view, report, sign
from malleable.api.routing import guarded
from malleable.domain.seeds import Document
from malleable.wire.gateway import DesiredView, ReportsRequest, SignsRequest
from malleable.wire.shapes import MAX_COUNT

routes = guarded("gateway", prefix="/v1/gateway")

WAIT_MAX_S = 30.0


@routes.get("/desired", response_model=DesiredView)
async def gateway_desired(
    request: Request,
    after: Annotated[int, Query(ge=0, le=MAX_COUNT)] = 0,
    wait_s: Annotated[float, Query(ge=0, le=WAIT_MAX_S, allow_inf_nan=False)] = 0.0,
) -> Response:
    """Read what to serve, changed since generation ``after``; waits for a change when there is none."""
    call, fanout, end_s = call_of(request), edge_of(request).gateway, monotonic() + wait_s
    while True:
        seen = fanout.count()
        changes = await run_in_threadpool(call.services.gateways.gateway_desired, call.caller, after)
        left_s = end_s - monotonic()
        if changes.is_news(after) or left_s <= 0 or not await fanout.wait(seen, left_s):
            return ok(desired_view(changes), call)


@routes.post("/reports", status_code=204)
def gateway_report(request: Request, body: ReportsRequest) -> Response:
    """Note what the gateway has in force."""
    call = call_of(request)
    report(call.services.gateways, call.caller, body)
    return nothing()


@routes.post("/signs", status_code=204)
def gateway_sign(request: Request, body: SignsRequest) -> Response:
    """Note signs of life of booting nodes."""
    call = call_of(request)
    sign(call.services.gateways, call.caller, body)
    return nothing()


@routes.get("/images/{image_id}/files/{name}", response_class=FileResponse)
def gateway_file(request: Request, image_id: UUID, name: str) -> Response:
    """Download a file kept beside an image."""
    call = call_of(request)
    path = call.services.gateways.gateway_file(call.caller, image_id, name)
    return FileResponse(path, media_type="application/octet-stream")


@routes.get("/boots/{boot_id}/documents/{name}", response_class=Response)
def gateway_document(request: Request, boot_id: UUID, name: Document) -> Response:
    """Read what a node's system is to be given, byte for byte; its network-config also when none was given."""
    call = call_of(request)
    content = call.services.gateways.gateway_document(call.caller, boot_id, name)
    return Response(content, media_type="application/octet-stream")
