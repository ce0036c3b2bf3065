"""The swept workflow of a snapshot whose node's system stops writing meanwhile."""

from dataclasses import replace

from tests.sweep.storage_verbs import new_snapshot
from tests.sweep.verb import Verb
from tests.sweep.world import World

from malleable.domain.disks import Consistency, SnapshotState
from malleable.domain.ids import NodeId, OperationId
from malleable.domain.ports import LIMITS
from malleable.workflows import snapshots

#: A pool that takes few calls at once, and few of systems that stand still meanwhile: two of either, one for a project.
FEW = {**LIMITS, "pool": 2, "pool-project": 1, "frozen": 2, "frozen-project": 1}


def begin(world: World, *, quiesce: bool | None = True) -> tuple[NodeId, OperationId]:
    """Begin to snapshot the disk of a machine that runs."""
    node_id, disk = world.running_node()
    world.drivers = replace(world.drivers, limits=FEW)
    now, snapshot = world.clock.now(), new_snapshot(world, disk)
    with world.store.transaction() as tx:
        operation = snapshots.request_snapshot(tx, now, snapshot=snapshot, disk=disk, actor_id=None, quiesce=quiesce)
    return node_id, operation.id


def assert_nothing_is_asked(world: World) -> None:
    """No system is told to stop writing, by anybody."""
    with world.store.reading() as tx:
        assert {boot.freeze_id for boot in tx.boots.list()} == {None}
    with world.store.transaction() as tx:
        for operation in tx.operations.list(kind="snapshot-disk"):
            assert tx.operations.release_resources(operation.id) == ()


def _quiesced(world: World, _: NodeId) -> None:
    with world.store.reading() as tx:
        (snapshot,) = tx.snapshots.list()
    told = (snapshot.state, snapshot.consistency, snapshot.consistency_reason)
    assert told == (SnapshotState.READY, Consistency.QUIESCED, "")
    assert world.disks.list().snapshots == {snapshot.id}
    assert_nothing_is_asked(world)


def no_snapshot(world: World, _: NodeId | None = None) -> None:
    """Nothing is left of it."""
    with world.store.reading() as tx:
        assert tx.snapshots.count() == 0
    assert world.disks.list().snapshots == frozenset()
    assert_nothing_is_asked(world)


_VERB = Verb(
    name="snapshot-running-disk",
    begin=begin,
    check=_quiesced,
    steps=3,
    check_undone=no_snapshot,
    can_cancel=True,
    last_step="thaw-disk",
)
FREEZE_VERBS = (_VERB, replace(_VERB, name=f"{_VERB.name}-on-postgres", is_on_postgres=True))
