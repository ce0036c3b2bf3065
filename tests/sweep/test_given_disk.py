"""A disk that changed hands between a request and its steps is not presented to its old owner's node."""

from collections.abc import Callable
from dataclasses import replace

from tests.sweep.disk_verbs import data_disk
from tests.sweep.world import World

from malleable.domain.ids import ProjectId, new_id
from malleable.workflows import data_disks


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
