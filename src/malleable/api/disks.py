"""Disks, targets and provisioning."""

from starlette.requests import Request
from starlette.responses import Response

from malleable.api.calls import After, Limit, RefQuery, call_of, ok, page_of
from malleable.api.operations import begun
from malleable.api.routing import guarded, replayed, reserves_its_key
from malleable.domain.disks import Target
from malleable.domain.errors import Invalid
from malleable.domain.hooks import first_boot
from malleable.domain.seeds import Given
from malleable.domain.user_data import parse_user_data
from malleable.services.disks import DiskWish, PlacedDisk
from malleable.services.idempotency import Repeated
from malleable.services.parts import Shown
from malleable.services.provisions import BootWish, ProvisionWish
from malleable.wire.disks import (
    DiskAttachRequest,
    DiskBatchRequest,
    DiskMoveRequest,
    DiskNameRequest,
    DiskOrigin,
    DiskRequest,
    DiskView,
    TargetView,
)
from malleable.wire.nodes import BootOptions, ProvisionRequest
from malleable.wire.operations import OperationView
from malleable.wire.shapes import Listing

routes = guarded("disks")


def disk_view(placed: PlacedDisk) -> DiskView:
    """Show a disk."""
    disk = placed.disk
    return DiskView(
        id=disk.id,
        name=disk.name,
        project_id=disk.project_id,
        project=placed.project,
        image_id=disk.image_id,
        image=placed.image,
        snapshot_id=disk.snapshot_id,
        snapshot=placed.snapshot,
        state=disk.state,
        size_bytes=disk.size_bytes,
        node_id=placed.node_id,
        node=placed.node,
        use=placed.use,
        created_at=disk.created_at,
    )


def target_view(shown: Shown[Target]) -> TargetView:
    """Show a target; never its CHAP secret."""
    target, names = shown.value, shown.names
    return TargetView(
        id=target.id,
        disk_id=target.disk_id,
        disk=names[target.disk_id] if target.disk_id else None,
        image_id=target.image_id,
        image=names[target.image_id] if target.image_id else None,
        node_id=target.node_id,
        node=names[target.node_id],
        network_id=target.network_id,
        network=names[target.network_id],
        use=target.use,
        state=target.state,
        iqn=target.iqn,
        daemon=target.daemon,
        initiator_address=target.initiator_address,
        created_at=target.created_at,
    )


def boot_wish(body: BootOptions) -> BootWish:
    """Read how a node shall boot."""
    user_data, has_hook = parse_user_data(body.user_data, body.user_data_base64), bool(body.first_boot)
    if user_data and has_hook:
        raise Invalid("Both user-data and a first-boot script are given.", fix="Have the one do what the other does.")
    given = Given(
        user_data=first_boot(body.first_boot) if has_hook else user_data,
        network_config=body.network_config,
        has_hook=has_hook,
        has_disk=body.seed_disk,
    )
    return BootWish(nic=body.nic, way=body.way, hostname=body.hostname, ssh_keys=body.ssh_keys, given=given)


@routes.post("/provisions", status_code=202, response_model=OperationView, tags=["nodes"])
@reserves_its_key
def provision_create(request: Request, body: ProvisionRequest) -> Response:
    """Boot a disk on a node: an existing one, a new one or, read only, the image itself; any free node will do."""
    call = call_of(request)
    wish = ProvisionWish(
        project=body.project,
        node=body.node,
        disk=body.disk,
        image=body.image,
        disk_name=body.disk_name,
        disk_size_bytes=body.disk_size_bytes,
        network=body.network,
        boot=boot_wish(body),
        data_disks=body.data_disks,
        is_stateless=body.stateless,
    )
    try:
        return begun(call, call.services.provisions.provision_create(call.caller, wish, call.asked))
    except Repeated as e:
        operation, _ = call.services.operations.operation_get(call.caller, e.operation_id)
        return replayed(begun(call, operation))


@routes.get("/disks", response_model=Listing[DiskView])
def disk_list(request: Request, after: After = None, limit: Limit = 100, project: RefQuery = None) -> Response:
    """List the disks of one's projects; admins all."""
    call = call_of(request)
    page = call.services.disks.disk_list(call.caller, page_of(after, limit), project=project)
    items = tuple(disk_view(disk) for disk in page.items)
    return ok(Listing[DiskView](items=items, next=str(page.next) if page.next else None), call)


@routes.post("/disks", status_code=202, response_model=OperationView)
def disk_create(request: Request, body: DiskRequest) -> Response:
    """Clone a disk from an image or from a snapshot, or make a blank one."""
    call = call_of(request)
    return begun(call, call.services.disks.disk_create(call.caller, _wish(body), name=body.name))


@routes.post("/disks/batch", status_code=202, response_model=OperationView)
def disk_create_batch(request: Request, body: DiskBatchRequest) -> Response:
    """Make many disks that are alike, all or none; ``result.disk_ids`` names them in the order of ``names``."""
    call = call_of(request)
    return begun(call, call.services.disks.disk_create_batch(call.caller, _wish(body), names=body.names))


def _wish(body: DiskOrigin) -> DiskWish:
    return DiskWish(project=body.project, image=body.image, snapshot=body.snapshot, size_bytes=body.size_bytes)


@routes.get("/disks/{disk}", response_model=DiskView)
def disk_get(request: Request, disk: str, project: RefQuery = None) -> Response:
    """Read a disk."""
    call = call_of(request)
    return ok(disk_view(call.services.disks.disk_get(call.caller, disk, project=project)), call)


@routes.put("/disks/{disk}/name", response_model=DiskView)
def disk_rename(request: Request, disk: str, body: DiskNameRequest, project: RefQuery = None) -> Response:
    """Rename a disk."""
    call = call_of(request)
    return ok(disk_view(call.services.disks.disk_rename(call.caller, disk, name=body.name, project=project)), call)


@routes.delete("/disks/{disk}", status_code=202, response_model=OperationView)
def disk_delete(request: Request, disk: str, project: RefQuery = None) -> Response:
    """Delete a disk that runs nowhere."""
    call = call_of(request)
    return begun(call, call.services.disks.disk_delete(call.caller, disk, project=project))


@routes.post("/disks/{disk}/move", status_code=202, response_model=OperationView)
def disk_move(request: Request, disk: str, body: DiskMoveRequest, project: RefQuery = None) -> Response:
    """Take a disk from its node and have it on another, with everything on it."""
    call = call_of(request)
    operation = call.services.provisions.disk_move(
        call.caller, disk, node=body.node, network=body.network, boot=boot_wish(body), project=project
    )
    return begun(call, operation)


@routes.post("/disks/{disk}/attach", status_code=202, response_model=OperationView)
def disk_attach(request: Request, disk: str, body: DiskAttachRequest, project: RefQuery = None) -> Response:
    """Present a disk to a running node, for data."""
    call = call_of(request)
    return begun(call, call.services.disks.disk_attach(call.caller, disk, node=body.node, project=project))


@routes.post("/disks/{disk}/detach", status_code=202, response_model=OperationView)
def disk_detach(request: Request, disk: str, project: RefQuery = None) -> Response:
    """Take a disk for data from its node; sessions that are left are cut."""
    call = call_of(request)
    return begun(call, call.services.disks.disk_detach(call.caller, disk, project=project))


@routes.get("/targets", response_model=Listing[TargetView])
def target_list(
    request: Request,
    after: After = None,
    limit: Limit = 100,
    node: RefQuery = None,
    disk: RefQuery = None,
    project: RefQuery = None,
) -> Response:
    """List where disks are presented; ``project``: only that one's, and whose ``disk`` is meant."""
    call = call_of(request)
    page = call.services.disks.target_list(call.caller, page_of(after, limit), node=node, disk=disk, project=project)
    items = tuple(target_view(Shown(value=target, names=page.names)) for target in page.items)
    return ok(Listing[TargetView](items=items, next=str(page.next) if page.next else None), call)
