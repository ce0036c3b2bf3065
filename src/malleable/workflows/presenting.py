"""Steps that present a disk to a node and take it away again, with fencing."""

from datetime import timedelta
from uuid import UUID

from malleable.domain.disks import Disk, DiskState, Target, TargetState, initiator_iqn, new_iqn
from malleable.domain.errors import Conflict, Public
from malleable.domain.ids import AttachmentId, DiskId, NetworkId, NodeId, TargetId, new_id
from malleable.domain.operations import Operation, Retry, Wait
from malleable.domain.ports import Export
from malleable.domain.secrets import chap_secret
from malleable.domain.store import Transaction
from malleable.workflows.steps import Context, Done, Step

#: A daemon that hangs, or whose gateway is away, comes back once somebody sees to it: the step's deadline ends the wait.
TARGET_RETRY = Retry(attempts=1000, first_delay_s=0.5, max_delay_s=20.0)
PORTAL_LOOK_S = 1.0
POOL = "The disk storage"
TARGETS = "The server of the network's disks"


def disk_of(context: Context) -> Disk:
    """Read the operation's disk."""
    with context.store.reading() as tx:
        return tx.disks.get(DiskId(UUID(context.argument("disk_id"))))


def clone(context: Context) -> Done:
    """Make the disk, from its image or snapshot or blank, if it is not there yet."""
    disk = disk_of(context)
    if disk.state is not DiskState.CREATING:
        return Done(evidence={"disk": "was there"})
    if disk.snapshot_id is not None:
        context.drivers.disks.clone_snapshot(disk.snapshot_id, disk.id, size_bytes=disk.size_bytes)
    elif disk.image_id is not None:
        context.drivers.disks.clone(disk.image_id, disk.id, size_bytes=disk.size_bytes)
    else:
        context.drivers.disks.make_blank(disk.id, size_bytes=disk.size_bytes)

    def write(tx: Transaction) -> None:
        tx.disks.change(disk.id, state=DiskState.READY)

    return Done(evidence={"disk": "made"}, write=write, result={"disk_id": str(disk.id)})


def discard(context: Context) -> Done:
    """Take back a disk that this operation made; a disk that was there before stays."""
    if not context.operation.arguments.get("makes_disk"):
        return Done(evidence={"disk": "kept"})
    disk_id = DiskId(UUID(context.argument("disk_id")))
    context.drivers.disks.delete_disk(disk_id)

    def write(tx: Transaction) -> None:
        tx.disks.remove(disk_id)

    return Done(evidence={"disk": "removed"}, write=write)


def export(context: Context) -> Done | Wait:
    """Present the disk inside the network, to one address and one secret."""
    with context.store.reading() as tx:
        disk = tx.disks.get(DiskId(UUID(context.argument("disk_id"))))
        network = tx.networks.get(NetworkId(UUID(context.argument("network_id"))))
        attachment = tx.attachments.get(AttachmentId(UUID(context.argument("attachment_id"))))
        target = tx.targets.find(disk_id=disk.id)
    if not network.portal_epoch:
        return Wait(
            seconds=PORTAL_LOOK_S,
            reason=f"no gateway serves network {network.name} yet",
            public=Public(f"No gateway serves network {network.name} yet."),
            fix="Start `m2d gateway`, or read its log. Then try again.",
            resource=f"network:{network.id}",
        )
    if target is None:
        target = _new_target(context, disk, network.id, attachment.address)
        fresh = target
        context.write(lambda tx: _take(tx, disk, fresh))
    elif target.node_id != context.operation.node_id:
        raise Conflict("The disk is presented to another node.", code="disk-exported", fix="Release that node first.")
    context.drivers.targets.export(export_of(context, target, disk))
    target_id = target.id

    def write(tx: Transaction) -> None:
        tx.targets.change(target_id, state=TargetState.EXPORTED)

    return Done(evidence={"iqn": target.iqn, "initiator_address": target.initiator_address}, write=write)


def _take(tx: Transaction, disk: Disk, target: Target) -> None:
    """Add a disk's target, unless somebody has begun to delete it: locked, so that one of them sees the other."""
    if not tx.disks.change(disk.id, expect={"state": DiskState.READY}):
        raise Conflict(f"Disk {disk.name} is not there to be used any more.", code="disk-state")
    tx.targets.add(target)


def export_of(context: Context, target: Target, disk: Disk) -> Export:
    """Tell the target daemon everything about a target."""
    return Export(
        network_id=target.network_id,
        iqn=target.iqn,
        lun=target.lun,
        serial=disk_serial(disk.id),
        handle=context.drivers.disks.handle(disk.id),
        chap_username=target.chap_username,
        chap_password=target.chap_password,
        initiator_address=target.initiator_address,
        size_bytes=disk.size_bytes,
    )


def disk_serial(disk_id: DiskId) -> str:
    """Name the disk to the node: the same on whatever node it runs (20 characters: ATA and virtio cut there)."""
    return disk_id.hex[-20:]


def _new_target(context: Context, disk: Disk, network_id: NetworkId, address: str) -> Target:
    node_id = context.operation.node_id
    if node_id is None:
        raise Conflict("The operation is about no node.", code="no-argument")
    target_id = TargetId(new_id())
    return Target(
        id=target_id,
        disk_id=disk.id,
        node_id=node_id,
        network_id=network_id,
        state=TargetState.EXPORTING,
        iqn=new_iqn(),
        initiator_iqn=initiator_iqn(node_id),
        chap_username=f"m2-{target_id.hex[-12:]}",
        chap_password=chap_secret(),
        initiator_address=address,
        created_at=context.now(),
    )


def revoke_all(context: Context) -> Done:
    """Take every disk away from the node: sessions killed and proven gone, then the target removed."""
    node_id = context.operation.node_id
    if node_id is None:
        raise Conflict("The operation is about no node.", code="no-argument")
    with context.store.reading() as tx:
        targets = tx.targets.list(node_id=node_id)
    if not targets:
        return Done(evidence={"targets": "none"})
    context.write(lambda tx: _mark_revoking(tx, node_id))
    for target in targets:
        context.drivers.targets.revoke(target.network_id, target.iqn)

    def write(tx: Transaction) -> None:
        for target in targets:
            boot = tx.boots.find(target_id=target.id)
            if boot is not None:
                tx.boots.change(boot.id, target_id=None, armed_at=None)
                tx.networks.touch(boot.network_id)
            tx.targets.remove(target.id)

    return Done(evidence={"revoked": [t.iqn for t in targets], "sessions_left": 0}, write=write)


def _mark_revoking(tx: Transaction, node_id: NodeId) -> None:
    for target in tx.targets.list(node_id=node_id):
        tx.targets.change(target.id, state=TargetState.REVOKING)


def network_resource(operation: Operation) -> str:
    """Name the token of a network's target daemon: restoring and revoking never overlap."""
    return f"targets:{operation.arguments.get('network_id', '')}"


def copy_resource(operation: Operation) -> str:
    """Name the token of copies, which take minutes: one at a time per project, so that none waits for another's."""
    return f"copy:{operation.project_id or 'golden'}"


def pool_resource(_: Operation) -> str:
    """Name the token of the disk pool."""
    return "pool:default"


CLONE_DISK = Step(
    name="clone-disk",
    do=clone,
    undo=discard,
    resource=pool_resource,
    needed=lambda operation: bool(operation.arguments.get("makes_disk")),
    device=POOL,
)
EXPORT_TARGET = Step(
    name="export-target",
    do=export,
    undo=revoke_all,
    deadline_s=timedelta(minutes=10).total_seconds(),
    retry=TARGET_RETRY,
    resource=network_resource,
    device=TARGETS,
)
REVOKE_TARGETS = Step(
    name="revoke-targets",
    do=revoke_all,
    # No undo: the fence stays up.
    deadline_s=timedelta(minutes=10).total_seconds(),
    retry=TARGET_RETRY,
    resource=network_resource,
    device=TARGETS,
)
