"""A target daemon that hangs: what needs it waits, says so and goes on; nobody else notices."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.sweep.world import World

from malleable.domain.disks import Disk, DiskState
from malleable.domain.ids import DiskId, NodeId, OperationId, new_id
from malleable.domain.operations import OperationState
from malleable.workflows import release, storage
from malleable.workflows.provision import request as request_provision

SAYS = "did not answer"


def provision_in(world: World, node_id: NodeId, network_id: object) -> OperationId:
    with world.store.transaction() as tx:
        disk = Disk(
            id=DiskId(new_id()),
            name="elsewhere",
            project_id=world.project_id,
            image_id=world.image_id,
            state=DiskState.CREATING,
            size_bytes=world.size_bytes,
            created_at=world.clock.now(),
        )
        tx.disks.add(disk)
        wish = replace(world.wish(tx, node_id, disk, makes_disk=True), network=tx.networks.get(network_id))  # type: ignore[arg-type]
        return request_provision(tx, world.clock.now(), wish).id


def test_a_provision_waits_for_a_hung_daemon_and_others_do_not(new_world: Callable[[], World]) -> None:
    world = new_world()
    here, there = world.free_node(), world.free_node("n2", "p2")
    world.targets.freeze(world.network_id)
    waiting = world.provision(here)
    world.work_for(300)
    found = world.operation(waiting)
    assert (found.state, found.step) == (OperationState.WAITING, "export-target")
    assert SAYS in found.reason
    assert "server of the network's disks" in found.public_reason
    elsewhere = provision_in(world, there, world.second_network_id)
    assert world.run(elsewhere).state is OperationState.SUCCEEDED
    assert world.operation(waiting).state is OperationState.WAITING
    world.targets.freeze(world.network_id, is_frozen=False)
    assert world.run(waiting).state is OperationState.SUCCEEDED


class HangsAt:
    """A probe that lets the daemon hang when a step is begun."""

    def __init__(self, world: World, step: str) -> None:
        self.world, self.step = world, step

    def at(self, point: str, operation: object) -> None:
        if getattr(operation, "step", "") == self.step:
            self.world.targets.freeze(self.world.network_id)


def test_a_boot_waits_for_a_hung_daemon_and_is_not_started_again(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id = world.free_node()
    operation_id = world.provision(node_id)
    world.work_for(300, HangsAt(world, "await-up"))
    found = world.operation(operation_id)
    assert (found.state, found.step) == (OperationState.WAITING, "await-up")
    assert SAYS in found.reason
    assert SAYS not in found.public_reason
    assert world.room.bmcs.view("n1").power_ons == 1
    world.targets.freeze(world.network_id, is_frozen=False)
    assert world.run(operation_id).state is OperationState.SUCCEEDED


def test_a_release_waits_for_a_hung_daemon_with_the_fence_up(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id, disk = world.running_node()
    world.targets.freeze(world.network_id)
    with world.store.transaction() as tx:
        operation = release.request(tx, world.clock.now(), node=tx.nodes.get(node_id), actor_id=None)
    world.work_for(300)
    found = world.operation(operation.id)
    assert (found.state, found.step) == (OperationState.WAITING, "revoke-targets")
    assert SAYS in found.reason
    with world.store.reading() as tx:
        assert tx.targets.find(disk_id=disk.id) is not None
    world.targets.freeze(world.network_id, is_frozen=False)
    assert world.run(operation.id).state is OperationState.SUCCEEDED


@pytest.mark.parametrize("seconds", [1800])
def test_a_restore_waits_for_a_hung_daemon(new_world: Callable[[], World], seconds: int) -> None:
    world = new_world()
    world.running_node()
    world.targets.restart(world.network_id)
    world.targets.freeze(world.network_id)
    with world.store.transaction() as tx:
        operation = storage.request_restore(tx, world.clock.now(), network_id=world.network_id)
    world.work_for(seconds)
    assert SAYS in world.operation(operation.id).reason
    world.targets.freeze(world.network_id, is_frozen=False)
    assert world.run(operation.id).state is OperationState.SUCCEEDED
    assert len(world.targets.list(world.network_id)) == 1
