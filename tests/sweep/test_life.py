"""The undisturbed life of a node, as the yardstick of the sweeps."""

from collections.abc import Callable

from tests.sweep.world import World

from malleable.workflows import release


def test_a_node_is_enrolled_provisioned_and_given_back(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id = world.free_node()
    world.assert_clean(node_id)

    ended = world.run(world.provision(node_id))
    assert ended.state == "succeeded", ended
    world.assert_up(node_id)

    with world.store.transaction() as tx:
        operation = release.request(tx, world.clock.now(), node=tx.nodes.get(node_id), actor_id=None)
    assert world.run(operation.id).state == "succeeded"
    world.assert_clean(node_id)
    with world.store.reading() as tx:
        assert tx.disks.count() == 1, "the disk outlives the lease"
