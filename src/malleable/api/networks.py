"""Networks and attachments."""

from dataclasses import asdict
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from malleable.api.calls import After, Limit, RefQuery, call_of, created, ok, page_of
from malleable.api.operations import begun
from malleable.api.routing import guarded
from malleable.domain.addressing import Addressing, gateway_address, second_address
from malleable.domain.networks import Channel, Network
from malleable.services.attachments import PlacedAttachment
from malleable.services.networks import NetworkWish, Told
from malleable.services.parts import Shown
from malleable.wire.networks import (
    AddressingView,
    AttachmentRequest,
    AttachmentView,
    GuardingView,
    NetworkRequest,
    NetworkUpdateRequest,
    NetworkView,
)
from malleable.wire.operations import OperationView
from malleable.wire.shapes import Listing

routes = guarded("networks")


def network_view(shown: Shown[Network]) -> NetworkView:
    """Show a network."""
    network = shown.value
    return NetworkView(
        id=network.id,
        name=network.name,
        project_id=network.project_id,
        project=shown.names.get(network.project_id) if network.project_id else None,
        kind=network.kind,
        fabric=network.fabric,
        vid=network.vid,
        vni=network.vni,
        cidr=network.cidr,
        cidr6=network.cidr6,
        gateway_address=gateway_address(network.cidr),
        gateway_address6=gateway_address(network.cidr6),
        second_address=second_address(network.cidr),
        addressing=AddressingView(**asdict(network.addressing)),
        mtu=network.mtu,
        has_nat=network.has_nat,
        has_outside_dns=network.has_outside_dns,
        is_public=network.is_public,
        has_service=network.has_service,
        address_guard=network.address_guard,
        state=network.state,
        generation=network.generation,
        served_generation=network.served_generation,
        is_served=network.served_generation >= network.generation,
        created_at=network.created_at,
    )


def told_view(told: Told) -> NetworkView:
    """Show a network with how far it is guarded."""
    view = network_view(Shown(value=told.network, names=told.names))
    guarding = told.guarding
    if guarding is None:
        return view.model_copy(update={"guard_operation_id": told.guard_operation_id})
    shown = GuardingView(
        ports=guarding.ports,
        unguarded=guarding.unguarded,
        in_doubt=guarding.doubted,
        in_doubt_ports=guarding.doubted_names,
        unguarded_ports=guarding.unguarded_names,
        is_guarded=not guarding.doubted and not guarding.unguarded,
    )
    return view.model_copy(update={"guarding": shown, "guard_operation_id": told.guard_operation_id})


def attachment_view(placed: PlacedAttachment) -> AttachmentView:
    """Show an attachment."""
    attachment, nic = placed.attachment, placed.nic
    return AttachmentView(
        id=attachment.id,
        node_id=nic.node_id,
        node=placed.node,
        nic_id=nic.id,
        nic=nic.name,
        mac=nic.mac,
        network_id=attachment.network_id,
        network=placed.network,
        channel=attachment.channel,
        state=attachment.state,
        address=attachment.address,
        address6=attachment.address6,
        vlan=placed.vid if attachment.channel is Channel.TAGGED else None,
        created_at=attachment.created_at,
    )


@routes.get("/networks", response_model=Listing[NetworkView])
def network_list(request: Request, after: After = None, limit: Limit = 100, project: RefQuery = None) -> Response:
    """List the networks that one's projects own or may use; admins all."""
    call = call_of(request)
    page = call.services.networks.network_list(call.caller, page_of(after, limit), project=project)
    items = tuple(network_view(Shown(value=network, names=page.names)) for network in page.items)
    return ok(Listing[NetworkView](items=items, next=str(page.next) if page.next else None), call)


@routes.post("/networks", status_code=201, response_model=NetworkView)
def network_create(request: Request, body: NetworkRequest) -> Response:
    """Make a network on a VLAN of its own."""
    call = call_of(request)
    wish = NetworkWish(
        name=body.name,
        project=body.project,
        cidr=body.cidr,
        cidr6=body.cidr6,
        fabric=body.fabric,
        kind=body.kind,
        addressing=Addressing(**body.addressing.model_dump()),
        mtu=body.mtu,
        has_nat=body.nat,
        has_outside_dns=body.outside_dns,
        vid=body.vlan,
        is_public=body.public,
        has_service=body.serve,
        address_guard=body.address_guard,
    )
    return created(network_view(call.services.networks.network_create(call.caller, wish)), call)


@routes.get("/networks/{network}", response_model=NetworkView)
def network_get(request: Request, network: str, project: RefQuery = None) -> Response:
    """Read a network."""
    call = call_of(request)
    return ok(told_view(call.services.networks.network_get(call.caller, network, project=project)), call)


@routes.put("/networks/{network}", response_model=NetworkView)
def network_set(request: Request, network: str, body: NetworkUpdateRequest, project: RefQuery = None) -> Response:
    """Change what a network's nodes are given, its subnets, MTU or way outside; what is not given stays."""
    call = call_of(request)
    changes = body.model_dump(exclude_none=True)
    return ok(told_view(call.services.networks.network_set(call.caller, network, changes, project=project)), call)


@routes.delete("/networks/{network}", status_code=202, response_model=OperationView)
def network_delete(request: Request, network: str, project: RefQuery = None) -> Response:
    """Take a network down that nobody is attached to."""
    call = call_of(request)
    return begun(call, call.services.networks.network_delete(call.caller, network, project=project))


@routes.get("/attachments", response_model=Listing[AttachmentView])
def attachment_list(
    request: Request,
    after: After = None,
    limit: Limit = 100,
    node: RefQuery = None,
    network: RefQuery = None,
    project: RefQuery = None,
) -> Response:
    """List which NICs are on which networks; ``project`` says whose ``network`` is meant."""
    call = call_of(request)
    page = call.services.attachments.attachment_list(
        call.caller, page_of(after, limit), node=node, network=network, project=project
    )
    items = tuple(attachment_view(attachment) for attachment in page.items)
    return ok(Listing[AttachmentView](items=items, next=str(page.next) if page.next else None), call)


@routes.post("/attachments", status_code=202, response_model=OperationView)
def attachment_create(request: Request, body: AttachmentRequest) -> Response:
    """Put a node's NIC on a network."""
    call = call_of(request)
    operation = call.services.attachments.attachment_create(
        call.caller,
        node=body.node,
        nic=body.nic,
        network=body.network,
        channel=body.channel,
        address=body.address,
        address6=body.address6,
    )
    return begun(call, operation)


@routes.delete("/attachments/{attachment}", status_code=202, response_model=OperationView)
def attachment_delete(request: Request, attachment: UUID) -> Response:
    """Take a NIC off a network."""
    call = call_of(request)
    return begun(call, call.services.attachments.attachment_delete(call.caller, attachment))
