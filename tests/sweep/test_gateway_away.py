"""What waits for the gateway: how it says so, and what it never takes for an answer."""

from collections.abc import Callable

from tests.sweep.world import World

from malleable.domain.images import UpProof
from malleable.domain.operations import Operation
from malleable.workflows import networks, power

DOUBT = "is `m2d gateway` running?"


class GoneAt:
    """A probe that takes the gateway away, and what it has seen, when a step is begun."""

    def __init__(self, world: World, step: str) -> None:
        self.world, self.step = world, step

    def at(self, point: str, operation: Operation) -> None:
        if operation.step == self.step:
            self.world.is_gateway_up = False
            self.world.forget_signs()


def test_a_gateway_is_doubted_only_after_a_while(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id = world.free_node()
    operation_id = world.provision(node_id)
    world.work_for(1.0, GoneAt(world, "arm-boot"))
    reasons = set()
    for _ in range(4):
        world.work_for(1.0)
        reasons.add(world.operation(operation_id).reason)
    assert reasons == {"the gateway takes the boot intent over"}
    world.work_for(4.0)
    assert DOUBT in world.operation(operation_id).reason
    world.is_gateway_up = True
    assert world.run(operation_id).state == "succeeded"


def test_a_network_goes_only_when_a_gateway_has_said_that_nothing_of_it_is_left(
    new_world: Callable[[], World],
) -> None:
    """Also one that was never reported as served: a gateway may be building it at this moment."""
    world = new_world()
    world.is_gateway_up = False
    with world.store.transaction() as tx:
        network = tx.networks.get(world.second_network_id)
        assert network.served_generation == 0
        operation = networks.request_remove(tx, world.clock.now(), network=network, actor_id=None)
    world.work_for(3600)
    waiting = world.operation(operation.id)
    assert waiting.state == "waiting"
    assert DOUBT in waiting.reason
    with world.store.reading() as tx:
        assert tx.networks.find(id=world.second_network_id) is not None
    world.is_gateway_up = True
    assert world.run(operation.id).state == "succeeded"


def test_a_late_sign_of_an_earlier_arming_proves_nothing_of_a_later_one(new_world: Callable[[], World]) -> None:
    world = new_world()
    with world.store.transaction() as tx:
        tx.images.change(world.image_id, up_proof=UpProof.PHONE_HOME)
    node_id, _ = world.running_node()
    with world.store.transaction() as tx:
        before = tx.boots.find(node_id=node_id)
        assert before is not None
        assert before.phoned_home_at is not None
        cycle = power.request(
            tx, world.clock.now(), node=tx.nodes.get(node_id), action=power.PowerAction.CYCLE, actor_id=None
        )
    world.work_for(1.0, GoneAt(world, "await-up"))
    assert world.operation(cycle.id).step == "await-up"
    world.is_gateway_up = True
    world.sign(before.id, "phoned_home")
    world.serve()
    with world.store.reading() as tx:
        after = tx.boots.find(node_id=node_id)
    assert after is not None
    assert after.id != before.id
    assert after.phoned_home_at is None
