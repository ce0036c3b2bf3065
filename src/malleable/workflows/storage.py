"""Disks and images outside a node's life: create and delete; and targets restored after a daemon's death."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from uuid import UUID

from malleable.domain import portals
from malleable.domain.disks import Disk, DiskState, DiskUse, Snapshot, SnapshotState, Target, TargetState
from malleable.domain.errors import Busy, Conflict, Refused
from malleable.domain.ids import DiskId, ImageId, NetworkId, ProjectId, UserId
from malleable.domain.images import Image, ImageGrant, ImageState
from malleable.domain.networks import Network
from malleable.domain.operations import ACTIVE_STATES, Operation
from malleable.domain.ports import Export
from malleable.domain.store import Page, Rows, Transaction
from malleable.domain.unready import unready_disk, unready_snapshot, unsealed
from malleable.workflows import presenting
from malleable.workflows.requests import begin, reasons, record
from malleable.workflows.steps import Context, Done, Ending, Step, Workflow
from malleable.workflows.verify import drop

#: The states of targets that daemons are to have.
_PRESENTED = (TargetState.EXPORTED, TargetState.EXPORTING)
#: So many targets are restored between two looks at whether they still are to be.
BATCH = 50
#: So many of what depends on an image are named.
NAMED_MAX = 10
#: What brings images into being.
MAKERS = ["import-image", "fetch-image", "promote-snapshot", "copy-image"]
#: The argument of an operation that names the image it reads.
SOURCE = "source_id"


def request_create(
    tx: Transaction, now: datetime, *, disk: Disk, actor_id: UserId | None, adds: bool = True
) -> Operation:
    """Add the disk and what makes it; ``adds`` as ``requests.begin``.

    Errors: Conflict when the name is taken or its origin is not ready.
    """
    arguments = {"name": disk.name, "disk_id": str(disk.id), "makes_disk": True, **want_origin(tx, disk)}
    tx.disks.add(disk)
    return begin(tx, now, "create-disk", project_id=disk.project_id, actor_id=actor_id, arguments=arguments, adds=adds)


def want_origin(tx: Transaction, disk: Disk) -> dict[str, object]:
    """Be sure that a new disk's origin is ready; return what its operation's arguments tell of it. Errors: Conflict."""
    image = tx.images.get(disk.image_id) if disk.image_id else None
    if image is not None and image.state is not ImageState.SEALED:
        raise unsealed(image)
    if disk.snapshot_id is None:
        return {}
    want_ready(tx, tx.snapshots.get(disk.snapshot_id))
    return {"snapshot_id": str(disk.snapshot_id)}


def want_ready(tx: Transaction, snapshot: Snapshot) -> None:
    """Lock a snapshot: who deletes it at this moment is seen, or sees what is begun on it. Errors: Conflict."""
    if not tx.snapshots.change(snapshot.id, expect={"state": SnapshotState.READY, "project_id": snapshot.project_id}):
        raise unready_snapshot(snapshot)


def request_delete(tx: Transaction, now: datetime, *, disk: Disk, actor_id: UserId | None) -> Operation:
    """Begin to delete a disk that no node uses or is about to use; its snapshots stay. Errors: Conflict."""
    take_idle(tx, disk, DiskState.DELETING)
    arguments = {"name": disk.name, "disk_id": str(disk.id)}
    return begin(tx, now, "delete-disk", project_id=disk.project_id, actor_id=actor_id, arguments=arguments)


def take_idle(tx: Transaction, disk: Disk, state: DiskState, **changes: object) -> None:
    """Put a ready disk that no node uses or is about to use into another state. Errors: Conflict."""
    _take(tx, disk, state, **changes)
    target = tx.targets.find(disk_id=disk.id)
    if target is not None:
        holder = tx.nodes.get(target.node_id).name
        fix = f"Run `m2 node stop {holder}` or `m2 node release {holder}` first."
        if target.use is DiskUse.DATA:
            fix = f"Unmount it there and run `m2 disk detach {disk.name}` first."
        raise Conflict(f"Disk {disk.name} is in use by node {holder}.", code="disk-in-use", fix=fix)
    want_unused(tx, f"disk {disk.name}", {"disk_id": str(disk.id)}, project_id=disk.project_id)


def take_ready(tx: Transaction, disk: Disk, state: DiskState) -> None:
    """Put a ready disk, whose node may go on with it, into a state that no other gets it in. Errors: Conflict."""
    _take(tx, disk, state)
    want_unused(tx, f"disk {disk.name}", {"disk_id": str(disk.id)}, project_id=disk.project_id)


def _take(tx: Transaction, disk: Disk, state: DiskState, **changes: object) -> None:
    # First of all, so that the row is locked: who takes the disk at this moment is seen afterwards, or sees this.
    expect = {"state": DiskState.READY, "size_bytes": disk.size_bytes, "project_id": disk.project_id}
    if not tx.disks.change(disk.id, expect=expect, state=state, **changes):
        raise unready_disk(disk)


def want_unused(tx: Transaction, what: str, arguments: Mapping[str, object], *, project_id: ProjectId) -> None:
    """Be sure that no active operation has these arguments. Errors: Conflict with the code "<noun>-in-use"."""
    user = _active_on(tx, arguments, project_id=project_id)
    if user is not None:
        raise Conflict(
            f"{what.capitalize()} is about to be used by {user.kind} {user.id}.",
            code=f"{what.partition(' ')[0]}-in-use",
            fix=_end_of(user),
        )


def _end_of(operation: Operation) -> str:
    return (
        f"Wait for its end (`m2 operation watch {operation.id}`), or cancel it (`m2 operation cancel {operation.id}`)."
    )


def _active_on(tx: Transaction, arguments: Mapping[str, object], **equal: object) -> Operation | None:
    """Find an active operation with these ids; one may have several of a kind, "disk_ids" for "disk_id"."""
    for operation in tx.operations.naming([UUID(str(value)) for value in arguments.values()], **equal):
        if all(is_about(operation, name, value) for name, value in arguments.items()):
            return operation
    return None


def is_about(operation: Operation, name: str, value: object) -> bool:
    """Tell whether an operation has this argument, alone or among several of a kind."""
    several = operation.arguments.get(f"{name}s")
    return operation.arguments.get(name) == value or (isinstance(several, list) and value in several)


def check_unsealing(tx: Transaction, image: Image) -> None:
    """Be sure that nobody seals or promotes the image at this moment. Errors: Conflict."""
    maker = _active_on(tx, {"image_id": str(image.id)}, kind=MAKERS)
    if maker is not None:
        raise Conflict(f"Image {image.name} is being sealed.", code="image-sealing", fix=_end_of(maker))


def request_delete_image(
    tx: Transaction, now: datetime, *, image: Image, spool: Path, actor_id: UserId | None
) -> Operation:
    """Forget an image without children and begin to delete its bytes and its upload.

    The row goes at once: the database sees to it that no disk is cloned from bytes on their way out.
    Errors: Conflict, naming how many disks depend on it.
    """
    want_childless(tx, image)
    if _active_on(tx, {SOURCE: str(image.id)}, kind="copy-image") is not None:
        raise Conflict(f"Image {image.name} is being copied.", code="image-in-use", fix="Wait for the copy's end.")
    readers = tx.targets.count(image_id=image.id)
    if readers:
        fix = "Stop or release these nodes first: `m2 target list` names them."
        raise Conflict(f"{readers} node(s) run from image {image.name}.", code="image-in-use", fix=fix)
    check_unsealing(tx, image)
    tx.images.remove(image.id)
    arguments = {"name": image.name, "image_id": str(image.id), "spool": str(spool)}
    return begin(tx, now, "delete-image", project_id=image.project_id, actor_id=actor_id, arguments=arguments)


def want_childless(tx: Transaction, image: Image) -> None:
    """Be sure that nothing depends on an image. Errors: Conflict, naming what does, but for other projects' things."""
    parts, details, is_mine = list[str](), dict[str, object](), True
    rows: Rows[Disk] | Rows[Snapshot]
    for noun, rows in (("disk", tx.disks), ("snapshot", tx.snapshots)):
        if count := rows.count(image_id=image.id):
            # Only admins delete golden images: they may read all names.
            whose = {} if image.project_id is None else {"project_id": image.project_id}
            names = [row.name for row in rows.list(Page(limit=NAMED_MAX), image_id=image.id, **whose)]
            more = [f"{count - len(names)} more"] if count > len(names) else []
            is_mine &= count == rows.count(image_id=image.id, **whose)
            parts.append(f"{noun}s {', '.join(names + more)}" if names else f"{count} {noun}(s) of other projects")
            details[f"{noun}s"] = names
    if parts:
        fix = f"Delete these first; `m2 image tree {image.name}` shows them."
        if not is_mine:
            fix = "Delete yours, and have the other projects delete theirs; `m2 image unshare` ends their making more."
        raise Conflict(
            f"Image {image.name} is still needed by {' and '.join(parts)}.",
            code="image-in-use",
            fix=fix,
            details=details,
        )


def want_own(tx: Transaction, image: Image) -> None:
    """Lock an image and be sure that no other project, or for a golden one any, has to do with it. Errors: Conflict."""
    tx.images.change(image.id, expect={"state": image.state})
    mine = {"image_id": image.id, "project_id": image.project_id}
    rows: Rows[ImageGrant] | Rows[Disk] | Rows[Snapshot]
    foreign = 0
    for rows in (tx.image_grants, tx.disks, tx.snapshots):
        foreign += rows.count(image_id=image.id) - rows.count(**mine)
    readers = tx.targets.list(image_id=image.id)
    holders = {node.project_id for node in tx.nodes.list(id={target.node_id for target in readers})}
    begun = tx.operations.list(None, state=list(ACTIVE_STATES))
    holders |= {one.project_id for one in begun if one.arguments.get("image_id") == str(image.id)}
    if foreign or holders - {image.project_id}:
        is_golden = image.project_id is None
        shared = "" if is_golden else "shared with other projects, or "
        fix = f"Copy it and change the copy: `m2 image copy {image.name} --name NEW"
        raise Conflict(
            f"Image {image.name} is {shared}what projects' disks, snapshots or nodes boot as.",
            code="image-in-use",
            fix=f"{fix} --golden`. Or change it for all of them: --in-use." if is_golden else f"{fix} --to PROJECT`.",
        )


def request_restore(
    tx: Transaction, now: datetime, *, network_id: NetworkId, moves: portals.Moves | None = None
) -> Operation:
    """Begin to give a network's target daemons their targets back: those that began anew, all if nothing is said."""
    arguments: dict[str, object] = {"name": tx.networks.get(network_id).name, "network_id": str(network_id)}
    if moves is not None:
        arguments |= {"daemons": list(moves.lost), "moved": list(moves.moved), "former": list(moves.former)}
    return begin(tx, now, "restore-targets", arguments=arguments)


def _delete_disk(context: Context) -> Done:
    disk_id = DiskId(UUID(context.argument("disk_id")))
    context.drivers.disks.delete_disk(disk_id)

    def write(tx: Transaction) -> None:
        tx.disks.remove(disk_id)

    return Done(evidence={"disk": "deleted"}, write=write)


def image_id_of(context: Context) -> ImageId:
    """Read which image an operation is about."""
    return ImageId(UUID(context.argument("image_id")))


def unseal(context: Context) -> Done:
    """Take an image out of the pool."""
    context.drivers.disks.delete_image(image_id_of(context))
    return Done(evidence={"image": "removed"})


def _restore(context: Context) -> Done:
    """Replay the exports of a network's daemons from the database; take away whatever else they have.

    What another daemon is to serve from now on is taken from the one that served it: its node logs in anew.
    """
    network_id = NetworkId(UUID(context.argument("network_id")))
    driver = context.drivers.targets
    with context.store.glance() as tx:
        network = tx.networks.get(network_id)
    # Before the rows are read: each is there before its export is, and what is exported meanwhile is no stranger.
    presented = driver.list(network_id, _daemons(context, network))
    with context.store.reading() as tx:
        known = tx.targets.list(network_id=network_id, state=_PRESENTED)
        targets = [target for target in known if _is_of(context, "daemons", target)]
        origins: dict[UUID | None, Disk | Image] = {}
        if targets:
            origins |= {disk.id: disk for disk in tx.disks.list(id=[t.disk_id for t in targets if t.disk_id])}
            origins |= {image.id: image for image in tx.images.list(id=[t.image_id for t in targets if t.image_id])}
        seeds = presenting.seeds_of(tx, targets)
    strangers = presented - {target.iqn for target in known}
    for iqn in strangers:
        driver.revoke(network_id, iqn)
    moved = dict(zip(_numbers(context, "moved") or (), _numbers(context, "former") or (), strict=True))
    refused: Refused | None = None
    for start in range(0, len(targets), BATCH):
        batch = targets[start : start + BATCH]
        try:
            for target in batch:
                try:
                    export = presenting.export_of(
                        context, network, target, origins[target.disk_id or target.image_id], seeds
                    )
                    _present_again(context, network, target, export, moved)
                except Refused as e:  # one disk that is lost keeps no other one from its node
                    refused = e
        finally:
            _take_back(context, batch)
        _want_same_daemons(context, network)
    if refused is not None:
        raise refused
    return Done(evidence={"restored": len(targets), "removed": len(strangers)})


def _present_again(
    context: Context, network: Network, target: Target, export: Export, moved: Mapping[int, int]
) -> None:
    """Export a target, and take it from the daemon that had it until now."""
    former = moved.get(target.daemon, export.daemon)
    if former != export.daemon:  # as it was asked for; drained and taken back meanwhile it may be at home
        context.drivers.targets.revoke(network.id, target.iqn)
        if export.daemon == target.daemon:
            # Who was started meanwhile knows nobody else: firmware tells its system where it was sent.
            export = replace(export, redirect=presenting.sent_on(network, former, target.daemon))
    context.drivers.targets.export(export)


def _numbers(context: Context, argument: str) -> Sequence[int] | None:
    """Read which daemons an operation is about; None: all."""
    told = context.operation.arguments.get(argument)
    return [int(str(one)) for one in told] if isinstance(told, list) else None


def _is_of(context: Context, argument: str, target: Target) -> bool:
    numbers = _numbers(context, argument)
    return numbers is None or target.daemon in numbers


def _daemons(context: Context, network: Network) -> Sequence[int] | None:
    """Name the daemons that know of the operation's targets; None: all."""
    numbers, places = _numbers(context, "daemons"), portals.read(network.portal_epoch)
    return numbers and sorted({*numbers, *(portals.home_of(places, number) for number in numbers)})


def _want_same_daemons(context: Context, network: Network) -> None:
    """Be sure that the daemons are those that the restore began with. Errors: Busy: begin anew."""
    with context.store.glance() as tx:
        if tx.networks.get(network.id).portal_epoch != network.portal_epoch:
            raise Busy("The target daemons of the network changed meanwhile.", fix="Try again.")


def _take_back(context: Context, batch: Sequence[Target]) -> None:
    """Revoke what somebody revoked while it was restored: its disk may be another node's by now."""
    with context.store.reading() as tx:
        still = {target.id for target in tx.targets.list(id=[t.id for t in batch], state=_PRESENTED)}
    for target in batch:
        if target.id not in still:
            context.drivers.targets.revoke(target.network_id, target.iqn)


def ended(kind: str) -> Ending:
    """Record an operation's end as an event of this kind."""

    def end(tx: Transaction, operation: Operation, now: datetime) -> None:
        keys = ("name", "disk_id", "image_id", "network_id")
        data = {key: operation.arguments[key] for key in keys if key in operation.arguments}
        record(tx, now, kind, operation=operation, data={**data, **reasons(operation)})

    return end


def is_sealed(tx: Transaction, operation: Operation) -> None:
    """Let an image be used at its operation's very end: nothing can undo it any more."""
    tx.images.change(UUID(str(operation.arguments["image_id"])), state=ImageState.SEALED)


def _not_created(tx: Transaction, operation: Operation, now: datetime) -> None:
    tx.disks.remove(UUID(str(operation.arguments["disk_id"])), expect={"state": DiskState.CREATING})
    ended("disk.create-failed")(tx, operation, now)


DROP_UPLOAD = Step(
    name="drop-upload",
    do=drop,
    # No undo: whoever drops it has no more use for it.
)
#: Copying and checking a large image takes as long as its bytes.
SEAL_DEADLINE_S = 3600.0
CREATE_DISK = Workflow(
    name="create-disk", steps=(presenting.CLONE_DISK,), on_done=ended("disk.created"), on_undone=_not_created
)
DELETE_DISK = Workflow(
    name="delete-disk",
    # No undo: bytes do not come back.
    steps=(presenting.pool_step("delete-disk", _delete_disk),),
    on_done=ended("disk.deleted"),
    on_undone=None,
)
DELETE_IMAGE = Workflow(
    name="delete-image",
    # No undo: bytes do not come back.
    steps=(
        presenting.pool_step("delete-image", unseal),
        DROP_UPLOAD,
    ),
    on_done=ended("image.deleted"),
    on_undone=None,
)
RESTORE_TARGETS = Workflow(
    name="restore-targets",
    # No undo: restoring is what makes the world as the database says.
    steps=(
        Step(
            name="restore-targets",
            do=_restore,
            retry=presenting.TARGET_RETRY,
            resource=presenting.network_resource,
            deadline_s=3600.0,
        ),
    ),
    on_done=ended("targets.restored"),
    on_undone=None,
)
