"""How an operation begins: its row, its event and its wake-up, in the caller's transaction."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from malleable.domain.errors import Conflict
from malleable.domain.events import Event, detail_hash, split_facts
from malleable.domain.ids import EventId, NodeId, OperationId, ProjectId, UserId, new_id
from malleable.domain.nodes import TRANSITIONS, Node, NodeState
from malleable.domain.operations import ACTIVE_STATES, Direction, Operation, OperationState
from malleable.domain.store import EVENTS, WORK, Transaction

#: Workflows that only go forward; they end in quarantine rather than half undone.
FORWARD_ONLY = frozenset(
    {
        "release",
        "stop",
        "retire",
        "isolate",
        "detach",
        "detach-disk",
        "remove-network",
        "revoke-grant",
        "guard-network",
        "restore-targets",
        "repair-ports",
        "rebuild-switch",
        "weave-tunnels",
        "delete-disk",
        "delete-snapshot",
        "delete-image",
        "collect-pool",
    }
)


def begin(
    tx: Transaction,
    now: datetime,
    kind: str,
    *,
    node_id: NodeId | None = None,
    project_id: ProjectId | None = None,
    actor_id: UserId | None = None,
    arguments: Mapping[str, object] = {},
    adds: bool = True,
) -> Operation:
    """Add an operation; workers see it when the transaction commits. ``adds`` False: its asker enters it instead.

    ``arguments`` hold a "name" where no node tells people what it is about, or where the node may be gone at the end.
    Errors: Conflict when the node has an active one.
    """
    operation = Operation(
        id=OperationId(new_id()),
        kind=kind,
        node_id=node_id,
        project_id=project_id,
        actor_id=actor_id,
        arguments=dict(arguments),
        next_due_at=now,
        created_at=now,
    )
    if adds:
        add(tx, operation)
    return operation


def add(tx: Transaction, operation: Operation) -> None:
    """Add an operation for any worker. Errors: Conflict when its node has an active one."""
    tx.operations.add(operation)
    tx.notify(WORK)


def want_idle(tx: Transaction, node: Node, *, but_for: Collection[OperationState] = ()) -> None:
    """Be sure that no operation works on a node, but for one in such a state. Errors: Conflict, with what to do."""
    if tx.operations.count(node_id=node.id, state=list(ACTIVE_STATES - set(but_for))):
        name = node.name
        fix = f"Wait for its end (`m2 operation watch {name}`), or cancel it (`m2 operation cancel {name}`)."
        raise Conflict(f"An operation works on node {name}.", code="node-busy", fix=fix)


def cancel(tx: Transaction, now: datetime, operation: Operation) -> Operation:
    """Ask an operation to undo itself; it does so after the step at hand. Errors: Conflict."""
    if not operation.is_active:
        raise Conflict(f"The operation has ended already: {operation.state}.", code="operation-ended")
    if operation.kind in FORWARD_ONLY or operation.direction is Direction.UNDO:
        raise Conflict(
            f"A running {operation.kind} cannot be cancelled.",
            code="not-cancellable",
            fix="Wait for its end; it takes care of leaving nothing behind.",
        )
    # Due now whatever its state was: it may be going to wait at this very moment. A worker that holds it sees the flag.
    changes: dict[str, Any] = {"is_cancel_requested": True, "next_due_at": now}
    if operation.state is OperationState.NEEDS_OPERATOR:
        changes |= {"state": OperationState.WAITING, "attempt": 0}
    tx.operations.change(operation.id, **changes)
    tx.notify(WORK)
    return tx.operations.get(operation.id)


def resume(tx: Transaction, now: datetime, operation: Operation) -> Operation:
    """Let a parked operation go on from the step it stands at. Errors: Conflict."""
    if operation.state is not OperationState.NEEDS_OPERATOR:
        raise Conflict(f"The operation is not parked: it is {operation.state}.", code="not-parked")
    state = OperationState.WAITING if operation.direction is Direction.DO else OperationState.UNDOING
    tx.operations.change(
        operation.id,
        state=state,
        next_due_at=now,
        attempt=0,
        step_deadline_at=now + timedelta(minutes=10),
        reason="",
        public_reason="",
    )
    tx.notify(WORK)
    return tx.operations.get(operation.id)


def record(
    tx: Transaction,
    now: datetime,
    kind: str,
    *,
    node: Node | None = None,
    operation: Operation | None = None,
    project_id: ProjectId | None = None,
    actor_id: UserId | None = None,
    data: Mapping[str, object] = {},
) -> None:
    """Append an event to the chains of its node and its project.

    Of ``data`` tenants read what ``PUBLIC_FACTS`` names.
    """
    owner = project_id or (operation.project_id if operation else None) or (node.project_id if node else None)
    public, detail = split_facts(data)
    tx.events.append(
        Event(
            id=EventId(new_id()),
            kind=kind,
            at=now,
            actor_id=actor_id or (operation.actor_id if operation else None),
            project_id=owner,
            node_id=node.id if node else (operation.node_id if operation else None),
            operation_id=operation.id if operation else None,
            data=public,
            detail=detail,
            detail_hash=detail_hash(detail),
        )
    )
    tx.notify(EVENTS)


def reasons(operation: Operation) -> dict[str, object]:
    """Tell an event why its operation ended: in full, and for tenants."""
    return {"reason": operation.reason, "public_reason": operation.public_reason}


def move_node(
    tx: Transaction, now: datetime, node: Node, state: NodeState, *, reason: str = "", **changes: Any
) -> Node:
    """Change a node's state by compare-and-set; return it as it is then. Errors: Conflict, naming what is in the way.

    Of other fields than those of ``changes`` what is returned knows only what ``node`` knew.
    """
    changes |= {"state": state, "state_reason": reason, "state_since": now}
    expected = {"state": node.state, "project_id": node.project_id}
    if state not in TRANSITIONS[node.state] or not tx.nodes.change(node.id, expect=expected, **changes):
        raise _in_the_way(tx, node, state)
    return replace(node, **changes)


def _in_the_way(tx: Transaction, node: Node, wanted: NodeState) -> Conflict:
    latest = tx.nodes.get(node.id)
    details: dict[str, object] = {"node": latest.name, "state": latest.state.value}
    if latest.project_id:
        details["held_by"] = str(latest.project_id)  # whom is not said aloud: it may be another tenant
    return Conflict(
        f"Node {latest.name} is {latest.state}; it cannot become {wanted}.",
        code="node-not-available",
        fix="Choose another node, or wait for its release.",
        details=details,
    )
