"""What a snapshot says of writes that were under way when it was taken."""

from collections.abc import Callable

from tests.sweep.storage_verbs import new_snapshot, ready_disk
from tests.sweep.world import CrashAt, World

from malleable.domain.disks import Consistency, Disk
from malleable.domain.ids import OperationId
from malleable.sim.agents import Manner
from malleable.workflows import snapshots


def begin(world: World, disk: Disk) -> OperationId:
    now, snapshot = world.clock.now(), new_snapshot(world, disk)
    with world.store.transaction() as tx:
        return snapshots.request_snapshot(tx, now, snapshot=snapshot, disk=disk, actor_id=None).id


def told(world: World, operation_id: OperationId) -> Consistency | None:
    """Read what a snapshot says, which is what its operation said."""
    operation = world.operation(operation_id)
    with world.store.reading() as tx:
        (snapshot,) = tx.snapshots.list()
    assert (operation.state, operation.result["consistency"]) == ("succeeded", snapshot.consistency)
    return snapshot.consistency


def test_of_a_disk_that_no_node_has_it_is_all_that_was_written(new_world: Callable[[], World]) -> None:
    world = new_world()
    operation_id = begin(world, ready_disk(world))
    world.run(operation_id)
    assert told(world, operation_id) is Consistency.IDLE


def test_of_a_disk_that_a_node_has_it_is_what_a_power_cut_leaves(new_world: Callable[[], World]) -> None:
    world = new_world()
    world.room.agents = Manner.ABSENT
    _, disk = world.running_node()
    operation_id = begin(world, disk)
    world.run(operation_id)
    assert told(world, operation_id) is Consistency.CRASH


def test_a_second_try_does_not_know_what_the_first_one_met(new_world: Callable[[], World]) -> None:
    world, probe = new_world(), CrashAt(-1)
    world.run(begin(world, ready_disk(world)), probe)
    world = new_world()
    operation_id = begin(world, ready_disk(world))
    world.run(operation_id, CrashAt(probe.seen.index("snapshot-disk:acted")))
    assert told(world, operation_id) is Consistency.CRASH
