"""Reconnect: what a held node is on comes back at a port that was shut because an outcome was lost.

The port has been proven shut, so what was being taken off is off. The rest is wanted again, and the port stays in doubt
until it is read back with it: the watch sees to that as to any port in doubt.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from malleable.domain.errors import StoreBusy
from malleable.domain.ids import SwitchPortId
from malleable.domain.networks import Attachment, AttachmentState, GrantState
from malleable.domain.nodes import Nic, Node, NodeState
from malleable.domain.store import Transaction
from malleable.domain.switches import PortState, Switch, SwitchPort
from malleable.workflows import switching
from malleable.workflows.requests import record
from malleable.workflows.steps import Context

#: How the reason of a held node begins while one of its ports is in doubt.
IN_DOUBT = "a port is in an unknown state after "


def reconnect(context: Context, tx: Transaction, switch: Switch, proven: Iterable[SwitchPort]) -> None:
    """Go on with the nodes of ports that are in doubt no more; those that nobody holds are left as they are.

    Errors: StoreBusy when a port changed meanwhile.
    """
    found = tx.nics.list(switch_port_id=[port.id for port in proven])
    nodes = tx.nodes.list(id={nic.node_id for nic in found}, state=NodeState.ALLOCATED) if found else ()
    for node in nodes:
        nics = tx.nics.list(node_id=node.id)
        wired = [nic.switch_port_id for nic in nics if nic.switch_port_id]
        ports = {port.id: port for port in tx.switch_ports.list(id=wired)}
        touched = {nic.bond or nic.id for nic in found if nic.node_id == node.id}
        doubts = [_take_up(context, tx, switch, node=node, nics=nics, known=ports, key=key) for key in touched]
        if not any(doubts):
            _forget_doubt(tx, node, ports.values())


def forget_doubt(tx: Transaction, node: Node) -> None:
    """Let a node say no more that a port of it is in doubt, if none is."""
    if node.state_reason.startswith(IN_DOUBT):
        _forget_doubt(tx, node, switching.ports_of_node(tx, node.id))


def hold_left(tx: Transaction, ports: Collection[SwitchPort]) -> None:
    """Lock the networks that nodes leave once these ports are proven: before the ports, as a change of a guard does."""
    found = tx.nics.list(switch_port_id=[port.id for port in ports])
    nics = tx.nics.list(node_id={nic.node_id for nic in found}) if found else ()
    leaving = tx.attachments.list(nic_id=[nic.id for nic in nics], state=AttachmentState.DETACHING) if nics else ()
    switching.hold_networks(tx, [one.network_id for one in leaving])


def _forget_doubt(tx: Transaction, node: Node, ports: Iterable[SwitchPort]) -> None:
    if node.state_reason.startswith(IN_DOUBT) and all(port.state is PortState.SETTLED for port in ports):
        tx.nodes.change(node.id, expect={"state_reason": node.state_reason}, state_reason="")


def _staying(tx: Transaction, node: Node, attachments: Collection[Attachment]) -> list[Attachment]:
    """Choose what comes back: not what is being taken off, nor what is shared by a grant that is being revoked."""
    if not attachments:
        return []
    on = [one.network_id for one in attachments]
    revoking = tx.grants.list(network_id=on, project_id=node.project_id, state=GrantState.REVOKING)
    revoked = {grant.network_id for grant in revoking}
    return [one for one in attachments if one.state is AttachmentState.ATTACHED and one.network_id not in revoked]


def _take_up(
    context: Context,
    tx: Transaction,
    switch: Switch,
    *,
    node: Node,
    nics: Collection[Nic],
    known: Mapping[SwitchPortId, SwitchPort],
    key: object,
) -> bool:
    """Want at a NIC, or a bond, what it is attached to; say whether its ports are in doubt again by that."""
    ours = [nic for nic in nics if key in (nic.bond, nic.id)]
    ports = [known[nic.switch_port_id] for nic in ours if nic.switch_port_id]
    if not all(port.state is PortState.SETTLED and port.wanted.is_shut for port in ports):
        return False
    attachments = tx.attachments.list(nic_id=[nic.id for nic in ours])
    staying = _staying(tx, node, attachments)
    config = switching.wanted_of(context, tx, switch, nics, attachments=staying, ports=ports)
    wanted: dict[str, Any] = {"wanted": config, "state": PortState.UNKNOWN}
    for port in ports if staying else ():
        as_read = {"wanted_generation": port.wanted_generation, "state": PortState.SETTLED}
        if not tx.switch_ports.change(port.id, expect=as_read, wanted_generation=port.wanted_generation + 1, **wanted):
            raise StoreBusy(f"Port {port.name} changed just now.", fix="Try again.")
    leaving = [one for one in attachments if one.state is AttachmentState.DETACHING]
    switching.hold_networks(tx, [one.network_id for one in leaving])
    for one in leaving:
        switching.drop_attachment(tx, one)
        data = {"network_id": str(one.network_id)}
        record(tx, context.now(), "network.detached", node=node, operation=context.operation, data=data)
    return bool(staying)
