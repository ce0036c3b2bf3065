"""Disks for data: a running node gets one more, gives one back, or hands one to another node."""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from malleable.domain.boots import Boot
from malleable.domain.disks import Disk, DiskUse, Target
from malleable.domain.errors import Conflict
from malleable.domain.ids import DiskId, NetworkId, OperationId, UserId
from malleable.domain.nodes import Node, NodeState
from malleable.domain.operations import Operation, Wait
from malleable.domain.store import Transaction
from malleable.workflows import booting, presenting
from malleable.workflows.requests import begin, reasons, record
from malleable.workflows.steps import Context, Done, Ending, Step, Workflow


def request(
    tx: Transaction,
    now: datetime,
    *,
    disk: Disk,
    node: Node,
    actor_id: UserId | None,
    after: OperationId | None = None,
) -> Operation:
    """Begin to present a disk to a node beside the one it boots. Errors: Conflict."""
    boot = _boot_of(tx, node)
    if node.project_id is not None:
        presenting.check_usable([disk], node.project_id)
    if after is None:
        presenting.take_unused(tx, [disk])
    arguments = {
        "name": disk.name,
        "disk_id": str(disk.id),
        "network_id": str(boot.network_id),
        "attachment_id": str(boot.attachment_id),
        "after": str(after) if after else "",
    }
    return _begin(tx, now, "attach-disk", node=node, actor_id=actor_id, arguments=arguments)


def request_detach(tx: Transaction, now: datetime, *, disk: Disk, target: Target, actor_id: UserId | None) -> Operation:
    """Begin to take a disk for data from its node: its sessions are cut, the node goes on. Errors: Conflict."""
    node = tx.nodes.get(target.node_id)
    if target.use is DiskUse.BOOT:
        raise Conflict(
            f"Node {node.name} runs from disk {disk.name}.",
            code="disk-boots",
            fix=f"Run `m2 node stop {node.name}`, or `m2 disk move {disk.name} --node …`.",
        )
    arguments = {"name": disk.name, "disk_id": str(disk.id), "network_id": str(target.network_id)}
    return _begin(tx, now, "detach-disk", node=node, actor_id=actor_id, arguments=arguments)


def request_move(
    tx: Transaction, now: datetime, *, disk: Disk, target: Target, node: Node, actor_id: UserId | None
) -> Operation:
    """Begin to take a disk for data from its node, and to present it to another once that is proven.

    The fence is that of ``move``. Errors: Conflict.
    """
    if target.node_id == node.id:
        fix = "Name another node; `m2 disk show` says which one has it."
        raise Conflict(f"Node {node.name} has disk {disk.name} already.", code="same-node", fix=fix)
    left = request_detach(tx, now, disk=disk, target=target, actor_id=actor_id)
    return request(tx, now, disk=disk, node=node, actor_id=actor_id, after=left.id)


def _begin(
    tx: Transaction, now: datetime, kind: str, *, node: Node, actor_id: UserId | None, arguments: Mapping[str, object]
) -> Operation:
    return begin(tx, now, kind, node_id=node.id, project_id=node.project_id, actor_id=actor_id, arguments=arguments)


def _boot_of(tx: Transaction, node: Node) -> Boot:
    if node.state is not NodeState.ALLOCATED:
        raise Conflict(
            f"Node {node.name} is {node.state}; only an allocated node is given disks.",
            code="node-not-allocated",
            fix="Provision the node first.",
        )
    boot = tx.boots.find(node_id=node.id)
    if boot is None or boot.target_id is None:
        raise Conflict(
            f"Node {node.name} boots nothing; disks for data come beside the one it boots.",
            code="no-boot-intent",
            fix="Provision it, and name the disk there with --data-disk.",
        )
    return boot


def _claim(context: Context, tx: Transaction) -> presenting.Claim | Wait:
    return presenting.claim_disks(context, tx, [DiskId(UUID(context.argument("disk_id")))], DiskUse.DATA)


def _export(context: Context) -> Done | Wait:
    return presenting.present(context, _claim)


def _announce(context: Context) -> Done | Wait:
    """Have the metadata service tell the node which disks it has."""
    wanted = context.memory.get("generation")
    if wanted is not None:
        return booting.served(context, int(str(wanted)), "tells the node of its disks")
    network_id = NetworkId(UUID(context.argument("network_id")))
    return booting.ask_gateway(
        context, network_id, "tells the node of its disks", lambda tx: tx.networks.touch(network_id)
    )


def _ended(kind: str) -> Ending:
    def end(tx: Transaction, operation: Operation, now: datetime) -> None:
        data = {"disk": operation.arguments["name"], "disk_id": operation.arguments["disk_id"]}
        record(tx, now, kind, operation=operation, data={**data, **reasons(operation)})

    return end


ANNOUNCE = Step(
    name="announce-disks",
    do=_announce,
    # No undo: revoking a disk has the metadata service told as well.
    deadline_s=booting.ARM_BOOT.deadline_s,
    device="The gateway",
)
ATTACH_DISK = Workflow(
    name="attach-disk",
    steps=(
        booting.AWAIT_PREDECESSOR,
        Step(
            name="export-data-disk",
            do=_export,
            undo=presenting.revoke_disk,
            opening=_claim,
            deadline_s=presenting.EXPORT_TARGET.deadline_s,
            retry=presenting.TARGET_RETRY,
            resource=presenting.network_resource,
            device=presenting.TARGETS,
        ),
        ANNOUNCE,
    ),
    on_done=_ended("disk.attached"),
    on_undone=_ended("disk.attach-undone"),
    # The disk stays fenced by its target's row; the node goes on.
    on_stuck=_ended("disk.attach-failed"),
)
DETACH_DISK = Workflow(
    name="detach-disk",
    steps=(
        Step(
            name="revoke-data-disk",
            do=presenting.revoke_disk,
            # No undo: the fence stays up.
            deadline_s=presenting.REVOKE_TARGETS.deadline_s,
            retry=presenting.TARGET_RETRY,
            resource=presenting.network_resource,
            device=presenting.TARGETS,
        ),
        ANNOUNCE,
    ),
    on_done=_ended("disk.detached"),
    # Only forward, like release.
    on_undone=None,
    on_stuck=_ended("disk.detach-failed"),
)
