"""A free machine that somebody or something switched on is found before it is given to anybody."""

from collections.abc import Callable

from tests.sweep.scrub_verbs import EVERYTHING, begin_release, scrubbed, soiled_node
from tests.sweep.world import World

from malleable.domain.nodes import NodeState, PowerState
from malleable.workflows import enrol


def test_a_machine_that_woke_between_two_looks_is_given_to_nobody_and_scrubbed_again(
    new_world: Callable[[], World],
) -> None:
    world = new_world()
    node_id = soiled_node(world)
    assert world.run(begin_release(world, node_id)).state == "succeeded"
    world.room.bmcs.force("n1", PowerState.ON)
    world.room.bmcs.soil("n1")
    world.faults.calls.clear()
    ended = world.run(world.provision(node_id))
    assert ended.state == "failed"
    assert ended.error is not None
    assert (ended.error["step"], ended.error["code"]) == ("power-off", "woke-up")
    assert [method for method, key in world.faults.calls if key == "sim://n1"] == ["state"], "it is not touched"
    node = world.node(node_id)
    assert (node.state, node.power, node.is_unscrubbed) == (NodeState.QUARANTINED, PowerState.ON, True)
    assert node.project_id is None
    with world.store.transaction() as tx:
        again = enrol.request(tx, world.clock.now(), node=node, actor_id=None, scrubs=EVERYTHING)
    assert world.run(again.id).state == "succeeded"
    scrubbed(world, node_id)
