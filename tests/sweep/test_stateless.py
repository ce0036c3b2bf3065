"""Nodes that run from one image, read only, each by a target of its own."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.sweep.storage_verbs import disk_of
from tests.sweep.world import World

from malleable.domain.errors import Conflict, Invalid
from malleable.domain.ids import NodeId, OperationId
from malleable.domain.images import BootWay
from malleable.sim.faults import FaultKind
from malleable.workflows import power, provision, release, storage


def _provision(world: World, node_id: NodeId, way: BootWay = BootWay.KERNEL) -> OperationId:
    with world.store.transaction() as tx:
        wish = replace(world.wish(tx, node_id, disk_of(world)), disk=None, way=way)
        return provision.request(tx, world.clock.now(), wish).id


def _running(world: World, name: str = "n1", port: str = "p1") -> NodeId:
    node_id = world.free_node(name, port)
    assert world.run(_provision(world, node_id)).state == "succeeded"
    assert world.node(node_id).boot == "up"
    return node_id


def test_many_nodes_read_one_image_and_each_is_cut_off_alone(new_world: Callable[[], World]) -> None:
    world = new_world()
    first, second = _running(world), _running(world, "n2", "p2")
    with world.store.reading() as tx:
        targets = tx.targets.list()
        assert tx.disks.count() == 0, "nothing is made, so nothing is left to delete"
    assert {target.image_id for target in targets} == {world.image_id}
    for secret in ("iqn", "chap_username", "chap_password", "initiator_address"):
        assert len({getattr(target, secret) for target in targets}) == 2
    with world.store.transaction() as tx:
        releasing = release.request(tx, world.clock.now(), node=tx.nodes.get(first), actor_id=None)
    assert world.run(releasing.id).state == "succeeded"
    assert world.node(first).state == "free"
    assert world.targets.list(world.network_id) == {t.iqn for t in targets if t.node_id == second}


def test_a_daemon_that_died_presents_the_image_again_and_the_node_starts_again(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id = _running(world)
    before = world.targets.list(world.network_id)
    world.targets.restart(world.network_id)
    now = world.clock.now()
    with world.store.transaction() as tx:
        restoring = storage.request_restore(tx, now, network_id=world.network_id)
    assert world.run(restoring.id).state == "succeeded"
    assert world.targets.list(world.network_id) == before
    with world.store.transaction() as tx:
        node = tx.nodes.get(node_id)
        cycling = power.request(tx, now, node=node, action=power.PowerAction.CYCLE, actor_id=None)
    assert world.run(cycling.id).state == "succeeded"
    assert world.node(node_id).boot == "up"


def test_an_image_that_nodes_read_stays(new_world: Callable[[], World]) -> None:
    world = new_world()
    _running(world)
    now = world.clock.now()
    with world.store.transaction() as tx:
        image = tx.images.get(world.image_id)
        with pytest.raises(Conflict) as refused:
            storage.request_delete_image(tx, now, image=image, spool=world.spool, actor_id=None)
    assert refused.value.code == "image-in-use"


def test_an_image_deleted_before_it_is_presented_leaves_the_node_free(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id = world.free_node()
    operation_id = _provision(world, node_id)
    with world.store.transaction() as tx:
        tx.images.remove(world.image_id)
    assert world.run(operation_id).state == "failed"
    world.assert_clean(node_id)


def test_what_cannot_be_presented_is_undone(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id = world.free_node()
    operation_id = _provision(world, node_id)
    world.faults.add("export", FaultKind.REFUSED, times=1)
    assert world.run(operation_id).state == "failed"
    world.assert_clean(node_id)


def test_only_a_kernel_can_be_told_to_write_to_memory(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id = world.free_node()
    with pytest.raises(Invalid) as refused:
        _provision(world, node_id, BootWay.SAN)
    assert refused.value.code == "boot-way"
    assert world.node(node_id).state == "free"
