"""Several disks of one node that are to be quiesced at once: each has its turn, or is told why not."""

from collections.abc import Callable
from dataclasses import replace

from tests.sweep.disk_verbs import data_disk
from tests.sweep.freeze_verbs import assert_nothing_is_asked
from tests.sweep.storage_verbs import new_snapshot
from tests.sweep.world import World

from malleable.domain.disks import Disk
from malleable.domain.freezes import FreezeState
from malleable.domain.ids import OperationId
from malleable.domain.operations import Operation
from malleable.sim.agents import Manner
from malleable.workflows import data_disks, quiesce, snapshots

NewWorld = Callable[[], World]


def with_two_disks(new_world: NewWorld) -> tuple[World, Disk, Disk]:
    """Run a machine that has a disk for data, too."""
    world = new_world()
    node_id, boots = world.running_node()
    data = data_disk(world)
    with world.store.transaction() as tx:
        attached = data_disks.request(tx, world.clock.now(), disk=data, node=tx.nodes.get(node_id), actor_id=None)
    assert world.run(attached.id).state == "succeeded"
    return world, boots, data


def begin(world: World, disk: Disk, *, quiesce: bool | None) -> OperationId:
    with world.store.transaction() as tx:
        snapshot, now = replace(new_snapshot(world, disk), name=f"of-{disk.name}"), world.clock.now()
        return snapshots.request_snapshot(tx, now, snapshot=snapshot, disk=disk, actor_id=None, quiesce=quiesce).id


class Serials:
    """Notes which disk the system was told of, and whether ever of two at once."""

    def __init__(self, world: World) -> None:
        self.world, self.told = world, list[str]()

    def at(self, _point: str, _operation: Operation) -> None:
        with self.world.store.reading() as tx:
            (boot,) = tx.boots.list()
        if boot.freeze_state is FreezeState.FROZEN and boot.freeze_serial not in self.told:
            self.told.append(boot.freeze_serial)


def test_two_disks_of_a_node_are_quiesced_one_after_the_other(new_world: NewWorld) -> None:
    for wanted in (None, True):
        world, *disks = with_two_disks(new_world)
        ids = [begin(world, disk, quiesce=wanted) for disk in disks]
        serials = Serials(world)
        ended = [world.run(id, serials) for id in ids]
        assert [one.result["consistency"] for one in ended] == ["quiesced", "quiesced"]
        assert len(serials.told) == 2, "each by its own serial number"
        assert_nothing_is_asked(world)


def test_who_has_no_turn_in_time_is_told_so(new_world: NewWorld) -> None:
    for wanted, limit_s in ((None, quiesce.FREEZE_S), (True, quiesce.TURN_S)):
        world, boots, data = with_two_disks(new_world)
        with world.store.transaction() as tx:
            (boot,) = tx.boots.list()
            held = {"freeze_id": OperationId(data.id), "freeze_serial": "OTHER", "freeze_state": FreezeState.FROZEN}
            assert tx.boots.change(boot.id, expect={"freeze_id": None}, **held)
        began = world.clock.now()
        ended = world.run(begin(world, boots, quiesce=wanted))
        assert limit_s <= (world.clock.now() - began).total_seconds() <= limit_s + quiesce.LOOK_S
        if wanted:
            assert (ended.error or {})["code"] == "not-quiesced"
            assert "another snapshot of a disk of its node" in str((ended.error or {})["message"])
        else:
            assert ended.result["consistency"] == "crash"
            assert "another snapshot of a disk of its node" in str(ended.result["consistency_reason"])


def test_what_must_be_quiesced_waits_longer_for_its_turn(new_world: NewWorld) -> None:
    world, boots, data = with_two_disks(new_world)
    world.room.agents = Manner.SILENT
    first, second = begin(world, boots, quiesce=True), begin(world, data, quiesce=True)
    world.work_for(quiesce.FREEZE_S - quiesce.LOOK_S)
    world.room.agents = Manner.ABLE
    assert [world.run(id).state for id in (first, second)] == ["failed", "succeeded"]
    assert_nothing_is_asked(world)
