"""Disks: what outlives every node it runs on."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from malleable.domain.disks import Disk, DiskState, DiskUse, Snapshot, Target
from malleable.domain.errors import Conflict, Invalid
from malleable.domain.ids import DiskId, ImageId, NodeId, ProjectId, new_id
from malleable.domain.images import Image
from malleable.domain.operations import Operation
from malleable.domain.projects import Holdings, Project
from malleable.domain.store import Page, Transaction
from malleable.services.authorization import not_found, require
from malleable.services.caller import Caller
from malleable.services.finding import find_node, find_owned, find_project, listed, names_of, project_for, shown
from malleable.services.parts import Listed, Parts
from malleable.services.provisions import find_image, grown
from malleable.services.renaming import rename
from malleable.workflows import data_disks, disk_batch, storage
from malleable.workflows.quotas import want_within_quota


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedDisk:
    """A disk with the names around it and the node it runs on."""

    disk: Disk
    project: str
    image: str | None
    snapshot: str | None
    node_id: NodeId | None
    node: str | None
    use: DiskUse | None

    @property
    def id(self) -> DiskId:
        return self.disk.id


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskWish:
    """What new disks shall be: clones of an image or a snapshot, or blank, of ``size_bytes``."""

    project: str | None
    image: str | None
    snapshot: str | None
    size_bytes: int | None


class Disks:
    """Copy-on-write clones of images, and where they run."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def disk_list(self, caller: Caller, page: Page, *, project: str | None = None) -> Listed[PlacedDisk]:
        """List the disks of one's projects, with where they run; admins: all. Errors: NotFound."""
        require(caller, "disk_list")
        with self._parts.store.reading() as tx:
            if project is not None:
                project_id = find_project(tx, caller, project).id
                require(caller, "disk_get", project_id=project_id)
                found = tx.disks.list(page, project_id=project_id)
            else:
                wanted: dict[str, object] = {} if caller.is_admin else {"project_id": list(caller.memberships)}
                found = tx.disks.list(page, **wanted)
            return listed(placed_disks(tx, found), page, {})

    def disk_get(self, caller: Caller, ref: str, *, project: str | None = None) -> PlacedDisk:
        """Read one disk. Errors: NotFound, Conflict for an ambiguous name."""
        with self._parts.store.reading() as tx:
            disk = find_owned(tx, tx.disks, caller, "disk_get", ref, project)
            return placed_disks(tx, [disk])[0]

    def disk_create(self, caller: Caller, wish: DiskWish, *, name: str) -> Operation:
        """Clone a disk, or make a blank one: in a moment, else it goes on after the answer.

        Errors: Invalid, NotFound, Forbidden, Conflict.
        """

        def request(tx: Transaction, now: datetime, disks: Sequence[Disk]) -> Operation:
            return storage.request_create(tx, now, disk=disks[0], actor_id=caller.user_id, adds=False)

        return self._create(caller, wish, [name], request)

    def disk_create_batch(self, caller: Caller, wish: DiskWish, *, names: Sequence[str]) -> Operation:
        """Make disks that are alike, all or none of them. Errors: as ``disk_create``."""
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise Invalid(f"Disk {twice[0]} is named twice.", code="disk-twice", fix="Name each disk once.")

        def request(tx: Transaction, now: datetime, disks: Sequence[Disk]) -> Operation:
            return disk_batch.request(tx, now, disks=disks, actor_id=caller.user_id, adds=False)

        return self._create(caller, wish, names, request)

    def _create(
        self,
        caller: Caller,
        wish: DiskWish,
        names: Sequence[str],
        request: Callable[[Transaction, datetime, Sequence[Disk]], Operation],
    ) -> Operation:
        if wish.image is not None and wish.snapshot is not None:
            raise Invalid("Name either an image or a snapshot.", fix="Give one of them, what to clone.")
        now = self._parts.now()
        with self._parts.store.transaction() as tx:
            project = project_for(tx, caller, wish.project, "disk_create")
            origin = _origin(tx, caller, wish, project)
            size_bytes = grown(origin, wish.size_bytes) if origin else _blank_size(wish)
            one = Disk(
                id=DiskId(new_id()),
                name="",
                project_id=project.id,
                image_id=_image_id(origin),
                snapshot_id=origin.id if isinstance(origin, Snapshot) else None,
                state=DiskState.CREATING,
                size_bytes=size_bytes,
                pool=project.pool,
                created_at=now,
            )
            operation = request(tx, now, [replace(one, id=DiskId(new_id()), name=name) for name in names])
            want_within_quota(tx, project.id, Holdings(disks=len(names), disk_bytes=len(names) * size_bytes))
            begun = self._parts.enter(tx, operation)
        return self._parts.walked(operation, begun)

    def disk_rename(self, caller: Caller, ref: str, *, name: str, project: str | None = None) -> PlacedDisk:
        """Give a disk another name; whatever runs it goes on. Errors: NotFound, Forbidden, Conflict."""
        with self._parts.store.transaction() as tx:
            disk = find_owned(tx, tx.disks, caller, "disk_change", ref, project)
            return placed_disks(tx, [rename(tx, self._parts, tx.disks, caller, disk, name=name)])[0]

    def disk_delete(self, caller: Caller, ref: str, *, project: str | None = None) -> Operation:
        """Begin to delete a disk that runs nowhere. Errors: NotFound, Forbidden, Conflict."""
        with self._parts.store.transaction() as tx:
            disk = find_owned(tx, tx.disks, caller, "disk_delete", ref, project)
            return storage.request_delete(tx, self._parts.now(), disk=disk, actor_id=caller.user_id)

    def disk_attach(self, caller: Caller, ref: str, *, node: str, project: str | None = None) -> Operation:
        """Begin to present a disk to a running node, for data. Errors: NotFound, Forbidden, Conflict."""
        now = self._parts.now()
        with self._parts.store.transaction() as tx:
            disk = find_owned(tx, tx.disks, caller, "disk_use", ref, project)
            chosen = find_node(tx, caller, "node_attach", node)
            return data_disks.request(tx, now, disk=disk, node=chosen, actor_id=caller.user_id)

    def disk_detach(self, caller: Caller, ref: str, *, project: str | None = None) -> Operation:
        """Begin to take a disk for data from its node, sessions and all. Errors: NotFound, Forbidden, Conflict."""
        now = self._parts.now()
        with self._parts.store.transaction() as tx:
            disk = find_owned(tx, tx.disks, caller, "disk_use", ref, project)
            target = tx.targets.find(disk_id=disk.id)
            if target is None:
                fix = "`m2 target list` shows which node has which disk."
                raise Conflict(f"No node has disk {disk.name}.", code="disk-idle", fix=fix)
            return data_disks.request_detach(tx, now, disk=disk, target=target, actor_id=caller.user_id)

    def target_list(
        self,
        caller: Caller,
        page: Page,
        *,
        node: str | None = None,
        disk: str | None = None,
        project: str | None = None,
    ) -> Listed[Target]:
        """List where disks of one's projects are presented, or of that ``project``; admins: all. Errors: NotFound."""
        require(caller, "target_list")
        with self._parts.store.reading() as tx:
            wanted: dict[str, object] = {}
            if node is not None:
                wanted["node_id"] = find_node(tx, caller, "node_get", node).id
            if disk is not None:
                wanted["disk_id"] = find_owned(tx, tx.disks, caller, "disk_get", disk, project).id
            elif project is not None or not caller.is_admin:
                sides = list(caller.memberships) if project is None else [_readable(tx, caller, project)]
                found = tx.targets.of_projects(page, sides, **wanted)
                return listed(found, page, _target_names(tx, found))
            found = tx.targets.list(page, **wanted)
            return listed(found, page, _target_names(tx, found))


def _readable(tx: Transaction, caller: Caller, project: str) -> ProjectId:
    found = find_project(tx, caller, project)
    require(caller, "disk_get", what=f"project {shown(project)}", project_id=found.id)
    return found.id


def _origin(tx: Transaction, caller: Caller, wish: DiskWish, project: Project) -> Image | Snapshot | None:
    """Find what is to be cloned; None: the disk is to be blank. Errors: NotFound, Conflict."""
    if wish.image is not None:
        return find_image(tx, caller, wish.image, project)
    if wish.snapshot is None:
        return None
    snapshot = find_owned(tx, tx.snapshots, caller, "snapshot_get", wish.snapshot, str(project.id))
    if snapshot.project_id != project.id:
        raise not_found(f"snapshot {shown(wish.snapshot)}")
    return snapshot


def _image_id(origin: Image | Snapshot | None) -> ImageId | None:
    return origin.image_id if isinstance(origin, Snapshot) else origin.id if origin else None


def _blank_size(wish: DiskWish) -> int:
    """Return the size of a blank disk. Errors: Invalid when it is not named."""
    if wish.size_bytes is None:
        raise Invalid(
            "A blank disk needs a size.",
            code="size-needed",
            fix="Give its size, `--size 20G`; or an image or a snapshot to clone, `--image`, `--snapshot`.",
        )
    return wish.size_bytes


def placed_disks(tx: Transaction, disks: Sequence[Disk]) -> tuple[PlacedDisk, ...]:
    """Join disks with their names and nodes; five queries however many disks."""
    ids = [disk.id for disk in disks]
    targets = {t.disk_id: t for t in tx.targets.list(disk_id=ids)} if ids else {}
    nodes = names_of(tx.nodes, (t.node_id for t in targets.values()))
    projects = names_of(tx.projects, (d.project_id for d in disks))
    images = names_of(tx.images, (d.image_id for d in disks))
    origins = _origins(tx, disks)
    return tuple(
        PlacedDisk(
            disk=disk,
            project=projects[disk.project_id],
            image=images[disk.image_id] if disk.image_id else None,
            snapshot=origin.name if origin else None,
            node_id=target.node_id if target else None,
            node=nodes[target.node_id] if target else None,
            use=target.use if target else None,
        )
        for disk in disks
        for target in [targets.get(disk.id)]
        for origin in [origins.get(disk.id)]
    )


def _origins(tx: Transaction, disks: Sequence[Disk]) -> Mapping[UUID, Snapshot]:
    """Read for each disk the snapshot it was cloned from, unless that is gone or another project's by now."""
    wanted = {disk.snapshot_id for disk in disks if disk.snapshot_id}
    found: dict[UUID | None, Snapshot] = {one.id: one for one in tx.snapshots.list(id=wanted)} if wanted else {}
    pairs = ((disk, found.get(disk.snapshot_id)) for disk in disks)
    return {disk.id: origin for disk, origin in pairs if origin and origin.project_id == disk.project_id}


def _target_names(tx: Transaction, targets: Sequence[Target]) -> Mapping[UUID, str]:
    disks = names_of(tx.disks, (t.disk_id for t in targets))
    nodes = names_of(tx.nodes, (t.node_id for t in targets))
    images = names_of(tx.images, (t.image_id for t in targets))
    return {**disks, **images, **nodes, **names_of(tx.networks, (t.network_id for t in targets))}
