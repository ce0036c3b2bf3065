"""Give a disk to another project: offered by its owner, taken by the other side, each in one transaction."""

from collections.abc import Sequence
from dataclasses import replace

from malleable.domain.disks import Disk, DiskOffer, DiskState, Snapshot, SnapshotState
from malleable.domain.errors import Conflict, Invalid
from malleable.domain.ids import NAME_MAX_CHARS
from malleable.domain.operations import ACTIVE_STATES
from malleable.domain.projects import Holdings, Project
from malleable.domain.store import Page, Transaction
from malleable.workflows import storage
from malleable.workflows.quotas import want_within_quota

#: So many snapshots are named that stand in the way.
NAMED_MAX = 10
#: So many go with a disk at most: each is a statement of one transaction.
GIVEN_MAX = 64


def offer(tx: Transaction, *, disk: Disk, offered: DiskOffer, receiver: Project, with_snapshots: bool) -> DiskOffer:
    """Add the offer of a disk that runs nowhere, alone or with its snapshots. Errors: Conflict, Invalid."""
    if disk.project_id == receiver.id:
        raise Invalid(
            f"Disk {disk.name} belongs to project {receiver.name} already.",
            code="offer-to-owner",
            fix="Offer it to another project.",
        )
    if disk.pool != receiver.pool:
        raise Conflict(
            f"Disk {disk.name} is in another pool than what project {receiver.name} has; it would stay there.",
            code="disk-in-another-pool",
            fix="Promote a snapshot of it, share that image, and let them copy it: `m2 image copy`.",
        )
    if tx.disk_offers.count(disk_id=disk.id):
        raise Conflict(
            f"Disk {disk.name} is offered already.",
            code="disk-offered",
            fix=f"`m2 disk offers` says to whom; `m2 disk keep {disk.name}` takes that back.",
        )
    storage.take_idle(tx, disk, DiskState.READY)
    if with_snapshots:
        snapshots = _given(tx, disk)
        size_bytes = sum(snapshot.size_bytes for snapshot in snapshots)
        offered = replace(offered, snapshots=len(snapshots), snapshot_bytes=size_bytes)
    else:
        _want_no_snapshots(tx, disk)
    name = _foreign_image(tx, disk, offered)
    if name:
        raise Conflict(
            f"Disk {disk.name} boots as image {name}, which project {receiver.name} may not use.",
            code="image-not-shared",
            fix=f"Let the image's owner share it first: `m2 image share {name} PROJECT`.",
        )
    tx.disk_offers.add(offered)
    return offered


def _want_no_snapshots(tx: Transaction, disk: Disk) -> None:
    if count := tx.snapshots.count(disk_id=disk.id):
        names = [snapshot.name for snapshot in tx.snapshots.list(Page(limit=NAMED_MAX), disk_id=disk.id)]
        more = [f"{count - len(names)} more"] if count > len(names) else []
        raise Conflict(
            f"Disk {disk.name} has snapshots: {', '.join(names + more)}. They hold what was deleted from it since.",
            code="disk-has-snapshots",
            fix="Give them with it by --with-snapshots; or delete them; or give a clone of one away: "
            "`m2 disk create NAME --snapshot SNAPSHOT`.",
            details={"snapshots": names},
        )


def _given(tx: Transaction, disk: Disk) -> Sequence[Snapshot]:
    """Read the snapshots that go with a disk. Errors: Conflict when one is not ready, or there are too many."""
    snapshots = tx.snapshots.list(Page(limit=GIVEN_MAX + 1), disk_id=disk.id)
    if len(snapshots) > GIVEN_MAX:
        raise Conflict(
            f"Disk {disk.name} has more than {GIVEN_MAX} snapshots.",
            code="too-many-snapshots",
            fix="Delete some of them: `m2 snapshot list` names them.",
        )
    for snapshot in snapshots:
        storage.want_ready(tx, snapshot)
    return snapshots


def accept(tx: Transaction, *, disk: Disk, offered: DiskOffer, name: str) -> Disk:
    """Let the disk be the receiver's, by ``name``, and its snapshots; return it as it is then. Errors: Conflict."""
    # First of all, so that the rows are locked: whoever begins something with them is seen below, or sees this.
    is_there = tx.disks.change(disk.id, expect={"state": DiskState.READY, "project_id": disk.project_id})
    snapshots = tx.snapshots.list(Page(limit=GIVEN_MAX + 1), disk_id=disk.id)
    was_offered = len(snapshots) <= offered.snapshots and all(snapshot.id < offered.id for snapshot in snapshots)
    if not is_there or not was_offered or not _hand_over(tx, snapshots, offered, name) or _is_used(tx, disk, snapshots):
        # By what is the giver's to know.
        raise Conflict(
            f"Disk {disk.name} is in use, or has snapshots that are not offered.",
            code="disk-in-use",
            fix="Ask those who offer it to stop what uses it and to delete its new snapshots, or to offer it anew.",
        )
    image = _foreign_image(tx, disk, offered, is_accepted=True)
    if image:
        raise Conflict(
            f"Disk {disk.name} boots as image {image}, which your project may not use.",
            code="image-not-shared",
            fix=f"`m2 image accept {image}` if it is offered to you; else ask for it to be shared.",
        )
    # What it was cloned from is the giver's to know, too.
    tx.disks.change(disk.id, project_id=offered.project_id, name=name, snapshot_id=None)
    tx.disk_offers.remove(offered.id)
    size_bytes = disk.size_bytes + sum(snapshot.size_bytes for snapshot in snapshots)
    want_within_quota(tx, offered.project_id, Holdings(disks=1, snapshots=len(snapshots), disk_bytes=size_bytes))
    return tx.disks.get(disk.id)


def _hand_over(tx: Transaction, snapshots: Sequence[Snapshot], offered: DiskOffer, disk_name: str) -> bool:
    """Let snapshots be the receiver's, after the disk's name where their own is taken; False if one is not ready."""
    names = {snapshot.name for snapshot in snapshots}
    taken = {one.name for one in tx.snapshots.list(project_id=offered.project_id, name=names)} if names else set()
    for snapshot in snapshots:
        name = f"{disk_name}-{snapshot.name}" if snapshot.name in taken else snapshot.name
        expect = {"state": SnapshotState.READY, "project_id": snapshot.project_id}
        if len(name) > NAME_MAX_CHARS:
            raise Conflict(
                f"Your project has a snapshot {snapshot.name}, and {name} is longer than {NAME_MAX_CHARS} characters.",
                code="conflict",
                fix="Take the disk by a shorter name: `m2 disk accept DISK --name NAME`.",
            )
        if not tx.snapshots.change(snapshot.id, expect=expect, project_id=offered.project_id, name=name):
            return False
    return True


def _is_used(tx: Transaction, disk: Disk, snapshots: Sequence[Snapshot]) -> bool:
    """Tell whether a node has a disk, or anything is begun with it or with one of these snapshots."""
    begun = tx.operations.list(None, state=list(ACTIVE_STATES), project_id=disk.project_id)
    about = [("disk_id", str(disk.id)), *(("snapshot_id", str(snapshot.id)) for snapshot in snapshots)]
    is_begun = any(storage.is_about(operation, name, value) for operation in begun for name, value in about)
    return is_begun or bool(tx.targets.count(disk_id=disk.id))


def _foreign_image(tx: Transaction, disk: Disk, offered: DiskOffer, **granted: object) -> str:
    """Name the image that a disk boots as if the receiver has no right to it; "" if it has."""
    image = tx.images.get(disk.image_id) if disk.image_id else None
    if image is None or image.project_id in (None, offered.project_id):
        return ""
    is_shared = tx.image_grants.count(image_id=image.id, project_id=offered.project_id, **granted)
    return "" if is_shared else image.name
