"""The swept workflows of disks that nodes have for data, beside the one they boot."""

from dataclasses import replace
from uuid import UUID

from tests.sweep.storage_verbs import WRITTEN, content, disk_of
from tests.sweep.verb import Verb
from tests.sweep.world import World

from malleable.domain.disks import Disk, DiskState
from malleable.domain.ids import NodeId, OperationId
from malleable.workflows import data_disks


def data_disk(world: World, name: str = "data") -> Disk:
    """Make a blank disk with something written on it."""
    disk = replace(disk_of(world, state=DiskState.READY), name=name, image_id=None)
    world.disks.make_blank(disk.id, size_bytes=disk.size_bytes)
    world.disks.write(disk.id, 0, WRITTEN)
    with world.store.transaction() as tx:
        tx.disks.add(disk)
    return disk


def presented(world: World, node_id: NodeId) -> set[tuple[str, str]]:
    """List the disks that a node has, and for what; the daemon has just these targets."""
    with world.store.reading() as tx:
        targets = tx.targets.list()
        names: dict[UUID | None, str] = {disk.id: disk.name for disk in tx.disks.list()}
    assert world.targets.list(world.network_id) == {target.iqn for target in targets}
    return {(names[target.disk_id], target.use.value) for target in targets if target.node_id == node_id}


def _attach(world: World) -> tuple[NodeId, OperationId]:
    node_id, _ = world.running_node()
    disk = data_disk(world)
    with world.store.transaction() as tx:
        node = tx.nodes.get(node_id)
        return node_id, data_disks.request(tx, world.clock.now(), disk=disk, node=node, actor_id=None).id


def _attached(world: World, node_id: NodeId) -> None:
    assert presented(world, node_id) == {("disk-0", "boot"), ("data", "data")}
    assert world.node(node_id).boot == "up"


def _apart(world: World, node_id: NodeId) -> None:
    """The node runs on without the disk, of which nothing is lost."""
    assert presented(world, node_id) == {("disk-0", "boot")}
    assert world.node(node_id).boot == "up"
    with world.store.reading() as tx:
        disk = tx.disks.find(name="data")
    assert disk is not None
    assert (disk.state, content(world, disk.id)) == (DiskState.READY, WRITTEN)


def _have(world: World) -> tuple[NodeId, Disk]:
    node_id, operation_id = _attach(world)
    assert world.run(operation_id).state == "succeeded"
    with world.store.reading() as tx:
        disk = tx.disks.find(name="data")
    assert disk is not None
    return node_id, disk


def _detach(world: World) -> tuple[NodeId, OperationId]:
    node_id, disk = _have(world)
    with world.store.transaction() as tx:
        target = tx.targets.find(disk_id=disk.id)
        assert target is not None
        now = world.clock.now()
        return node_id, data_disks.request_detach(tx, now, disk=disk, target=target, actor_id=None).id


DISK_VERBS = (
    Verb(
        name="attach-disk",
        begin=_attach,
        check=_attached,
        check_undone=_apart,
        steps=2,
        can_cancel=True,
        last_step="announce-disks",
    ),
    Verb(name="detach-disk", begin=_detach, check=_apart, steps=2),
)
