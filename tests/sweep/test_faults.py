"""Let every single device call go wrong, once or for ever: what a node is called is what it is."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.sweep.disk_verbs import DISK_VERBS
from tests.sweep.verb import Verb
from tests.sweep.verbs import VERBS
from tests.sweep.world import SWITCH, World

from malleable.domain.nodes import NodeState
from malleable.sim.faults import FaultKind
from malleable.workflows import enrol, release

SWEPT = [verb for verb in (*VERBS, *DISK_VERBS) if verb.has_devices]
EVERY_VERB = pytest.mark.parametrize("verb", SWEPT, ids=lambda verb: verb.name)
PASSING = (FaultKind.LOST_REQUEST, FaultKind.LOST_REPLY, FaultKind.BUSY)


def _device_calls(new_world: Callable[[], World], verb: Verb) -> int:
    world = new_world()
    _, operation_id = verb.begin(world)
    before = len(world.faults.calls)
    assert world.run(operation_id).state == "succeeded"
    count = len(world.faults.calls) - before
    assert count >= 1
    return count


@EVERY_VERB
@pytest.mark.parametrize("kind", PASSING)
def test_one_passing_fault_anywhere_is_got_over(new_world: Callable[[], World], verb: Verb, kind: FaultKind) -> None:
    for count in range(_device_calls(new_world, verb)):
        world = new_world()
        node_id, operation_id = verb.begin(world)
        world.faults.add(None, kind, skip=count, times=1)
        ended = world.run(operation_id)
        assert ended.state == "succeeded", (count, ended)
        verb.check(world, node_id)


@EVERY_VERB
@pytest.mark.parametrize("kind", [FaultKind.REFUSED, FaultKind.LOST_REQUEST, FaultKind.LOST_REPLY])
def test_a_device_that_fails_for_ever_never_leaves_a_dirty_node_free(
    new_world: Callable[[], World], verb: Verb, kind: FaultKind
) -> None:
    for count in range(_device_calls(new_world, verb)):
        world = new_world()
        node_id, operation_id = verb.begin(world)
        world.faults.add(None, kind, skip=count, times=None)
        _hurry(world)
        ended = world.run(operation_id)
        assert ended.state in ("failed", "needs-operator"), (count, ended)
        assert ended.reason
        world.faults.clear()
        with world.store.reading() as tx:
            if tx.nodes.find(id=node_id) is None:
                assert verb.name == "enrol"
                continue
        if verb.name == "attach":
            _still_apart(world)
        elif verb.name != "move":
            world.assert_never_half_free(node_id)


def _hurry(world: World) -> None:
    """Let what tries for hours give up after minutes: these were thousands of tries, all the same."""
    for name in ("repair-ports", "weave-tunnels"):
        steps = (replace(step, deadline_s=600.0) for step in world.workflows[name].steps)
        world.workflows[name] = replace(world.workflows[name], steps=tuple(steps))


def _still_apart(world: World) -> None:
    """Whatever the switch did, the node is held, and its port is either proven or says that it is not."""
    with world.store.reading() as tx:
        ports = tx.switch_ports.list()
    for port in ports:
        assert port.state == "unknown" or port.observed == world.switches.carried(SWITCH, port.name)


def test_one_refusal_undoes_a_provision_wholly(new_world: Callable[[], World]) -> None:
    verb = next(verb for verb in VERBS if verb.name == "provision")
    for count in range(_device_calls(new_world, verb)):
        world = new_world()
        node_id, operation_id = verb.begin(world)
        world.faults.add(None, FaultKind.REFUSED, skip=count, times=1)
        ended = world.run(operation_id)
        assert ended.state == "failed", (count, ended)
        assert ended.error is not None
        assert ended.error["code"] == "refused"
        if ended.error["step"] == "power-off":
            node = world.node(node_id)
            assert (node.state, node.project_id) == (NodeState.QUARANTINED, None)
            assert "power" in node.state_reason
        else:
            verb.check_undone(world, node_id)


def test_a_node_whose_bmc_does_not_obey_is_quarantined_until_it_is_proven(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id = world.free_node()
    world.room.bmcs.silence("sim://n1")
    assert world.run(world.provision(node_id)).state == "failed"
    assert world.node(node_id).state is NodeState.QUARANTINED

    world.room.bmcs.silence("sim://n1", silent=False)
    with world.store.transaction() as tx:
        again = enrol.request(tx, world.clock.now(), node=tx.nodes.get(node_id), actor_id=None)
    assert world.run(again.id).state == "succeeded"
    world.assert_clean(node_id)


def test_an_unproven_release_ends_in_quarantine_and_can_be_readmitted(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id, _ = world.running_node()
    world.faults.add("apply", FaultKind.LOST_REPLY, times=None)
    with world.store.transaction() as tx:
        first = release.request(tx, world.clock.now(), node=tx.nodes.get(node_id), actor_id=None)
    # The reply is lost but the port is shut: reading back proves it, so this release succeeds.
    assert world.run(first.id).state == "succeeded"

    node_id, _ = world.running_node("n2", "p2")
    world.faults.add("read", FaultKind.LOST_REQUEST, times=None)
    with world.store.transaction() as tx:
        second = release.request(tx, world.clock.now(), node=tx.nodes.get(node_id), actor_id=None)
    assert world.run(second.id).state == "failed"
    node = world.node(node_id)
    assert node.state is NodeState.QUARANTINED
    assert "shut-ports" in node.state_reason
    with world.store.reading() as tx:
        assert [port.state for port in tx.switch_ports.list(name="p2")] == ["unknown"]

    world.faults.clear()
    with world.store.transaction() as tx:
        third = release.request(tx, world.clock.now(), node=tx.nodes.get(node_id), actor_id=None)
    assert world.run(third.id).state == "succeeded"
    world.assert_clean(node_id, "n2", "p2")
