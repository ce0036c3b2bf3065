"""The gateway's routes."""

from dataclasses import asdict
from time import monotonic
from typing import Annotated
from uuid import UUID

from fastapi import Query
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from malleable.api.calls import call_of, edge_of, nothing, ok
from malleable.api.routing import guarded
from malleable.domain.addressing import gateway_address
from malleable.domain.boots import Boot
from malleable.domain.disks import Disk, Target
from malleable.domain.freezes import FreezeState
from malleable.domain.ids import BootId, NetworkId, OperationId
from malleable.domain.networks import AddressGuard
from malleable.domain.seeds import Document
from malleable.services.gateway import Beat, Changes, Desired, Intent, Served, Sign
from malleable.wire.gateway import (
    DesiredBoot,
    DesiredDisk,
    DesiredFiles,
    DesiredFreeze,
    DesiredHost,
    DesiredNetwork,
    DesiredView,
    ReportsRequest,
    SignsRequest,
)
from malleable.wire.networks import AddressingView
from malleable.wire.shapes import MAX_COUNT
from malleable.workflows.presenting import target_serial

routes = guarded("gateway", prefix="/v1/gateway")

WAIT_MAX_S = 30.0
#: Tells a system to keep what it writes in memory: to our images and to Debian's and Ubuntu's overlayroot.
IN_MEMORY = "malleable.overlay=ram overlayroot=tmpfs"


@routes.get("/desired", response_model=DesiredView)
async def gateway_desired(
    request: Request,
    after: Annotated[int, Query(ge=0, le=MAX_COUNT)] = 0,
    wait_s: Annotated[float, Query(ge=0, le=WAIT_MAX_S, allow_inf_nan=False)] = 0.0,
) -> Response:
    """Read what to serve, changed since generation ``after``; waits for a change when there is none."""
    call, fanout, end_s = call_of(request), edge_of(request).gateway, monotonic() + wait_s
    while True:
        seen = fanout.count()
        changes = await run_in_threadpool(call.services.gateways.gateway_desired, call.caller, after)
        left_s = end_s - monotonic()
        is_news = changes.networks or changes.generation < after
        if is_news or left_s <= 0 or not await fanout.wait(seen, left_s):
            return ok(_desired_view(changes), call)


@routes.post("/reports", status_code=204)
def gateway_report(request: Request, body: ReportsRequest) -> Response:
    """Note what the gateway has in force."""
    call = call_of(request)
    served = [
        Served(network_id=NetworkId(n.id), served_generation=n.served_generation, portal_epoch=n.portal_epoch)
        for n in body.networks
    ]
    sign = body.gateway
    beat = None if sign is None else Beat(**sign.model_dump())
    call.services.gateways.gateway_report(call.caller, served, body.removed, beat)
    return nothing()


@routes.post("/signs", status_code=204)
def gateway_sign(request: Request, body: SignsRequest) -> Response:
    """Note signs of life of booting nodes."""
    call = call_of(request)
    signs = [
        Sign(
            boot_id=BootId(s.boot_id),
            stage=s.stage,
            exit_status=s.exit_status,
            log=s.log,
            freeze_id=OperationId(s.freeze_id) if s.freeze_id is not None else None,
        )
        for s in body.signs
    ]
    call.services.gateways.gateway_sign(call.caller, signs)
    return nothing()


@routes.get("/images/{image_id}/files/{name}", response_class=FileResponse)
def gateway_file(request: Request, image_id: UUID, name: str) -> Response:
    """Download a file kept beside an image."""
    call = call_of(request)
    path = call.services.gateways.gateway_file(call.caller, image_id, name)
    return FileResponse(path, media_type="application/octet-stream")


@routes.get("/boots/{boot_id}/documents/{name}", response_class=Response)
def gateway_document(request: Request, boot_id: UUID, name: Document) -> Response:
    """Read what a node's system is to be given, byte for byte; its network-config also when none was given."""
    call = call_of(request)
    content = call.services.gateways.gateway_document(call.caller, boot_id, name)
    return Response(content, media_type="application/octet-stream")


def _desired_view(changes: Changes) -> DesiredView:
    networks = tuple(_network(one) for one in changes.networks)
    return DesiredView(generation=changes.generation, networks=networks, has_more=changes.has_more)


def _network(desired: Desired) -> DesiredNetwork:
    network = desired.network
    return DesiredNetwork(
        id=network.id,
        name=network.name,
        generation=network.generation,
        state=network.state,
        fabric=network.fabric,
        vid=network.vid,
        is_tunnelled=network.vni is not None,
        cidr=network.cidr,
        gateway_address=gateway_address(network.cidr),
        cidr6=network.cidr6,
        gateway_address6=gateway_address(network.cidr6),
        addressing=AddressingView(**asdict(network.addressing)),
        mtu=network.mtu,
        has_nat=network.has_nat,
        has_outside_dns=network.has_outside_dns,
        binds_addresses=network.address_guard is AddressGuard.ON,
        boots=tuple(_boot(intent) for intent in desired.intents),
        hosts=tuple(
            DesiredHost(node_id=h.node_id, mac=h.mac, address=h.address, address6=h.address6, hostname=h.hostname)
            for h in desired.hosts
        ),
    )


def _disk(target: Target, disk: Disk) -> DesiredDisk:
    return DesiredDisk(
        name=disk.name,
        serial=target_serial(target),
        size_bytes=disk.size_bytes,
        iqn=target.iqn,
        lun=target.lun,
        daemon=target.daemon,
        chap_username=target.chap_username,
        chap_password=target.chap_password.reveal(),
    )


def _freeze(boot: Boot) -> DesiredFreeze | None:
    if boot.freeze_id is None:
        return None
    is_held = boot.freeze_state in (FreezeState.ASKED, FreezeState.FROZEN)
    return DesiredFreeze(id=boot.freeze_id, serial=boot.freeze_serial, is_held=is_held)


def _boot(intent: Intent) -> DesiredBoot:
    boot, target, image = intent.boot, intent.target, intent.image
    return DesiredBoot(
        id=boot.id,
        node_id=boot.node_id,
        mac=boot.mac,
        address=intent.address,
        hostname=boot.hostname,
        way=boot.way,
        initiator_iqn=target.initiator_iqn,
        iqn=target.iqn,
        lun=target.lun,
        daemon=target.daemon,
        chap_username=target.chap_username,
        chap_password=target.chap_password.reveal(),
        serial=target_serial(target),
        files=DesiredFiles(
            kernel=image.kernel,
            initrd=image.initrd,
            kernel_sha256=image.kernel_sha256,
            initrd_sha256=image.initrd_sha256,
        ),
        image_id=image.id,
        cmdline=image.cmdline if target.disk_id else f"{image.cmdline} {IN_MEMORY}".strip(),
        ssh_keys=boot.ssh_keys,
        has_hook=boot.has_hook,
        documents=boot.documents,
        data_disks=tuple(_disk(*of_data) for of_data in intent.data),
        has_multipath=image.has_multipath,
        freeze=_freeze(boot),
        token=boot.token.reveal(),
    )
