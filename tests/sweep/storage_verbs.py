"""The swept workflows of images, disks and snapshots; no node has a part in them."""

import os
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from uuid import UUID

from minisign import KeyPair
from tests.sweep.verb import Check, Verb
from tests.sweep.world import World

from malleable.domain.disks import Disk, DiskState, Snapshot, SnapshotState, new_iqn
from malleable.domain.ids import DiskId, ImageId, NodeId, OperationId, SignerId, SnapshotId, new_id
from malleable.domain.images import Image, ImageFormat, ImageState
from malleable.domain.operations import Operation
from malleable.domain.pool import Audit
from malleable.domain.ports import Export
from malleable.domain.secrets import Secret
from malleable.domain.signatures import Signer
from malleable.domain.store import Transaction
from malleable.sim.converter import packed
from malleable.workflows import audit, collect, disk_batch, flatten, importing, snapshots, storage, verify

NOBODY = NodeId(new_id())
WRITTEN = b"kept" * 128
LATER = b"lost" * 128


def disk_of(world: World, *, snapshot: Snapshot | None = None, state: DiskState = DiskState.CREATING) -> Disk:
    return Disk(
        id=DiskId(new_id()),
        name="root",
        project_id=world.project_id,
        image_id=world.image_id,
        snapshot_id=snapshot.id if snapshot else None,
        state=state,
        size_bytes=world.size_bytes,
        created_at=world.clock.now(),
    )


def ready_disk(world: World) -> Disk:
    """Make a disk on which something was written."""
    disk = disk_of(world, state=DiskState.READY)
    world.disks.clone(world.image_id, disk.id, size_bytes=0)
    world.disks.write(disk.id, 0, WRITTEN)
    with world.store.transaction() as tx:
        tx.disks.add(disk)
    return disk


def new_snapshot(world: World, disk: Disk, state: SnapshotState = SnapshotState.CREATING) -> Snapshot:
    return Snapshot(
        id=SnapshotId(new_id()),
        name="before",
        project_id=disk.project_id,
        disk_id=disk.id,
        image_id=disk.image_id,
        state=state,
        size_bytes=disk.size_bytes,
        created_at=world.clock.now(),
    )


def ready_snapshot(world: World) -> tuple[Disk, Snapshot]:
    """Make a disk with a snapshot and write to it once more."""
    disk = ready_disk(world)
    snapshot = new_snapshot(world, disk, SnapshotState.READY)
    world.disks.snapshot(disk.id, snapshot.id)
    world.disks.write(disk.id, 0, LATER)
    with world.store.transaction() as tx:
        tx.snapshots.add(snapshot)
    return disk, snapshot


def begun(world: World, request: Callable[[Transaction], Operation]) -> tuple[NodeId, OperationId]:
    with world.store.transaction() as tx:
        return NOBODY, request(tx).id


def content(world: World, disk_id: DiskId) -> bytes:
    return world.disks.read(disk_id, 0, len(WRITTEN))


def only_disk(world: World) -> Disk:
    """Return the only disk, which the pool has as well and nothing is going on with."""
    with world.store.reading() as tx:
        (disk,) = tx.disks.list()
    assert world.disks.list().disks == {disk.id}
    assert disk.state is DiskState.READY
    assert world.disks.size_bytes(disk.id) == disk.size_bytes
    return disk


def _create(world: World) -> tuple[NodeId, OperationId]:
    disk = disk_of(world)
    return begun(world, lambda tx: storage.request_create(tx, world.clock.now(), disk=disk, actor_id=None))


def _create_by_its_asker(world: World) -> tuple[NodeId, OperationId]:
    """Begin it in the transaction that adds it, and die."""
    disk, engine = disk_of(world), world.engine()
    with world.store.transaction() as tx:
        operation = storage.request_create(tx, world.clock.now(), disk=disk, actor_id=None, adds=False)
        assert engine.enter(tx, operation) is not None
    return NOBODY, operation.id


def _create_batch(world: World) -> tuple[NodeId, OperationId]:
    disks = [replace(disk_of(world), name=f"web-{number}") for number in range(3)]
    return begun(world, lambda tx: disk_batch.request(tx, world.clock.now(), disks=disks, actor_id=None))


def _batch_created(world: World, _: NodeId) -> None:
    with world.store.reading() as tx:
        disks = tx.disks.list()
    assert [(disk.name, disk.state) for disk in disks] == [(f"web-{number}", DiskState.READY) for number in range(3)]
    assert world.disks.list().disks == {disk.id for disk in disks}


def _created(world: World, _: NodeId) -> None:
    only_disk(world)


def _no_disk(world: World, _: NodeId) -> None:
    with world.store.reading() as tx:
        assert tx.disks.count() == 0
    assert world.disks.list().disks == frozenset()


def _create_blank(world: World) -> tuple[NodeId, OperationId]:
    disk = replace(disk_of(world), image_id=None)
    return begun(world, lambda tx: storage.request_create(tx, world.clock.now(), disk=disk, actor_id=None))


def _created_blank(world: World, _: NodeId) -> None:
    assert not any(content(world, only_disk(world).id))


def _create_from_snapshot(world: World) -> tuple[NodeId, OperationId]:
    old, snapshot = ready_snapshot(world)
    disk = replace(disk_of(world, snapshot=snapshot), name="again")
    with world.store.transaction() as tx:
        tx.disks.remove(old.id)
    world.disks.delete_disk(old.id)
    return begun(world, lambda tx: storage.request_create(tx, world.clock.now(), disk=disk, actor_id=None))


def _created_from_snapshot(world: World, _: NodeId) -> None:
    assert content(world, only_disk(world).id) == WRITTEN


def _snapshot(world: World) -> tuple[NodeId, OperationId]:
    disk = ready_disk(world)
    snapshot = new_snapshot(world, disk)
    now = world.clock.now()
    return begun(world, lambda tx: snapshots.request_snapshot(tx, now, snapshot=snapshot, disk=disk, actor_id=None))


def _snapshot_taken(world: World, _: NodeId) -> None:
    with world.store.reading() as tx:
        (snapshot,) = tx.snapshots.list()
    assert snapshot.state is SnapshotState.READY
    assert world.disks.list().snapshots == {snapshot.id}
    only_disk(world)


def _no_snapshot(world: World, _: NodeId) -> None:
    with world.store.reading() as tx:
        assert tx.snapshots.count() == 0
    assert world.disks.list().snapshots == frozenset()
    only_disk(world)


def _delete_snapshot(world: World) -> tuple[NodeId, OperationId]:
    _, snapshot = ready_snapshot(world)
    now = world.clock.now()
    return begun(world, lambda tx: snapshots.request_delete(tx, now, snapshot=snapshot, actor_id=None))


def _roll_back(world: World) -> tuple[NodeId, OperationId]:
    disk, snapshot = ready_snapshot(world)
    now = world.clock.now()
    return begun(world, lambda tx: snapshots.request_roll_back(tx, now, disk=disk, snapshot=snapshot, actor_id=None))


def _rolled_back(world: World, _: NodeId) -> None:
    assert content(world, only_disk(world).id) == WRITTEN


def _whole(world: World, _: NodeId) -> None:
    """Cancelled: the pool did all of it or nothing."""
    assert content(world, only_disk(world).id) in (WRITTEN, LATER)


def _grow(world: World) -> tuple[NodeId, OperationId]:
    disk, now = ready_disk(world), world.clock.now()
    size_bytes = 2 * disk.size_bytes
    return begun(world, lambda tx: snapshots.request_grow(tx, now, disk=disk, size_bytes=size_bytes, actor_id=None))


def _grown(world: World, _: NodeId) -> None:
    disk = only_disk(world)
    assert disk.size_bytes == 2 * world.size_bytes
    assert content(world, disk.id) == WRITTEN


def _not_grown(world: World, _: NodeId) -> None:
    with world.store.reading() as tx:
        (disk,) = tx.disks.list()
    assert disk.state is DiskState.READY
    # Asked to grow before the cancel, it stays as large: that is of no harm.
    assert world.size_bytes <= disk.size_bytes <= world.disks.size_bytes(disk.id)
    assert content(world, disk.id) == WRITTEN


def _flatten(world: World) -> tuple[NodeId, OperationId]:
    """Begin to flatten the disk of a node that runs, on which nothing was written, in two looks."""
    _, disk = world.running_node()
    world.disks.flatten_blocks = 1
    return begun(world, lambda tx: flatten.request(tx, world.clock.now(), disk=disk, actor_id=None))


def _flattened(world: World, _: NodeId) -> None:
    _as_it_was(world, NOBODY)
    assert world.disks.flatten(only_disk(world).id, seconds=1.0).copied_bytes == 0


def _as_it_was(world: World, _: NodeId) -> None:
    assert world.disks.read(only_disk(world).id, 0, world.size_bytes) == b"golden" * 1000
    with world.store.reading() as tx:
        (target,) = tx.targets.list()
    world.assert_up(target.node_id)


def _promote(world: World) -> tuple[NodeId, OperationId]:
    _, snapshot = ready_snapshot(world)
    now = world.clock.now()
    with world.store.reading() as tx:
        parent = tx.images.get(world.image_id)
    image = replace(
        parent, id=ImageId(new_id()), name="mine", project_id=world.project_id, state=ImageState.IMPORTING, sha256=""
    )
    return begun(world, lambda tx: snapshots.request_promote(tx, now, snapshot=snapshot, image=image, actor_id=None))


def _promoted(world: World, _: NodeId) -> None:
    with world.store.reading() as tx:
        image = tx.images.find(name="mine")
    assert image is not None
    assert image.state is ImageState.SEALED
    with world.disks.open_image(image.id) as file:
        kept = file.read()
    assert kept.startswith(WRITTEN)
    assert (image.sha256, image.size_bytes) == (sha256(kept).hexdigest(), len(kept))


def _not_promoted(world: World, _: NodeId) -> None:
    with world.store.reading() as tx:
        assert tx.images.count() == 1
    assert world.disks.list().images == {world.image_id}


def signed(world: World, content: bytes, by: str = "builders") -> str:
    """Sign something as one whom the site trusts."""
    pair = KeyPair.generate()
    key, now = str(pair.public_key.to_base64(), "ascii"), world.clock.now()
    with world.store.transaction() as tx:
        tx.signers.add(Signer(id=SignerId(new_id()), name=by, project_id=None, key=key, created_at=now))
    return bytes(pair.secret_key.sign(content)).decode()


def _importing(upload_format: ImageFormat, by: str) -> Callable[[World], tuple[NodeId, OperationId]]:
    """Upload an image and begin to import it, signed if ``by`` is somebody."""

    def begin(world: World) -> tuple[NodeId, OperationId]:
        content = WRITTEN if upload_format is ImageFormat.RAW else packed(WRITTEN, upload_format)
        image = replace(
            golden(world),
            id=ImageId(new_id()),
            name="mine",
            state=ImageState.IMPORTING,
            upload_format=upload_format,
            size_bytes=len(content),
            sha256=sha256(content).hexdigest(),
        )
        spool, now = world.spool / str(image.id), world.clock.now()
        spool.mkdir()
        (spool / verify.UPLOAD).write_bytes(content)
        with world.store.transaction() as tx:
            tx.images.add(image)
        signature = signed(world, content, by) if by else ""
        return begun(
            world,
            lambda tx: importing.request(tx, now, image=image, spool=spool, actor_id=None, signature=signature),
        )

    return begin


def golden(world: World) -> Image:
    with world.store.reading() as tx:
        return tx.images.get(world.image_id)


def imported(world: World, _: NodeId) -> None:
    with world.store.reading() as tx:
        image = tx.images.find(name="mine")
    assert image is not None
    assert (image.state, image.size_bytes) == (ImageState.SEALED, len(WRITTEN))
    assert image.sha256 == sha256(WRITTEN).hexdigest()
    with world.disks.open_image(image.id) as file:
        assert file.read() == WRITTEN
    assert not (world.spool / str(image.id)).exists()


def not_imported(world: World, _: NodeId) -> None:
    with world.store.reading() as tx:
        image = tx.images.find(name="mine")
    assert image is not None
    assert image.state is ImageState.FAILED
    assert world.disks.list().images == {world.image_id}
    assert not (world.spool / str(image.id)).exists()


def _delete_image(world: World) -> tuple[NodeId, OperationId]:
    image, now = golden(world), world.clock.now()
    spool = world.spool / str(image.id)
    return begun(world, lambda tx: storage.request_delete_image(tx, now, image=image, spool=spool, actor_id=None))


def _image_deleted(world: World, _: NodeId) -> None:
    with world.store.reading() as tx:
        assert tx.images.count() == 0
    assert world.disks.list().images == frozenset()


def old_id(world: World) -> UUID:
    """Make an id of two hours ago."""
    return UUID(int=int((world.clock.now().timestamp() - 7200) * 1000) << 80 | new_id().int & (1 << 80) - 1)


def stranger(world: World) -> Export:
    """Make the export of a disk that only the pool and a daemon know."""
    disk_id = DiskId(old_id(world))
    world.disks.clone(world.image_id, disk_id, size_bytes=0)
    return Export(
        network_id=world.network_id,
        iqn=new_iqn(),
        lun=1,
        serial=disk_id.hex[-20:],
        handle=world.disks.handle(disk_id),
        chap_username="m2",
        chap_password=Secret("long-forgotten"),
        initiator_address="10.0.0.99",
    )


def litter(world: World) -> None:
    """Leave one old orphan of each kind, a young one, and a disk that is lost."""
    world.serve()
    world.targets.export(stranger(world))
    world.disks.snapshot(next(iter(world.disks.list().disks)), SnapshotId(old_id(world)))
    world.disks.seal(ImageId(old_id(world)), world.spool / "golden", sha256=None)
    upload = world.spool / str(old_id(world))
    upload.mkdir()
    then = world.clock.now().timestamp() - 7200
    os.utime(upload, (then, then))
    world.disks.clone(world.image_id, DiskId(new_id()), size_bytes=0)
    with world.store.transaction() as tx:
        tx.disks.add(replace(disk_of(world, state=DiskState.READY), name="lost"))


def looked(world: World) -> Audit:
    return audit.look(world.store, world.drivers, world.spool, now=world.clock.now())


def collecting(world: World) -> Operation:
    found = looked(world)
    with world.store.transaction() as tx:
        return collect.request(tx, world.clock.now(), audit=found, spool=world.spool, actor_id=None)


def _collect(world: World) -> tuple[NodeId, OperationId]:
    ready_disk(world)
    litter(world)
    return NOBODY, collecting(world).id


def _collected(world: World, _: NodeId) -> None:
    left = looked(world)
    assert left.unseen == {}
    assert [(d.kind, d.noun, d.remedy) for d in left.differences] == [
        ("lost", "disk", "tell"),
        ("orphan", "disk", "wait"),
    ]
    stored = world.disks.list()
    assert (set(stored.images), len(stored.disks), len(stored.snapshots)) == ({world.image_id}, 2, 0)
    assert world.targets.list(world.network_id) == frozenset()
    with world.store.reading() as tx:
        disk = tx.disks.find(name="root")
    assert disk is not None
    assert content(world, disk.id) == WRITTEN


def _verb(
    name: str, begin: Callable[[World], tuple[NodeId, OperationId]], check: Check, undone: Check | None, step: str
) -> Verb:
    if undone is None:
        return Verb(name=name, begin=begin, check=check, steps=1)
    return Verb(name=name, begin=begin, check=check, check_undone=undone, steps=1, can_cancel=True, last_step=step)


def _import_verb(upload_format: ImageFormat, steps: int, by: str = "") -> Verb:
    def check(world: World, node_id: NodeId) -> None:
        imported(world, node_id)
        with world.store.reading() as tx:
            assert [image.signed_by for image in tx.images.list(name="mine")] == [by]

    return Verb(
        name=f"import-{upload_format}{'-signed' if by else ''}",
        begin=_importing(upload_format, by),
        check=check,
        steps=steps,
        check_undone=not_imported,
        can_cancel=True,
        last_step="drop-upload",
    )


STORAGE_VERBS = (
    _verb("create-disk", _create, _created, _no_disk, "clone-disk"),
    _verb("create-disk-begun-by-its-asker", _create_by_its_asker, _created, _no_disk, "clone-disk"),
    _verb("create-disks", _create_batch, _batch_created, _no_disk, "clone-disks"),
    _verb("create-blank-disk", _create_blank, _created_blank, _no_disk, "clone-disk"),
    _verb("create-disk-from-snapshot", _create_from_snapshot, _created_from_snapshot, _no_disk, "clone-disk"),
    _verb("snapshot-disk", _snapshot, _snapshot_taken, _no_snapshot, "snapshot-disk"),
    _verb("delete-snapshot", _delete_snapshot, _no_snapshot, None, ""),
    _verb("roll-back-disk", _roll_back, _rolled_back, _whole, "roll-back-disk"),
    _verb("grow-disk", _grow, _grown, _not_grown, "grow-disk"),
    _verb("flatten-disk", _flatten, _flattened, _as_it_was, "flatten-disk"),
    _import_verb(ImageFormat.RAW, 3),
    _import_verb(ImageFormat.QCOW2, 4),
    _import_verb(ImageFormat.RAW, 3, "builders"),
    Verb(name="delete-image", begin=_delete_image, check=_image_deleted, steps=2),
    _verb("promote-snapshot", _promote, _promoted, _not_promoted, "promote"),
    Verb(name="collect-pool", begin=_collect, check=_collected, steps=2),
)
