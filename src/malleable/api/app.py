"""The API as an ASGI application, made from its parts; no globals."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from prometheus_client import CollectorRegistry, Gauge
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from malleable.api import (
    access,
    disk_offers,
    disks,
    events,
    gateway,
    grants,
    image_grants,
    images,
    networks,
    nodes,
    operations,
    permits,
    pool,
    problem,
    projects,
    reservations,
    scrubs,
    service,
    signers,
    snapshots,
    switches,
    users,
)
from malleable.api.audience import Audience
from malleable.api.calls import Edge
from malleable.api.edge import BodyLimit, Observed
from malleable.api.fanout import Fanout
from malleable.domain.errors import MalleableError
from malleable.domain.store import EVENTS, GATEWAY
from malleable.services.all import Services

#: The busiest first: a request is held against one route after the other.
_ROUTERS = (
    gateway.routes,
    nodes.routes,
    access.routes,
    operations.routes,
    disks.routes,
    disk_offers.routes,
    events.routes,
    networks.routes,
    images.routes,
    service.open_routes,
    service.metrics_routes,
    users.open_routes,
    users.routes,
    projects.routes,
    switches.routes,
    reservations.routes,
    permits.routes,
    grants.routes,
    image_grants.routes,
    snapshots.routes,
    signers.routes,
    pool.routes,
    scrubs.routes,
)


def create_app(services: Services, *, version: str, registry: CollectorRegistry | None = None) -> FastAPI:
    """Make the application. ``close_streams`` it before stopping the server: streams would keep it waiting."""
    app = bare_app(version)
    store = services.parts.store
    edge = Edge(services, Fanout(store, EVENTS), Fanout(store, GATEWAY))
    app.state.edge = edge
    app.state.registry = registry or CollectorRegistry()
    app.state.gauges = _gauges(app.state.registry)
    app.add_middleware(BodyLimit)
    app.add_middleware(Observed, registry=app.state.registry)
    return app


def close_streams(app: FastAPI) -> None:
    """End every event stream and long poll of an application at once; any thread may call it."""
    edge: Edge = app.state.edge
    edge.events.close()
    edge.gateway.close()


def bare_app(version: str) -> FastAPI:
    """Make the application without anything behind it: enough to tell its OpenAPI document."""
    app = FastAPI(
        title="Malleable",
        version=version,
        summary="Bare-metal machines for tenants, and back.",
        openapi_url="/v1/openapi.json",
        docs_url=None,  # these pages load scripts from other people's servers
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
    )
    # Not included as routers: each of those is asked twice, and together they cost more than many an answer.
    app.router.routes += [route for router in _ROUTERS for route in router.routes]
    app.add_exception_handler(MalleableError, _on_error)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    close_streams(app)


def _gauges(registry: CollectorRegistry) -> dict[str, Gauge]:
    return {
        "nodes": Gauge("malleable_nodes", "Nodes by state.", ["state"], registry=registry),
        "operations": Gauge("malleable_operations", "Operations by state.", ["state"], registry=registry),
        "pool_differences": Gauge(
            "malleable_pool_differences",
            "What the pool and the database did not agree on at the last audit, by kind.",
            ["kind"],
            registry=registry,
        ),
        "pool_bytes": Gauge(
            "malleable_pool_bytes",
            "The pool's size, what is free of it, and below how much free nothing new is made.",
            ["kind"],
            registry=registry,
        ),
        "project_pool_free_bytes": Gauge(
            "malleable_project_pool_free_bytes",
            "What is free of a pool that projects have of their own; the reserve is that of the site's.",
            ["pool"],
            registry=registry,
        ),
        "gateway_silent_seconds": Gauge(
            "malleable_gateway_silent_seconds", "Since a gateway was last heard of.", ["gateway"], registry=registry
        ),
        "gateway_troubles": Gauge(
            "malleable_gateway_troubles", "What is wrong by a gateway's own word.", ["gateway"], registry=registry
        ),
        "targets": Gauge(
            "malleable_targets",
            "Disks presented to nodes, by the daemon of their network.",
            ["daemon"],
            registry=registry,
        ),
        "free_vlans": Gauge("malleable_vlans", "VLANs of all fabrics.", ["state"], registry=registry),
    }


def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, MalleableError)
    call = request.scope.get("malleable.call")
    audience = call.audience if call is not None else Audience.TENANT
    return problem.reply(problem.of_error(error, audience), request.scope.get("malleable.request_id", ""), audience)


def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    told = problem.of_status(error.status_code, str(error.detail))
    response = problem.reply(told, request.scope.get("malleable.request_id", ""))
    response.headers.update(error.headers or {})
    return response


def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    told = problem.of_validation(error.errors())
    return problem.reply(told, request.scope.get("malleable.request_id", ""))
