"""The pool and what should not be in it."""

from typing import Annotated

from fastapi import Query
from prometheus_client import Gauge
from starlette.requests import Request
from starlette.responses import Response

from malleable.api.calls import Limit, call_of, edge_of, ok
from malleable.api.operations import begun
from malleable.api.routing import guarded
from malleable.domain.pool import Audit, Difference, DifferenceKind, Remedy
from malleable.services.parts import Shown
from malleable.services.pool import PoolUse
from malleable.wire.operations import OperationView
from malleable.wire.pool import (
    GRACE_MAX_S,
    GRACE_MIN_S,
    GRACE_S,
    AuditView,
    CollectRequest,
    DifferenceView,
    PoolView,
    StockView,
    UnseenView,
)

routes = guarded("pool", prefix="/v1/pool")

OlderThan = Annotated[int, Query(ge=GRACE_MIN_S, le=GRACE_MAX_S, description="younger orphans are left alone")]


def pool_view(use: PoolUse) -> PoolView:
    """Show how full the pool is."""
    capacity = use.capacity
    return PoolView(
        total_bytes=capacity.total_bytes,
        free_bytes=capacity.free_bytes,
        reserve_bytes=capacity.reserve_bytes,
        is_full=capacity.free_bytes < capacity.reserve_bytes,
        images=_stock(use.images),
        disks=_stock(use.disks),
        snapshots=_stock(use.snapshots),
    )


def _stock(counts: tuple[int, int]) -> StockView:
    in_pool, in_database = counts
    return StockView(in_pool=in_pool, in_database=in_database)


def audit_view(shown: Shown[Audit], limit: int) -> AuditView:
    """Show an audit, with the first ``limit`` differences."""
    audit = shown.value
    return AuditView(
        at=audit.at,
        lost=_count(audit, DifferenceKind.LOST),
        orphans=_count(audit, DifferenceKind.ORPHAN),
        removable=sum(difference.remedy is Remedy.REMOVE for difference in audit.differences),
        differences=tuple(_difference(difference, shown) for difference in audit.differences[:limit]),
        unseen=tuple(UnseenView(place=place, reason=reason) for place, reason in audit.unseen.items()),
    )


def _count(audit: Audit, kind: DifferenceKind) -> int:
    return sum(difference.kind is kind for difference in audit.differences)


def _difference(difference: Difference, shown: Shown[Audit]) -> DifferenceView:
    return DifferenceView(
        kind=difference.kind,
        noun=difference.noun,
        id=difference.id,
        name=difference.name,
        project=shown.names.get(difference.project_id) if difference.project_id else None,
        network=shown.names.get(difference.network_id) if difference.network_id else None,
        made_at=difference.made_at,
        reason=difference.reason,
        remedy=difference.remedy,
    )


@routes.get("", response_model=PoolView)
async def pool_get(request: Request, project: str | None = None) -> Response:
    """Tell how full the pool is, or the one that a project has, and how much is in all; for operators."""
    call = call_of(request)
    use = await edge_of(request).on_device(lambda: call.services.pool.pool_get(call.caller, project=project))
    return ok(pool_view(use), call)


@routes.get("/audit", response_model=AuditView)
async def pool_audit(request: Request, limit: Limit = 100, older_than_s: OlderThan = GRACE_S) -> Response:
    """Compare pool, target daemons and uploads with the database; nothing is changed. For operators."""
    call = call_of(request)
    shown = await edge_of(request).on_device(
        lambda: call.services.pool.pool_audit(call.caller, grace_s=older_than_s, limit=limit)
    )
    _measure(request.app.state.gauges, shown.value)
    return ok(audit_view(shown, limit), call)


def _measure(gauges: dict[str, Gauge], audit: Audit) -> None:
    for kind in DifferenceKind:
        gauges["pool_differences"].labels(kind).set(_count(audit, kind))


@routes.post("/collect", status_code=202, response_model=OperationView)
async def pool_collect(request: Request, body: CollectRequest) -> Response:
    """Remove orphans, and give daemons back the targets that they lost; what else is lost stays as it is."""
    call = call_of(request)
    return await edge_of(request).on_device(
        lambda: begun(call, call.services.pool.pool_collect(call.caller, grace_s=body.older_than_s))
    )
