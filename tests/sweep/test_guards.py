"""What the ports of a node are guarded against."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.sweep.guard_verbs import VIP, bound, deny, lend, take_away
from tests.sweep.world import SWITCH, World

from malleable.domain.errors import Conflict, StoreBusy
from malleable.domain.ids import NicId, NodeId, new_id
from malleable.domain.networks import AddressGuard, AttachmentState, Channel, Network
from malleable.domain.nodes import Nic
from malleable.domain.store import Page
from malleable.domain.switches import SHUT, Binding, Guard, PortState
from malleable.sim.faults import FaultKind
from malleable.workflows import attach, switching
from malleable.workflows.guard import request_guard
from malleable.workflows.guarding import guards_of
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


def test_a_network_that_guards_addresses_binds_each_node_to_its_own(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id, _ = world.running_node()
    with world.store.transaction() as tx:
        tx.networks.change(world.second_network_id, cidr="10.1.0.0/24", address_guard=AddressGuard.ON)
        first, second = tx.networks.get(world.network_id), tx.networks.get(world.second_network_id)
    guard = join_second(world, node_id)
    with world.store.reading() as tx:
        (joined,) = tx.attachments.list(network_id=second.id)
        (other,) = tx.attachments.list(network_id=first.id)
    assert guard is not None
    tagged = Binding(vids=frozenset({second.vid}), addresses=frozenset({joined.address}))
    assert guard.bindings == {tagged}
    _change(world, first, address_guard=AddressGuard.ON)
    native = Binding(vids=frozenset({0, first.vid}), addresses=frozenset({other.address}))
    assert _carried(world).bindings == {tagged, native}, "at once, at every port"
    _change(world, second, address_guard=AddressGuard.OFF)
    assert _carried(world).bindings == {native}
    with world.store.transaction() as tx:
        operation = attach.request_detach(
            tx, world.clock.now(), attachment=joined, node=tx.nodes.get(node_id), actor_id=None
        )
    assert world.run(operation.id).state == "succeeded"
    assert _carried(world).bindings == {native}


def test_a_family_that_comes_later_is_the_nodes_own_too(new_world: Callable[[], World]) -> None:
    world = new_world()
    world.running_node()
    with world.store.transaction() as tx:
        tx.networks.change(world.network_id, address_guard=AddressGuard.ON)
        network = tx.networks.get(world.network_id)
    _change(world, network, cidr6="fd00:a::/64")
    (binding,) = _carried(world).bindings
    assert len(binding.addresses) == 2
    assert "fd00:a::a" in binding.addresses


def test_a_guard_changes_under_no_port_that_is_changing(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id, _ = world.running_node()
    with world.store.transaction() as tx:
        network = tx.networks.get(world.network_id)
        (port,) = [port for port in switching.ports_of_node(tx, node_id) if port.name == "p1"]
        tx.switch_ports.change(port.id, state=PortState.CHANGING)
    with pytest.raises(Conflict, match=r"another address guard now: .*changes at this moment") as e:
        _change(world, network, address_guard=AddressGuard.ON)
    assert e.value.code == "network-in-use"
    with world.store.reading() as tx:
        assert tx.networks.get(world.network_id).address_guard is AddressGuard.AUTO


def _change(world: World, before: Network, **changes: Any) -> None:
    """Change a network under its nodes, and let the ports follow."""
    with world.store.transaction() as tx:
        known = {one.id for one in tx.operations.list(kind="repair-ports")}
        renumber(tx, world.clock.now(), before, replace(before, **changes), actor_id=None, may_know=lambda _: True)
        repairs = [one.id for one in tx.operations.list(kind="repair-ports") if one.id not in known]
    for repair in repairs:
        assert world.run(repair).state == "succeeded"


def _carried(world: World) -> Guard:
    config = world.switches.carried(SWITCH, "p1")
    assert config is not None
    assert config.guard is not None
    return config.guard


def test_no_permit_is_gone_before_its_port_is_read_back(new_world: Callable[[], World]) -> None:
    """The switch is away: who had the address may have it still, so it is nobody else's."""
    world = new_world()
    node_id, operation_id = deny(world)
    faults = world.faults
    for _ in range(40):
        faults.add("apply", FaultKind.LOST_REQUEST)
    for _ in range(20):
        world.engine().run_due()
        world.clock.advance(0.5)
    assert VIP in bound(world)
    operation = world.operation(operation_id)
    assert (operation.state, "p1" in operation.reason) == ("waiting", True)
    assert "p1" not in operation.public_reason
    with world.store.reading() as tx:
        assert [one.is_ending for one in tx.permits.list()] == [True]
    faults.clear()
    assert world.run(operation_id).state == "succeeded"
    assert VIP not in bound(world)
    with world.store.reading() as tx:
        assert tx.permits.count() == 0
        assert tx.nodes.get(node_id).state_reason == ""


@pytest.mark.parametrize("fault", [FaultKind.REFUSED, FaultKind.LOST_REQUEST])
def test_a_permit_that_never_came_to_be_can_be_taken_away(new_world: Callable[[], World], fault: FaultKind) -> None:
    """Its opposite needs nothing of the switch, and the address is never let in once it is denied."""
    world = new_world()
    world.running_node()
    with world.store.transaction() as tx:
        before = tx.networks.get(world.network_id)
    _change(world, before, address_guard=AddressGuard.ON)
    for _ in range(100):
        world.faults.add("apply", fault)
    permitted, _ = lend(world)
    for _ in range(5):
        world.engine().run_due()
        world.clock.advance(1.0)
    with world.store.reading() as tx:
        assert len(tx.switch_ports.list(state=PortState.UNKNOWN)) == 1
    assert world.run(take_away(world, permitted)).state == "succeeded"
    assert VIP not in bound(world)
    with world.store.reading() as tx:
        assert tx.permits.count() == 0
        assert tx.switch_ports.list(state=PortState.UNKNOWN) == ()


def test_a_guard_changes_at_a_port_whose_switch_refused_the_last_change(new_world: Callable[[], World]) -> None:
    world = new_world()
    world.running_node()
    with world.store.transaction() as tx:
        before = tx.networks.get(world.network_id)
        tx.networks.change(before.id, address_guard=AddressGuard.ON)
    for _ in range(100):
        world.faults.add("apply", FaultKind.REFUSED)
    lend(world)
    world.engine().run_due()
    with world.store.transaction() as tx:
        on, now = tx.networks.get(before.id), world.clock.now()
        after = replace(on, address_guard=AddressGuard.OFF)
        renumber(tx, now, on, after, actor_id=None, may_know=lambda _: True)
        begun = request_guard(tx, now, network=after, project_id=world.project_id, actor_id=None)
    assert world.run(begun.id).state == "succeeded"
    with world.store.reading() as tx:
        assert [event.kind for event in tx.events.list(Page())][-1] == "network.unguarded"
    assert bound(world) == frozenset()


def test_a_guard_waits_for_a_switch_that_is_away_for_days(new_world: Callable[[], World]) -> None:
    world = new_world()
    _, operation_id = deny(world)
    for _ in range(400):
        world.faults.add("apply", FaultKind.LOST_REQUEST)
    for _ in range(30):
        world.engine().run_due()
        world.clock.advance(10_000.0)
    assert world.operation(operation_id).state == "waiting"


def test_what_is_being_detached_is_not_guarded(new_world: Callable[[], World]) -> None:
    """Its port does not carry it any more, and who else changes the guard must not say otherwise."""
    world = new_world()
    node_id, _ = world.running_node()
    with world.store.transaction() as tx:
        tx.networks.change(world.second_network_id, cidr="10.1.0.0/24", address_guard=AddressGuard.ON)
        nics = tx.nics.list(node_id=node_id)
    join_second(world, node_id)
    with world.store.transaction() as tx:
        (joined,) = tx.attachments.list(network_id=world.second_network_id)
        assert any(guard.bindings for guard in guards_of(tx, nics).values())
        tx.attachments.change(joined.id, state=AttachmentState.DETACHING)
        assert not any(guard.bindings for guard in guards_of(tx, nics).values())


def test_a_guard_that_is_turned_on_ends_when_every_port_is_read_back(new_world: Callable[[], World]) -> None:
    """A switch that is away keeps it waiting, and names the port."""
    world = new_world()
    world.running_node()
    for _ in range(40):
        world.faults.add("apply", FaultKind.LOST_REQUEST)
    with world.store.transaction() as tx:
        before, now = tx.networks.get(world.network_id), world.clock.now()
        after = replace(before, address_guard=AddressGuard.ON)
        renumber(tx, now, before, after, actor_id=None, may_know=lambda _: True)
        begun = request_guard(tx, now, network=after, project_id=world.project_id, actor_id=None)
    for _ in range(20):
        world.engine().run_due()
        world.clock.advance(0.5)
    waiting = world.operation(begun.id)
    assert (waiting.state, waiting.reason) == ("waiting", "not read back yet as guarded: tor1 p1")
    world.faults.clear()
    assert world.run(begun.id).state == "succeeded"
    assert bound(world) == {"10.0.0.10"}


def test_an_intent_that_another_wrote_meanwhile_is_not_lost(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id, _ = world.running_node()
    with world.store.transaction() as tx:
        (port,) = [port for port in switching.ports_of_node(tx, node_id) if port.name == "p1"]
        stale = replace(port, wanted_generation=port.wanted_generation - 1)
        with pytest.raises(StoreBusy):
            switching.want_port(tx, stale, SHUT)
        assert tx.switch_ports.get(port.id) == port
