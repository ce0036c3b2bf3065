"""The workflows that are swept, each with its beginning and what must hold at its end."""

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from tests.sweep.world import World

from malleable.domain.disks import DiskState
from malleable.domain.errors import Conflict
from malleable.domain.ids import DiskId, NodeId, OperationId
from malleable.domain.nodes import NodeState, PowerState
from malleable.workflows import move, release, storage
from malleable.workflows.requests import cancel as request_cancel

Begin = Callable[[World], tuple[NodeId, OperationId]]
Check = Callable[[World, NodeId], None]


@dataclass(frozen=True)
class Verb:
    name: str
    begin: Begin
    check: Check
    steps: int
    check_undone: Check = lambda _world, _node_id: None
    can_cancel: bool = False
    last_step: str = ""

    def cancel(self, world: World, operation_id: OperationId) -> str:
        """Ask for a cancel; say what came of it."""
        try:
            with world.store.transaction() as tx:
                request_cancel(tx, world.clock.now(), tx.operations.get(operation_id))
        except Conflict as e:
            return e.code
        return "accepted"


def _enrol(world: World) -> tuple[NodeId, OperationId]:
    return world.rack()


def _enrol_undone(world: World, node_id: NodeId) -> None:
    with world.store.reading() as tx:
        assert tx.nodes.find(id=node_id) is None
        assert tx.nics.count() == 0


def _provision(world: World) -> tuple[NodeId, OperationId]:
    node_id = world.free_node()
    return node_id, world.provision(node_id)


def _provision_undone(world: World, node_id: NodeId) -> None:
    world.assert_clean(node_id)
    with world.store.reading() as tx:
        assert tx.disks.count() == 0, "a disk that the operation made is taken back"
    assert world.disks.list().disks == frozenset()


def _release(world: World) -> tuple[NodeId, OperationId]:
    node_id, _ = world.running_node()
    with world.store.transaction() as tx:
        operation = release.request(tx, world.clock.now(), node=tx.nodes.get(node_id), actor_id=None)
    return node_id, operation.id


def _released(world: World, node_id: NodeId) -> None:
    world.assert_clean(node_id)
    assert len(world.disks.list().disks) == 1, "the disk outlives the lease"


def _move(world: World) -> tuple[NodeId, OperationId]:
    _, disk = world.running_node()
    other = world.free_node("n2", "p2")
    with world.store.transaction() as tx:
        operation = move.request(tx, world.clock.now(), world.wish(tx, other, disk))
    return other, operation.id


def _moved(world: World, node_id: NodeId) -> None:
    world.assert_up(node_id, "n2", "p2")
    assert world.room.bmcs.view("n1").power is PowerState.OFF
    assert list(world.room.running()) == ["n2"]


def _move_undone(world: World, node_id: NodeId) -> None:
    node = world.node(node_id)
    assert (node.state, node.project_id) == (NodeState.FREE, None)
    with world.store.reading() as tx:
        assert [d.state for d in tx.disks.list()] == [DiskState.READY], "a moved disk is never lost"


def _stop(world: World) -> tuple[NodeId, OperationId]:
    node_id, _ = world.running_node()
    with world.store.transaction() as tx:
        operation = release.request_stop(tx, world.clock.now(), node=tx.nodes.get(node_id), actor_id=None)
    return node_id, operation.id


def _stopped(world: World, node_id: NodeId) -> None:
    node = world.node(node_id)
    assert (node.state, node.project_id) == (NodeState.ALLOCATED, world.project_id)
    assert world.room.bmcs.view("n1").power is PowerState.OFF
    assert world.targets.list(world.network_id) == frozenset()


def _delete_disk(world: World) -> tuple[NodeId, OperationId]:
    node_id, operation_id = _release(world)
    world.run(operation_id)
    with world.store.transaction() as tx:
        operation = storage.request_delete(tx, world.clock.now(), disk=tx.disks.list()[0], actor_id=None)
    return node_id, operation.id


def _disk_deleted(world: World, node_id: NodeId) -> None:
    assert world.disks.list().disks == frozenset()
    with world.store.reading() as tx:
        assert tx.disks.count() == 0


def _restore(world: World) -> tuple[NodeId, OperationId]:
    node_id, _ = world.running_node()
    world.targets.restart(world.network_id)
    assert world.targets.list(world.network_id) == frozenset()
    with world.store.transaction() as tx:
        operation = storage.request_restore(tx, world.clock.now(), network_id=world.network_id)
    return node_id, operation.id


def _restored(world: World, node_id: NodeId) -> None:
    with world.store.reading() as tx:
        wanted = {t.iqn for t in tx.targets.list(node_id=node_id)}
    assert world.targets.list(world.network_id) == wanted != set()


def disk_id_of(world: World, operation_id: OperationId) -> DiskId:
    return DiskId(UUID(str(world.operation(operation_id).arguments["disk_id"])))


VERBS = (
    Verb(
        name="enrol",
        begin=_enrol,
        check=lambda world, node_id: world.assert_clean(node_id),
        check_undone=_enrol_undone,
        steps=4,
        can_cancel=True,
        last_step="reset-boot",
    ),
    Verb(
        name="provision",
        begin=_provision,
        check=lambda world, node_id: world.assert_up(node_id),
        check_undone=_provision_undone,
        steps=8,
        can_cancel=True,
        last_step="await-up",
    ),
    Verb(
        name="move",
        begin=_move,
        check=_moved,
        check_undone=_move_undone,
        steps=8,
        can_cancel=True,
        last_step="await-up",
    ),
    Verb(name="release", begin=_release, check=_released, steps=5),
    Verb(name="stop", begin=_stop, check=_stopped, steps=3),
    Verb(name="delete-disk", begin=_delete_disk, check=_disk_deleted, steps=1),
    Verb(name="restore-targets", begin=_restore, check=_restored, steps=1),
)
