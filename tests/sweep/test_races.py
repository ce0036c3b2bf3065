"""Requests that cross each other: one of the two is refused, and no bytes go from under anybody."""

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from tests.sweep.world import Act, World

from malleable.domain.disks import Disk, DiskState
from malleable.domain.errors import Conflict, NotFound
from malleable.domain.ids import DiskId, ImageId, NodeId, SwitchPortId, new_id
from malleable.domain.images import Image, ImageState
from malleable.domain.nodes import NodeState
from malleable.domain.projects import Quota
from malleable.domain.switches import SwitchPort
from malleable.workflows import importing, storage
from malleable.workflows.requests import cancel


def _code(refused: pytest.ExceptionInfo[Conflict]) -> str:
    return refused.value.code


def _only_disk(world: World) -> Disk:
    with world.store.reading() as tx:
        (disk,) = tx.disks.list()
        return disk


def test_a_disk_in_the_making_is_nobody_elses_to_use(new_world: Callable[[], World]) -> None:
    """Else the second operation would take the disk back when it fails, from under the first."""
    world = new_world()
    first, second = world.free_node(), world.free_node("n2", "p2")
    operation_id = world.provision(first)
    with pytest.raises(Conflict) as refused:
        world.provision(second, _only_disk(world))
    assert _code(refused) == "disk-creating"
    assert world.node(second).state is NodeState.FREE
    assert world.run(operation_id).state == "succeeded"
    world.assert_up(first)


def test_a_disk_about_to_be_used_is_not_deleted(new_world: Callable[[], World]) -> None:
    world = new_world()
    disk = _spare_disk(world)
    node_id = world.free_node()
    operation_id = world.provision(node_id, disk)
    with pytest.raises(Conflict) as refused:
        _delete(world, disk)
    assert _code(refused) == "disk-in-use"
    assert _only_disk(world).state is DiskState.READY
    assert world.run(operation_id).state == "succeeded"
    world.assert_up(node_id)


def test_a_disk_made_by_a_running_provision_is_not_deleted_at_any_step(new_world: Callable[[], World]) -> None:
    count = 0
    while True:
        world = new_world()
        node_id = world.free_node()
        operation_id = world.provision(node_id)
        refused: list[str] = []

        def attempt(world: World = world, refused: list[str] = refused) -> None:
            try:
                _delete(world, _only_disk(world))
            except Conflict as e:
                refused.append(e.code)

        probe = Act(count, attempt)
        assert world.run(operation_id, probe).state == "succeeded"
        if len(probe.seen) <= count:
            break
        assert refused in (["disk-in-use"], ["disk-state"])
        world.assert_up(node_id)
        count += 1
    assert count > 20


def test_a_disk_on_its_way_out_is_not_presented(new_world: Callable[[], World]) -> None:
    """The check of the request is passed, then the disk begins to go: a database may let both pass."""
    world = new_world()
    disk = _spare_disk(world)
    node_id = world.free_node()
    operation_id = world.provision(node_id, disk)
    with world.store.transaction() as tx:
        tx.disks.change(disk.id, state=DiskState.DELETING)
    ended = world.run(operation_id)
    assert ended.state == "failed"
    assert ended.error is not None
    assert ended.error["code"] == "disk-state"
    world.assert_clean(node_id)


def test_an_image_is_sealed_once_at_a_time(new_world: Callable[[], World]) -> None:
    """A second sealing that is cancelled would remove what the first has sealed."""
    world = new_world()
    image, spool = _uploaded(world)
    with world.store.transaction() as tx:
        first = importing.request(tx, world.clock.now(), image=image, spool=spool, actor_id=None)
    for request in (importing.request, storage.request_delete_image):
        with world.store.transaction() as tx, pytest.raises(Conflict) as refused:
            request(tx, world.clock.now(), image=image, spool=spool, actor_id=None)
        assert _code(refused) == "image-sealing"
    assert world.run(first.id).state == "succeeded"
    assert not spool.exists()


@pytest.mark.parametrize("room_bytes", [5, 6])
def test_files_that_came_at_once_are_both_counted_when_they_are_sealed(
    new_world: Callable[[], World], room_bytes: int
) -> None:
    world = new_world()
    image, spool = _uploaded(world)
    (spool / "files").mkdir()
    for name in ("vmlinuz", "initrd"):
        (spool / "files" / name).write_bytes(b"123")
    with world.store.transaction() as tx:
        # Each was counted without the other.
        tx.images.change(image.id, kernel="vmlinuz", initrd="initrd", files_bytes=3)
        tx.projects.change(world.project_id, quota=Quota(image_bytes=image.size_bytes + room_bytes))
        sealing = importing.request(tx, world.clock.now(), image=image, spool=spool, actor_id=None)
    ended = world.run(sealing.id)
    fits = room_bytes == 6
    assert (ended.error or {}).get("code") == (None if fits else "quota-exceeded")
    with world.store.reading() as tx:
        assert tx.projects.holdings(world.project_id).image_bytes == (image.size_bytes + 6 if fits else 0)
    assert (image.id in world.disks.list().images) == fits


@pytest.mark.parametrize("is_sealed", [True, False])
def test_a_deleted_image_leaves_neither_bytes_nor_upload(new_world: Callable[[], World], *, is_sealed: bool) -> None:
    world = new_world()
    image, spool = _uploaded(world)
    if is_sealed:
        with world.store.transaction() as tx:
            sealing = importing.request(tx, world.clock.now(), image=image, spool=spool, actor_id=None)
        world.run(sealing.id)
    with world.store.transaction() as tx:
        operation = storage.request_delete_image(tx, world.clock.now(), image=image, spool=spool, actor_id=None)
    with world.store.transaction() as tx, pytest.raises(NotFound):
        storage.request_create(tx, world.clock.now(), disk=_disk(world, image.id), actor_id=None)
    assert world.run(operation.id).state == "succeeded"
    assert not spool.exists()
    assert world.disks.list().images == {world.image_id}


def test_a_failed_import_ends_with_the_images_deletion(new_world: Callable[[], World]) -> None:
    world = new_world()
    image, spool = _uploaded(world)
    with world.store.transaction() as tx:
        sealing = importing.request(tx, world.clock.now(), image=image, spool=spool, actor_id=None)
        cancel(tx, world.clock.now(), sealing)
    assert world.run(sealing.id).state == "cancelled"
    with world.store.transaction() as tx:
        operation = storage.request_delete_image(tx, world.clock.now(), image=image, spool=spool, actor_id=None)
    assert world.run(operation.id).state == "succeeded"
    assert not spool.exists()


def test_a_node_wired_anew_while_it_is_enrolled_is_not_freed(new_world: Callable[[], World]) -> None:
    look = Act(10**6, lambda: None)
    world = new_world()
    world.run(world.rack()[1], look)
    last = look.seen.index("reset-boot:acted")

    world = new_world()
    node_id, operation_id = world.rack()
    assert world.run(operation_id, Act(last, lambda: _rewire(world, node_id))).state == "succeeded"
    node = world.node(node_id)
    assert node.state is NodeState.INSPECTED
    assert "wiring" in node.state_reason


def _rewire(world: World, node_id: NodeId) -> None:
    """Plug the node's cable into a port that nobody has looked at."""
    port = SwitchPort(id=SwitchPortId(new_id()), switch_id=world.switch_id, name="p2", created_at=world.clock.now())
    with world.store.transaction() as tx:
        tx.switch_ports.add(port)
        tx.nics.change(tx.nics.list(node_id=node_id)[0].id, switch_port_id=port.id)


def _delete(world: World, disk: Disk) -> None:
    with world.store.transaction() as tx:
        storage.request_delete(tx, world.clock.now(), disk=disk, actor_id=None)


def _disk(world: World, image_id: ImageId) -> Disk:
    return Disk(
        id=DiskId(new_id()),
        name="spare",
        project_id=world.project_id,
        image_id=image_id,
        state=DiskState.CREATING,
        size_bytes=world.size_bytes,
        created_at=world.clock.now(),
    )


def _spare_disk(world: World) -> Disk:
    disk = _disk(world, world.image_id)
    with world.store.transaction() as tx:
        operation = storage.request_create(tx, world.clock.now(), disk=disk, actor_id=None)
    assert world.run(operation.id).state == "succeeded"
    return _only_disk(world)


def _uploaded(world: World) -> tuple[Image, Path]:
    """Announce an image and upload it."""
    with world.store.transaction() as tx:
        golden = tx.images.get(world.image_id)
        content = b"another" * 1000
        image = replace(
            golden,
            id=ImageId(new_id()),
            name="other",
            project_id=world.project_id,
            state=ImageState.IMPORTING,
            size_bytes=len(content),
            sha256=sha256(content).hexdigest(),
        )
        tx.images.add(image)
    spool = world.spool / str(image.id)
    spool.mkdir()
    (spool / "content").write_bytes(content)
    return image, spool
