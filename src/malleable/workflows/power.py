"""Power: turn a held node on, off, or off and on again."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from enum import StrEnum

from malleable.domain.disks import DiskUse
from malleable.domain.errors import Conflict
from malleable.domain.ids import UserId
from malleable.domain.nodes import BootDevice, BootState, Node, NodeState, PowerState
from malleable.domain.operations import Operation
from malleable.domain.store import Transaction
from malleable.workflows import booting, powering
from malleable.workflows.quarantine import places
from malleable.workflows.requests import begin, record
from malleable.workflows.steps import Step, Workflow


class PowerAction(StrEnum):
    """What a person may ask of the power."""

    ON = "on"
    OFF = "off"
    CYCLE = "cycle"


def request(tx: Transaction, now: datetime, *, node: Node, action: PowerAction, actor_id: UserId | None) -> Operation:
    """Begin to change the power. Errors: Conflict when the node is not held, or has nothing to boot."""
    if node.state is not NodeState.ALLOCATED:
        raise Conflict(
            f"Node {node.name} is {node.state}; only an allocated node is turned on and off by request.",
            code="node-state",
        )
    if action is PowerAction.ON and node.power is PowerState.ON:
        raise Conflict(f"Node {node.name} is on already.", code="already-on", fix="Use `cycle` to start it again.")
    arguments: dict[str, object] = {**places(tx, node), "action": action.value}
    if action is not PowerAction.OFF and node.boot_device is BootDevice.DISK:
        arguments["boot_device"] = node.boot_device.value
        tx.nodes.change(node.id, boot_device=BootDevice.NETWORK)  # it was for this start
    elif action is not PowerAction.OFF:
        boot = tx.boots.find(node_id=node.id)
        target = tx.targets.find(node_id=node.id, use=DiskUse.BOOT)
        if boot is None or target is None:
            raise Conflict(
                f"Node {node.name} has no disk to boot.", code="no-boot-intent", fix="Provision it with a disk."
            )
        image_id = tx.disks.get(target.disk_id).image_id if target.disk_id else target.image_id
        arguments |= {"disk_id": str(target.disk_id or ""), "image_id": str(image_id)}
    return begin(tx, now, "power", node_id=node.id, project_id=node.project_id, actor_id=actor_id, arguments=arguments)


def _wants_off(operation: Operation) -> bool:
    return operation.arguments["action"] in (PowerAction.OFF, PowerAction.CYCLE)


def _wants_on(operation: Operation) -> bool:
    return operation.arguments["action"] in (PowerAction.ON, PowerAction.CYCLE)


def _wants_network(operation: Operation) -> bool:
    return _wants_on(operation) and not _wants_disk(operation)


def _wants_disk(operation: Operation) -> bool:
    return operation.arguments.get("boot_device") == BootDevice.DISK


def _recorded(tx: Transaction, operation: Operation, now: datetime) -> None:
    record(tx, now, "node.power", operation=operation, data={"action": operation.arguments["action"]})


def _failed(tx: Transaction, operation: Operation, now: datetime) -> None:
    """The node stays its holder's, whatever its power."""
    if operation.node_id is not None and _wants_on(operation):
        tx.nodes.change(operation.node_id, boot=BootState.FAILED)


def _only_if(step: Step, needed: Callable[[Operation], bool]) -> Step:
    # No undo: the tenant asked for this very change; after a failure the tenant asks for the next one.
    return replace(step, needed=needed, undo=None)


POWER = Workflow(
    name="power",
    steps=(
        _only_if(powering.POWER_OFF, _wants_off),
        _only_if(booting.ARM_BOOT, _wants_network),
        _only_if(powering.BOOT_FROM_NETWORK, _wants_network),
        _only_if(powering.BOOT_FROM_DISK, _wants_disk),
        _only_if(powering.POWER_ON, _wants_on),
        _only_if(booting.AWAIT_UP, _wants_network),
    ),
    on_done=_recorded,
    on_undone=_failed,
    on_stuck=_failed,
)
