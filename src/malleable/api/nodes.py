"""Nodes and their NICs."""

from operator import attrgetter
from typing import Annotated

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from malleable.api.audience import Audience
from malleable.api.calls import After, Call, Limit, RefQuery, call_of, edge_of, nothing, ok, ok_plainly, page_of
from malleable.api.operations import begun
from malleable.api.routing import guarded
from malleable.domain.nodes import Node, NodeState
from malleable.domain.secrets import Secret
from malleable.services.credentials import CredentialsWish
from malleable.services.nics import WiredNic
from malleable.services.nodes import CONSOLE_LINES_MAX, Cable, NodeWish
from malleable.services.parts import Shown
from malleable.wire.nodes import (
    BmcView,
    BondRequest,
    BootDeviceRequest,
    BootDeviceView,
    ConsoleRequest,
    ConsoleView,
    ConsoleWritten,
    CredentialsRequest,
    MaintenanceRequest,
    NicView,
    NodeRequest,
    NodeView,
    PowerRequest,
)
from malleable.wire.operations import OperationView
from malleable.wire.shapes import Listing
from malleable.wire.switches import WireRequest

#: Fields of a view that are named as the node's own.
_PLAIN = tuple(name for name in NodeView.model_fields if name not in ("project", "bmc"))
_read_plain = attrgetter(*_PLAIN)
_BMC = tuple(BmcView.model_fields)
_read_bmc = attrgetter("power_driver", "bmc_address", "bmc_username", "bmc_system")

routes = guarded("nodes", prefix="/v1/nodes")


#: What tenants read where the provider reads why a node is as it is.
_PUBLIC_REASONS = {
    NodeState.ALLOCATED: "A change of its network could not be proven; the provider must look at it.",
    NodeState.QUARANTINED: "Something about it could not be proven; the provider must look at it.",
}


def node_fields(node: Node, project: str | None, audience: Audience) -> dict[str, object]:
    """Show a node as what ``NodeView`` is made of; its BMC's password to nobody."""
    fields: dict[str, object] = dict(zip(_PLAIN, _read_plain(node), strict=True))
    fields["project"] = project
    fields["bmc"] = None
    if audience is Audience.PROVIDER:
        fields["bmc"] = dict(zip(_BMC, _read_bmc(node), strict=True))
    elif node.state_reason:
        fields["state_reason"] = _PUBLIC_REASONS.get(node.state, "")
    return fields


def nic_view(wired: WiredNic) -> NicView:
    """Show a NIC; its wiring as far as the caller may know it."""
    nic, port = wired.nic, wired.port
    return NicView(
        id=nic.id,
        node_id=nic.node_id,
        name=nic.name,
        mac=nic.mac,
        bond=nic.bond,
        switch_port_id=port.id if port else None,
        switch=wired.switch,
        port=port.name if port else None,
    )


def _node(call: Call, shown: Shown[Node]) -> Response:
    node = shown.value
    project = shown.names.get(node.project_id) if node.project_id else None
    return ok_plainly(NodeView, node_fields(node, project, call.audience), call)


@routes.get("", response_model=Listing[NodeView])
def node_list(
    request: Request,
    after: After = None,
    limit: Limit = 100,
    state: NodeState | None = None,
    project: RefQuery = None,
    name: RefQuery = None,
) -> Response:
    """List nodes: those of one's projects and the free ones; operators and admins all."""
    call = call_of(request)
    page = call.services.nodes.node_list(call.caller, page_of(after, limit), state=state, project=project, name=name)
    names, audience = page.names, call.audience
    items = tuple(
        node_fields(node, names.get(node.project_id) if node.project_id else None, audience) for node in page.items
    )
    return ok_plainly(Listing[NodeView], {"items": items, "next": str(page.next) if page.next else None}, call)


@routes.get("/{node}", response_model=NodeView)
def node_get(request: Request, node: str) -> Response:
    """Read a node."""
    call = call_of(request)
    return _node(call, call.services.nodes.node_get(call.caller, node))


@routes.post("", status_code=202, response_model=OperationView)
def node_enrol(request: Request, body: NodeRequest) -> Response:
    """Enrol a node by its BMC."""
    call = call_of(request)
    wish = NodeWish(
        name=body.name,
        driver=body.bmc.driver,
        address=body.bmc.address,
        username=body.bmc.username,
        password=Secret(body.bmc.password),
        system=body.bmc.system,
        is_unscrubbed=body.scrub_first,
        wiring=tuple(Cable(mac=wire.mac, switch=wire.switch, port=wire.port) for wire in body.wiring),
        bonds={bond.name: bond.nics for bond in body.bonds},
    )
    return begun(call, call.services.nodes.node_enrol(call.caller, wish))


@routes.delete("/{node}", status_code=204)
def node_delete(request: Request, node: str, force: bool = False) -> Response:
    """Forget a node that nobody holds. ``force``: also one of which this server alone knows something."""
    call = call_of(request)
    call.services.nodes.node_delete(call.caller, node, is_forced=force)
    return nothing()


@routes.put("/{node}/credentials", response_model=NodeView)
async def credentials_set(request: Request, node: str, body: CredentialsRequest) -> Response:
    """Keep another way to reach a node's BMC, once it has taken a login and is proven to be of the same machine."""
    call = call_of(request)
    password = None if body.password is None else Secret(body.password)
    wish = CredentialsWish(username=body.username, password=password, address=body.address, system=body.system)
    credentials = call.services.credentials
    return _node(call, await edge_of(request).on_device(lambda: credentials.credentials_set(call.caller, node, wish)))


@routes.get("/{node}/nics", response_model=Listing[NicView])
def nic_list(request: Request, node: str, after: After = None, limit: Limit = 100) -> Response:
    """List a node's NICs."""
    call = call_of(request)
    page = call.services.nics.nic_list(call.caller, node, page_of(after, limit))
    items = tuple(nic_view(nic) for nic in page.items)
    return ok(Listing[NicView](items=items, next=str(page.next) if page.next else None), call)


@routes.put("/{node}/nics/{nic}/port", response_model=NicView)
def nic_wire(request: Request, node: str, nic: str, body: WireRequest) -> Response:
    """Note the switch port that a NIC's cable ends in."""
    call = call_of(request)
    return ok(nic_view(call.services.nics.nic_wire(call.caller, node, nic, switch=body.switch, port=body.port)), call)


@routes.delete("/{node}/nics/{nic}/port", status_code=204)
def nic_unwire(request: Request, node: str, nic: str) -> Response:
    """Forget a NIC's cable."""
    call = call_of(request)
    call.services.nics.nic_unwire(call.caller, node, nic)
    return nothing()


@routes.put("/{node}/bonds/{bond}", response_model=Listing[NicView])
def bond_set(request: Request, node: str, bond: str, body: BondRequest) -> Response:
    """Have two NICs of a node be one by LACP."""
    call = call_of(request)
    nics = call.services.bonds.bond_set(call.caller, node, bond, body.nics)
    return ok(Listing[NicView](items=tuple(nic_view(nic) for nic in nics)), call)


@routes.delete("/{node}/bonds/{bond}", status_code=204)
def bond_delete(request: Request, node: str, bond: str) -> Response:
    """Have the NICs of a bond stand alone."""
    call = call_of(request)
    call.services.bonds.bond_delete(call.caller, node, bond)
    return nothing()


@routes.post("/{node}/release", status_code=202, response_model=OperationView)
def node_release(request: Request, node: str) -> Response:
    """Give a node back."""
    call = call_of(request)
    return begun(call, call.services.nodes.node_release(call.caller, node))


@routes.post("/{node}/stop", status_code=202, response_model=OperationView)
def node_stop(request: Request, node: str) -> Response:
    """Take the disk from a node that stays held."""
    call = call_of(request)
    return begun(call, call.services.nodes.node_stop(call.caller, node))


@routes.post("/{node}/power", status_code=202, response_model=OperationView)
def node_power(request: Request, node: str, body: PowerRequest) -> Response:
    """Switch a node on, off, or off and on."""
    call = call_of(request)
    return begun(call, call.services.nodes.node_power(call.caller, node, body.action.value))


@routes.put("/{node}/boot-device", response_model=BootDeviceView)
def node_boot_device(request: Request, node: str, body: BootDeviceRequest) -> Response:
    """Choose what a node boots from the next time that its start is asked for."""
    call = call_of(request)
    device = call.services.boot_devices.boot_device_set(call.caller, node, body.device)
    return ok(BootDeviceView(device=device), call)


@routes.post("/{node}/readmit", status_code=202, response_model=OperationView)
def node_readmit(request: Request, node: str) -> Response:
    """Prove a quarantined or inspected node fit for use."""
    call = call_of(request)
    return begun(call, call.services.nodes.node_readmit(call.caller, node))


@routes.post("/{node}/retire", status_code=202, response_model=OperationView)
def node_retire(request: Request, node: str) -> Response:
    """Take a quarantined node out of use without its BMC: ports shut, disks fenced, then maintenance."""
    call = call_of(request)
    return begun(call, call.services.nodes.node_retire(call.caller, node))


@routes.post("/{node}/maintenance", response_model=NodeView)
def node_maintain(request: Request, node: str, body: MaintenanceRequest) -> Response:
    """Take a node out of use."""
    call = call_of(request)
    return _node(call, call.services.nodes.node_maintain(call.caller, node, body.reason))


@routes.delete("/{node}/maintenance", response_model=NodeView)
def node_end_maintenance(request: Request, node: str) -> Response:
    """Put a node back into use."""
    call = call_of(request)
    return _node(call, call.services.nodes.node_end_maintenance(call.caller, node))


@routes.get("/{node}/console", response_model=ConsoleView)
async def node_console(
    request: Request, node: str, lines: Annotated[int, Query(ge=1, le=CONSOLE_LINES_MAX)] = 50
) -> Response:
    """Read the serial console's last lines."""
    call = call_of(request)
    nodes = call.services.nodes
    return ok(
        ConsoleView(text=await edge_of(request).on_device(lambda: nodes.node_console(call.caller, node, lines))), call
    )


@routes.post("/{node}/console", response_model=ConsoleWritten)
async def console_write(request: Request, node: str, body: ConsoleRequest) -> Response:
    """Type at the serial console; one token at a time does."""
    call = call_of(request)
    inputs = call.services.console_inputs
    count = await edge_of(request).on_device(lambda: inputs.console_write(call.caller, node, body.text))
    return ok(ConsoleWritten(bytes=count), call)


@routes.delete("/{node}/console", status_code=204)
def console_leave(request: Request, node: str) -> Response:
    """Let somebody else type at the serial console."""
    call = call_of(request)
    call.services.console_inputs.console_leave(call.caller, node)
    return nothing()
