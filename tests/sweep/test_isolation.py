"""A release whose BMC does not obey: isolation first, whatever becomes of the power, and never free."""

from collections.abc import Callable

import pytest
from tests.sweep.world import Act, CrashAt, World

from malleable.domain.ids import NodeId, OperationId
from malleable.domain.nodes import NodeState
from malleable.sim.faults import FaultKind
from malleable.workflows import release

BMC = "sim://n1"
#: Retries and patience of a BMC that answers nothing take this long at most.
ISOLATED_WITHIN_S = 60.0


def _release(world: World) -> tuple[NodeId, OperationId]:
    node_id, _ = world.running_node()
    with world.store.transaction() as tx:
        return node_id, release.request(tx, world.clock.now(), node=tx.nodes.get(node_id), actor_id=None).id


def _silent(world: World) -> tuple[NodeId, OperationId]:
    node_id, operation_id = _release(world)
    world.room.bmcs.silence(BMC)
    return node_id, operation_id


def _boundaries(new_world: Callable[[], World]) -> int:
    world = new_world()
    _, operation_id = _silent(world)
    probe = CrashAt(count=-1)
    world.run(operation_id, probe)
    return len(probe.seen)


def test_a_silent_bmc_keeps_no_port_open_and_no_disk_presented(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id, operation_id = _silent(world)
    world.work_for(ISOLATED_WITHIN_S)
    assert world.switches.carried("sim://switch", "p1").is_shut  # type: ignore[union-attr]
    assert world.targets.list(world.network_id) == frozenset()
    assert world.run(operation_id).state == "failed"
    world.assert_isolated(node_id)

    world.room.bmcs.silence(BMC, silent=False)
    with world.store.transaction() as tx:
        again = release.request(tx, world.clock.now(), node=tx.nodes.get(node_id), actor_id=None)
    assert world.run(again.id).state == "succeeded"
    world.assert_clean(node_id)


def test_a_crash_at_any_boundary_isolates_all_the_same(new_world: Callable[[], World]) -> None:
    for count in range(_boundaries(new_world)):
        world = new_world()
        node_id, operation_id = _silent(world)
        assert world.run(operation_id, CrashAt(count)).state == "failed"
        world.assert_isolated(node_id)


def test_a_bmc_that_comes_back_at_any_boundary_frees_the_node_or_leaves_it_isolated(
    new_world: Callable[[], World],
) -> None:
    ends = set()
    for count in range(_boundaries(new_world)):
        world = new_world()
        node_id, operation_id = _silent(world)
        back = Act(count, lambda world=world: world.room.bmcs.silence(BMC, silent=False))  # type: ignore[misc]
        state = world.run(operation_id, back).state
        ends.add(state)
        if state == "succeeded":
            world.assert_clean(node_id)
        else:
            world.assert_isolated(node_id)
    assert "succeeded" in ends


@pytest.mark.parametrize("kind", [FaultKind.REFUSED, FaultKind.BUSY, FaultKind.MALFORMED, FaultKind.LOST_REPLY])
def test_a_bmc_that_answers_anything_but_what_it_should_isolates_all_the_same(
    new_world: Callable[[], World], kind: FaultKind
) -> None:
    world = new_world()
    node_id, operation_id = _release(world)
    world.faults.add("state", kind, times=None)
    assert world.run(operation_id).state == "failed"
    world.assert_isolated(node_id)


def test_a_silent_bmc_and_one_passing_fault_of_another_device_isolate_all_the_same(
    new_world: Callable[[], World],
) -> None:
    for method in ("apply", "read", "revoke"):
        for kind in (FaultKind.LOST_REQUEST, FaultKind.LOST_REPLY, FaultKind.BUSY):
            world = new_world()
            node_id, operation_id = _silent(world)
            world.faults.add(method, kind, times=1)
            assert world.run(operation_id).state == "failed"
            world.assert_isolated(node_id)


def test_a_release_that_fails_at_a_switch_says_that_the_node_is_off_and_what_is_not_proven(
    new_world: Callable[[], World],
) -> None:
    world = new_world()
    node_id, operation_id = _release(world)
    world.faults.add("apply", FaultKind.REFUSED, times=None)
    assert world.run(operation_id).state == "failed"
    node = world.node(node_id)
    assert node.state is NodeState.QUARANTINED
    assert "release could not prove it clean: shut-ports: " in node.state_reason
    assert "It is off; a disk is still presented to it." in node.state_reason
