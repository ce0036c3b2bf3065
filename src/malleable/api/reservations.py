"""Addresses of a network that no node is given."""

from starlette.requests import Request
from starlette.responses import Response

from malleable.api.calls import After, Limit, RefQuery, call_of, created, nothing, ok, page_of
from malleable.api.routing import guarded
from malleable.services.reservations import PlacedReservation, ReservationWish
from malleable.wire.networks import ReservationRequest, ReservationView
from malleable.wire.shapes import Listing

routes = guarded("networks")


def reservation_view(placed: PlacedReservation) -> ReservationView:
    """Show a reservation."""
    reservation = placed.reservation
    return ReservationView(
        id=reservation.id,
        name=reservation.name,
        network_id=reservation.network_id,
        network=placed.network,
        address=reservation.address,
        address6=reservation.address6,
        mac=reservation.mac or None,
        hostname=reservation.hostname or None,
        project_id=reservation.project_id,
        project=placed.project,
        created_at=reservation.created_at,
    )


@routes.get("/networks/{network}/reservations", response_model=Listing[ReservationView])
def reservation_list(
    request: Request, network: str, after: After = None, limit: Limit = 100, project: RefQuery = None
) -> Response:
    """List the addresses of a network that no node is given; who may only use it is told of their projects' own."""
    call = call_of(request)
    page = call.services.reservations.reservation_list(call.caller, network, page_of(after, limit), project=project)
    items = tuple(reservation_view(placed) for placed in page.items)
    return ok(Listing[ReservationView](items=items, next=str(page.next) if page.next else None), call)


@routes.post("/networks/{network}/reservations", status_code=201, response_model=ReservationView)
def reservation_create(request: Request, network: str, body: ReservationRequest, project: RefQuery = None) -> Response:
    """Keep addresses of a network from its nodes."""
    call = call_of(request)
    wish = ReservationWish(
        name=body.name,
        address=body.address,
        address6=body.address6,
        mac=body.mac or "",
        hostname=body.hostname or "",
        for_project=body.for_project,
    )
    placed = call.services.reservations.reservation_create(call.caller, network, wish, project=project)
    return created(reservation_view(placed), call)


@routes.get("/networks/{network}/reservations/{reservation}", response_model=ReservationView)
def reservation_get(request: Request, network: str, reservation: str, project: RefQuery = None) -> Response:
    """Read a reservation."""
    call = call_of(request)
    placed = call.services.reservations.reservation_get(call.caller, network, reservation, project=project)
    return ok(reservation_view(placed), call)


@routes.delete("/networks/{network}/reservations/{reservation}", status_code=204)
def reservation_delete(request: Request, network: str, reservation: str, project: RefQuery = None) -> Response:
    """Let nodes have the addresses again."""
    call = call_of(request)
    call.services.reservations.reservation_delete(call.caller, network, reservation, project=project)
    return nothing()
