"""Provision: a free node, a disk and a network become a running machine; boot and power do parts of it again."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from malleable.domain.boots import Boot
from malleable.domain.disks import Disk, DiskState
from malleable.domain.errors import Conflict, Invalid
from malleable.domain.ids import BootId, OperationId, ProjectId, UserId, new_id
from malleable.domain.images import BootWay, Image, ImageState
from malleable.domain.networks import Attachment, AttachmentState, Channel, Network
from malleable.domain.nodes import BootDevice, BootState, Nic, Node, NodeState, PowerState
from malleable.domain.operations import Operation
from malleable.domain.secrets import random_secret
from malleable.domain.seeds import Given, Seed, seed_of
from malleable.domain.store import Transaction
from malleable.domain.switches import SwitchPort
from malleable.workflows import booting, finishing, powering, presenting, switching
from malleable.workflows.access import revoke_access
from malleable.workflows.attach import Connection, check_connection, reserve_attachment
from malleable.workflows.quarantine import quarantine
from malleable.workflows.requests import begin, move_node, reasons, record, want_idle
from malleable.workflows.seeds import forget_boot, keep_boot
from malleable.workflows.steps import Ending, Workflow


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a tenant wants to run, all of it resolved and authorised."""

    node: Node
    project_id: ProjectId
    disk: Disk | None  #: None: the image itself, read only, and what is written stays in the node's memory
    image: Image
    network: Network
    nic: Nic
    way: BootWay
    hostname: str
    ssh_keys: tuple[str, ...] = ()
    given: Given = field(default_factory=Given)  #: for its system's first start
    actor_id: UserId | None = None
    is_by_site: bool = False  #: an admin asks
    after: OperationId | None = None  #: an operation that must have succeeded first
    data_disks: tuple[Disk, ...] = ()  #: for its system to log in to, besides the one it boots
    makes_disk: bool = False  #: the disk was added by this very request: undoing takes it back


def request(tx: Transaction, now: datetime, wish: Wish, *, adds: bool = True) -> Operation:
    """Take the node for the project and begin; ``adds`` as ``requests.begin``.

    Errors: Conflict or Invalid, saying what stands in the way.
    """
    port: SwitchPort | None
    boots = () if wish.makes_disk or wish.disk is None else (wish.disk,)
    disks = (*boots, *wish.data_disks)
    presenting.check_usable(disks, wish.project_id)
    if wish.after is None:
        presenting.take_unused(tx, disks)
    _check_image(wish)
    _check_served(wish.network)
    node = wish.node
    if node.state is NodeState.ALLOCATED and node.project_id == wish.project_id:
        want_idle(tx, node)
        kind, attachment, port = "boot", _present_attachment(tx, wish), _port(tx, wish.nic)
        if tx.boots.find(node_id=node.id) is not None:
            raise Conflict(
                f"Node {node.name} boots another disk already.",
                code="node-in-use",
                fix=f"Run `m2 node stop {node.name}` first, or choose another node.",
            )
    else:
        connection = _connection(wish)
        # The node first: of two who want it the second hears that, and not what the first has done to it meanwhile.
        held = move_node(tx, now, node, NodeState.ALLOCATED, project_id=wish.project_id)
        port = check_connection(tx, connection)
        kind, attachment = "provision", reserve_attachment(tx, now, connection)
        record(tx, now, "node.allocated", node=held, actor_id=wish.actor_id, data=_named(wish))
    seed = seed_of(wish.node.id, wish.given)
    keep_boot(tx, _boot(wish, attachment, seed), seed)
    return begin(
        tx,
        now,
        kind,
        node_id=node.id,
        project_id=wish.project_id,
        actor_id=wish.actor_id,
        arguments=_arguments(wish, attachment, port),
        adds=adds,
    )


def _connection(wish: Wish) -> Connection:
    return Connection(
        node=wish.node,
        nic=wish.nic,
        network=wish.network,
        channel=Channel.NATIVE,
        project_id=wish.project_id,
        is_by_site=wish.is_by_site,
    )


def _check_served(network: Network) -> None:
    if not network.has_service:
        raise Conflict(
            f"Nothing boots in network {network.name}: it is not served here.",
            code="network-not-served",
            fix="Boot in another network; attach the node to this one tagged, or by another NIC.",
        )
    if not network.cidr:
        # iPXE tells a system of its disk by the iBFT, where it writes IPv4 addresses alone.
        raise Conflict(
            f"Nothing boots in network {network.name}: it has no IPv4 subnet.",
            code="network-without-ipv4",
            fix="Boot in another network, and attach the node to this one tagged, or by another NIC.",
        )


def _port(tx: Transaction, nic: Nic) -> SwitchPort | None:
    return tx.switch_ports.get(nic.switch_port_id) if nic.switch_port_id else None


def _arguments(wish: Wish, attachment: Attachment, port: SwitchPort | None) -> dict[str, object]:
    return {
        "disk_id": str(wish.disk.id) if wish.disk else "",
        "disk_ids": [str(disk.id) for disk in wish.data_disks],
        "image_id": str(wish.image.id),
        "network_id": str(wish.network.id),
        "attachment_id": str(attachment.id),
        "switch_id": str(port.switch_id) if port else "",
        "makes_disk": wish.makes_disk,
        "seed_disk": wish.given.has_disk,
        "first_boot": wish.given.has_hook,
        "after": str(wish.after) if wish.after else "",
        **_signed_files(wish),
    }


def _signed_files(wish: Wish) -> dict[str, object]:
    """Name what a signature covers besides the disk: it is looked at again before it boots."""
    is_signed = wish.way is BootWay.KERNEL and wish.image.signing_key
    return {booting.SIGNED_FILES: dict(wish.image.files)} if is_signed else {}


def _named(wish: Wish) -> dict[str, object]:
    return {"disk": wish.disk.name} if wish.disk else {"name": wish.image.name}


def _boot(wish: Wish, attachment: Attachment, seed: Seed | None) -> Boot:
    return Boot(
        id=BootId(new_id()),
        node_id=wish.node.id,
        network_id=wish.network.id,
        attachment_id=attachment.id,
        target_id=None,
        mac=wish.nic.mac,
        way=wish.way,
        hostname=wish.hostname,
        ssh_keys=wish.ssh_keys,
        documents=seed.documents if seed else (),
        has_seed_disk=wish.given.has_disk,
        has_hook=wish.given.has_hook,
        token=random_secret(),
    )


def _check_image(wish: Wish) -> None:
    image, node = wish.image, wish.node
    if image.state is not ImageState.SEALED:
        raise Conflict(f"Image {image.name} is {image.state}, not sealed.", code="image-not-sealed")
    if wish.way not in image.boot_ways:
        ways = ", ".join(image.boot_ways)
        raise Invalid(f"Image {image.name} cannot boot by {wish.way}.", code="boot-way", fix=f"It can by: {ways}.")
    if wish.disk is None and wish.way is not BootWay.KERNEL:
        raise Invalid(
            f"A node cannot boot an image itself by {wish.way}.",
            code="boot-way",
            fix="Use boot way kernel: its command line tells the system to write to memory. Or leave --stateless out.",
        )
    if node.firmware is not None and node.firmware not in image.firmwares:
        raise Conflict(
            f"Image {image.name} does not boot on {node.firmware} and node {node.name} has that.",
            code="firmware",
            fix="Choose a node with another firmware or another image.",
        )


def _present_attachment(tx: Transaction, wish: Wish) -> Attachment:
    attachment = tx.attachments.find(nic_id=wish.nic.id, network_id=wish.network.id, channel=Channel.NATIVE)
    if attachment is None or attachment.state is not AttachmentState.ATTACHED:
        raise Conflict(
            f"NIC {wish.nic.name} of node {wish.node.name} is not attached natively to network {wish.network.name}.",
            code="not-attached",
            fix="Attach it first, or boot from the network it is attached to.",
        )
    return attachment


def _done(tx: Transaction, operation: Operation, now: datetime) -> None:
    """Nothing to add: the last step has proven and recorded that the system is up."""


def undone(goes_on: Callable[[Transaction, Operation, datetime], bool] = lambda *_: False) -> Ending:
    """The undos have proven the node off, its ports shut, its disk revoked: free it, unless something ``goes_on``."""

    def end(tx: Transaction, operation: Operation, now: datetime) -> None:
        if operation.node_id is None:
            return
        _forget_boot(tx, operation)
        # A reservation whose port was never connected is still there; connect-port's undo has dropped any other.
        switching.drop_attachments(tx, operation.node_id)
        _forget_disk(tx, operation)
        node = tx.nodes.get(operation.node_id)
        state, reason, kind = NodeState.FREE, "", "freed"
        changes: dict[str, Any] = {}
        error = operation.error or {}
        if error.get("step") == powering.POWER_OFF.name:
            # Never begun on, but its BMC does not obey: handed out again, it would fail the next tenant as well.
            state, kind = NodeState.QUARANTINED, "quarantined"
            reason = f"its power could not be proven: {operation.reason}"
            if error.get("code") == powering.WOKE_UP:
                reason, changes = powering.WOKE, {"power": PowerState.ON, "is_unscrubbed": True}
        changes |= {"state": state, "state_reason": reason, "state_since": now}
        tx.nodes.change(node.id, **changes, project_id=None, boot=BootState.NONE, boot_device=BootDevice.NETWORK)
        revoke_access(tx, now, node, operation=operation)
        if state is not NodeState.FREE or not goes_on(tx, operation, now):
            record(tx, now, f"node.{kind}", node=node, operation=operation, data=reasons(operation))

    return end


def _forget_boot(tx: Transaction, operation: Operation) -> None:
    boot = tx.boots.find(node_id=operation.node_id)
    if boot is not None:
        forget_boot(tx, boot)


def _forget_disk(tx: Transaction, operation: Operation) -> None:
    """Drop a disk's row whose cloning never began."""
    if operation.arguments.get("makes_disk"):
        disk_id = UUID(str(operation.arguments["disk_id"]))
        tx.disks.remove(disk_id, expect={"state": DiskState.CREATING})


def _boot_undone(tx: Transaction, operation: Operation, now: datetime) -> None:
    """A held node stays held, off and without a disk."""
    _forget_boot(tx, operation)
    _forget_disk(tx, operation)
    if operation.node_id is not None:
        tx.nodes.change(operation.node_id, boot=BootState.FAILED)


_START = (
    presenting.EXPORT_TARGET,
    presenting.EXPORT_DATA,
    booting.ARM_BOOT,
    powering.START,
    booting.AWAIT_UP,
    finishing.AWAIT_FINISHED,
)
PROVISION = Workflow(
    name="provision",
    steps=(
        booting.AWAIT_PREDECESSOR,
        presenting.CLONE_DISK,
        replace(powering.POWER_OFF, do=powering.find_off),
        switching.CONNECT_TO_BOOT,
        *_START,
    ),
    on_done=_done,
    on_undone=undone(),
    on_stuck=quarantine,
)
BOOT = Workflow(
    name="boot",
    steps=(booting.AWAIT_PREDECESSOR, presenting.CLONE_DISK, powering.POWER_OFF, *_START),
    on_done=_done,
    on_undone=_boot_undone,
    on_stuck=quarantine,
)
