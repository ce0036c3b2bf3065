"""The collector among everything else that goes on: it calls nothing an orphan that somebody makes, uses or removes."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest
from tests.sweep.image_verbs import IMAGE_VERBS
from tests.sweep.storage_verbs import (
    STORAGE_VERBS,
    collecting,
    disk_of,
    litter,
    looked,
    old_id,
    ready_disk,
    stranger,
)
from tests.sweep.verb import Verb
from tests.sweep.verbs import VERBS
from tests.sweep.world import World

from malleable.domain.disks import DiskState
from malleable.domain.errors import Conflict
from malleable.domain.ids import DiskId, new_id
from malleable.domain.operations import Operation
from malleable.domain.store import Page, Transaction
from malleable.sim.faults import FaultKind, Faults
from malleable.workflows import audit, collect, storage
from malleable.workflows.requests import begin

NewWorld = Callable[[], World]
OTHER_VERBS = [verb for verb in (*STORAGE_VERBS, *IMAGE_VERBS, *VERBS) if verb.name != "collect-pool"]


def told(world: World) -> list[tuple[str, str, str]]:
    return [(d.kind.value, d.noun, d.remedy.value) for d in looked(world).differences]


@pytest.mark.parametrize("verb", OTHER_VERBS, ids=lambda verb: verb.name)
def test_no_workflow_looks_like_litter_at_any_boundary(new_world: NewWorld, verb: Verb) -> None:
    """Whatever its age: a clock may be wrong, a lease may last for days."""
    world = new_world()
    _, operation_id = verb.begin(world)
    probe = Looking(world)
    world.run(operation_id, probe)
    assert probe.looks > 3
    assert probe.found == []


class Looking:
    """A probe that audits everything at every boundary, and keeps what was not there at first."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._before = self._look()
        self.looks, self.found = 0, list[object]()

    def at(self, point: str, operation: Operation) -> None:
        self.looks += 1
        self.found += [(point, operation.step, what) for what in self._look() - self._before]

    def _look(self) -> set[tuple[str, str, object]]:
        world = self._world
        found = audit.look(world.store, world.drivers, world.spool, now=world.clock.now(), grace_s=0)
        return {(d.kind.value, d.noun, d.id or d.name) for d in found.differences}


@pytest.mark.parametrize("change", ["appears", "vanishes", "is imported"])
def test_what_changes_between_two_looks_is_no_difference(new_world: NewWorld, change: str) -> None:
    """At every place where the audit asks a device: before the database is read, and after."""
    begin_change = {"appears": _appears, "vanishes": _vanishes, "is imported": _imports}[change]
    for place in range(12):
        world = new_world()
        ready_disk(world)
        litter(world)
        before = told(world)
        meanwhile = Meanwhile(place, partial(begin_change, world))
        world.disks.faults = world.targets.faults = meanwhile
        assert told(world) == before, place
        assert meanwhile.left == -1
        assert told(world) == before, place


class Meanwhile(Faults):
    """Lets something happen right before or after a listing: ``place`` counts both."""

    def __init__(self, place: int, act: Callable[[], object]) -> None:
        super().__init__()
        self.left, self._act = place, act

    def before(self, method: str, key: str | None = None) -> None:
        super().before(method, key)
        self._count(method)

    def after(self, method: str, key: str | None = None) -> None:
        super().after(method, key)
        self._count(method)

    def _count(self, method: str) -> None:
        if method == "list" and self.left >= 0:
            self.left -= 1
            if self.left == -1:
                self._act()


def _imports(world: World) -> None:
    verb = next(verb for verb in STORAGE_VERBS if verb.name == "import-raw")
    assert world.run(verb.begin(world)[1]).state == "succeeded"


def _appears(world: World) -> None:
    with world.store.transaction() as tx:
        operation = storage.request_create(
            tx, world.clock.now(), disk=replace(disk_of(world), name="new"), actor_id=None
        )
    assert world.run(operation.id).state == "succeeded"


def _vanishes(world: World) -> None:
    with world.store.transaction() as tx:
        disk = tx.disks.find(name="root")
        assert disk is not None
        operation = storage.request_delete(tx, world.clock.now(), disk=disk, actor_id=None)
    assert world.run(operation.id).state == "succeeded"


def test_every_difference_is_told_with_what_becomes_of_it(new_world: NewWorld) -> None:
    world = new_world()
    litter(world)
    assert told(world) == [
        ("lost", "disk", "tell"),
        ("orphan", "disk", "remove"),
        ("orphan", "disk", "wait"),
        ("orphan", "image", "remove"),
        ("orphan", "snapshot", "remove"),
        ("orphan", "target", "remove"),
        ("orphan", "upload", "remove"),
    ]
    assert [d.name for d in looked(world).differences if d.kind == "lost"] == ["lost"]


def test_what_an_operation_names_is_nobodys_litter(new_world: NewWorld) -> None:
    """Also while it is parked: a person may let it go on."""
    world = new_world()
    disk_id = DiskId(old_id(world))
    world.disks.clone(world.image_id, disk_id, size_bytes=0)
    with world.store.transaction() as tx:
        operation = begin(tx, world.clock.now(), "create-disk", arguments={"name": "x", "disk_id": str(disk_id)})
    assert told(world) == []
    with world.store.transaction() as tx:
        tx.operations.change(operation.id, state="needs-operator")
    assert told(world) == []


def test_what_becomes_known_before_its_turn_is_spared(new_world: NewWorld) -> None:
    """A database may be brought back from a backup while the collection waits for a worker."""

    def known(world: World, tx: Transaction) -> None:
        for disk_id in world.disks.list().disks:
            tx.disks.add(replace(disk_of(world, state=DiskState.READY), id=disk_id, name=f"known-{disk_id.hex[-8:]}"))

    def at_work(world: World, tx: Transaction) -> None:
        for disk_id in world.disks.list().disks:
            begin(tx, world.clock.now(), "unknown", arguments={"disk_ids": [str(disk_id)]})

    for change in (known, at_work):
        world = new_world()
        for _ in range(3):
            world.disks.clone(world.image_id, DiskId(old_id(world)), size_bytes=0)
        stored = world.disks.list()
        operation = collecting(world)
        with world.store.transaction() as tx:
            change(world, tx)
        engine = world.engine()
        engine.walk(next(claimed for claimed in engine.claim(10) if claimed.id == operation.id))
        assert world.operation(operation.id).state == "succeeded"
        assert world.disks.list() == stored


def test_a_place_that_does_not_answer_is_neither_empty_nor_lost(new_world: NewWorld) -> None:
    world = new_world()
    _, disk = world.running_node()
    world.faults.add("list", FaultKind.LOST_REQUEST, times=None)
    found = looked(world)
    assert found.differences == ()
    assert set(found.unseen) == {"pool", "network net", "network second"}
    world.faults.clear()
    world.targets.stop(world.network_id)
    assert (looked(world).differences, set(looked(world).unseen)) == ((), {"network net"})
    assert world.disks.has_disk(disk.id)


def test_a_target_that_its_daemon_lost_is_restored(new_world: NewWorld) -> None:
    world = new_world()
    node_id, _ = world.running_node()
    (iqn,) = world.targets.list(world.network_id)
    world.targets.restart(world.network_id)
    assert told(world) == [("lost", "target", "restore")]
    for _ in range(2):
        assert world.run(collecting(world).id).state == "succeeded"
    world.work_for(60)
    assert world.targets.list(world.network_id) == {iqn}
    assert told(world) == []
    assert world.node(node_id).state == "allocated"


def test_one_thing_that_cannot_be_removed_keeps_no_other(new_world: NewWorld) -> None:
    world = new_world()
    for _ in range(3):
        world.disks.clone(world.image_id, DiskId(old_id(world)), size_bytes=0)
    operation = collecting(world)
    world.faults.add("delete_disk", FaultKind.REFUSED, times=1)
    assert world.run(operation.id).state == "needs-operator"
    assert len(world.disks.list().disks) == 1
    with world.store.reading() as tx:
        assert tx.events.list(Page(), kind="pool.collected") == ()


def test_of_a_foreign_pool_nothing_is_collected(new_world: NewWorld) -> None:
    world = new_world()
    world.disks.clone(world.image_id, DiskId(old_id(world)), size_bytes=0)
    with world.store.transaction() as tx:
        tx.images.remove(world.image_id)
    with pytest.raises(Conflict) as refused:
        collecting(world)
    assert refused.value.code == "foreign-pool"


def test_one_collection_is_bounded_and_the_next_goes_on(new_world: NewWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "COLLECT_MAX", 2)
    monkeypatch.setattr(collect, "BATCH", 1)
    world = new_world()
    for _ in range(3):
        world.disks.clone(world.image_id, DiskId(old_id(world)), size_bytes=0)
    for left in (1, 0):
        ended = world.run(collecting(world).id)
        assert ended.state == "succeeded"
        assert ended.result == {"disks": 2 if left else 1}
        assert len(world.disks.list().disks) == left


def test_a_stray_is_told_with_its_age_and_stays(new_world: NewWorld) -> None:
    """Whose it is, only a person can know."""
    world = new_world()
    ready_disk(world)
    since = world.clock.now() - timedelta(days=400)
    world.disks.strays["disks/mine.raw"] = since
    (found,) = looked(world).differences
    assert (found.kind, found.noun, found.name, found.made_at) == ("orphan", "file", "disks/mine.raw", since)
    assert found.remedy == "tell"
    assert world.run(collecting(world).id).state == "succeeded"
    assert world.disks.strays == {"disks/mine.raw": since}


def test_a_disk_whose_end_is_gone_is_lost(new_world: NewWorld) -> None:
    world = new_world()
    disk = ready_disk(world)
    world.disks.cut_disk(disk.id, disk.size_bytes - 512)
    (found,) = looked(world).differences
    assert (found.kind, found.id, found.remedy) == ("lost", disk.id, "tell")
    assert f"{disk.size_bytes - 512} of its {disk.size_bytes} bytes" in found.reason


def test_a_disk_that_is_larger_than_it_need_be_is_whole(new_world: NewWorld) -> None:
    """As after a growth that was cancelled too late."""
    world = new_world()
    disk = ready_disk(world)
    world.disks.grow(disk.id, size_bytes=disk.size_bytes + 512)
    assert told(world) == []


def test_uploads_in_use_stay(new_world: NewWorld) -> None:
    """An upload that goes on, one of a failed image, and whatever else lies there."""
    world = new_world()
    (world.spool / str(new_id())).mkdir()
    (world.spool / "notes").mkdir()
    (world.spool / str(old_id(world))).write_text("no folder")
    verb = next(verb for verb in STORAGE_VERBS if verb.name == "import-raw")
    verb.begin(world)
    assert told(world) == [("orphan", "upload", "wait")]


def test_a_stranger_at_a_daemon_is_cut_off_before_its_bytes_go(new_world: NewWorld) -> None:
    world = new_world()
    world.serve()
    export = stranger(world)
    world.targets.export(export)
    operation = collecting(world)
    world.faults.add("revoke", FaultKind.REFUSED, times=1)
    assert world.run(operation.id).state == "needs-operator"
    assert len(world.disks.list().disks) == 1
