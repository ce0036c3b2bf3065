"""Quarantine: a node of which something could not be proven is cut off from everything, and says what it is about."""

from datetime import datetime

from malleable.domain.nodes import BootState, Node, NodeState
from malleable.domain.operations import Operation
from malleable.domain.store import Transaction
from malleable.domain.switches import PortState
from malleable.workflows import booting, presenting, switching
from malleable.workflows.access import revoke_access
from malleable.workflows.requests import begin, reasons, record
from malleable.workflows.steps import Workflow

#: They have tried to cut the node off themselves.
_HAVE_TRIED = frozenset({"release", "retire", "isolate"})


def quarantine(tx: Transaction, operation: Operation, now: datetime, *, reason: str = "") -> None:
    """Keep a node that could not be proven clean away from everybody, and begin to cut it off if it is not."""
    if operation.node_id is None:
        return
    switching.doubt_ports(tx, operation.node_id)
    node = tx.nodes.get(operation.node_id)
    reason = reason or f"{operation.kind} could not be completed or undone: {operation.reason}"
    tx.nodes.change(node.id, state=NodeState.QUARANTINED, state_reason=reason, state_since=now, boot=BootState.NONE)
    revoke_access(tx, now, node, operation=operation)
    data = {**reasons(operation), "reason": reason}
    record(tx, now, "node.quarantined", node=node, operation=operation, data=data)
    if operation.kind not in _HAVE_TRIED and left_over(tx, node):
        begin(tx, now, "isolate", node_id=node.id, project_id=node.project_id, arguments=places(tx, node))


def places(tx: Transaction, node: Node) -> dict[str, object]:
    """Find the network a node boots in and the switch it hangs on: they name the concurrency tokens."""
    target = next(iter(tx.targets.list(node_id=node.id)), None)
    boot = tx.boots.find(node_id=node.id)
    ports = switching.ports_of_node(tx, node.id)
    network_id = target.network_id if target else (boot.network_id if boot else "")
    return {"network_id": str(network_id), "switch_id": str(ports[0].switch_id) if ports else ""}


def left_over(tx: Transaction, node: Node) -> str:
    """Name what still ties a node to its last holder; "" when nothing does."""
    if tx.targets.count(node_id=node.id):
        return "a disk is still presented to it"
    if tx.boots.count(node_id=node.id):
        return "it still has a boot intent"
    open_ports = [p for p in switching.ports_of_node(tx, node.id) if p.state is not PortState.SETTLED or not p.is_shut]
    return f"port {open_ports[0].name} is not proven shut" if open_ports else ""


def _isolated(tx: Transaction, operation: Operation, now: datetime) -> None:
    _add(tx, operation, "Its ports are shut, no disk is presented to it, it has no boot intent.")
    record(tx, now, "node.isolated", operation=operation)


def _open(tx: Transaction, operation: Operation, now: datetime) -> None:
    if operation.node_id is not None:
        switching.doubt_ports(tx, operation.node_id)
    _add(tx, operation, f"It could not be cut off: {operation.reason}")
    record(tx, now, "node.isolation-failed", operation=operation, data=reasons(operation))


def _add(tx: Transaction, operation: Operation, words: str) -> None:
    node = tx.nodes.find(id=operation.node_id) if operation.node_id is not None else None
    if node is not None and node.state is NodeState.QUARANTINED:
        tx.nodes.change(node.id, state_reason=f"{node.state_reason} {words}")


ISOLATE = Workflow(
    name="isolate",
    steps=(switching.SHUT_PORTS, presenting.REVOKE_TARGETS, booting.DISARM_BOOT),
    on_done=_isolated,
    # Only forward: nothing of a node in quarantine is given back but by a release.
    on_undone=None,
    on_stuck=_open,
)
