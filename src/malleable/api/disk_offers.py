"""Disks on their way from one project to another."""

from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from malleable.api.calls import After, Limit, RefQuery, call_of, created, nothing, ok, page_of
from malleable.api.disks import disk_view
from malleable.api.routing import guarded
from malleable.services.disk_offers import PlacedOffer
from malleable.wire.disks import DiskAcceptRequest, DiskOfferRequest, DiskOfferView, DiskView
from malleable.wire.shapes import Listing

routes = guarded("disks")


def disk_offer_view(placed: PlacedOffer) -> DiskOfferView:
    """Show an offer."""
    offered, disk = placed.offer, placed.disk
    return DiskOfferView(
        id=offered.id,
        disk_id=disk.id,
        disk=disk.name,
        image=placed.image,
        size_bytes=disk.size_bytes,
        snapshots=offered.snapshots,
        snapshot_bytes=offered.snapshot_bytes,
        owner_id=disk.project_id,
        owner=placed.owner,
        receiver_id=offered.project_id,
        receiver=placed.receiver,
        created_at=offered.created_at,
    )


@routes.get("/disk-offers", response_model=Listing[DiskOfferView])
def disk_offer_list(request: Request, after: After = None, limit: Limit = 100, project: RefQuery = None) -> Response:
    """List the disks that one's projects offer, and those offered to them; admins all."""
    call = call_of(request)
    page = call.services.disk_offers.disk_offer_list(call.caller, page_of(after, limit), project=project)
    items = tuple(disk_offer_view(placed) for placed in page.items)
    return ok(Listing[DiskOfferView](items=items, next=str(page.next) if page.next else None), call)


@routes.post("/disks/{disk}/offer", status_code=201, response_model=DiskOfferView)
def disk_give(request: Request, disk: str, body: DiskOfferRequest, project: RefQuery = None) -> Response:
    """Offer a disk that runs nowhere to another project; ``project`` says whose ``disk``."""
    call = call_of(request)
    placed = call.services.disk_offers.disk_give(
        call.caller, disk, receiver=body.receiver, with_snapshots=body.with_snapshots, project=project
    )
    return created(disk_offer_view(placed), call)


@routes.post("/disk-offers/{offer}/accept", response_model=DiskView)
def disk_accept(request: Request, offer: UUID, body: DiskAcceptRequest) -> Response:
    """Take an offered disk: from now on it is the project's, and counts for its quota."""
    call = call_of(request)
    offers = call.services.disk_offers
    taken = offers.disk_accept(call.caller, offer, name=body.name, takes_unsigned=body.unsigned)
    return ok(disk_view(taken), call)


@routes.delete("/disk-offers/{offer}", status_code=204)
def disk_keep(request: Request, offer: UUID) -> Response:
    """End an offer, from either side; the disk stays where it is."""
    call = call_of(request)
    call.services.disk_offers.disk_keep(call.caller, offer)
    return nothing()
