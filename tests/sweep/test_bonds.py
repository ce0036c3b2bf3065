"""Two ports that are one: what happens to one happens to both."""

from collections.abc import Callable
from dataclasses import replace

from tests.sweep.world import SWITCH, World

from malleable.domain.nodes import NodeState
from malleable.domain.switches import SHUT
from malleable.workflows import release
from malleable.workflows.renumber import renumber

PORTS = ("p1", "p2")


def test_both_ports_are_guarded_and_shut_together(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id, _ = world.running_node(bonded_with="p2")
    with world.store.transaction() as tx:
        before = tx.networks.get(world.network_id)
        after = replace(before, cidr6="fd00:a::/64")
        renumber(tx, world.clock.now(), before, after, actor_id=None, may_know=lambda _: True)
        (repair,) = tx.operations.list(kind="repair-ports")
    assert world.run(repair.id).state == "succeeded"
    one, other = (world.switches.carried(SWITCH, port) for port in PORTS)
    assert one is not None
    assert one.guard is not None
    assert one == other
    assert (one.bond, "fd00:a::1" in one.guard.gateways) == (frozenset(PORTS), True)
    with world.store.transaction() as tx:
        operation = release.request(tx, world.clock.now(), node=tx.nodes.get(node_id), actor_id=None)
    assert world.run(operation.id).state == "succeeded"
    assert world.node(node_id).state is NodeState.FREE
    assert [world.switches.carried(SWITCH, port) for port in PORTS] == [SHUT, SHUT]
