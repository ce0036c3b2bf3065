"""Snapshots: what a disk was at one moment, and what can be made of that."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from malleable.domain.disks import Disk, Snapshot, SnapshotState
from malleable.domain.ids import ImageId, SnapshotId, new_id
from malleable.domain.images import ImageState
from malleable.domain.operations import Operation
from malleable.domain.projects import Holdings
from malleable.domain.store import Page, Transaction
from malleable.services.authorization import require
from malleable.services.caller import Caller
from malleable.services.finding import find_owned, find_project, listed, names_of
from malleable.services.parts import Listed, Parts, Shown
from malleable.services.provisions import image_of
from malleable.services.renaming import rename
from malleable.services.signers import want_signed
from malleable.workflows import flatten, snapshots
from malleable.workflows.quotas import want_within_quota


@dataclass(frozen=True, slots=True, kw_only=True)
class PromoteWish:
    """An image to be made of a snapshot; golden: for everybody."""

    name: str
    is_golden: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotWish:
    """A snapshot to be taken."""

    name: str
    quiesce: bool | None = None  #: whether the system that writes to the disk is to stop; None: if it can


class Snapshots:
    """Points in a disk's life to clone, to go back to, or to make images of."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def snapshot_list(
        self, caller: Caller, page: Page, *, disk: str | None = None, project: str | None = None
    ) -> Listed[Snapshot]:
        """List the snapshots of one's projects, or of one disk; admins: all. Errors: NotFound."""
        require(caller, "snapshot_list")
        with self._parts.store.reading() as tx:
            wanted: dict[str, object] = {}
            if disk is not None:
                wanted["disk_id"] = find_owned(tx, tx.disks, caller, "disk_get", disk, project).id
            elif project is not None:
                wanted["project_id"] = find_project(tx, caller, project, "snapshot_get").id
            elif not caller.is_admin:
                wanted["project_id"] = list(caller.memberships)
            found = tx.snapshots.list(page, **wanted)
            return listed(found, page, _names(tx, found))

    def snapshot_get(self, caller: Caller, ref: str, *, project: str | None = None) -> Shown[Snapshot]:
        """Read one snapshot. Errors: NotFound, Conflict for an ambiguous name."""
        with self._parts.store.reading() as tx:
            found = find_owned(tx, tx.snapshots, caller, "snapshot_get", ref, project)
            return Shown(value=found, names=_names(tx, [found]))

    def snapshot_create(self, caller: Caller, wish: SnapshotWish, *, disk: str, project: str | None) -> Operation:
        """Begin to keep what a disk is at this moment; it may be running. Errors: NotFound, Forbidden, Conflict."""
        now = self._parts.now()
        with self._parts.store.transaction() as tx:
            source = find_owned(tx, tx.disks, caller, "disk_get", disk, project)
            require(caller, "snapshot_create", project_id=source.project_id)
            snapshot = Snapshot(
                id=SnapshotId(new_id()),
                name=wish.name,
                project_id=source.project_id,
                disk_id=source.id,
                image_id=source.image_id,
                state=SnapshotState.CREATING,
                size_bytes=source.size_bytes,
                created_at=now,
            )
            operation = snapshots.request_snapshot(
                tx, now, snapshot=snapshot, disk=source, actor_id=caller.user_id, quiesce=wish.quiesce
            )
            want_within_quota(tx, source.project_id, Holdings(snapshots=1, disk_bytes=snapshot.size_bytes))
            return operation

    def snapshot_rename(self, caller: Caller, ref: str, *, name: str, project: str | None = None) -> Shown[Snapshot]:
        """Give a snapshot another name; what was made of it goes on. Errors: NotFound, Forbidden, Conflict."""
        with self._parts.store.transaction() as tx:
            snapshot = find_owned(tx, tx.snapshots, caller, "snapshot_change", ref, project)
            renamed = rename(tx, self._parts, tx.snapshots, caller, snapshot, name=name)
            return Shown(value=renamed, names=_names(tx, [renamed]))

    def snapshot_delete(self, caller: Caller, ref: str, *, project: str | None = None) -> Operation:
        """Begin to delete a snapshot; clones of it stay. Errors: NotFound, Forbidden, Conflict."""
        with self._parts.store.transaction() as tx:
            snapshot = find_owned(tx, tx.snapshots, caller, "snapshot_delete", ref, project)
            return snapshots.request_delete(tx, self._parts.now(), snapshot=snapshot, actor_id=caller.user_id)

    def snapshot_promote(self, caller: Caller, ref: str, wish: PromoteWish, *, project: str | None = None) -> Operation:
        """Begin to make an image of a snapshot, which boots as its disk did. Errors: as above."""
        now = self._parts.now()
        with self._parts.store.transaction() as tx:
            snapshot = find_owned(tx, tx.snapshots, caller, "snapshot_get", ref, project)
            owner = None if wish.is_golden else snapshot.project_id
            require(caller, "image_create", project_id=owner)
            image = replace(
                image_of(tx, snapshot),
                id=ImageId(new_id()),
                name=wish.name,
                project_id=owner,
                pool=tx.projects.get(owner).pool if owner else "",
                state=ImageState.IMPORTING,
                size_bytes=snapshot.size_bytes,
                sha256="",
                signed_by="",
                signing_key="",
                parent_id=snapshot.image_id,
                created_at=now,
            )
            want_signed(tx, self._parts, owner, image)
            operation = snapshots.request_promote(tx, now, snapshot=snapshot, image=image, actor_id=caller.user_id)
            want_within_quota(tx, owner, Holdings(images=1, image_bytes=image.size_bytes + image.files_bytes))
            return operation

    def disk_roll_back(self, caller: Caller, ref: str, *, snapshot: str, project: str | None = None) -> Operation:
        """Begin to make a disk what one of its snapshots is. Errors: NotFound, Forbidden, Conflict, Invalid."""
        with self._parts.store.transaction() as tx:
            disk = find_owned(tx, tx.disks, caller, "disk_change", ref, project)
            wanted = find_owned(tx, tx.snapshots, caller, "snapshot_get", snapshot, str(disk.project_id))
            now, actor_id = self._parts.now(), caller.user_id
            operation = snapshots.request_roll_back(tx, now, disk=disk, snapshot=wanted, actor_id=actor_id)
            _want_growth_within_quota(tx, disk, wanted.size_bytes)
            return operation

    def disk_grow(self, caller: Caller, ref: str, *, size_bytes: int, project: str | None = None) -> Operation:
        """Begin to enlarge a disk that runs nowhere. Errors: NotFound, Forbidden, Conflict, Invalid."""
        with self._parts.store.transaction() as tx:
            disk = find_owned(tx, tx.disks, caller, "disk_change", ref, project)
            now, actor_id = self._parts.now(), caller.user_id
            operation = snapshots.request_grow(tx, now, disk=disk, size_bytes=size_bytes, actor_id=actor_id)
            _want_growth_within_quota(tx, disk, size_bytes)
            return operation

    def disk_flatten(self, caller: Caller, ref: str, *, project: str | None = None) -> Operation:
        """Begin to make a disk stand alone, which a node may be running. Errors: NotFound, Forbidden, Conflict."""
        with self._parts.store.transaction() as tx:
            disk = find_owned(tx, tx.disks, caller, "disk_change", ref, project)
            return flatten.request(tx, self._parts.now(), disk=disk, actor_id=caller.user_id)


def _want_growth_within_quota(tx: Transaction, disk: Disk, size_bytes: int) -> None:
    want_within_quota(tx, disk.project_id, Holdings(disk_bytes=max(size_bytes - disk.size_bytes, 0)))


def _names(tx: Transaction, found: Sequence[Snapshot]) -> Mapping[UUID, str]:
    return {
        **names_of(tx.disks, (s.disk_id for s in found)),
        **names_of(tx.images, (s.image_id for s in found)),
        **names_of(tx.projects, (s.project_id for s in found)),
    }
