"""Attach and detach: a held node's NIC joins or leaves a network."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from malleable.domain.errors import Conflict, NotFound
from malleable.domain.ids import AttachmentId, ProjectId, UserId, new_id
from malleable.domain.networks import (
    Attachment,
    AttachmentState,
    Channel,
    GrantState,
    Network,
    NetworkKind,
    NetworkState,
)
from malleable.domain.nodes import Nic, Node, NodeState
from malleable.domain.operations import Operation
from malleable.domain.store import Transaction
from malleable.domain.switches import SwitchPort, mtu_limit
from malleable.workflows import switching
from malleable.workflows.addresses import choose, hold_network, reserved_in
from malleable.workflows.reconnect import IN_DOUBT, forget_doubt
from malleable.workflows.requests import begin, reasons, record, want_idle
from malleable.workflows.steps import Ending, Workflow


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A NIC that is to join a network, for the project that holds its node or is about to."""

    node: Node
    nic: Nic
    network: Network
    channel: Channel
    project_id: ProjectId
    address: str = ""  #: the IPv4 address that is asked for; "": any of the network's range
    address6: str = ""  #: the IPv6 address, as well
    is_by_site: bool = False  #: an admin asks, who may put any node on the site's own provider networks


def check_connection(tx: Transaction, wish: Connection) -> SwitchPort:
    """Apply the checks of connect, in HIL's order, that follow those of existence and of access to the node.

    The NIC has a port, nobody works on the node, the network is for this project, the NIC is not on it yet, the
    channel is unused, and the switch can do it. Returns the NIC's port. Errors: Conflict, NotFound.
    """
    nic, network, channel = wish.nic, wish.network, wish.channel
    if nic.switch_port_id is None:
        raise Conflict(
            f"NIC {nic.name} ({nic.mac}) has no switch port.",
            code="nic-not-wired",
            fix=f"An operator runs `m2 node wire {wish.node.name} {nic.name} SWITCH PORT`.",
        )
    if wish.node.project_id == wish.project_id:  # of one that is only being taken, its state tells
        want_idle(tx, wish.node)
    if not _may_join(tx, wish):
        # As for any object of another tenant: it does not exist.
        raise NotFound(f"There is no network {network.name} for the project that holds the node.")
    if network.state is not NetworkState.ACTIVE:
        raise Conflict(f"Network {network.name} is being removed.", code="network-removing")
    present = tx.attachments.list(nic_id=nic.id)
    same = next((other for other in present if other.network_id == network.id), None)
    if same is not None:
        fix = f"`m2 attachment detach {wish.node.name} {network.name}` takes it off."
        detail = "already" if same.state is not AttachmentState.DETACHING else "until it is taken off, which has begun"
        raise Conflict(f"NIC {nic.name} is on network {network.name} {detail}.", code="already-attached", fix=fix)
    if channel is Channel.NATIVE and any(other.channel is Channel.NATIVE for other in present):
        raise Conflict(
            f"NIC {nic.name} already carries another network natively.",
            code="channel-taken",
            fix="Use --channel tagged, or detach the other network first.",
        )
    port = tx.switch_ports.get(nic.switch_port_id)
    switch = tx.switches.get(port.switch_id)
    if switch.fabric != network.fabric:
        raise Conflict(
            f"NIC {nic.name} is wired to fabric {switch.fabric}, network {network.name} lives on {network.fabric}.",
            code="other-fabric",
            fix="Use a network of the same fabric.",
        )
    if network.mtu > mtu_limit(switch):
        raise Conflict(
            f"The switch of NIC {nic.name} forwards packets of at most {mtu_limit(switch)} bytes, "
            f"network {network.name} has {network.mtu}.",
            code="mtu-too-large",
            fix="Use a network with a smaller MTU, or another node.",
        )
    return port


def _may_join(tx: Transaction, wish: Connection) -> bool:
    """Say whether the network is for the project: its own, a public one, or one it accepted a grant of."""
    network = wish.network
    if network.is_public or network.project_id == wish.project_id:
        return True
    if wish.is_by_site and network.kind is NetworkKind.PROVIDER:
        return True
    return tx.grants.count(network_id=network.id, project_id=wish.project_id, state=GrantState.ACCEPTED) == 1


def _hold_grant(tx: Transaction, wish: Connection) -> None:
    """Keep the grant that lets the project in until this transaction ends. Errors: Conflict: it is revoked."""
    network = wish.network
    is_free = network.is_public or (wish.is_by_site and network.kind is NetworkKind.PROVIDER)
    if is_free or network.project_id == wish.project_id:
        return
    grant = tx.grants.find(network_id=network.id, project_id=wish.project_id)
    if grant is not None and not tx.grants.change(grant.id, expect={"state": GrantState.ACCEPTED}):
        raise Conflict(f"Network {network.name} is shared with the project no more.", code="grant-revoking")


def reserve_attachment(tx: Transaction, now: datetime, wish: Connection) -> Attachment:
    """Give the NIC an address and the intent to be on the network. Errors: Invalid, Exhausted, Conflict."""
    nic, network, channel = wish.nic, wish.network, wish.channel
    hold_network(tx, network)
    _hold_grant(tx, wish)
    reserved = reserved_in(tx, network)
    if any(one.mac == nic.mac for one in reserved):
        raise Conflict(
            f"The MAC address {nic.mac} of NIC {nic.name} is reserved in network {network.name}.",
            code="mac-reserved",
            fix=f"The network's owner removes that reservation: `m2 reservation list {network.name}`.",
        )
    address = choose(tx, network, "address", wish.address, reserved)
    address6 = choose(tx, network, "address6", wish.address6, reserved)
    attachment = Attachment(
        id=AttachmentId(new_id()),
        nic_id=nic.id,
        network_id=network.id,
        channel=channel,
        state=AttachmentState.ATTACHING,
        address=address,
        address6=address6,
        created_at=now,
    )
    tx.attachments.add(attachment)
    return attachment


def request(
    tx: Transaction,
    now: datetime,
    wish: Connection,
    *,
    actor_id: UserId | None,
) -> Operation:
    """Begin to attach. Errors: Conflict, NotFound, Exhausted."""
    port = check_connection(tx, wish)
    attachment = reserve_attachment(tx, now, wish)
    network_id, node_id, project_id = wish.network.id, wish.node.id, wish.project_id
    arguments = {"attachment_id": str(attachment.id), "network_id": str(network_id), "switch_id": str(port.switch_id)}
    return begin(tx, now, "attach", node_id=node_id, project_id=project_id, actor_id=actor_id, arguments=arguments)


def request_detach(
    tx: Transaction, now: datetime, *, attachment: Attachment, node: Node, actor_id: UserId | None
) -> Operation:
    """Begin to detach. Errors: Conflict, also while the node runs its disk over this very attachment."""
    project_id = holder(node)
    boot = tx.boots.find(attachment_id=attachment.id)
    if boot is not None:
        raise Conflict(
            f"Node {node.name} runs its disk over this network.",
            code="attachment-in-use",
            fix=f"Run `m2 node stop {node.name}` or `m2 node release {node.name}` first.",
        )
    nic = tx.nics.get(attachment.nic_id)
    port = tx.switch_ports.get(nic.switch_port_id) if nic.switch_port_id else None
    arguments = {
        "attachment_id": str(attachment.id),
        "network_id": str(attachment.network_id),
        "switch_id": str(port.switch_id) if port else "",
    }
    return begin(tx, now, "detach", node_id=node.id, project_id=project_id, actor_id=actor_id, arguments=arguments)


def holder(node: Node) -> ProjectId:
    """Return the project that holds the node. Errors: Conflict when none does."""
    if node.state is not NodeState.ALLOCATED or node.project_id is None:
        raise Conflict(
            f"Node {node.name} is {node.state}; only an allocated node is attached to networks.",
            code="node-not-allocated",
            fix="Provision the node first.",
        )
    return node.project_id


def _recorded(kind: str) -> Ending:
    def end(tx: Transaction, operation: Operation, now: datetime) -> None:
        data = {"network_id": operation.arguments.get("network_id"), **reasons(operation)}
        record(tx, now, kind, operation=operation, data=data)
        if operation.node_id is not None:
            forget_doubt(tx, tx.nodes.get(operation.node_id))

    return end


def _undone(tx: Transaction, operation: Operation, now: datetime) -> None:
    attachment_id = UUID(str(operation.arguments["attachment_id"]))
    tx.attachments.remove(attachment_id, expect={"state": AttachmentState.ATTACHING})
    record(tx, now, "network.attach-undone", operation=operation, data=reasons(operation))


def _doubt(tx: Transaction, operation: Operation, now: datetime) -> None:
    """The port's outcome is not known: the node stays held, cannot be freed, and says so."""
    if operation.node_id is not None:
        switching.doubt_ports(tx, operation.node_id)
        reason = f"{IN_DOUBT}{operation.kind}: {operation.reason}"
        tx.nodes.change(operation.node_id, state_reason=reason)
    record(tx, now, "port.unknown", operation=operation, data=reasons(operation))


ATTACH = Workflow(
    name="attach",
    steps=(switching.CONNECT,),
    on_done=_recorded("network.attached"),
    on_undone=_undone,
    on_stuck=_doubt,
)
DETACH = Workflow(
    name="detach",
    steps=(switching.DISCONNECT,),
    on_done=_recorded("network.detached"),
    on_undone=None,
    on_stuck=_doubt,
)
