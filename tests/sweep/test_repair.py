"""Ports that drift and do not obey: one operation that waits ever longer, and nobody else waits for it."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from threading import Event

import pytest
from tests.contract.store.test_query_counts import counted
from tests.sweep.network_verbs import revoke_grant, shared
from tests.sweep.world import SWITCH, Crash, CrashAt, World

from malleable.domain.ids import NodeId, SwitchId, SwitchPortId, new_id
from malleable.domain.networks import Channel, GrantState
from malleable.domain.operations import Operation
from malleable.domain.store import Page
from malleable.domain.switches import SHUT, PortConfig, PortState, SwitchPort
from malleable.sim.faults import FaultKind
from malleable.sim.switches import Misbehaviour
from malleable.workflows import attach, release, repair
from malleable.workflows.watch import LOOKS_AT_ONCE, Watch

STRANGE = PortConfig(native_vid=666)
SCAN_S = 20.0


@contextmanager
def watched(world: World) -> Iterator[Watch]:
    watch = Watch(store=world.store, drivers=world.drivers, clock=world.clock)
    try:
        yield watch
    finally:
        watch.close()


def repairs(world: World) -> list[Operation]:
    with world.store.reading() as tx:
        return sorted(tx.operations.list(kind="repair-ports"), key=lambda repair: repair.created_at)


def carried(world: World) -> tuple[int | None, frozenset[int]]:
    config = world.switches.carried(SWITCH, "p1")
    assert config is not None
    assert config.guard is not None
    return config.native_vid, config.tagged_vids


def events(world: World, kind: str) -> int:
    with world.store.reading() as tx:
        return len(tx.events.list(Page(limit=100), kind=kind))


def drops(world: World) -> None:
    """Have the running node's port drift on a switch that accepts and drops every change."""
    world.running_node()
    world.switches.drift(SWITCH, "p1", STRANGE)
    world.switches.misbehave(SWITCH, Misbehaviour.DROPS)


def test_a_switch_that_never_obeys_is_one_operation_that_waits_ever_longer(new_world: Callable[[], World]) -> None:
    world = new_world()
    drops(world)
    calls = len(world.faults.calls)
    with watched(world) as watch:
        for _ in range(6 * 180):
            watch.scan_ports()
            world.work_for(SCAN_S)
    (standing,) = repairs(world)
    assert (standing.state, standing.arguments["ports"]) == ("waiting", ["p1"])
    assert "Port p1 of switch tor1 does not keep what it is told." in standing.reason
    assert events(world, "port.repair-failed") == 1
    tries = sum(method == "apply" for method, _ in list(world.faults.calls)[calls:])
    assert tries <= 50, "six hours, and the pauses double up to ten minutes"


def test_a_switch_that_obeys_again_ends_it(new_world: Callable[[], World]) -> None:
    world = new_world()
    drops(world)
    with watched(world) as watch:
        watch.scan_ports()
        world.work_for(60)
        world.switches.misbehave(SWITCH, None)
        (standing,) = repairs(world)
        assert world.run(standing.id).state == "succeeded"
        assert carried(world) == (101, frozenset())
        assert events(world, "port.repaired") == 1
        assert watch.scan_ports() == 0


def test_what_differs_is_in_the_event_be_it_the_mtu_alone(new_world: Callable[[], World]) -> None:
    world = new_world()
    world.running_node()
    wanted = world.switches.carried(SWITCH, "p1")
    assert wanted is not None
    world.switches.drift(SWITCH, "p1", replace(wanted, mtu=9000))
    with watched(world) as watch:
        assert watch.scan_ports() == 1
        world.work_for(SCAN_S)
    assert world.switches.carried(SWITCH, "p1") == wanted
    with world.store.reading() as tx:
        (repaired,) = tx.events.list(Page(limit=10), kind="port.repaired")
    found, after = (repaired.detail[side] for side in ("found", "wanted"))
    assert (found["mtu"], "mtu" in after) == (9000, False)  # type: ignore[index,operator]


def test_a_switch_that_was_away_for_long_and_comes_back_wiped_is_repaired_within_a_scan(
    new_world: Callable[[], World],
) -> None:
    world = new_world()
    world.running_node()
    world.switches.drift(SWITCH, "p1", STRANGE)
    with watched(world) as watch:
        watch.scan_ports()
        world.switches.misbehave(SWITCH, Misbehaviour.DEAD)
        world.work_for(3 * 3600)
        world.switches.wipe(SWITCH)
        world.switches.misbehave(SWITCH, None)
        world.work_for(SCAN_S)
    assert carried(world) == (101, frozenset())
    assert [repair.state for repair in repairs(world)] == ["succeeded"]


def test_it_does_not_stand_for_ever(new_world: Callable[[], World]) -> None:
    world = new_world()
    drops(world)
    with watched(world) as watch:
        watch.scan_ports()
        (standing,) = repairs(world)
        ended = world.run(standing.id)
        assert ended.state == "failed"
        assert ended.finished_at is not None
        assert ended.finished_at - ended.created_at >= timedelta(days=1)
        watch.scan_ports()
    assert len(repairs(world)) == 2


def proofs(world: World) -> list[Mapping[str, object]]:
    with world.store.reading() as tx:
        return [event.detail for event in tx.events.list(Page(limit=100), kind="port.proven")]


def assert_rejoined(world: World, node_id: NodeId) -> None:
    """The node is on its boot network as if nothing had been, and on no other."""
    assert carried(world) == (101, frozenset())
    assert world.node(node_id).state_reason == ""
    with world.store.reading() as tx:
        assert {port.state for port in tx.switch_ports.list()} == {PortState.SETTLED}
        assert [a.network_id for a in tx.attachments.list()] == [world.network_id]


def joining(world: World, *, bonded_with: str = "") -> tuple[NodeId, Operation]:
    """Have a running node that is about to join a second network, tagged."""
    node_id, _ = world.running_node(bonded_with=bonded_with)
    with world.store.transaction() as tx:
        wish = attach.Connection(
            node=tx.nodes.get(node_id),
            nic=tx.nics.list(node_id=node_id)[0],
            network=tx.networks.get(world.second_network_id),
            channel=Channel.TAGGED,
            project_id=world.project_id,
        )
        operation = attach.request(tx, world.clock.now(), wish, actor_id=None)
    return node_id, operation


def doubted(world: World, *, bonded_with: str = "") -> NodeId:
    """Have a node whose attach could neither be done nor undone: nobody knows what its port carries."""
    node_id, operation = joining(world, bonded_with=bonded_with)
    world.faults.add("read", FaultKind.LOST_REQUEST, times=None)
    assert world.run(operation.id).state == "failed"
    with world.store.reading() as tx:
        assert {port.state for port in tx.switch_ports.list()} == {"unknown"}
    return node_id


def test_a_change_of_a_port_leaves_what_it_carried_before_and_after(new_world: Callable[[], World]) -> None:
    world = new_world()
    _, operation = joining(world)
    assert world.run(operation.id).state == "succeeded"
    with world.store.reading() as tx:
        (step,) = tx.operations.steps([operation.id])
    assert str(step.evidence["before"]).startswith("VLAN 101, guarded")
    assert str(step.evidence["carries"]).startswith("VLAN 101 tagged [102], guarded")


def test_a_port_whose_outcome_is_lost_is_shut_and_what_its_node_is_still_on_comes_back(
    new_world: Callable[[], World],
) -> None:
    world = new_world()
    node_id = doubted(world)
    with watched(world) as watch:
        assert watch.scan_ports() == 0, "the switch tells nothing"
        assert (world.node(node_id).state, events(world, "port.unknown")) == ("allocated", 1)
        assert "unknown state after attach" in world.node(node_id).state_reason
        assert world.switches.carried(SWITCH, "p1") != SHUT
        world.faults.clear()
        assert watch.scan_ports() == 1
        world.work_for(1)
        assert watch.scan_ports() == 0
    assert [found["wanted"]["native"] for found in proofs(world)] == [None, 101], "shut first, and proven"  # type: ignore[index]
    assert_rejoined(world, node_id)
    assert events(world, "network.detached") == 1


def test_what_is_still_on_comes_back_whatever_dies_on_the_way(new_world: Callable[[], World]) -> None:
    points = 0
    while True:
        world = new_world()
        node_id = doubted(world)
        world.faults.clear()
        probe = CrashAt(points)
        with watched(world) as watch:
            for _ in range(4):
                watch.scan_ports()
                with suppress(Crash):
                    world.work_for(SCAN_S, probe)
        assert_rejoined(world, node_id)
        if len(probe.seen) <= points:
            break
        points += 1
    assert points > 3


def test_a_port_that_a_detach_settles_before_the_watch_is_in_doubt_no_more(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id = doubted(world)
    world.faults.clear()
    with world.store.transaction() as tx:
        (leaving,) = tx.attachments.list(network_id=world.second_network_id)
        operation = attach.request_detach(
            tx, world.clock.now(), node=tx.nodes.get(node_id), attachment=leaving, actor_id=None
        )
    assert world.run(operation.id).state == "succeeded"
    assert world.node(node_id).state_reason == ""


def test_both_ports_of_a_bond_come_back_together(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id = doubted(world, bonded_with="p2")
    world.faults.clear()
    with watched(world) as watch:
        assert watch.scan_ports() == 2
        world.work_for(1)
        assert watch.scan_ports() == 0
    both = {world.switches.carried(SWITCH, name) for name in ("p1", "p2")}
    assert [config.bond for config in both if config] == [frozenset({"p1", "p2"})]
    assert_rejoined(world, node_id)


def test_a_switch_that_takes_only_a_shut_port_keeps_the_node_in_doubt(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id = doubted(world)
    world.faults.clear()
    world.faults.add("apply", FaultKind.REFUSED, skip=1, times=None)
    with watched(world) as watch:
        for _ in range(3):
            watch.scan_ports()
            world.work_for(SCAN_S)
        assert world.switches.carried(SWITCH, "p1") == SHUT
        assert "unknown state after attach" in world.node(node_id).state_reason
        assert [repair.state for repair in repairs(world)] == ["waiting"]
        world.faults.clear()
        world.work_for(700)
    assert_rejoined(world, node_id)


def test_a_grant_that_is_revoked_at_a_dead_switch_ends_once_that_is_back(new_world: Callable[[], World]) -> None:
    """By one detach: begun again at every look, it would be thousands a day."""
    world = new_world()
    _, revoke = revoke_grant(world)
    world.switches.misbehave(SWITCH, Misbehaviour.DEAD)
    with watched(world) as watch:
        for is_dead in (True, False):
            for _ in range(30):
                watch.scan_ports()
                world.work_for(SCAN_S)
            assert (world.operation(revoke).finished_at is None) is is_dead
            world.switches.misbehave(SWITCH, None)
    with world.store.reading() as tx:
        assert (tx.operations.count(kind="detach"), tx.grants.count(), tx.attachments.count()) == (1, 0, 0)
    assert world.switches.carried(SWITCH, "p1") == SHUT


def test_a_network_whose_grant_is_being_revoked_does_not_come_back(new_world: Callable[[], World]) -> None:
    world = new_world()
    doubted(world)
    shared(world, GrantState.REVOKING)
    world.faults.clear()
    with watched(world) as watch:
        for _ in range(3):
            watch.scan_ports()
            world.work_for(1)
    assert world.switches.carried(SWITCH, "p1") == SHUT


def test_a_node_with_an_unknown_port_is_not_freed_before_the_port_is_proven_shut(
    new_world: Callable[[], World],
) -> None:
    world = new_world()
    node_id = doubted(world)

    def released() -> str:
        with world.store.transaction() as tx:
            operation = release.request(tx, world.clock.now(), node=tx.nodes.get(node_id), actor_id=None)
        world.run(operation.id)
        return world.node(node_id).state

    assert released() == "quarantined"
    world.faults.clear()
    with watched(world) as watch:
        watch.scan_ports()
        world.work_for(30)
    assert world.switches.carried(SWITCH, "p1") == SHUT, "in quarantine too"
    assert released() == "free"


def test_a_rebuild_tells_which_ports_do_not_obey_and_restores_the_others(new_world: Callable[[], World]) -> None:
    world = new_world()
    world.running_node()
    with world.store.transaction() as tx:
        gone = SwitchPort(id=SwitchPortId(new_id()), switch_id=world.switch_id, name="p9", created_at=world.clock.now())
        tx.switch_ports.add(gone)
        tx.switch_ports.change(gone.id, state=PortState.SETTLED, wanted_generation=1)
        world.switches.wipe(SWITCH)
        switch = tx.switches.get(world.switch_id)
        rebuild = repair.request_rebuild(tx, world.clock.now(), switch=switch, actor_id=None)
    ended = world.run(rebuild.id)
    assert ended.state == "failed"
    assert "p9" in ended.reason
    assert carried(world) == (101, frozenset())
    assert (events(world, "port.repaired"), events(world, "switch.rebuild-failed")) == (1, 1)


def test_a_scan_asks_the_database_the_same_however_many_ports(new_world: Callable[[], World]) -> None:
    world = new_world()
    world.switches.add(SWITCH, [f"q{number}" for number in range(300)])
    asked = []
    for count in (1, 300):
        with world.store.transaction() as tx:
            for number in range(count):
                name = f"q{number}"
                if tx.switch_ports.find(name=name) is None:
                    port = SwitchPort(
                        id=SwitchPortId(new_id()), switch_id=world.switch_id, name=name, created_at=world.clock.now()
                    )
                    tx.switch_ports.add(port)
                    tx.switch_ports.change(port.id, state=PortState.SETTLED, wanted_generation=1)
                    world.switches.drift(SWITCH, name, SHUT)
        with watched(world) as watch, counted(world.store) as statements:  # type: ignore[arg-type]
            assert watch.scan_ports() == 0
            asked.append(len(statements))
    assert asked == [2, 2], "the switches, and each one's ports"


@contextmanager
def hanging(world: World, monkeypatch: pytest.MonkeyPatch, count: int, *, failures: int = 0) -> Iterator[None]:
    """Add switches that fail so many reads at once, and let every later one hang until the end."""
    is_over = Event()
    monkeypatch.setattr(world.faults, "_delay", lambda _: is_over.wait())
    with world.store.transaction() as tx:
        for number in range(count):
            address = f"sim://away{number}"
            switch = replace(
                tx.switches.get(world.switch_id), id=SwitchId(new_id()), name=f"away{number}", address=address
            )
            tx.switches.add(switch)
            port = SwitchPort(id=SwitchPortId(new_id()), switch_id=switch.id, name="q", created_at=world.clock.now())
            tx.switch_ports.add(port)
            tx.switch_ports.change(port.id, state=PortState.SETTLED, wanted_generation=1)
            world.faults.add("read", FaultKind.LOST_REQUEST, key=address, times=failures)
            world.faults.add("read", FaultKind.SLOW, key=address, times=None)
    try:
        yield
    finally:
        is_over.set()


def scan_until(watch: Watch, is_so: Callable[[], bool]) -> None:
    for _ in range(2000):
        if is_so():
            return
        watch.scan_ports()
    raise AssertionError("it is never so, however often the ports are scanned")


def looks(world: World) -> Counter[str | None]:
    return Counter(key for method, key in world.faults.calls if method == "read" and key != SWITCH)


def test_switches_that_hang_keep_no_other_ones_drift_from_being_found(
    new_world: Callable[[], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = new_world()
    world.running_node()
    with hanging(world, monkeypatch, 5):
        watch = Watch(store=world.store, drivers=world.drivers, clock=world.clock, patience_s=0.01)
        for _ in range(3):
            world.switches.drift(SWITCH, "p1", STRANGE)
            scan_until(watch, lambda: any(repair.finished_at is None for repair in repairs(world)))
            world.work_for(1)
            assert carried(world) == (101, frozenset())
        assert set(looks(world).values()) <= {1}, "who hangs is not asked again meanwhile"
    watch.close()


def test_switches_that_were_away_are_looked_at_beside_the_others(
    new_world: Callable[[], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice as many as there are threads: once known, they wait for each other and for nobody else."""
    world = new_world()
    world.running_node()
    with hanging(world, monkeypatch, 2 * LOOKS_AT_ONCE, failures=1):
        watch = Watch(store=world.store, drivers=world.drivers, clock=world.clock, patience_s=0.01)
        scan_until(watch, lambda: len(looks(world)) == 2 * LOOKS_AT_ONCE)
        world.switches.drift(SWITCH, "p1", STRANGE)
        scan_until(watch, lambda: bool(repairs(world)))
        world.work_for(1)
        assert carried(world) == (101, frozenset())
    watch.close()


def test_a_port_that_is_gone_hides_no_drift_and_holds_up_no_repair(new_world: Callable[[], World]) -> None:
    world = new_world()
    world.running_node()
    with world.store.transaction() as tx:
        gone = SwitchPort(
            id=SwitchPortId(new_id()),
            switch_id=world.switch_id,
            name="p9",
            state=PortState.SETTLED,
            created_at=world.clock.now(),
        )
        tx.switch_ports.add(gone)
    begun = world.clock.now()
    with watched(world) as watch:
        for _ in range(3):
            world.switches.drift(SWITCH, "p1", STRANGE)
            watch.scan_ports()
            world.work_for(SCAN_S)
            assert carried(world) == (101, frozenset())
    with world.store.reading() as tx:
        port = tx.switch_ports.find(switch_id=world.switch_id, name="p1")
    assert port is not None
    assert port.observed_at is not None
    assert port.observed_at > begun, "a repair is a read-back"
    standing, *others = repairs(world)
    assert (standing.state, standing.arguments["ports"]) == ("waiting", ["p9"])
    assert [(repair.state, repair.arguments["ports"]) for repair in others] == [("succeeded", ["p1"])] * 2
    assert events(world, "port.repaired") == 3
