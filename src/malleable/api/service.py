"""The service itself: version, health, metrics."""

from prometheus_client import CONTENT_TYPE_LATEST, Gauge, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from malleable.api.calls import call_of, edge_of, ok
from malleable.api.routing import guarded, unguarded
from malleable.wire.service import HealthView, VersionView

open_routes = unguarded("service")
metrics_routes = guarded("service", prefix="")


@open_routes.get("/", response_model=VersionView)
async def version_get(request: Request) -> Response:
    """Tell which program answers."""
    return ok(VersionView(version=request.app.version), None)


@open_routes.get("/health", response_model=HealthView, responses={503: {"model": HealthView}})
def health_get(request: Request) -> Response:
    """Tell whether the parts an API server needs work, and whether something else is wrong.

    Warnings leave the answer 200: another API server would know no better.
    """
    found = edge_of(request).services.health.health_get()
    status = "failing" if found.failing else "warning" if found.warnings else "ok"
    view = HealthView(status=status, failing=dict(found.failing), warnings=dict(found.warnings))
    return ok(view, None, status=503 if found.failing else 200)


@metrics_routes.get("/metrics", response_class=Response)
def metrics_get(request: Request) -> Response:
    """Give Prometheus its text."""
    call = call_of(request)
    counts = call.services.health.metrics_get(call.caller)
    gauges: dict[str, Gauge] = request.app.state.gauges
    for name, by_state in counts.items():
        gauges[name].clear()
        for state, count in by_state.items():
            gauges[name].labels(state).set(count)
    return Response(generate_latest(request.app.state.registry), media_type=CONTENT_TYPE_LATEST)
