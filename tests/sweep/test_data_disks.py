"""Disks for data: fenced exactly as the one a node boots."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.sweep.disk_verbs import data_disk, presented
from tests.sweep.storage_verbs import disk_of
from tests.sweep.world import World

from malleable.domain.disks import Disk, DiskUse, Target
from malleable.domain.errors import Conflict
from malleable.domain.ids import NodeId, OperationId
from malleable.domain.nodes import NodeState
from malleable.sim.faults import FaultKind
from malleable.sim.targets import LoginRefused, SessionLost
from malleable.workflows import data_disks, move, provision, release, storage


def _attach(world: World, node_id: NodeId, disk: Disk) -> OperationId:
    with world.store.transaction() as tx:
        node = tx.nodes.get(node_id)
        return data_disks.request(tx, world.clock.now(), disk=disk, node=node, actor_id=None).id


def _attached(world: World, name: str = "data") -> tuple[NodeId, Disk, Target]:
    node_id, _ = world.running_node()
    disk = data_disk(world, name)
    assert world.run(_attach(world, node_id, disk)).state == "succeeded"
    with world.store.reading() as tx:
        target = tx.targets.find(disk_id=disk.id)
    assert target is not None
    return node_id, disk, target


def _release(world: World, node_id: NodeId) -> str:
    with world.store.transaction() as tx:
        operation = release.request(tx, world.clock.now(), node=tx.nodes.get(node_id), actor_id=None)
    return world.run(operation.id).state


def test_release_cuts_every_session_and_the_secret_is_good_for_nothing(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id, _, target = _attached(world)
    chap = (target.chap_username, target.chap_password)
    session = world.targets.login(world.network_id, target.iqn, address=target.initiator_address, chap=chap)
    world.targets.reach(world.network_id, target.iqn, session)
    with pytest.raises(LoginRefused):
        world.targets.login(world.network_id, target.iqn, address="10.0.0.99", chap=chap)
    assert _release(world, node_id) == "succeeded"
    world.assert_clean(node_id)
    with pytest.raises(SessionLost):
        world.targets.reach(world.network_id, target.iqn, session)
    with pytest.raises(LoginRefused):
        world.targets.login(world.network_id, target.iqn, address=target.initiator_address, chap=chap)


def test_a_disk_is_one_nodes_alone_and_stays_while_it_is_had(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id, disk, _ = _attached(world)
    for ask in (
        lambda: _attach(world, node_id, disk),
        lambda: world.provision(world.free_node("n2", "p2"), disk),
        lambda: _delete(world, disk),
    ):
        with pytest.raises(Conflict) as refused:
            ask()
        assert refused.value.code == "disk-in-use"
        assert "m2 disk detach data" in refused.value.fix
    assert presented(world, node_id) == {("disk-0", "boot"), ("data", "data")}


def _delete(world: World, disk: Disk) -> None:
    with world.store.transaction() as tx:
        storage.request_delete(tx, world.clock.now(), disk=disk, actor_id=None)


def test_a_disk_that_a_provision_is_about_to_present_is_not_deleted(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id, _ = world.running_node()
    disk = data_disk(world)
    operation_id = _attach(world, node_id, disk)
    with pytest.raises(Conflict) as refused:
        _delete(world, disk)
    assert refused.value.code == "disk-in-use"
    assert world.run(operation_id).state == "succeeded"


def test_two_nodes_want_one_disk_and_the_loser_goes_on_without_it(new_world: Callable[[], World]) -> None:
    world = new_world()
    first, _ = world.running_node()
    second, _ = world.running_node("n2", "p2")
    disk = data_disk(world)
    operation = _attach(world, first, disk)
    with pytest.raises(Conflict) as refused:
        _attach(world, second, disk)
    assert (refused.value.code, refused.value.details["node"]) == ("disk-in-use", "n1")
    assert world.run(operation).state == "succeeded"
    assert len(presented(world, first) | presented(world, second)) == 3
    assert {world.node(node_id).boot for node_id in (first, second)} == {"up"}


def test_disks_for_data_come_along_when_the_machine_moves(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id, _, before = _attached(world)
    other = world.free_node("n2", "p2")
    with world.store.transaction() as tx:
        boots = tx.targets.find(node_id=node_id, use=DiskUse.BOOT)
        assert boots is not None
        assert boots.disk_id is not None
        wish = world.wish(tx, other, tx.disks.get(boots.disk_id))
        operation = move.request(tx, world.clock.now(), wish)
    assert world.run(operation.id).state == "succeeded"
    assert presented(world, node_id) == set()
    assert presented(world, other) == {("disk-0", "boot"), ("data", "data")}
    with world.store.reading() as tx:
        after = tx.targets.find(disk_id=before.disk_id)
    assert after is not None
    assert (after.iqn, after.chap_password) != (before.iqn, before.chap_password)


def test_a_machine_that_moves_takes_no_disk_of_another_along(new_world: Callable[[], World]) -> None:
    world = new_world()
    source, boot_disk = world.running_node()
    holder, _ = world.running_node("n2", "p2")
    taken, spare = data_disk(world, "taken"), data_disk(world, "spare")
    assert world.run(_attach(world, holder, taken)).state == "succeeded"
    other = world.free_node("n3", "p3")
    with pytest.raises(Conflict, match="Disk taken is in use by node n2"), world.store.transaction() as tx:
        move.request(tx, world.clock.now(), replace(world.wish(tx, other, boot_disk), data_disks=(taken,)))
    assert world.node(source).boot == "up", "nothing was begun"
    with world.store.transaction() as tx:
        wish = replace(world.wish(tx, other, boot_disk), data_disks=(spare,))
        operation = move.request(tx, world.clock.now(), wish)
    assert world.run(operation.id).state == "succeeded"
    assert {("spare", "data")} < presented(world, other)


def test_a_disk_for_data_goes_to_another_node_once_no_session_is_left(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id, disk, target = _attached(world)
    chap = (target.chap_username, target.chap_password)
    session = world.targets.login(world.network_id, target.iqn, address=target.initiator_address, chap=chap)
    other, _ = world.running_node("n2", "p2")
    with world.store.transaction() as tx:
        node, now = tx.nodes.get(other), world.clock.now()
        moving = data_disks.request_move(tx, now, disk=disk, target=target, node=node, actor_id=None)
    world.faults.add("revoke", FaultKind.REFUSED, times=1)
    ended = world.run(moving.id)
    assert (ended.state, (ended.error or {})["code"]) == ("failed", "predecessor-failed"), "it waited for the proof"
    assert presented(world, other) == {("disk-2", "boot")}, "not proven, so not given"
    world.targets.reach(world.network_id, target.iqn, session)
    with world.store.transaction() as tx:
        now = world.clock.now()
        again = data_disks.request_move(tx, now, disk=disk, target=target, node=node, actor_id=None)
    assert world.run(again.id).state == "succeeded"
    assert presented(world, node_id) == {("disk-0", "boot")}
    assert presented(world, other) == {("disk-2", "boot"), ("data", "data")}
    with pytest.raises(SessionLost):
        world.targets.reach(world.network_id, target.iqn, session)


def _provision(world: World) -> tuple[NodeId, OperationId]:
    node_id, root, data = world.free_node(), disk_of(world), (data_disk(world, "one"), data_disk(world, "two"))
    with world.store.transaction() as tx:
        tx.disks.add(root)
        wish = replace(world.wish(tx, node_id, root, makes_disk=True), data_disks=data)
        return node_id, provision.request(tx, world.clock.now(), wish).id


def test_a_machine_starts_with_its_disks_for_data(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id, operation_id = _provision(world)
    assert world.run(operation_id).state == "succeeded"
    assert presented(world, node_id) == {("root", "boot"), ("one", "data"), ("two", "data")}


@pytest.mark.parametrize("nth", [0, 1, 2])
def test_a_machine_that_cannot_have_all_its_disks_keeps_none(new_world: Callable[[], World], nth: int) -> None:
    world = new_world()
    node_id, operation_id = _provision(world)
    world.faults.add("export", FaultKind.REFUSED, skip=nth, times=1)
    assert world.run(operation_id).state == "failed"
    world.assert_clean(node_id)
    with world.store.reading() as tx:
        assert {disk.name for disk in tx.disks.list()} == {"one", "two"}


def test_a_node_without_a_boot_is_given_no_disk(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id, disk = world.free_node(), data_disk(world)
    with pytest.raises(Conflict) as refused:
        _attach(world, node_id, disk)
    assert refused.value.code == "node-not-allocated"
    assert world.node(node_id).state is NodeState.FREE


def test_the_boot_disk_is_not_detached(new_world: Callable[[], World]) -> None:
    world = new_world()
    _, disk = world.running_node()
    with world.store.transaction() as tx:
        target = tx.targets.find(disk_id=disk.id)
        assert target is not None
        with pytest.raises(Conflict) as refused:
            data_disks.request_detach(tx, world.clock.now(), disk=disk, target=target, actor_id=None)
    assert refused.value.code == "disk-boots"
