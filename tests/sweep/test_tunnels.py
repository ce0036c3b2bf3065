"""Tunnels that drift, switches that are away, and networks that come and go meanwhile."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.contract.store.test_query_counts import counted
from tests.sweep.test_repair import events, watched
from tests.sweep.tunnel_verbs import OTHER, VNI_BASE, VTEPS, tunnels, wanted, woven
from tests.sweep.world import SWITCH, World

from malleable.domain.ids import VlanId, new_id
from malleable.domain.networks import Vlan
from malleable.domain.operations import Operation
from malleable.domain.switches import PortConfig
from malleable.domain.tunnels import Tunnel
from malleable.sim.faults import FaultKind
from malleable.sim.switches import Misbehaviour
from malleable.workflows import networks, weaving
from malleable.workflows.requests import resume

STRANGE = Tunnel(local=VTEPS[SWITCH], remote="10.99.0.66", vni=666, vid=101)


def weavings(world: World) -> list[Operation]:
    with world.store.reading() as tx:
        return sorted(tx.operations.list(kind=weaving.WEAVE), key=lambda operation: operation.created_at)


def test_nodes_of_one_network_meet_over_a_tunnel_and_no_others(new_world: Callable[[], World]) -> None:
    world = new_world()
    other = woven(world)
    for address, port, vid in ((SWITCH, "p1", 101), (SWITCH, "p2", 102), (OTHER, "p4", 101)):
        world.switches.drift(address, port, PortConfig(native_vid=vid))
    assert world.switches.meet((SWITCH, "p1"), (OTHER, "p4"))
    assert not world.switches.meet((SWITCH, "p2"), (OTHER, "p4"))
    world.switches.rewire(OTHER, ())
    assert not world.switches.meet((SWITCH, "p1"), (OTHER, "p4"))
    assert other.fabric == "default"


def test_drift_is_found_once_repaired_and_told(new_world: Callable[[], World]) -> None:
    world = new_world()
    woven(world)
    ordered = len(weavings(world))
    with watched(world) as watch:
        assert watch.scan_ports() == 0
        world.switches.rewire(SWITCH, {*wanted(SWITCH, 101), STRANGE})
        assert watch.scan_ports() == 1
        assert watch.scan_ports() == 1
        assert len(weavings(world)) == ordered + 1, "somebody is at it already"
        world.work_for(1.0)
        assert watch.scan_ports() == 0
    assert tunnels(world, SWITCH) == wanted(SWITCH, 101, 102)
    assert events(world, "tunnels.repaired") == 1


def test_a_switch_that_started_anew_is_looked_at_at_once(new_world: Callable[[], World]) -> None:
    world = new_world()
    woven(world)
    with watched(world) as watch:
        world.switches.restart(SWITCH)
        world.switches.rewire(SWITCH, ())
        assert watch.stand_by() == 1
        world.work_for(1.0)
        with ThreadPoolExecutor(1) as pool:
            idle = pool.submit(watch.stand_by)
            watch.close()
            assert idle.result() == 0, "it does not keep a server that stops"
    assert tunnels(world, SWITCH) == wanted(SWITCH, 101, 102)
    assert events(world, "tunnels.repaired") == 1


def test_a_switch_that_drops_its_tunnels_is_one_operation_that_waits_ever_longer(
    new_world: Callable[[], World],
) -> None:
    world = new_world()
    woven(world)
    world.switches.rewire(SWITCH, ())
    world.switches.misbehave(SWITCH, Misbehaviour.DROPS)
    with watched(world) as watch:
        for _ in range(60):
            watch.scan_ports()
            world.work_for(20.0)
        *_, standing = weavings(world)
        assert standing.state == "waiting"
        assert "Switch tor1 does not keep its tunnels." in standing.reason
        assert events(world, "tunnels.repair-failed") == 1
        world.switches.misbehave(SWITCH, None)
        assert world.run(standing.id).state == "succeeded"
    assert tunnels(world, SWITCH) == wanted(SWITCH, 101, 102)


def test_a_vlan_and_its_vni_rest_until_no_switch_can_have_a_tunnel_of_them(new_world: Callable[[], World]) -> None:
    world = new_world()
    woven(world)
    with world.store.transaction() as tx:
        now, network = world.clock.now(), tx.networks.get(world.second_network_id)
        vlan = Vlan(
            id=VlanId(new_id()), fabric="default", vid=102, vni=network.vni, network_id=network.id, reusable_at=now
        )
        tx.vlans.add(vlan)
        removal = networks.request_remove(tx, now, network=network, actor_id=None)
    world.switches.misbehave(OTHER, Misbehaviour.DEAD)
    world.work_for(300.0)
    standing = world.operation(removal.id)
    assert (standing.state, standing.reason) == ("waiting", "switch tor2 may still have tunnels of the network")
    assert (tunnels(world, SWITCH), tunnels(world, OTHER)) == (wanted(SWITCH, 101), wanted(OTHER, 101, 102))
    with world.store.reading() as tx:
        assert tx.vlans.get(vlan.id).network_id == network.id
    world.switches.misbehave(OTHER, None)
    assert world.run(removal.id).state == "succeeded"
    assert tunnels(world, OTHER) == wanted(OTHER, 101)
    with world.store.reading() as tx:
        rests = tx.vlans.get(vlan.id)
    assert (rests.network_id, rests.vni) == (None, VNI_BASE + 102)
    assert rests.reusable_at > world.clock.now()


def test_a_switch_that_is_gone_for_good_keeps_no_network(new_world: Callable[[], World]) -> None:
    world = new_world()
    other = woven(world)
    world.switches.misbehave(OTHER, Misbehaviour.DEAD)
    with world.store.transaction() as tx:
        network = tx.networks.get(world.second_network_id)
        removal = networks.request_remove(tx, world.clock.now(), network=network, actor_id=None)
    world.work_for(60.0)
    with world.store.transaction() as tx:
        tx.switches.remove(other.id)
        weaving.order_fabric(tx, world.clock.now(), "default")
    assert world.run(removal.id).state == "succeeded"
    assert tunnels(world, SWITCH) == frozenset(), "there is nobody else"
    assert weavings(world)[-1].state == "succeeded"


def test_what_is_made_meanwhile_waits_in_one_operation_for_a_switch_that_is_away(
    new_world: Callable[[], World],
) -> None:
    world = new_world()
    other = woven(world)
    ordered = len(weavings(world))
    world.switches.misbehave(OTHER, Misbehaviour.DEAD)
    for _ in range(5):
        with world.store.transaction() as tx:
            weaving.order(tx, world.clock.now(), [other])
        world.work_for(60.0)
    assert len(weavings(world)) == ordered + 1


def test_a_switch_that_is_away_longer_than_an_operation_lasts_is_asked_on(new_world: Callable[[], World]) -> None:
    world = new_world()
    woven(world)
    world.switches.misbehave(OTHER, Misbehaviour.DEAD)
    with world.store.transaction() as tx:
        network = tx.networks.get(world.second_network_id)
        removal = networks.request_remove(tx, world.clock.now(), network=network, actor_id=None)
    world.work_for(60.0)
    world.clock.advance(weaving.DEADLINE_S)
    world.work_for(60.0)
    ended = weavings(world)[-1]
    assert not ended.is_active
    assert events(world, "tunnels.repair-failed") == 2
    with watched(world) as watch:
        watch.scan_ports()
        watch.scan_ports()
        assert [weaving.is_active for weaving in weavings(world)[-2:]] == [False, True]
        world.switches.misbehave(OTHER, None)
        world.work_for(60.0)
        assert tunnels(world, OTHER) == wanted(OTHER, 101)
        assert watch.scan_ports() == 0
    with world.store.transaction() as tx:
        resume(tx, world.clock.now(), tx.operations.get(removal.id))
    assert world.run(removal.id).state == "succeeded"


def test_a_switch_that_refuses_to_tell_its_tunnels_is_told_of(new_world: Callable[[], World]) -> None:
    """As one with somebody else's tunnel does."""
    world = new_world()
    woven(world)
    world.faults.add("tunnels", FaultKind.REFUSED, key=SWITCH, times=None, code="foreign-tunnel")
    with watched(world) as watch:
        for _ in range(3):
            assert watch.scan_ports() == 1
            world.work_for(20.0)
    assert events(world, "tunnels.repair-failed") == 1


def test_a_scan_reads_what_tunnels_hang_on_once_and_a_removal_does_not_write_while_it_waits(
    new_world: Callable[[], World],
) -> None:
    world = new_world()
    woven(world)
    with world.store.transaction() as tx, counted(world.store) as statements:  # type: ignore[arg-type]
        weaving.read_mesh(tx, tx.switches.list())
        assert len(statements) == 3
        network = tx.networks.get(world.network_id)
        statements.clear()
        assert weaving.carriers(tx, network) == ["tor1", "tor2"]
        assert len(statements) == 1
