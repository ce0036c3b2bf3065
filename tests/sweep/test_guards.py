"""What the ports of a node are guarded against."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.sweep.world import SWITCH, World

from malleable.domain.errors import StoreBusy
from malleable.domain.ids import NicId, NodeId, new_id
from malleable.domain.networks import Channel
from malleable.domain.nodes import Nic
from malleable.domain.store import Page
from malleable.domain.switches import SHUT, Guard, PortState
from malleable.workflows import attach, switching
from malleable.workflows.renumber import renumber

BONDED = "52:54:00:00:00:77"


def join_second(world: World, node_id: NodeId) -> Guard | None:
    """Put the node on the second network as well; return how its port is guarded then."""
    with world.store.transaction() as tx:
        node = tx.nodes.get(node_id)
        nic = next(nic for nic in tx.nics.list(node_id=node_id) if nic.switch_port_id)
        wish = attach.Connection(
            node=node,
            nic=nic,
            network=tx.networks.get(world.second_network_id),
            channel=Channel.TAGGED,
            project_id=world.project_id,
        )
        operation = attach.request(tx, world.clock.now(), wish, actor_id=None)
    assert world.run(operation.id).state == "succeeded"
    config = world.switches.carried(SWITCH, "p1")
    assert config is not None
    return config.guard


def test_a_node_may_use_all_its_addresses_and_no_gateways(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id, _ = world.running_node()
    with world.store.transaction() as tx:
        nic = Nic(id=NicId(new_id()), node_id=node_id, name="nic1", mac=BONDED, switch_port_id=None)
        tx.nics.add(nic)
        tx.networks.change(world.second_network_id, cidr="10.1.0.0/24")
    guard = join_second(world, node_id)
    assert guard == Guard(
        macs=frozenset({"52:54:00:00:00:01", BONDED}),
        gateways=frozenset({"10.0.0.1", "10.0.0.2", "10.1.0.1", "10.1.0.2"}),
    )


def test_a_node_keeps_an_address_that_is_kept_for_second_portals_by_now(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id, _ = world.running_node()
    with world.store.transaction() as tx:
        (attachment,) = tx.attachments.list(network_id=world.network_id)
        tx.attachments.change(attachment.id, address="10.0.0.2")
        tx.networks.change(world.second_network_id, cidr="10.1.0.0/24")
    guard = join_second(world, node_id)
    assert guard is not None
    assert "10.0.0.2" not in guard.gateways


def test_an_address_of_one_network_makes_nobody_the_gateway_of_another(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id, _ = world.running_node()
    with world.store.transaction() as tx:
        (attachment,) = tx.attachments.list(network_id=world.network_id)
        tx.networks.change(world.network_id, cidr="10.0.0.0/16")
        tx.networks.change(world.second_network_id, cidr="10.0.7.0/24")
        tx.attachments.change(attachment.id, address="10.0.7.1")
    guard = join_second(world, node_id)
    assert guard is not None
    assert guard.gateways == {"10.0.0.1", "10.0.0.2", "10.0.7.1", "10.0.7.2"}


def test_a_network_that_is_not_ours_to_serve_has_no_gateway_of_ours(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id, _ = world.running_node()
    with world.store.transaction() as tx:
        tx.networks.change(world.second_network_id, cidr="10.1.0.0/24", has_service=False)
    guard = join_second(world, node_id)
    assert guard is not None
    assert guard.gateways == {"10.0.0.1", "10.0.0.2"}


def test_a_switch_that_cannot_guard_is_not_asked_to(new_world: Callable[[], World]) -> None:
    world = new_world()
    with world.store.transaction() as tx:
        tx.switches.change(world.switch_id, settings={"guard": "off"})
    world.running_node()
    config = world.switches.carried(SWITCH, "p1")
    assert config is not None
    assert (config.native_vid, config.guard) == (101, None)


def test_a_family_that_comes_later_is_guarded_at_once(new_world: Callable[[], World]) -> None:
    world = new_world()
    world.running_node()
    with world.store.transaction() as tx:
        before, now = tx.networks.get(world.network_id), world.clock.now()
        after = replace(before, cidr6="fd00:a::/64")
        renumber(tx, now, before, after, actor_id=None, may_know=lambda _: True)
        (repair,) = tx.operations.list(kind="repair-ports")
        (port,) = tx.switch_ports.list(state=PortState.UNKNOWN)
    assert world.run(repair.id).state == "succeeded"
    config = world.switches.carried(SWITCH, port.name)
    assert config is not None
    assert config.guard is not None
    assert config.guard.gateways == {"10.0.0.1", "10.0.0.2", "fd00:a::1", "fe80::1"}
    with world.store.reading() as tx:
        assert tx.switch_ports.get(port.id).state is PortState.SETTLED
        assert [event.kind for event in tx.events.list(Page()) if event.kind.startswith("port.")] == ["port.proven"]


def test_an_intent_that_another_wrote_meanwhile_is_not_lost(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id, _ = world.running_node()
    with world.store.transaction() as tx:
        (port,) = [port for port in switching.ports_of_node(tx, node_id) if port.name == "p1"]
        stale = replace(port, wanted_generation=port.wanted_generation - 1)
        with pytest.raises(StoreBusy):
            switching.want_port(tx, stale, SHUT)
        assert tx.switch_ports.get(port.id) == port
