"""Networks shared between projects."""

from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from malleable.api.calls import After, Limit, RefQuery, call_of, created, ok, page_of
from malleable.api.operations import begun
from malleable.api.routing import guarded
from malleable.services.grants import PlacedGrant
from malleable.wire.networks import GrantRequest, GrantView
from malleable.wire.operations import OperationView
from malleable.wire.shapes import Listing

routes = guarded("networks")


def grant_view(placed: PlacedGrant) -> GrantView:
    """Show a grant."""
    grant = placed.grant
    return GrantView(
        id=grant.id,
        network_id=grant.network_id,
        network=placed.network,
        owner_id=placed.owner_id,
        owner=placed.owner,
        grantee_id=grant.project_id,
        grantee=placed.grantee,
        state=grant.state,
        created_at=grant.created_at,
    )


@routes.get("/grants", response_model=Listing[GrantView])
def grant_list(
    request: Request, after: After = None, limit: Limit = 100, network: RefQuery = None, project: RefQuery = None
) -> Response:
    """List what one's projects share, and what is shared with them; admins all."""
    call = call_of(request)
    page = call.services.grants.grant_list(call.caller, page_of(after, limit), network=network, project=project)
    items = tuple(grant_view(placed) for placed in page.items)
    return ok(Listing[GrantView](items=items, next=str(page.next) if page.next else None), call)


@routes.post("/grants", status_code=201, response_model=GrantView)
def grant_create(request: Request, body: GrantRequest, project: RefQuery = None) -> Response:
    """Offer a network to another project; ``project`` says whose ``network`` is meant."""
    call = call_of(request)
    placed = call.services.grants.grant_create(call.caller, network=body.network, grantee=body.grantee, project=project)
    return created(grant_view(placed), call)


@routes.get("/grants/{grant}", response_model=GrantView)
def grant_get(request: Request, grant: UUID) -> Response:
    """Read a grant."""
    call = call_of(request)
    return ok(grant_view(call.services.grants.grant_get(call.caller, grant)), call)


@routes.post("/grants/{grant}/accept", response_model=GrantView)
def grant_accept(request: Request, grant: UUID) -> Response:
    """Accept an offer: the project's nodes may join the network from now on."""
    call = call_of(request)
    return ok(grant_view(call.services.grants.grant_accept(call.caller, grant)), call)


@routes.delete("/grants/{grant}", status_code=202, response_model=OperationView)
def grant_revoke(request: Request, grant: UUID, force: bool = False) -> Response:
    """End a grant or an offer; either side may. ``force``: also stop and detach the nodes that joined by it."""
    call = call_of(request)
    return begun(call, call.services.grants.grant_revoke(call.caller, grant, is_forced=force))
