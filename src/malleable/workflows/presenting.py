"""Steps that present a disk to a node and take it away again, with fencing."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from uuid import UUID

from malleable.domain import portals
from malleable.domain.addressing import gateway_address
from malleable.domain.disks import Disk, DiskState, DiskUse, Target, TargetState, initiator_iqn, new_iqn
from malleable.domain.errors import Conflict, Public
from malleable.domain.ids import AttachmentId, DiskId, ImageId, NetworkId, NodeId, ProjectId, TargetId, new_id
from malleable.domain.images import Image, ImageState
from malleable.domain.networks import Attachment, Network
from malleable.domain.operations import Operation, Retry, Wait
from malleable.domain.portals import Redirect
from malleable.domain.ports import Disks, Export
from malleable.domain.secrets import chap_secret
from malleable.domain.store import Transaction
from malleable.domain.unready import unready_disk
from malleable.workflows.seeds import seed_volumes
from malleable.workflows.steps import Context, Done, Step, StepFunction
from malleable.workflows.switching import hold_networks

#: A daemon that hangs, or whose gateway is away, comes back once somebody sees to it; the step's deadline ends that.
TARGET_RETRY = Retry(attempts=1000, first_delay_s=0.5, max_delay_s=20.0)
#: A pool that is away comes back by itself too: what needs it waits and goes on, for an hour.
POOL_RETRY = Retry(attempts=1000, first_delay_s=0.5, max_delay_s=20.0)
POOL_DEADLINE_S = 3600.0
#: The same of what copies whole disks, for half an hour: few enough that what kills its worker every time is parked.
COPY_RETRY = Retry(attempts=20, first_delay_s=1.0, max_delay_s=120.0)
PORTAL_LOOK_S = 1.0
#: What presents disks that are there already.
PRESENTERS = ["provision", "boot", "attach-disk"]
POOL = "The disk storage"
TARGETS = "The server of the network's disks"


def check_usable(disks: Sequence[Disk], project_id: ProjectId) -> None:
    """Be sure that disks are the project's and nothing is done to them that keeps nodes away. Errors: Conflict."""
    for disk in disks:
        if disk.project_id != project_id:
            raise Conflict("The disk belongs to another project.", code="foreign-disk")
        if disk.state is DiskState.DELETING:
            raise Conflict(f"Disk {disk.name} is being deleted.", code="disk-deleting")
        if disk.state is DiskState.CREATING:
            # Another operation makes it, and takes it back should it fail: from under whoever runs it by then.
            raise Conflict(f"Disk {disk.name} is still being made.", code="disk-creating", fix="Wait for its end.")
        if disk.state is not DiskState.READY:
            raise unready_disk(disk)
    twice = [disk.name for disk, count in Counter(disks).items() if count > 1]
    if twice:
        raise Conflict(f"Disk {twice[0]} is named twice.", code="disk-twice", fix="Name each disk once.")


def take_unused(tx: Transaction, disks: Sequence[Disk]) -> None:
    """Lock usable disks; be sure that no node has any of them, or is about to. Errors: Conflict, naming the node.

    Do it before any other row that was there is locked: a provision has added its Idempotency-Key by then, no more.
    A new disk comes later: of two who want its name one waits for the other. Of two who begin with one disk at once,
    the second finds the operation of the first; and no target of it comes into being meanwhile.
    """
    for disk in sorted(disks, key=lambda disk: disk.id):
        if not tx.disks.change(disk.id, expect={"state": DiskState.READY, "project_id": disk.project_id}):
            raise unready_disk(disk)
    if disks:
        _want_unpresented(tx, {disk.id: disk for disk in disks})
        _want_unawaited(tx, {disk.id: disk for disk in disks})


def _want_unpresented(tx: Transaction, disks: Mapping[DiskId | None, Disk]) -> None:
    for target in tx.targets.list(disk_id=list(disks))[:1]:
        holder, name = tx.nodes.get(target.node_id).name, disks[target.disk_id].name
        fix = f"Move it with `m2 disk move {name} --node …`, or release node {holder} first."
        if target.use is DiskUse.DATA:
            fix = f"Unmount it there and run `m2 disk detach {name}` first."
        details = {"node": holder}
        raise Conflict(f"Disk {name} is in use by node {holder}.", code="disk-in-use", fix=fix, details=details)


def _want_unawaited(tx: Transaction, disks: Mapping[DiskId, Disk]) -> None:
    """Be sure that no operation is about to present any of the disks. Errors: Conflict."""
    projects = {disk.project_id for disk in disks.values()}
    for operation in tx.operations.naming(list(disks), kind=PRESENTERS, project_id=list(projects)):
        for disk_id in _about(operation):
            if operation.node_id is not None and disk_id in disks:
                holder, name = tx.nodes.get(operation.node_id).name, disks[disk_id].name
                raise Conflict(
                    f"Disk {name} is about to be used by node {holder}.",
                    code="disk-in-use",
                    fix=f"Wait for its end (`m2 operation watch {holder}`), or cancel it "
                    f"(`m2 operation cancel {holder}`).",
                    details={"node": holder, "operation": str(operation.id)},
                )


def _about(operation: Operation) -> Sequence[DiskId]:
    """List the disks that an operation presents: the one that is booted or attached, and those for data."""
    disk_id = operation.arguments.get("disk_id")
    return [*([DiskId(UUID(str(disk_id)))] if disk_id else []), *told_disks(operation)]


def disk_of(context: Context) -> Disk:
    """Read the operation's disk."""
    with context.store.glance() as tx:
        return tx.disks.get(DiskId(UUID(context.argument("disk_id"))))


def clone(context: Context) -> Done:
    """Make the disk, from its image or snapshot or blank, if it is not there yet."""
    disk = disk_of(context)
    if disk.state is not DiskState.CREATING:
        return Done(evidence={"disk": "was there"})
    make(context.drivers.disks, disk)

    def write(tx: Transaction) -> None:
        tx.disks.change(disk.id, state=DiskState.READY)

    return Done(evidence={"disk": "made"}, write=write, result={"disk_id": str(disk.id)})


def make(pool: Disks, disk: Disk) -> None:
    """Have the pool make a disk. Errors: as the driver's."""
    pool = pool.within(disk.pool)
    if disk.snapshot_id is not None:
        pool.clone_snapshot(disk.snapshot_id, disk.id, size_bytes=disk.size_bytes)
    elif disk.image_id is not None:
        pool.clone(disk.image_id, disk.id, size_bytes=disk.size_bytes)
    else:
        pool.make_blank(disk.id, size_bytes=disk.size_bytes)


def discard(context: Context) -> Done:
    """Take back a disk that this operation made; a disk that was there before stays."""
    if not context.operation.arguments.get("makes_disk"):
        return Done(evidence={"disk": "kept"})
    disk_id = DiskId(UUID(context.argument("disk_id")))
    context.drivers.disks.delete_disk(disk_id)

    def write(tx: Transaction) -> None:
        tx.disks.remove(disk_id)

    return Done(evidence={"disk": "removed"}, write=write)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a node is to have, each by a target of its own: while that is there, nobody else has it."""

    network: Network
    attachment: Attachment
    presented: Sequence[tuple[Target, Disk | Image]]


def export(context: Context) -> Done | Wait:
    """Present what the node boots: its disk, or an image that it only reads."""
    return present(context, claim_boot)


def export_data(context: Context) -> Done | Wait:
    """Present the disks that the node has for data besides."""
    return present(context, claim_data)


def claim_boot(context: Context, tx: Transaction) -> Claim | Wait:
    """Add the target of what the node boots; Wait: no gateway is there to serve it."""
    disk_id = context.argument("disk_id")
    return claim_disks(context, tx, [DiskId(UUID(disk_id))], DiskUse.BOOT) if disk_id else _claim_image(context, tx)


def claim_data(context: Context, tx: Transaction) -> Claim | Wait:
    """Add the targets of the disks that the node has for data, as ``claim_boot``."""
    return claim_disks(context, tx, told_disks(context.operation), DiskUse.DATA)


def told_disks(operation: Operation) -> list[DiskId]:
    """List the disks that an operation is about, where there may be several: those for a node's data, or a batch."""
    told = operation.arguments.get("disk_ids")
    return [DiskId(UUID(str(disk_id))) for disk_id in told] if isinstance(told, list) else []


def present(context: Context, claim: Callable[[Context, Transaction], Claim | Wait]) -> Done | Wait:
    """Present what is claimed inside the network, each by its target: to one address and one secret."""
    claimed = context.intent if isinstance(context.intent, Claim) else context.write(partial(claim, context))
    if isinstance(claimed, Wait):
        return claimed
    targets = [target for target, _ in claimed.presented]
    seeds = _seeds(context, targets)
    for target, presented in claimed.presented:
        context.drivers.targets.export(export_of(context, claimed.network, target, presented, seeds))

    def write(tx: Transaction) -> None:
        for target in targets:
            tx.targets.change(target.id, state=TargetState.EXPORTED)

    return Done(evidence={**_told(targets), "initiator_address": claimed.attachment.address}, write=write)


def _told(targets: Sequence[Target]) -> dict[str, object]:
    first = targets[0]
    if first.use is DiskUse.DATA:
        return {"iqns": [target.iqn for target in targets]}
    return {"iqn": first.iqn} if first.image_id is None else {"iqn": first.iqn, "read_only": True}


def claim_disks(context: Context, tx: Transaction, disk_ids: Sequence[DiskId], use: DiskUse) -> Claim | Wait:
    """Add a target for every disk that has none yet: what fences it, before any daemon is asked. Errors: Conflict."""
    disks = tx.disks.list(id=disk_ids)
    network, attachment = _where(context, tx)
    there = {target.disk_id: target for target in tx.targets.list(disk_id=disk_ids)}
    gone = len(disk_ids) - sum(disk.project_id == context.operation.project_id for disk in disks)
    if gone:
        raise Conflict(f"{gone} of the disks to be presented are not there any more.", code="disk-state")
    if not network.portal_epoch:
        return _await_portal(network)
    if any(target.node_id != context.operation.node_id for target in there.values()):
        raise Conflict("The disk is presented to another node.", code="disk-exported", fix="Release that node first.")
    for disk in disks:
        if disk.id not in there:
            there[disk.id] = _target(context, attachment, network, use, disk)
            _take(tx, disk, there[disk.id])
    return Claim(network=network, attachment=attachment, presented=[(there[disk.id], disk) for disk in disks])


def _claim_image(context: Context, tx: Transaction) -> Claim | Wait:
    """Add the target by which the node reads its image, if there is none yet: for this node alone, as disks have."""
    image = tx.images.get(ImageId(UUID(context.argument("image_id"))))
    network, attachment = _where(context, tx)
    target = tx.targets.find(node_id=context.operation.node_id, use=DiskUse.BOOT)
    if not network.portal_epoch:
        return _await_portal(network)
    if target is None:
        reader = tx.projects.find(id=context.operation.project_id)
        target = _target(context, attachment, network, DiskUse.BOOT, image)
        target = replace(target, pool=reader.pool if reader else "")
        _share(tx, image, target)
    return Claim(network=network, attachment=attachment, presented=[(target, image)])


def _where(context: Context, tx: Transaction) -> tuple[Network, Attachment]:
    network = tx.networks.get(NetworkId(UUID(context.argument("network_id"))))
    return network, tx.attachments.get(AttachmentId(UUID(context.argument("attachment_id"))))


def _await_portal(network: Network) -> Wait:
    return Wait(
        seconds=PORTAL_LOOK_S,
        reason=f"no gateway serves network {network.name} yet",
        public=Public(f"No gateway serves network {network.name} yet."),
        fix="Start `m2d gateway`, or read its log. Then try again.",
        resource=f"network:{network.id}",
    )


def _take(tx: Transaction, disk: Disk, target: Target) -> None:
    """Add a disk's target, unless somebody deletes it or gives it away: locked, so that one of them sees the other."""
    if not tx.disks.change(disk.id, expect={"state": DiskState.READY, "project_id": disk.project_id}):
        raise Conflict(f"Disk {disk.name} is not there to be used any more.", code="disk-state")
    tx.targets.add(target)


def _share(tx: Transaction, image: Image, target: Target) -> None:
    """Add an image's target, unless somebody has begun to delete it: locked, as a disk is."""
    if not tx.images.change(image.id, expect={"state": ImageState.SEALED}):
        raise Conflict(f"Image {image.name} is not there to be used any more.", code="image-state")
    tx.targets.add(target)


def _seeds(context: Context, targets: Sequence[Target]) -> Mapping[NodeId, bytes]:
    if not context.operation.arguments.get("seed_disk"):
        return {}
    with context.store.reading() as tx:
        return seeds_of(tx, targets)


def seeds_of(tx: Transaction, targets: Sequence[Target]) -> Mapping[NodeId, bytes]:
    """Make the seeds' disks of nodes that are to have one beside what they boot."""
    return seed_volumes(tx, {t.node_id: target_serial(t) for t in targets if t.use is DiskUse.BOOT})


def export_of(
    context: Context, network: Network, target: Target, presented: Disk | Image, seeds: Mapping[NodeId, bytes]
) -> Export:
    """Tell the target daemon everything about a target; a seed goes with what the node boots."""
    disks = context.drivers.disks
    daemon = portals.home_of(portals.read(network.portal_epoch), target.daemon)
    if isinstance(presented, Image):
        handle = disks.within(target.pool).image_handle(presented.id)
    else:
        handle = disks.handle(presented.id)
    return Export(
        network_id=target.network_id,
        iqn=target.iqn,
        lun=target.lun,
        serial=target_serial(target),
        handle=handle,
        chap_username=target.chap_username,
        chap_password=target.chap_password,
        initiator_address=target.initiator_address,
        daemon=daemon,
        redirect=None if daemon == target.daemon else sent_on(network, target.daemon, daemon),
        size_bytes=presented.size_bytes,
        is_read_only=isinstance(presented, Image),
        seed=seeds.get(target.node_id, b"") if target.use is DiskUse.BOOT else b"",
    )


def sent_on(network: Network, daemon: int, to: int) -> Redirect:
    """Have one of a network's daemons send logins on to another."""
    return Redirect(daemon=daemon, address=gateway_address(network.cidr), port=portals.port_of(to))


def target_serial(target: Target) -> str:
    """Name the disk to the node: the same on whatever node it runs (20 characters: ATA and virtio cut there).

    What only reads an image keeps nothing: it is somebody new with every target.
    """
    return (target.disk_id or target.id).hex[-20:]


def _target(
    context: Context, attachment: Attachment, network: Network, use: DiskUse, presented: Disk | Image
) -> Target:
    target_id, is_image = TargetId(new_id()), isinstance(presented, Image)
    return Target(
        id=target_id,
        disk_id=None if is_image else DiskId(presented.id),
        image_id=ImageId(presented.id) if is_image else None,
        node_id=context.node_id,
        network_id=network.id,
        use=use,
        state=TargetState.EXPORTING,
        iqn=new_iqn(),
        daemon=portals.pin(portals.read(network.portal_epoch), target_id if is_image else presented.id),
        initiator_iqn=initiator_iqn(context.node_id),
        chap_username=f"m2-{target_id.hex[-12:]}",
        chap_password=chap_secret(),
        initiator_address=attachment.address,
        created_at=context.now(),
    )


def revoke_all(context: Context) -> Done:
    """Take every disk away from the node: sessions killed and proven gone, then the target removed."""
    return _revoke(context)


def revoke_disk(context: Context) -> Done:
    """Take the operation's disk away from the node, as ``revoke_all``; others stay."""
    return _revoke(context, disk_id=DiskId(UUID(context.argument("disk_id"))))


def _revoke(context: Context, disk_id: DiskId | None = None) -> Done:
    with context.store.reading() as tx:
        which = {} if disk_id is None else {"disk_id": disk_id}
        targets = tx.targets.list(None, node_id=context.node_id, **which)
    if not targets:
        return Done(evidence={"targets": "none"})
    context.write(lambda tx: _mark_revoking(tx, targets))
    for target in targets:
        context.drivers.targets.revoke(target.network_id, target.iqn)

    def write(tx: Transaction) -> None:
        hold_networks(tx, [target.network_id for target in targets])
        for target in targets:
            boot = tx.boots.find(target_id=target.id)
            if boot is not None:
                tx.boots.change(boot.id, target_id=None, armed_at=None)
                tx.networks.touch(boot.network_id)
            elif target.use is DiskUse.DATA:
                tx.networks.touch(target.network_id)
            tx.targets.remove(target.id)

    return Done(evidence={"revoked": [t.iqn for t in targets], "sessions_left": 0}, write=write)


def _mark_revoking(tx: Transaction, targets: Sequence[Target]) -> None:
    for target in targets:
        tx.targets.change(target.id, state=TargetState.REVOKING)


def network_resource(operation: Operation) -> str:
    """Name the token of a network's target daemons: so many are at work on them at once, and no more."""
    return f"targets:{operation.arguments.get('network_id', '')}"


def copy_resource(operation: Operation) -> str:
    """Name the token of copies, which take minutes: one at a time per project, so that none waits for another's."""
    return f"copy:{operation.project_id or 'golden'}"


def pool_resource(_: Operation) -> str:
    """Name the token of the disk pool."""
    return "pool:default"


def pool_step(name: str, do: StepFunction, undo: StepFunction | None = None) -> Step:
    """Make a step that asks the pool for one thing and waits for it while it is away."""
    return Step(
        name=name,
        do=do,
        undo=undo,
        deadline_s=POOL_DEADLINE_S,
        retry=POOL_RETRY,
        resource=pool_resource,
        device=POOL,
    )


CLONE_DISK = replace(
    pool_step("clone-disk", clone, discard),
    needed=lambda operation: bool(operation.arguments.get("makes_disk")),
)
EXPORT_TARGET = Step(
    name="export-target",
    do=export,
    undo=revoke_all,
    opening=claim_boot,
    deadline_s=timedelta(minutes=10).total_seconds(),
    retry=TARGET_RETRY,
    resource=network_resource,
    device=TARGETS,
)
EXPORT_DATA = replace(
    EXPORT_TARGET,
    name="export-data-disks",
    do=export_data,
    opening=claim_data,
    needed=lambda operation: bool(told_disks(operation)),
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
