"""Images shared between projects."""

from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from malleable.api.calls import After, Limit, RefQuery, call_of, created, nothing, ok, page_of
from malleable.api.routing import guarded
from malleable.services.image_grants import PlacedImageGrant
from malleable.wire.images import ImageGrantRequest, ImageGrantView
from malleable.wire.shapes import Listing

routes = guarded("images")


def image_grant_view(placed: PlacedImageGrant) -> ImageGrantView:
    """Show a grant."""
    grant = placed.grant
    return ImageGrantView(
        id=grant.id,
        image_id=grant.image_id,
        image=placed.image,
        owner_id=placed.owner_id,
        owner=placed.owner,
        grantee_id=grant.project_id,
        grantee=placed.grantee,
        is_accepted=grant.is_accepted,
        created_at=grant.created_at,
    )


@routes.get("/image-grants", response_model=Listing[ImageGrantView])
def image_grant_list(
    request: Request, after: After = None, limit: Limit = 100, image: RefQuery = None, project: RefQuery = None
) -> Response:
    """List the images that one's projects share, and those offered to them; admins all."""
    call = call_of(request)
    grants = call.services.image_grants
    page = grants.image_grant_list(call.caller, page_of(after, limit), image=image, project=project)
    items = tuple(image_grant_view(placed) for placed in page.items)
    return ok(Listing[ImageGrantView](items=items, next=str(page.next) if page.next else None), call)


@routes.post("/images/{image}/grants", status_code=201, response_model=ImageGrantView)
def image_share(request: Request, image: str, body: ImageGrantRequest, project: RefQuery = None) -> Response:
    """Offer an image to another project; ``project`` says whose ``image`` is meant."""
    call = call_of(request)
    placed = call.services.image_grants.image_share(call.caller, image, grantee=body.grantee, project=project)
    return created(image_grant_view(placed), call)


@routes.post("/image-grants/{grant}/accept", response_model=ImageGrantView)
def image_accept(request: Request, grant: UUID) -> Response:
    """Accept an offer: the project sees the image and clones disks of it from now on."""
    call = call_of(request)
    return ok(image_grant_view(call.services.image_grants.image_accept(call.caller, grant)), call)


@routes.delete("/image-grants/{grant}", status_code=204)
def image_unshare(request: Request, grant: UUID) -> Response:
    """End a grant or an offer, from either side; disks that were cloned stay."""
    call = call_of(request)
    call.services.image_grants.image_unshare(call.caller, grant)
    return nothing()
