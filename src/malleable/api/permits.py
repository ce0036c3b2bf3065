"""Which nodes may use a network's reserved addresses."""

from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from malleable.api.calls import After, Limit, RefQuery, call_of, ok, page_of
from malleable.api.operations import begun
from malleable.api.routing import guarded
from malleable.services.permits import PlacedPermit
from malleable.wire.networks import PermitRequest, PermitView
from malleable.wire.operations import OperationView
from malleable.wire.shapes import Listing

routes = guarded("networks", prefix="/v1/networks/{network}/reservations/{reservation}/permits")


def permit_view(placed: PlacedPermit) -> PermitView:
    """Show a permit."""
    permit, node, nic = placed.permit, placed.node, placed.nic
    return PermitView(
        id=permit.id,
        reservation_id=permit.reservation_id,
        reservation=placed.reservation.name,
        address=placed.reservation.address,
        address6=placed.reservation.address6,
        node_id=node.id if node else None,
        node=node.name if node else None,
        nic=nic.name if nic else None,
        is_ending=permit.is_ending,
        created_at=permit.created_at,
    )


@routes.get("", response_model=Listing[PermitView])
def permit_list(
    request: Request,
    network: str,
    reservation: str,
    after: After = None,
    limit: Limit = 100,
    project: RefQuery = None,
) -> Response:
    """List who may use a reservation; nodes of others are not named."""
    call = call_of(request)
    page = call.services.permits.permit_list(call.caller, network, reservation, page_of(after, limit), project=project)
    items = tuple(permit_view(placed) for placed in page.items)
    return ok(Listing[PermitView](items=items, next=str(page.next) if page.next else None), call)


@routes.post("", status_code=202, response_model=OperationView)
def permit_create(
    request: Request, network: str, reservation: str, body: PermitRequest, project: RefQuery = None
) -> Response:
    """Let a node that is on the network use a reservation's addresses besides its own."""
    call = call_of(request)
    operation = call.services.permits.permit_create(
        call.caller, network, reservation, node=body.node, nic=body.nic, project=project
    )
    return begun(call, operation)


@routes.delete("/{permit}", status_code=202, response_model=OperationView)
def permit_delete(request: Request, network: str, reservation: str, permit: UUID, project: RefQuery = None) -> Response:
    """Take a permit away; it is gone once the switch port is read back without the addresses.

    Where the network's owner takes it from another project, the reservation is the owner's own again.
    """
    call = call_of(request)
    return begun(call, call.services.permits.permit_delete(call.caller, network, reservation, permit, project=project))
