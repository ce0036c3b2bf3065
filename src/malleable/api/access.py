"""Access: tokens for one node."""

from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from malleable.api.calls import After, Limit, call_of, created, nothing, ok, page_of
from malleable.api.routing import guarded
from malleable.api.users import token_view
from malleable.services.access import AccessWish
from malleable.services.parts import Shown
from malleable.wire.access import AccessIssued, AccessRequest
from malleable.wire.shapes import Listing
from malleable.wire.users import TokenView

routes = guarded("nodes", prefix="/v1/nodes/{node}/access")


@routes.get("", response_model=Listing[TokenView])
def access_list(request: Request, node: str, after: After = None, limit: Limit = 100) -> Response:
    """List the tokens for a node that were not revoked."""
    call = call_of(request)
    page = call.services.accesses.access_list(call.caller, node, page_of(after, limit))
    items = tuple(token_view(Shown(value=token, names=page.names)) for token in page.items)
    return ok(Listing[TokenView](items=items, next=str(page.next) if page.next else None), call)


@routes.post("", status_code=201, response_model=AccessIssued)
def access_allow(request: Request, node: str, body: AccessRequest) -> Response:
    """Make a token that is good for a few verbs of this node alone, as long as its project holds it."""
    call = call_of(request)
    wish = AccessWish(name=body.name, verbs=body.verbs, ttl_s=body.ttl_s)
    issued = call.services.accesses.access_allow(call.caller, node, wish)
    token = issued.token
    view = AccessIssued.model_validate(
        {
            "id": token.id,
            "token": issued.secret.reveal(),
            "node_id": token.node_id,
            "verbs": token.verbs,
            "expires_at": token.expires_at,
        }
    )
    return created(view, call)


@routes.delete("/{token}", status_code=204)
def access_revoke(request: Request, node: str, token: UUID) -> Response:
    """Revoke a token for this node."""
    call = call_of(request)
    call.services.accesses.access_revoke(call.caller, node, token)
    return nothing()
