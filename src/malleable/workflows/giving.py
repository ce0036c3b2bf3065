"""Give a disk to another project: offered by its owner, taken by the other side, each in one transaction."""

from malleable.domain.disks import Disk, DiskOffer, DiskState
from malleable.domain.errors import Conflict, Invalid
from malleable.domain.projects import Holdings, Project
from malleable.domain.store import Page, Transaction
from malleable.workflows import storage
from malleable.workflows.quotas import want_within_quota

#: So many snapshots are named that stand in the way.
NAMED_MAX = 10


def offer(tx: Transaction, *, disk: Disk, offered: DiskOffer, receiver: Project) -> None:
    """Add the offer of a disk that runs nowhere and has no snapshots. Errors: Conflict, Invalid."""
    if disk.project_id == receiver.id:
        raise Invalid(
            f"Disk {disk.name} belongs to project {receiver.name} already.",
            code="offer-to-owner",
            fix="Offer it to another project.",
        )
    if tx.disk_offers.count(disk_id=disk.id):
        raise Conflict(
            f"Disk {disk.name} is offered already.",
            code="disk-offered",
            fix=f"`m2 disk offers` says to whom; `m2 disk keep {disk.name}` takes that back.",
        )
    storage.take_idle(tx, disk, DiskState.READY)
    if count := tx.snapshots.count(disk_id=disk.id):
        names = [snapshot.name for snapshot in tx.snapshots.list(Page(limit=NAMED_MAX), disk_id=disk.id)]
        more = [f"{count - len(names)} more"] if count > len(names) else []
        raise Conflict(
            f"Disk {disk.name} has snapshots, which would stay without it: {', '.join(names + more)}.",
            code="disk-has-snapshots",
            fix="Delete them; or give a clone of one away: `m2 disk create NAME --snapshot SNAPSHOT`.",
            details={"snapshots": names},
        )
    name = _foreign_image(tx, disk, offered)
    if name:
        raise Conflict(
            f"Disk {disk.name} boots as image {name}, which project {receiver.name} may not use.",
            code="image-not-shared",
            fix=f"Let the image's owner share it first: `m2 image share {name} PROJECT`.",
        )
    tx.disk_offers.add(offered)


def accept(tx: Transaction, *, disk: Disk, offered: DiskOffer, name: str) -> Disk:
    """Let the disk be the receiver's, by ``name``; return it as it is then. Errors: Conflict."""
    # First of all, so that the row is locked: whoever begins something with it is seen below, or sees this.
    is_there = tx.disks.change(disk.id, expect={"state": DiskState.READY, "project_id": disk.project_id})
    if not is_there or _is_used(tx, disk):
        # By what is the giver's to know.
        raise Conflict(
            f"Disk {disk.name} is in use, or has snapshots.",
            code="disk-in-use",
            fix="Ask those who offer it to stop what uses it and to delete its snapshots.",
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
    want_within_quota(tx, offered.project_id, Holdings(disks=1, disk_bytes=disk.size_bytes))
    return tx.disks.get(disk.id)


def _is_used(tx: Transaction, disk: Disk) -> bool:
    if tx.targets.count(disk_id=disk.id) or tx.snapshots.count(disk_id=disk.id):
        return True
    try:
        storage.want_unused(tx, f"disk {disk.name}", {"disk_id": str(disk.id)}, project_id=disk.project_id)
    except Conflict:
        return True
    return False


def _foreign_image(tx: Transaction, disk: Disk, offered: DiskOffer, **granted: object) -> str:
    """Name the image that a disk boots as if the receiver has no right to it; "" if it has."""
    image = tx.images.get(disk.image_id) if disk.image_id else None
    if image is None or image.project_id in (None, offered.project_id):
        return ""
    is_shared = tx.image_grants.count(image_id=image.id, project_id=offered.project_id, **granted)
    return "" if is_shared else image.name
