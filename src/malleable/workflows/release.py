"""Release: take a node back without trusting it. Every step is proven; what cannot be proven ends in quarantine."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

from malleable.domain.errors import Conflict
from malleable.domain.ids import UserId
from malleable.domain.nodes import BootDevice, BootState, Node, NodeState, PowerState
from malleable.domain.operations import Operation
from malleable.domain.scrubs import SITE_DEFAULT, SiteScrubs
from malleable.domain.store import Transaction
from malleable.workflows import booting, powering, presenting, scrubbing, switching
from malleable.workflows.access import CUT_CONSOLE, console_arguments, revoke_access
from malleable.workflows.quarantine import left_over, places, quarantine
from malleable.workflows.requests import begin, move_node, record
from malleable.workflows.scrubbing import scrub_arguments
from malleable.workflows.steps import Workflow


def request(
    tx: Transaction, now: datetime, *, node: Node, actor_id: UserId | None, scrubs: SiteScrubs = SITE_DEFAULT
) -> Operation:
    """Begin to take a node back; from now until proven clean it is nobody's to use. Errors: Conflict."""
    if node.state is NodeState.RELEASING:
        raise Conflict(f"Node {node.name} is being released already.", code="releasing")
    if node.state not in (NodeState.ALLOCATED, NodeState.QUARANTINED):
        raise Conflict(f"Node {node.name} is {node.state}; there is nothing to release.", code="node-not-allocated")
    # First: who types at its console locks the node for that, and is seen, or finds it closed.
    move_node(tx, now, node, NodeState.RELEASING, boot_device=BootDevice.NETWORK)
    operation = begin(
        tx,
        now,
        "release",
        node_id=node.id,
        project_id=node.project_id,
        actor_id=actor_id,
        arguments={**places(tx, node), **scrub_arguments(node, scrubs), **console_arguments(tx, node)},
    )
    revoke_access(tx, now, node, operation=operation)
    record(tx, now, "node.releasing", node=tx.nodes.get(node.id), actor_id=actor_id)
    return operation


def scrub_before_free(scrubs: SiteScrubs) -> Callable[[Transaction, Operation, datetime], bool]:
    """Make what releases a node of an undone provision, if its holder's system may have run and there is to scrub.

    Whoever cancels a provision has been root on the node as much as one who gives it back.
    """

    def begin_release(tx: Transaction, operation: Operation, now: datetime) -> bool:
        node = tx.nodes.find(id=operation.node_id) if operation.node_id is not None else None
        if node is None or operation.project_id is None:
            return False
        arguments = scrub_arguments(node, scrubs)
        if not arguments or powering.POWER_ON.name not in {step.name for step in tx.operations.steps([operation.id])}:
            return False
        project_id = operation.project_id
        tx.nodes.change(node.id, state=NodeState.RELEASING, state_since=now, project_id=project_id)
        begin(tx, now, "release", node_id=node.id, project_id=project_id, arguments={**places(tx, node), **arguments})
        record(tx, now, "node.releasing", node=tx.nodes.get(node.id))
        return True

    return begin_release


def _freed(tx: Transaction, operation: Operation, now: datetime) -> None:
    """Free the node, unless the database itself knows better: then quarantine."""
    if operation.node_id is None:
        return
    node = tx.nodes.get(operation.node_id)
    switching.drop_attachments(tx, node.id)
    doubt = left_over(tx, node)
    if doubt:
        reason = f"release ended but {doubt}"
        tx.nodes.change(node.id, state=NodeState.QUARANTINED, state_reason=reason, state_since=now)
        record(tx, now, "node.quarantined", node=node, operation=operation, data={"reason": reason})
        return
    nobodys: dict[str, Any] = {"project_id": None, "boot": BootState.NONE, "boot_device": BootDevice.NETWORK}
    move_node(tx, now, node, NodeState.FREE, **nobodys, is_unscrubbed=False)
    record(tx, now, "node.freed", node=node, operation=operation)


def _unproven(tx: Transaction, operation: Operation, now: datetime) -> None:
    """Keep a node that a release could not prove clean; say what is proven, and what is not."""
    if operation.node_id is None:
        return
    node = tx.nodes.get(operation.node_id)
    power = "It is off" if node.power is PowerState.OFF else "Its power could not be proven off"
    rest = left_over(tx, node) or "its ports are shut, no disk is presented to it, it has no boot intent"
    quarantine(tx, operation, now, reason=f"release could not prove it clean: {operation.reason} {power}; {rest}.")


def _stopped(tx: Transaction, operation: Operation, now: datetime) -> None:
    record(tx, now, "node.stopped", operation=operation)


def request_stop(tx: Transaction, now: datetime, *, node: Node, actor_id: UserId | None) -> Operation:
    """Begin to take the disk from a held node: off, fenced, no boot intent; it keeps its networks. Errors: Conflict."""
    if node.state is not NodeState.ALLOCATED:
        raise Conflict(f"Node {node.name} is {node.state}; only an allocated node can be stopped.", code="node-state")
    return begin(
        tx, now, "stop", node_id=node.id, project_id=node.project_id, actor_id=actor_id, arguments=places(tx, node)
    )


def request_retire(tx: Transaction, now: datetime, *, node: Node, actor_id: UserId | None) -> Operation:
    """Begin to take a quarantined node out of use without its BMC: cut off, fenced, nobody's. Errors: Conflict.

    For a node whose BMC is dead: its power cannot be proven, so it never becomes free this way.
    """
    if node.state is not NodeState.QUARANTINED:
        raise Conflict(f"Node {node.name} is {node.state}, not quarantined.", code="not-quarantined")
    arguments = {**places(tx, node), **console_arguments(tx, node)}
    return begin(tx, now, "retire", node_id=node.id, project_id=node.project_id, actor_id=actor_id, arguments=arguments)


def _retired(tx: Transaction, operation: Operation, now: datetime) -> None:
    """Hand the node to the operator, cut off from every network and disk; its power is whatever it is."""
    if operation.node_id is None:
        return
    switching.drop_attachments(tx, operation.node_id)
    node = tx.nodes.get(operation.node_id)
    reason = "retired: cut off without its BMC; repair or delete it"
    changes: dict[str, Any] = {"project_id": None, "boot": BootState.NONE, "is_unscrubbed": True}
    changes["boot_device"] = BootDevice.NETWORK
    move_node(tx, now, node, NodeState.MAINTENANCE, reason=reason, **changes)
    record(tx, now, "node.retired", node=node, operation=operation)


RELEASE = Workflow(
    name="release",
    steps=(
        CUT_CONSOLE,
        # A BMC that does not obey keeps no port open and no disk presented: the rest goes on, the proof comes last.
        replace(powering.POWER_OFF, do=powering.turn_off_or_doubt),
        switching.SHUT_PORTS,
        presenting.REVOKE_TARGETS,
        booting.DISARM_BOOT,
        replace(powering.RESET_BOOT, do=powering.prove_off_and_reset, deadline_s=powering.POWER_OFF.deadline_s),
        # Last, of a machine that is proven off and isolated: nobody of it can take back what is scrubbed.
        *scrubbing.SCRUBS,
    ),
    on_done=_freed,
    # Only forward: half a release given back to its tenant would be neither safe nor what was asked for.
    on_undone=None,
    on_stuck=_unproven,
)
STOP = Workflow(
    name="stop",
    steps=(powering.POWER_OFF, presenting.REVOKE_TARGETS, booting.DISARM_BOOT),
    on_done=_stopped,
    # Only forward, like release: fencing is not taken back half-way.
    on_undone=None,
    on_stuck=quarantine,
)
RETIRE = Workflow(
    name="retire",
    steps=(CUT_CONSOLE, switching.SHUT_PORTS, presenting.REVOKE_TARGETS, booting.DISARM_BOOT),
    on_done=_retired,
    # Only forward, like release.
    on_undone=None,
    on_stuck=quarantine,
)
