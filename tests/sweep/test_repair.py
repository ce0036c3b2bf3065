"""Ports that drift and do not obey: one operation that waits ever longer, and nobody else waits for it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from tests.sweep.world import SWITCH, World

from malleable.domain.ids import SwitchPortId, new_id
from malleable.domain.operations import Operation
from malleable.domain.store import Page
from malleable.domain.switches import PortConfig, PortState, SwitchPort
from malleable.sim.switches import Misbehaviour
from malleable.workflows.watch import Watch

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
    with watched(world) as watch:
        for _ in range(3):
            world.switches.drift(SWITCH, "p1", STRANGE)
            watch.scan_ports()
            world.work_for(SCAN_S)
            assert carried(world) == (101, frozenset())
    standing, *others = repairs(world)
    assert (standing.state, standing.arguments["ports"]) == ("waiting", ["p9"])
    assert [(repair.state, repair.arguments["ports"]) for repair in others] == [("succeeded", ["p1"])] * 2
    assert events(world, "port.repaired") == 3
