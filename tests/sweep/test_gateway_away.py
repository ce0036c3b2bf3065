"""What waits for the gateway: how it says so, and what it never takes for an answer."""

from collections.abc import Callable
from typing import Any

from tests.sweep.world import World

from malleable.domain.gateways import ALL_FABRICS, Gateway
from malleable.domain.ids import GatewayId, NodeId, new_id
from malleable.domain.images import UpProof
from malleable.domain.operations import Operation
from malleable.workflows import networks, power

DOUBT = "is `m2d gateway` running?"


class GoneAt:
    """A probe that takes the gateway away, and what it has seen, once the operation has entered a step."""

    def __init__(self, world: World, step: str) -> None:
        self.world, self.step = world, step

    def at(self, point: str, operation: Operation) -> None:
        if self.world.operation(operation.id).step == self.step:
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


def test_only_a_gateway_that_serves_the_intent_ends_its_arming(new_world: Callable[[], World]) -> None:
    """Also where the report itself would end it: the machine is on only after that."""
    world = new_world()
    operation_id = world.provision(world.free_node())
    world.work_for(1.0, GoneAt(world, "arm-boot"))
    engine = world.engine()
    with world.store.transaction() as tx:
        network = tx.networks.get(world.network_id)
        tx.networks.change(network.id, served_generation=network.generation - 1)
        tx.operations.wake_all(now=world.clock.now(), resource=f"network:{network.id}")
        (operation,) = engine.claim_in(tx, 10)
        assert (operation.id, engine.glimpse(tx, operation)) == (operation_id, None)
        tx.networks.change(network.id, served_generation=network.generation)
        begun = engine.glimpse(tx, operation)
    assert begun is not None
    assert (begun.place.step.name, world.operation(operation_id).step) == ("power-on", "power-on")


def test_a_gateway_that_says_what_is_wrong_with_the_network_is_quoted(new_world: Callable[[], World]) -> None:
    world = new_world()
    operation_id = world.provision(world.free_node())
    trouble = f"Network {world.network_id}: dnsmasq ended."
    with world.store.transaction() as tx:
        now = world.clock.now()
        id, serves = GatewayId(new_id()), (ALL_FABRICS,)
        tx.gateways.add(Gateway(id=id, name="g", seen_at=now, troubles=(trouble,), serves=serves, created_at=now))
    world.work_for(10.0, GoneAt(world, "arm-boot"))
    assert trouble in world.operation(operation_id).reason
    public = world.operation(operation_id).public_reason
    assert "dnsmasq" not in str(public)


def test_a_boot_that_the_gateway_refuses_is_over_at_once_and_undone(new_world: Callable[[], World]) -> None:
    """Also one that it refuses before the machine is on, or that does not know of it for long."""
    for step in ("power-on", "await-up"):
        world = _world_of_calls_home(new_world)
        node_id = world.free_node()
        operation_id = world.provision(node_id)
        began = world.clock.now()
        world.work_for(1.0, GoneAt(world, step))
        _tell(world, node_id, refusal="The cmdline '${x}' cannot be used.")
        world.is_gateway_up = True
        ended = world.run(operation_id)
        assert ended.state == "failed"
        assert "The cmdline '${x}' cannot be used." in ended.reason
        assert ended.public_reason
        assert "The cmdline '${x}' cannot be used." in ended.public_reason
        assert (world.clock.now() - began).total_seconds() < 60
        world.assert_clean(node_id)


def test_what_keeps_the_gateway_from_booting_a_node_is_said_until_it_is_over(new_world: Callable[[], World]) -> None:
    world = _world_of_calls_home(new_world)
    node_id = world.free_node()
    operation_id = world.provision(node_id)
    world.work_for(1.0, GoneAt(world, "await-up"))
    _tell(world, node_id, hindrance="Nothing can be kept in /var: No space left on device.")
    world.work_for(5.0)
    waiting = world.operation(operation_id)
    assert "No space left" in waiting.reason
    assert waiting.public_reason
    assert "/var" not in waiting.public_reason
    _tell(world, node_id, kernel_fetched_at=world.clock.now())
    world.work_for(5.0)
    assert "No space left" not in world.operation(operation_id).reason


def _world_of_calls_home(new_world: Callable[[], World]) -> World:
    """Make a world whose image's system says by the gateway alone that it is up."""
    world = new_world()
    with world.store.transaction() as tx:
        tx.images.change(world.image_id, up_proof=UpProof.PHONE_HOME)
    return world


def _tell(world: World, node_id: NodeId, **changes: Any) -> None:
    with world.store.transaction() as tx:
        boot = tx.boots.find(node_id=node_id)
        assert boot is not None
        tx.boots.change(boot.id, **changes)
        tx.operations.wake(now=world.clock.now(), node_id=node_id)


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
    world = _world_of_calls_home(new_world)
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
