"""Whose signatures on images are trusted, and who needs them."""

from starlette.requests import Request
from starlette.responses import Response

from malleable.api.calls import After, Limit, RefQuery, call_of, created, nothing, ok, page_of
from malleable.api.projects import project_view
from malleable.api.routing import guarded
from malleable.domain.signatures import Signer, key_number
from malleable.services.parts import Shown
from malleable.wire.projects import ProjectView
from malleable.wire.shapes import Listing
from malleable.wire.signers import SignerRequest, SignerView, SigningRequest

routes = guarded("images")


def signer_view(shown: Shown[Signer]) -> SignerView:
    """Show a signer."""
    signer = shown.value
    return SignerView(
        id=signer.id,
        name=signer.name,
        project_id=signer.project_id,
        project=shown.names.get(signer.project_id) if signer.project_id else None,
        key=signer.key,
        key_number=key_number(signer.key),
        created_at=signer.created_at,
    )


@routes.get("/signers", response_model=Listing[SignerView])
def signer_list(request: Request, after: After = None, limit: Limit = 100, project: RefQuery = None) -> Response:
    """List the site's signers and those of one's projects; admins all."""
    call = call_of(request)
    page = call.services.signers.signer_list(call.caller, page_of(after, limit), project=project)
    items = tuple(signer_view(Shown(value=signer, names=page.names)) for signer in page.items)
    return ok(Listing[SignerView](items=items, next=str(page.next) if page.next else None), call)


@routes.post("/signers", status_code=201, response_model=SignerView)
def signer_add(request: Request, body: SignerRequest) -> Response:
    """Trust somebody's signatures: in a project, or (admins) everywhere."""
    call = call_of(request)
    made = call.services.signers.signer_add(call.caller, name=body.name, key=body.key, project=body.project)
    return created(signer_view(made), call)


@routes.delete("/signers/{signer}", status_code=204)
def signer_remove(request: Request, signer: str, project: RefQuery = None) -> Response:
    """Trust somebody no longer; where signed images are needed, theirs do not boot any more."""
    call = call_of(request)
    call.services.signers.signer_remove(call.caller, signer, project=project)
    return nothing()


@routes.put("/projects/{project}/signing", response_model=ProjectView)
def signing_set(request: Request, project: str, body: SigningRequest) -> Response:
    """Decide whether a project imports and boots signed images only."""
    call = call_of(request)
    changed = call.services.signers.signing_set(call.caller, project, is_needed=body.needs_signed_images)
    return ok(project_view(changed), call)
