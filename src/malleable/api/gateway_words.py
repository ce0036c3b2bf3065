"""A gateway's calls in the API's words: for its routes, and for one that shares the API's process."""

from dataclasses import asdict

from malleable.domain.addressing import gateway_address
from malleable.domain.boots import Boot
from malleable.domain.disks import Disk, Target
from malleable.domain.freezes import FreezeState
from malleable.domain.ids import BootId, NetworkId, OperationId
from malleable.domain.networks import AddressGuard
from malleable.services.caller import Caller
from malleable.services.gateway import Beat, Changes, Desired, Gateways, Intent, Served, Sign
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
from malleable.workflows.presenting import target_serial

#: Tells a system to keep what it writes in memory: to our images and to Debian's and Ubuntu's overlayroot.
IN_MEMORY = "malleable.overlay=ram overlayroot=tmpfs"


def report(gateways: Gateways, caller: Caller, request: ReportsRequest) -> None:
    """Note what a gateway has in force. Errors: those of ``Gateways.gateway_report``."""
    served = [
        Served(network_id=NetworkId(n.id), served_generation=n.served_generation, portal_epoch=n.portal_epoch)
        for n in request.networks
    ]
    beat = None if request.gateway is None else Beat(**request.gateway.model_dump())
    gateways.gateway_report(caller, served, request.removed, beat)


def sign(gateways: Gateways, caller: Caller, request: SignsRequest) -> None:
    """Note signs of life of booting nodes. Errors: those of ``Gateways.gateway_sign``."""
    signs = [
        Sign(
            boot_id=BootId(s.boot_id),
            stage=s.stage,
            exit_status=s.exit_status,
            log=s.log,
            freeze_id=OperationId(s.freeze_id) if s.freeze_id is not None else None,
        )
        for s in request.signs
    ]
    gateways.gateway_sign(caller, signs)


def desired_view(changes: Changes) -> DesiredView:
    """Say what is to be served otherwise."""
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
