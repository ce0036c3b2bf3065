"""What came of an image: its disks, their snapshots, the images made of these, and who boots them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from malleable.domain.disks import Disk, Snapshot
from malleable.domain.errors import DriverError
from malleable.domain.ids import DiskId, ImageId, SnapshotId
from malleable.domain.images import Image
from malleable.domain.store import Page, Transaction
from malleable.services.authorization import may
from malleable.services.caller import Caller
from malleable.services.finding import names_of
from malleable.services.image_finding import find_image
from malleable.services.parts import Parts

#: Of each kind, per generation of images; a tree with more says that it is cut.
BRANCHES_MAX = 500
GENERATIONS_MAX = 20
#: Measuring takes time for every piece of a thing.
MEASURED_MAX = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """One thing in the tree, after what it was made of."""

    kind: str  #: image, disk or snapshot
    id: UUID
    parent_id: UUID | None  #: another branch of the tree; None at its root
    name: str
    project: str | None
    state: str
    size_bytes: int
    own_bytes: int | None = None  #: that nothing else shares; None: not measured
    shared_bytes: int | None = None  #: of its content, that others have, too; None: not measured
    node: str | None = None  #: who boots it, or has it for data


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """An image and all that came of it, as far as the caller may see it."""

    branches: tuple[Branch, ...]  #: the image first
    #: disks and snapshots of other projects that keep the image from being deleted; told to whoever may do that, else 0
    hidden_count: int
    is_cut: bool  #: there is more


@dataclass(slots=True)
class _Found:
    images: list[Image]
    disks: list[Disk]
    snapshots: list[Snapshot]
    is_cut: bool = False


class ImageTrees:
    """The lineage of images."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def image_tree(self, caller: Caller, ref: str, *, project: str | None = None, is_measured: bool = False) -> Tree:
        """Read an image's tree; measuring it asks the pool, once for each. Errors: NotFound."""
        with self._parts.store.reading() as tx:
            root = find_image(tx, caller, "image_get", ref, project)
            found = _descendants(tx, root)
            seen = _seen(caller, found, root)
            hidden = _needing(found, root) - _needing(seen, root)
            branches = tuple(_branches(tx, seen, root))
        if is_measured:
            branches = tuple(self._measured(branch) for branch in branches[:MEASURED_MAX]) + branches[MEASURED_MAX:]
        is_owner = may(caller, "image_delete", project_id=root.project_id)
        return Tree(branches=branches, hidden_count=hidden if is_owner else 0, is_cut=found.is_cut)

    def _measured(self, branch: Branch) -> Branch:
        try:
            usage = self._parts.drivers.disks.usage(_stored_id(branch))
        except DriverError:  # it is on its way in or out
            return branch
        return replace(branch, own_bytes=usage.own_bytes, shared_bytes=usage.shared_bytes)


def _stored_id(branch: Branch) -> ImageId | DiskId | SnapshotId:
    if branch.kind == "image":
        return ImageId(branch.id)
    return DiskId(branch.id) if branch.kind == "disk" else SnapshotId(branch.id)


def _seen(caller: Caller, found: _Found, root: Image) -> _Found:
    """Leave out what other projects have."""

    def is_seen(value: Image | Disk | Snapshot) -> bool:
        return value.id == root.id or caller.is_admin or value.project_id in caller.memberships

    return _Found(
        images=[image for image in found.images if is_seen(image)],
        disks=[disk for disk in found.disks if is_seen(disk)],
        snapshots=[snapshot for snapshot in found.snapshots if is_seen(snapshot)],
    )


def _needing(found: _Found, root: Image) -> int:
    """Count what was cloned of the image itself; copies, and images made of its disks, are whole without it."""
    return sum(thing.image_id == root.id for things in (found.disks, found.snapshots) for thing in things)


def _descendants(tx: Transaction, root: Image) -> _Found:
    """Walk down the generations: three queries each."""
    found = _Found(images=[root], disks=[], snapshots=[])
    page, generation = Page(limit=BRANCHES_MAX), [root.id]
    for _ in range(GENERATIONS_MAX):
        disks = tx.disks.list(page, image_id=generation)
        snapshots = tx.snapshots.list(page, image_id=generation)
        images = tx.images.list(page, parent_id=generation)
        found.disks += disks
        found.snapshots += snapshots
        found.images += images
        found.is_cut |= BRANCHES_MAX in (len(disks), len(snapshots), len(images))
        if not images:
            return found
        generation = [image.id for image in images]
    found.is_cut = True
    return found


def _branches(tx: Transaction, seen: _Found, root: Image) -> Iterator[Branch]:
    """Put what was found in order, each below what it was made of, or below the image if that is gone."""
    everything: list[Image | Disk | Snapshot] = [*seen.images, *seen.disks, *seen.snapshots]
    owners = names_of(tx.projects, (value.project_id for value in everything))
    nodes = _nodes(tx, seen.disks)
    there: set[UUID | None] = {value.id for value in everything}
    for image in seen.images:
        parent_id = None if image.id == root.id else image.parent_id
        yield _branch("image", image, parent_id if parent_id in there else _under(image, root), owners)
    for disk in seen.disks:
        above = next((id for id in (disk.snapshot_id, disk.image_id) if id in there), root.id)
        yield replace(_branch("disk", disk, above, owners), node=nodes.get(disk.id))
    for snapshot in seen.snapshots:
        below = next((id for id in (snapshot.disk_id, snapshot.image_id) if id in there), root.id)
        yield _branch("snapshot", snapshot, below, owners)


def _under(image: Image, root: Image) -> UUID | None:
    return None if image.id == root.id else root.id


def _branch(kind: str, value: Image | Disk | Snapshot, parent_id: UUID | None, owners: Mapping[UUID, str]) -> Branch:
    return Branch(
        kind=kind,
        id=value.id,
        parent_id=parent_id,
        name=value.name,
        project=owners.get(value.project_id) if value.project_id else None,
        state=value.state.value,
        size_bytes=value.size_bytes,
    )


def _nodes(tx: Transaction, disks: Sequence[Disk]) -> Mapping[UUID, str]:
    targets = tx.targets.list(disk_id=[disk.id for disk in disks]) if disks else ()
    names = names_of(tx.nodes, (target.node_id for target in targets))
    return {target.disk_id: names[target.node_id] for target in targets if target.disk_id is not None}
