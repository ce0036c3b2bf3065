"""A disk that changed hands between a request and its steps is not presented to the wrong node."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.sweep.disk_verbs import data_disk, presented
from tests.sweep.storage_verbs import new_snapshot, ready_snapshot
from tests.sweep.world import World

from malleable.domain.disks import DiskState
from malleable.domain.errors import Conflict
from malleable.domain.ids import ProjectId, new_id
from malleable.domain.store import Transaction
from malleable.workflows import data_disks, flatten, presenting, snapshots, storage


def test_a_node_does_not_get_what_is_another_projects_by_now(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id, _ = world.running_node()
    disk, other = data_disk(world), ProjectId(new_id())
    with world.store.transaction() as tx:
        # Both, as two transactions do that do not see each other.
        operation = data_disks.request(tx, world.clock.now(), disk=disk, node=tx.nodes.get(node_id), actor_id=None)
        tx.projects.add(replace(tx.projects.get(world.project_id), id=other, name="other"))
        tx.disks.change(disk.id, project_id=other)
    ended = world.run(operation.id)
    assert (ended.state, (ended.error or {})["code"]) == ("failed", "disk-state")
    with world.store.reading() as tx:
        assert tx.targets.find(disk_id=disk.id) is None


@pytest.mark.parametrize("state", [DiskState.DELETING, DiskState.ROLLING_BACK, DiskState.GROWING])
def test_a_node_does_not_get_what_is_on_its_way_out(new_world: Callable[[], World], state: DiskState) -> None:
    world = new_world()
    node_id, _ = world.running_node()
    disk = data_disk(world)
    with world.store.transaction() as tx:
        operation = data_disks.request(tx, world.clock.now(), disk=disk, node=tx.nodes.get(node_id), actor_id=None)
        tx.disks.change(disk.id, state=state)
    ended = world.run(operation.id)
    assert (ended.state, (ended.error or {})["code"]) == ("failed", "disk-state")
    with world.store.reading() as tx:
        assert tx.targets.find(disk_id=disk.id) is None


def test_nothing_is_begun_with_what_is_another_projects_by_now(new_world: Callable[[], World]) -> None:
    """Each was found while it was one's own: between that and the request's first lock it was accepted."""
    world = new_world()
    disk, snapshot = ready_snapshot(world)
    other = ProjectId(new_id())
    with world.store.transaction() as tx:
        tx.projects.add(replace(tx.projects.get(world.project_id), id=other, name="other"))
        tx.disks.change(disk.id, project_id=other)
        tx.snapshots.change(snapshot.id, project_id=other)
    now, size = world.clock.now(), disk.size_bytes + 512
    requests: dict[str, Callable[[Transaction], object]] = {
        "delete": lambda tx: storage.request_delete(tx, now, disk=disk, actor_id=None),
        "grow": lambda tx: snapshots.request_grow(tx, now, disk=disk, size_bytes=size, actor_id=None),
        "flatten": lambda tx: flatten.request(tx, now, disk=disk, actor_id=None),
        "snapshot": lambda tx: snapshots.request_snapshot(
            tx, now, snapshot=new_snapshot(world, disk), disk=disk, actor_id=None
        ),
        "provision": lambda tx: presenting.take_unused(tx, [disk]),
        "delete-snapshot": lambda tx: snapshots.request_delete(tx, now, snapshot=snapshot, actor_id=None),
        "roll-back": lambda tx: snapshots.request_roll_back(tx, now, disk=disk, snapshot=snapshot, actor_id=None),
        "promote": lambda tx: snapshots.request_promote(
            tx, now, snapshot=snapshot, image=replace(tx.images.get(world.image_id), name="mine"), actor_id=None
        ),
    }
    for name, request in requests.items():
        with pytest.raises(Conflict) as refused, world.store.transaction() as tx:
            request(tx)
        assert refused.value.code in ("disk-state", "snapshot-state"), name


def test_a_node_does_not_get_what_is_presented_to_another_by_now(new_world: Callable[[], World]) -> None:
    world = new_world()
    holder, _ = world.running_node()
    late, _ = world.running_node("n2", "p2")
    disk = data_disk(world)
    with world.store.transaction() as tx:
        now = world.clock.now()
        first = data_disks.request(tx, now, disk=disk, node=tx.nodes.get(holder), actor_id=None)
        # Not refused, as one that was asked for before the other's target was there.
        second = data_disks.request(tx, now, disk=disk, node=tx.nodes.get(late), actor_id=None, after=first.id)
    assert world.run(first.id).state == "succeeded"
    before = presented(world, late)
    ended = world.run(second.id)
    assert (ended.state, (ended.error or {})["code"]) == ("failed", "disk-exported")
    assert presented(world, late) == before
    with world.store.reading() as tx:
        target = tx.targets.find(disk_id=disk.id)
    assert target is not None
    assert (target.node_id, target.state) == (holder, "exported")
    assert target.iqn in world.targets.list(world.network_id)
