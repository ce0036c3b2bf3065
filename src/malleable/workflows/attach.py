"""Attach and detach: a held node's NIC joins or leaves a network."""

from datetime import datetime
from uuid import UUID

from malleable.domain.errors import Conflict, Exhausted, NotFound
from malleable.domain.ids import AttachmentId, ProjectId, UserId, new_id
from malleable.domain.networks import (
    Attachment,
    AttachmentState,
    Channel,
    Network,
    NetworkKind,
    NetworkState,
    first_free_address,
)
from malleable.domain.nodes import Nic, Node, NodeState
from malleable.domain.operations import Operation
from malleable.domain.store import Transaction
from malleable.domain.switches import SwitchPort
from malleable.workflows import switching
from malleable.workflows.requests import begin, reasons, record
from malleable.workflows.steps import Ending, Workflow


def check_connection(
    tx: Transaction, nic: Nic, network: Network, channel: Channel, *, project_id: ProjectId
) -> SwitchPort:
    """Apply the checks of connect in HIL's order, after existence and access; return the NIC's port.

    Errors: Conflict.
    """
    if nic.switch_port_id is None:
        raise Conflict(
            f"NIC {nic.name} ({nic.mac}) has no switch port.",
            code="nic-not-wired",
            fix=f"An operator runs `m2 node wire {tx.nodes.get(nic.node_id).name} {nic.name} SWITCH PORT`.",
        )
    if network.project_id != project_id and network.kind is not NetworkKind.PROVIDER:
        # As for any object of another tenant: it does not exist.
        raise NotFound(f"There is no network {network.name}.")
    if network.state is not NetworkState.ACTIVE:
        raise Conflict(f"Network {network.name} is being removed.", code="network-removing")
    for other in tx.attachments.list(nic_id=nic.id):
        if other.network_id == network.id:
            raise Conflict(f"NIC {nic.name} is on network {network.name} already.", code="already-attached")
        if channel is Channel.NATIVE and other.channel is Channel.NATIVE:
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
    return port


def reserve_attachment(tx: Transaction, now: datetime, nic: Nic, network: Network, channel: Channel) -> Attachment:
    """Give the NIC an address and the intent to be on the network. Errors: Exhausted, Conflict."""
    # Its row queues who wants an address, and who removes the network, at the same time.
    if not tx.networks.change(network.id, expect={"state": NetworkState.ACTIVE}):
        raise Conflict(f"Network {network.name} is being removed.", code="network-removing")
    taken = frozenset(a.address for a in tx.attachments.list(network_id=network.id))
    address = first_free_address(network.cidr, taken)
    if address is None:
        raise Exhausted(
            f"Network {network.name} has no free address in {network.cidr}.", fix="Use a network with a larger subnet."
        )
    attachment = Attachment(
        id=AttachmentId(new_id()),
        nic_id=nic.id,
        network_id=network.id,
        channel=channel,
        state=AttachmentState.ATTACHING,
        address=address,
        created_at=now,
    )
    tx.attachments.add(attachment)
    return attachment


def request(
    tx: Transaction,
    now: datetime,
    *,
    nic: Nic,
    node: Node,
    network: Network,
    channel: Channel,
    actor_id: UserId | None,
) -> Operation:
    """Begin to attach. Errors: Conflict."""
    project_id = _holder(node)
    port = check_connection(tx, nic, network, channel, project_id=project_id)
    attachment = reserve_attachment(tx, now, nic, network, channel)
    arguments = {"attachment_id": str(attachment.id), "network_id": str(network.id), "switch_id": str(port.switch_id)}
    return begin(tx, now, "attach", node_id=node.id, project_id=project_id, actor_id=actor_id, arguments=arguments)


def request_detach(
    tx: Transaction, now: datetime, *, attachment: Attachment, node: Node, actor_id: UserId | None
) -> Operation:
    """Begin to detach. Errors: Conflict, also while the node runs its disk over this very attachment."""
    project_id = _holder(node)
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


def _holder(node: Node) -> ProjectId:
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

    return end


def _undone(tx: Transaction, operation: Operation, now: datetime) -> None:
    attachment_id = UUID(str(operation.arguments["attachment_id"]))
    tx.attachments.remove(attachment_id, expect={"state": AttachmentState.ATTACHING})
    record(tx, now, "network.attach-undone", operation=operation, data=reasons(operation))


def _doubt(tx: Transaction, operation: Operation, now: datetime) -> None:
    """The port's outcome is not known: the node stays held, cannot be freed, and says so."""
    if operation.node_id is not None:
        switching.doubt_ports(tx, operation.node_id)
        reason = f"a port is in an unknown state after {operation.kind}: {operation.reason}"
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
