"""A disk is one node's at a time, from the very request on, whoever asks at the same moment."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.contract.store.test_query_counts import counted
from tests.sweep.storage_verbs import new_snapshot
from tests.sweep.world import World

from malleable.domain.disks import Disk, DiskState, SnapshotState
from malleable.domain.errors import Conflict
from malleable.domain.ids import DiskId, NodeId, OperationId, new_id
from malleable.store import SqlStore
from malleable.workflows import data_disks, flatten, provision, snapshots, storage
from malleable.workflows.requests import cancel

ROUNDS = 10


@pytest.fixture(params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest, memory_path: Path) -> World:
    if request.param == "sqlite":
        new_world: Callable[[], World] = request.getfixturevalue("new_world")
        return new_world()
    return World(store=request.getfixturevalue("postgres_store"), spool=memory_path)


def spare(world: World, name: str = "spare") -> Disk:
    disk = Disk(
        id=DiskId(new_id()),
        name=name,
        project_id=world.project_id,
        image_id=world.image_id,
        state=DiskState.CREATING,
        size_bytes=world.size_bytes,
        created_at=world.clock.now(),
    )
    with world.store.transaction() as tx:
        operation = storage.request_create(tx, world.clock.now(), disk=disk, actor_id=None)
    assert world.run(operation.id).state == "succeeded"
    with world.store.reading() as tx:
        return tx.disks.get(disk.id)


def begin(world: World, node_id: NodeId, disk: Disk, data: tuple[Disk, ...] = ()) -> OperationId:
    with world.store.transaction() as tx:
        wish = replace(world.wish(tx, node_id, disk), data_disks=data)
        return provision.request(tx, world.clock.now(), wish).id


def refusal(begin: Callable[[], object]) -> Conflict:
    with pytest.raises(Conflict) as caught:
        begin()
    return caught.value


def test_a_disk_that_is_about_to_be_used_is_refused_at_once(world: World) -> None:
    first, second = world.free_node(), world.free_node("n2", "p2")
    disk, other = spare(world), spare(world, "other")
    operation_id = begin(world, first, disk)
    refused = refusal(lambda: begin(world, second, disk))
    assert (refused.code, refused.details["node"]) == ("disk-in-use", "n1")
    assert refused.details["operation"] == str(operation_id)
    assert "about to be used by node n1" in refused.message
    assert refusal(lambda: begin(world, second, other, (disk,))).code == "disk-in-use"
    assert world.node(second).state == "free"
    assert world.run(operation_id).state == "succeeded"
    assert "in use by node n1" in refusal(lambda: begin(world, second, disk)).message


def test_a_disk_for_data_is_refused_likewise(world: World) -> None:
    node_id, _ = world.running_node()
    second, disk, data = world.free_node("n2", "p2"), spare(world), spare(world, "data")
    begin(world, second, disk, (data,))
    with world.store.transaction() as tx:
        node = tx.nodes.get(node_id)
        now = world.clock.now()
        refused = refusal(lambda: data_disks.request(tx, now, disk=data, node=node, actor_id=None))
    assert (refused.code, refused.details["node"]) == ("disk-in-use", "n2")


def test_a_disk_whose_provision_is_cancelled_is_free_again(world: World) -> None:
    first, second, disk = world.free_node(), world.free_node("n2", "p2"), spare(world)
    operation_id = begin(world, first, disk)
    with world.store.transaction() as tx:
        cancel(tx, world.clock.now(), tx.operations.get(operation_id))
    assert world.run(operation_id).state == "cancelled"
    assert world.run(begin(world, second, disk)).state == "succeeded"


def test_a_disk_that_is_snapshotted_is_used_all_the_same(world: World) -> None:
    node_id, disk = world.free_node(), spare(world)
    snapshot = new_snapshot(world, disk, SnapshotState.CREATING)
    with world.store.transaction() as tx:
        snapshots.request_snapshot(tx, world.clock.now(), snapshot=snapshot, disk=disk, actor_id=None)
    assert world.run(begin(world, node_id, disk)).state == "succeeded"


def test_a_disk_is_flattened_when_all_that_was_begun_with_it_has_ended(world: World) -> None:
    disk = spare(world)
    snapshot = new_snapshot(world, disk, SnapshotState.CREATING)
    with world.store.transaction() as tx:
        taking = snapshots.request_snapshot(tx, world.clock.now(), snapshot=snapshot, disk=disk, actor_id=None)

    def begin_flatten() -> OperationId:
        with world.store.transaction() as tx:
            return flatten.request(tx, world.clock.now(), disk=disk, actor_id=None).id

    refused = refusal(begin_flatten)
    assert refused.code == "disk-in-use"
    assert f"`m2 operation watch {taking.id}`" in refused.fix
    assert world.run(taking.id).state == "succeeded"
    assert world.run(begin_flatten()).state == "succeeded"


def test_of_two_at_once_one_is_refused(world: World) -> None:
    """Two nodes, one disk; and two nodes with the same two disks the other way round: nobody waits in a circle."""
    nodes = [world.free_node(), world.free_node("n2", "p2")]
    disks = [spare(world), spare(world, "other")]
    for number in range(ROUNDS):
        pairs = [(disks[0], (disks[1],)), (disks[1], (disks[0],))] if number % 2 else [(disks[0], ()), (disks[0], ())]
        begun, refused, together = list[OperationId](), list[str](), threading.Barrier(2)

        def ask(node_id: NodeId, disk: Disk, data: tuple[Disk, ...]) -> None:
            together.wait(timeout=30)  # noqa: B023  joined within
            try:
                begun.append(begin(world, node_id, disk, data))  # noqa: B023
            except Conflict as e:
                refused.append(e.code)  # noqa: B023

        threads = [threading.Thread(target=ask, args=(n, *pair)) for n, pair in zip(nodes, pairs, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(begun), refused) == (1, ["disk-in-use"])
        with world.store.transaction() as tx:
            cancel(tx, world.clock.now(), tx.operations.get(begun[0]))
        assert world.run(begun[0]).state == "cancelled"


def test_a_new_disk_costs_no_statement_and_one_that_is_there_two(world: World) -> None:
    first, second, disk = world.free_node(), world.free_node("n2", "p2"), spare(world)
    assert isinstance(world.store, SqlStore)
    with counted(world.store) as statements:
        world.provision(first)
    assert not [sql for sql in statements if sql.lstrip().startswith("UPDATE disks") or "FROM targets" in sql]
    with counted(world.store) as statements:
        begin(world, second, disk)
    assert len([sql for sql in statements if sql.lstrip().startswith("UPDATE disks")]) == 1
    assert len([sql for sql in statements if "FROM operations" in sql]) == 1
