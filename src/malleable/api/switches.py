"""Fabrics, switches and switch ports."""

from dataclasses import asdict
from typing import Annotated

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from malleable.api.calls import After, Limit, call_of, created, edge_of, nothing, ok, page_of
from malleable.api.operations import begun
from malleable.api.routing import guarded
from malleable.domain.secrets import Secret
from malleable.domain.switches import Guard, PortConfig, PortPlan, Switch
from malleable.services.fabrics import Fabric
from malleable.services.paths import Path
from malleable.services.switches import SwitchWish, WiredPort
from malleable.wire.operations import OperationView
from malleable.wire.shapes import Listing
from malleable.wire.switches import (
    BindingView,
    DriverView,
    FabricView,
    GuardView,
    ImportRequest,
    ImportView,
    PathEndView,
    PathView,
    PortConfigView,
    PortPlanView,
    PortsRequest,
    PortView,
    SharedNetworkView,
    SwitchRequest,
    SwitchUpdateRequest,
    SwitchView,
    VlansChangeRequest,
    VlansRequest,
    VnisRequest,
)

NodeQuery = Annotated[str, Query(min_length=1, max_length=200, description="id or name of a node")]

routes = guarded("switches")


def fabric_view(fabric: Fabric) -> FabricView:
    """Show a fabric."""
    free = fabric.total - fabric.used - fabric.resting
    return FabricView(
        name=fabric.name,
        total=fabric.total,
        used=fabric.used,
        resting=fabric.resting,
        free=free,
        ranges=fabric.ranges,
        vni_base=fabric.vni_base,
        is_apart=fabric.is_apart,
    )


def switch_view(switch: Switch) -> SwitchView:
    """Show a switch; never its password."""
    return SwitchView(
        id=switch.id,
        name=switch.name,
        driver=switch.driver,
        fabric=switch.fabric,
        address=switch.address,
        settings=dict(switch.settings),
        username=switch.username,
        vnis=switch.vnis,
        created_at=switch.created_at,
    )


def port_view(wired: WiredPort) -> PortView:
    """Show a port."""
    port, nic = wired.port, wired.nic
    return PortView(
        id=port.id,
        switch_id=port.switch_id,
        switch=wired.switch,
        name=port.name,
        wanted=_config(port.wanted),
        wanted_generation=port.wanted_generation,
        observed=_config(port.observed) if port.observed is not None else None,
        observed_generation=port.observed_generation,
        observed_at=port.observed_at,
        state=port.state,
        node_id=nic.node_id if nic else None,
        node=wired.node,
        nic_id=nic.id if nic else None,
        nic=nic.name if nic else None,
    )


def _guard(guard: Guard) -> GuardView:
    bound = sorted((tuple(sorted(one.vids)), tuple(sorted(one.addresses))) for one in guard.bindings)
    return GuardView(
        macs=tuple(sorted(guard.macs)),
        gateways=tuple(sorted(guard.gateways)),
        bindings=tuple(BindingView(vids=vids, addresses=addresses) for vids, addresses in bound),
    )


def _config(config: PortConfig) -> PortConfigView:
    guard = config.guard
    return PortConfigView(
        native_vid=config.native_vid,
        tagged_vids=tuple(sorted(config.tagged_vids)),
        mtu=config.mtu,
        guard=_guard(guard) if guard is not None else None,
        bond=tuple(sorted(config.bond)),
    )


def _plan(plan: PortPlan) -> PortPlanView:
    carried, wanted = (_config(config) if config is not None else None for config in (plan.carried, plan.wanted))
    return PortPlanView(name=plan.name, adoption=plan.adoption, carried=carried, wanted=wanted, reason=plan.reason)


def _path(path: Path) -> PathView:
    shared = tuple(
        SharedNetworkView(
            network_id=network.network_id,
            network=network.network,
            is_open=network.is_open,
            reason=network.reason,
            ends=tuple(
                PathEndView(node=end.node, nic=end.nic, channel=end.channel, is_open=end.is_open, reason=end.reason)
                for end in network.ends
            ),
        )
        for network in path.shared
    )
    return PathView(is_open=path.is_open, reason=path.reason, networks=shared, stray_vids=path.stray_vids)


@routes.get("/fabrics", response_model=Listing[FabricView])
def fabric_list(request: Request) -> Response:
    """List all fabrics with their VLANs, counted; in one page."""
    call = call_of(request)
    fabrics = call.services.fabrics.fabric_list(call.caller)
    return ok(Listing[FabricView](items=tuple(fabric_view(fabric) for fabric in fabrics)), call)


@routes.get("/fabrics/{fabric}", response_model=FabricView)
def fabric_get(request: Request, fabric: str) -> Response:
    """Read a fabric: its VLANs, counted."""
    call = call_of(request)
    return ok(fabric_view(call.services.fabrics.fabric_get(call.caller, fabric)), call)


@routes.post("/fabrics/{fabric}/vlans", response_model=FabricView)
def fabric_change_vlans(request: Request, fabric: str, body: VlansChangeRequest) -> Response:
    """Add VLANs to a fabric's pool, or take some out."""
    call = call_of(request)
    fabrics = call.services.fabrics
    changed = fabrics.fabric_change_vlans(call.caller, fabric, add=body.add, remove=body.remove)
    return ok(fabric_view(changed), call)


@routes.put("/fabrics/{fabric}/vlans", response_model=FabricView)
def fabric_set_vlans(request: Request, fabric: str, body: VlansRequest) -> Response:
    """Make these the VLANs of a fabric."""
    call = call_of(request)
    return ok(fabric_view(call.services.fabrics.fabric_set_vlans(call.caller, fabric, body.ranges)), call)


@routes.put("/fabrics/{fabric}/vnis", response_model=FabricView)
def fabric_set_vnis(request: Request, fabric: str, body: VnisRequest) -> Response:
    """Have a fabric's networks travel by VXLAN, or no more."""
    call = call_of(request)
    return ok(fabric_view(call.services.fabrics.fabric_set_vnis(call.caller, fabric, body.base)), call)


@routes.get("/switches", response_model=Listing[SwitchView])
def switch_list(request: Request, after: After = None, limit: Limit = 100) -> Response:
    """List switches."""
    call = call_of(request)
    page = call.services.switches.switch_list(call.caller, page_of(after, limit))
    items = tuple(switch_view(switch) for switch in page.items)
    return ok(Listing[SwitchView](items=items, next=str(page.next) if page.next else None), call)


@routes.post("/switches", status_code=201, response_model=SwitchView)
async def switch_create(request: Request, body: SwitchRequest) -> Response:
    """Manage a switch, after asking it whether it can be."""
    call = call_of(request)
    wish = SwitchWish(
        name=body.name,
        driver=body.driver,
        fabric=body.fabric,
        address=body.address,
        settings=body.settings,
        username=body.username,
        password=Secret(body.password),
    )
    switches = call.services.switches
    return created(
        switch_view(await edge_of(request).on_device(lambda: switches.switch_create(call.caller, wish))), call
    )


@routes.get("/switches/{switch}", response_model=SwitchView)
def switch_get(request: Request, switch: str) -> Response:
    """Read a switch."""
    call = call_of(request)
    return ok(switch_view(call.services.switches.switch_get(call.caller, switch)), call)


@routes.put("/switches/{switch}/access", response_model=SwitchView)
async def switch_update(request: Request, switch: str, body: SwitchUpdateRequest) -> Response:
    """Reach a switch at another address or as another user, after trying."""
    call = call_of(request)
    switches, password = call.services.switches, None if body.password is None else Secret(body.password)
    updated = await edge_of(request).on_device(
        lambda: switches.switch_update(
            call.caller, switch, address=body.address, username=body.username, password=password
        )
    )
    return ok(switch_view(updated), call)


@routes.delete("/switches/{switch}", status_code=204)
def switch_delete(request: Request, switch: str) -> Response:
    """Stop managing a switch without ports."""
    call = call_of(request)
    call.services.switches.switch_delete(call.caller, switch)
    return nothing()


@routes.post("/switches/{switch}/rebuild", status_code=202, response_model=OperationView)
def switch_rebuild(request: Request, switch: str) -> Response:
    """Make a switch carry all that is wanted of it, as after a reset to factory settings."""
    call = call_of(request)
    return begun(call, call.services.switches.switch_rebuild(call.caller, switch))


@routes.post("/switches/{switch}/import", response_model=ImportView)
async def switch_import(request: Request, switch: str, body: ImportRequest) -> Response:
    """Keep what a live switch carries, without touching it; or only tell what that would do."""
    call = call_of(request)
    switches = call.services.switches
    adopt = switches.switch_import if body.apply else switches.switch_plan
    plans = await edge_of(request).on_device(lambda: adopt(call.caller, switch))
    return ok(ImportView(is_applied=body.apply, ports=tuple(_plan(plan) for plan in plans)), call)


@routes.get("/drivers", response_model=Listing[DriverView])
def driver_list(request: Request) -> Response:
    """List drivers with what each was tested on; in one page."""
    call = call_of(request)
    facts = call.services.drivers.driver_list(call.caller)
    items = tuple(DriverView(**asdict(fact)) for fact in facts)
    return ok(Listing[DriverView](items=items), call)


@routes.get("/paths", response_model=PathView)
def path_get(request: Request, one: NodeQuery, other: NodeQuery) -> Response:
    """Say whether two nodes reach each other, and why."""
    call = call_of(request)
    return ok(_path(call.services.paths.path_get(call.caller, one, other)), call)


@routes.get("/switches/{switch}/ports", response_model=Listing[PortView])
def port_list(request: Request, switch: str, after: After = None, limit: Limit = 100) -> Response:
    """List a switch's ports with what is wired to them."""
    call = call_of(request)
    page = call.services.switches.port_list(call.caller, switch, page_of(after, limit))
    items = tuple(port_view(port) for port in page.items)
    return ok(Listing[PortView](items=items, next=str(page.next) if page.next else None), call)


@routes.post("/switches/{switch}/ports", status_code=201, response_model=Listing[PortView])
async def port_create(request: Request, switch: str, body: PortsRequest) -> Response:
    """Manage ports of a switch: the named ones, or all it tells of."""
    call = call_of(request)
    switches = call.services.switches
    page = await edge_of(request).on_device(lambda: switches.port_create(call.caller, switch, body.names))
    return created(Listing[PortView](items=tuple(port_view(port) for port in page.items)), call)


@routes.get("/switches/{switch}/ports/{port:path}", response_model=PortView)
def port_get(request: Request, switch: str, port: str) -> Response:
    """Read a port."""
    call = call_of(request)
    return ok(port_view(call.services.switches.port_get(call.caller, switch, port)), call)


@routes.delete("/switches/{switch}/ports/{port:path}", status_code=204)
def port_delete(request: Request, switch: str, port: str) -> Response:
    """Stop managing a port that nothing is wired to."""
    call = call_of(request)
    call.services.switches.port_delete(call.caller, switch, port)
    return nothing()
