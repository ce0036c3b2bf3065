"""What agents may do that a snapshot waits for: it ends in time, and says of itself no more than is proven."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from tests.sweep.freeze_verbs import FEW, assert_nothing_is_asked, begin, no_snapshot
from tests.sweep.storage_verbs import new_snapshot
from tests.sweep.world import Act, World

from malleable.domain.boots import NO_FREEZE
from malleable.domain.disks import Consistency, Disk
from malleable.domain.errors import Conflict
from malleable.domain.freezes import PROVEN_S, FreezeState
from malleable.domain.ids import BootId, OperationId, new_id
from malleable.domain.operations import Operation
from malleable.sim.agents import Manner
from malleable.sim.faults import FaultKind
from malleable.wiring.pools import remote_limits
from malleable.workflows import quiesce, release, requests, snapshots

NewWorld = Callable[[], World]
#: Longer than both waits together, nobody waits for an agent.
MOST_S = quiesce.FREEZE_S + quiesce.THAW_S + 5.0
WRONG = pytest.mark.parametrize(
    ("manner", "words"),
    [
        (Manner.SILENT, "did not say within 20 s"),
        (Manner.UNABLE, "could not keep the disk frozen"),
        (Manner.HASTY, "could not keep the disk frozen"),
        (Manner.STUCK, "did not say that the disk stayed frozen"),
        (Manner.LYING, "could not keep the disk frozen"),
    ],
)


def told(world: World) -> tuple[Consistency | None, str]:
    with world.store.reading() as tx:
        (snapshot,) = tx.snapshots.list()
    return snapshot.consistency, snapshot.consistency_reason


@WRONG
def test_an_agent_that_fails_costs_a_little_time_and_the_snapshot_says_so(
    new_world: NewWorld, manner: Manner, words: str
) -> None:
    world = new_world()
    world.room.agents = manner
    _, operation_id = begin(world, quiesce=None)
    began = world.clock.now()
    ended = world.run(operation_id)
    assert (ended.state, ended.result["consistency"]) == ("succeeded", "crash")
    assert world.clock.now() - began < timedelta(seconds=MOST_S)
    consistency, reason = told(world)
    assert (consistency, ended.result["consistency_reason"]) == (Consistency.CRASH, reason)
    assert words in reason
    assert_nothing_is_asked(world)


@WRONG
def test_where_it_must_be_quiesced_there_is_none_that_is_not(new_world: NewWorld, manner: Manner, words: str) -> None:
    world = new_world()
    world.room.agents = manner
    _, operation_id = begin(world)
    ended = world.run(operation_id)
    assert (ended.state, (ended.error or {})["code"]) == ("failed", "not-quiesced"), ended
    assert words in str((ended.error or {})["message"])
    no_snapshot(world)


def test_without_an_agent_nobody_waits(new_world: NewWorld) -> None:
    world = new_world()
    world.room.agents = Manner.ABSENT
    _, operation_id = begin(world, quiesce=None)
    began = world.clock.now()
    world.run(operation_id)
    assert world.clock.now() == began
    assert told(world) == (Consistency.CRASH, quiesce.NO_AGENT)
    with pytest.raises(Conflict, match="no agent was heard of") as refused:
        begin_another(world, quiesce=True)
    assert refused.value.code == "not-quiesced"


def begin_another(
    world: World, *, quiesce: bool | None, disk: Disk | None = None, name: str = "another"
) -> OperationId:
    """Begin to snapshot the disk that runs once more, or another one."""
    with world.store.transaction() as tx:
        disk = disk or tx.disks.list()[0]
        snapshot, now = replace(new_snapshot(world, disk), name=name), world.clock.now()
        return snapshots.request_snapshot(tx, now, snapshot=snapshot, disk=disk, actor_id=None, quiesce=quiesce).id


def test_who_does_not_want_it_is_not_asked(new_world: NewWorld) -> None:
    world = new_world()
    _, operation_id = begin(world, quiesce=False)
    world.run(operation_id)
    assert told(world) == (Consistency.CRASH, quiesce.NOT_ASKED)


def test_two_at_once_are_taken_one_after_the_other(new_world: NewWorld) -> None:
    world = new_world()
    _, first = begin(world)
    second = begin_another(world, quiesce=True)
    ended = [world.run(operation_id).result["consistency"] for operation_id in (first, second)]
    assert ended == ["quiesced", "quiesced"]
    assert_nothing_is_asked(world)


def test_for_an_agent_that_is_gone_nobody_waits_who_need_not(new_world: NewWorld) -> None:
    world = new_world()
    world.room.agents = Manner.GONE
    _, operation_id = begin(world, quiesce=None)
    began = world.clock.now()
    world.run(operation_id)
    assert world.clock.now() == began
    assert told(world) == (Consistency.CRASH, quiesce.UNHEARD)
    assert_nothing_is_asked(world)


def test_what_must_be_quiesced_waits_for_an_agent_that_may_come_back(new_world: NewWorld) -> None:
    world = new_world()
    world.room.agents = Manner.GONE
    _, operation_id = begin(world)
    began = world.clock.now()
    assert "did not say within 20 s" in str((world.run(operation_id).error or {})["message"])
    assert world.clock.now() - began >= timedelta(seconds=quiesce.FREEZE_S)
    no_snapshot(world)


def fill_pool(world: World) -> None:
    """Have others take all calls that the pool takes, for ever."""
    with world.store.transaction() as tx:
        for _ in range(FEW["pool"]):
            now = world.clock.now()
            other = requests.begin(tx, now, "delete-snapshot")
            tx.operations.write(other.id, other.fence, next_due_at=now + timedelta(days=1))
            assert tx.operations.take_resource("pool:default", FEW["pool"], other.id, other.fence)


def test_a_system_that_stands_still_waits_for_nobody_at_the_pool(new_world: NewWorld) -> None:
    world = new_world()
    _, operation_id = begin(world, quiesce=None)
    fill_pool(world)
    began = world.clock.now()
    assert world.run(operation_id).result["consistency"] == "quiesced"
    assert world.clock.now() == began


def test_a_system_goes_on_writing_until_it_is_its_turn(new_world: NewWorld) -> None:
    world = new_world()
    world.room.agents = Manner.SILENT
    _, first = begin(world, quiesce=None)
    _, disk = world.running_node("n2", "p2")
    world.work_for(1.0)
    second = begin_another(world, quiesce=None, disk=disk)
    world.work_for(quiesce.FREEZE_S / 2)
    with world.store.reading() as tx:
        assert {boot.freeze_id for boot in tx.boots.list()} == {first, None}
        assert "other snapshots" in tx.operations.get(second).public_reason.lower()
    world.room.agents = Manner.ABLE
    assert [world.run(id).result["consistency"] for id in (first, second)] == ["crash", "quiesced"]
    assert_nothing_is_asked(world)


def test_projects_whose_calls_hang_leave_the_pool_and_the_system_of_another_alone(new_world: NewWorld) -> None:
    world = new_world()
    node_id, disk = world.running_node()
    limits = remote_limits(32)
    world.drivers = replace(world.drivers, limits={**FEW, **limits})
    with world.store.transaction() as tx:
        for _ in range(8):  # the most that eight projects together have
            now = world.clock.now()
            other = requests.begin(tx, now, "snapshot-disk")
            tx.operations.write(other.id, other.fence, next_due_at=now + timedelta(days=1))
            assert tx.operations.take_resource("frozen:site", limits["frozen"], other.id, other.fence)
    waits = begin_another(world, quiesce=True, disk=disk)
    world.work_for(60.0)
    assert "frozen:site" in world.operation(waits).reason
    with world.store.reading() as tx:
        assert {boot.freeze_id for boot in tx.boots.list(node_id=node_id)} == {None}, "it was not asked to stand still"
    assert world.run(begin_another(world, quiesce=False, disk=disk, name="unasked")).state == "succeeded", (
        "other calls of the pool are made"
    )
    with world.store.transaction() as tx:
        tx.operations.release_resources(other.id)
    assert world.run(waits).result["consistency"] == "quiesced"


def test_a_node_that_is_taken_back_meanwhile_leaves_what_a_power_cut_would(new_world: NewWorld) -> None:
    for boundary in ("freeze-disk:acted", "snapshot-disk:begun", "thaw-disk:begun"):
        world = new_world()
        node_id, operation_id = begin(world, quiesce=None)
        seen = Act(-1, lambda: None)
        world.run(operation_id, seen)
        world = new_world()
        node_id, operation_id = begin(world, quiesce=None)

        def take_back(world: World = world, node_id: object = node_id) -> None:
            with world.store.transaction() as tx:
                (node,) = tx.nodes.list()
                release.request(tx, world.clock.now(), node=node, actor_id=None)
            world.work_for(60.0)

        ended = world.run(operation_id, Act(seen.seen.index(boundary), take_back))
        assert (ended.state, ended.result["consistency"] in ("crash", "idle")) == ("succeeded", True), (boundary, ended)


def pass_at(world: World, boundary: str, seconds: float, *, quiesce: bool | None = None) -> Operation:
    """Snapshot the disk of a machine that runs while so much time passes at the first such boundary."""
    _, operation_id = begin(world, quiesce=quiesce)

    class Pass:
        is_done = False

        def at(self, point: str, operation: Operation) -> None:
            if not self.is_done and f"{operation.step}:{point}" == boundary:
                self.is_done = True
                world.clock.advance(seconds)

    passing = Pass()
    ended = world.run(operation_id, passing)
    assert passing.is_done
    return ended


@pytest.mark.parametrize("manner", [Manner.ABLE, Manner.LATE])
@pytest.mark.parametrize("boundary", ["snapshot-disk:begun", "snapshot-disk:acted", "thaw-disk:begun"])
@pytest.mark.parametrize(("seconds", "words"), [(PROVEN_S + 1.0, "was not taken within 4 s"), (60.0, "within 4 s")])
def test_what_is_taken_after_an_agent_may_have_gone_on_is_not_quiesced(
    new_world: NewWorld, manner: Manner, boundary: str, seconds: float, words: str
) -> None:
    world = new_world()
    world.room.agents = manner
    ended = pass_at(world, boundary, seconds)
    assert (ended.state, ended.result["consistency"]) == ("succeeded", "crash")
    assert words in told(world)[1]
    assert_nothing_is_asked(world)
    world = new_world()
    world.room.agents = manner
    ended = pass_at(world, boundary, seconds, quiesce=True)
    assert (ended.state, (ended.error or {})["code"]) == ("failed", "not-quiesced"), ended
    no_snapshot(world)


def test_what_is_taken_at_once_is_quiesced_though_the_agent_hears_late_that_it_may_go_on(new_world: NewWorld) -> None:
    for boundary, seconds in (("snapshot-disk:begun", PROVEN_S - 1.0), ("thaw-disk:acted", 1.0)):
        world = new_world()
        assert pass_at(world, boundary, seconds).result["consistency"] == "quiesced", boundary


@pytest.mark.parametrize("seconds", [301.0, 3600.0])
@pytest.mark.parametrize("point", ["begun", "acted", "committed"])
@pytest.mark.parametrize("step", ["freeze-disk", "snapshot-disk", "thaw-disk"])
def test_a_service_that_was_away_for_long_has_a_snapshot_all_the_same(
    new_world: NewWorld, step: str, point: str, seconds: float
) -> None:
    world = new_world()
    ended = pass_at(world, f"{step}:{point}", seconds)
    assert ended.state == "succeeded", ended
    consistency, reason = told(world)
    assert (consistency, bool(reason)) in ((Consistency.CRASH, True), (Consistency.QUIESCED, False))
    assert consistency is Consistency.CRASH or (step, point) not in (("snapshot-disk", "begun"), ("thaw-disk", "begun"))
    assert_nothing_is_asked(world)


def test_a_freeze_that_failed_keeps_no_other_snapshot_waiting(new_world: NewWorld) -> None:
    world = new_world()
    _, first = begin(world, quiesce=None)
    world.faults.add("snapshot", FaultKind.LOST_REQUEST, times=None)
    world.work_for(3.0)
    with world.store.transaction() as tx:
        (boot,) = tx.boots.list()
        assert (boot.freeze_id, boot.freeze_state) == (first, FreezeState.FROZEN)
        assert quiesce.note(tx, world.clock.now(), boot.id, first, stage="unfrozen", words="")
    second = begin_another(world, quiesce=None)
    world.work_for(3.0)
    with world.store.reading() as tx:
        (boot,) = tx.boots.list()
    assert (boot.freeze_id, boot.freeze_state) == (second, FreezeState.FROZEN)
    world.faults.clear()
    ended = [world.run(id).result for id in (first, second)]
    assert [result["consistency"] for result in ended] == ["crash", "quiesced"]
    assert ended[0]["consistency_reason"] == quiesce.GONE
    assert_nothing_is_asked(world)


def test_a_freeze_that_was_forgotten_before_the_snapshot_is_told_as_the_reason(new_world: NewWorld) -> None:
    world = new_world()
    _, operation_id = begin(world, quiesce=None)
    points = Act(-1, lambda: None)
    world.run(operation_id, points)
    world = new_world()
    _, operation_id = begin(world, quiesce=None)

    def forget() -> None:
        with world.store.transaction() as tx:
            (boot,) = tx.boots.list()
            assert tx.boots.change(boot.id, expect={"id": boot.id}, **NO_FREEZE)

    ended = world.run(operation_id, Act(points.seen.index("snapshot-disk:begun"), forget))
    assert (ended.state, told(world)) == ("succeeded", (Consistency.CRASH, quiesce.GONE))


def test_what_is_said_out_of_turn_changes_nothing(new_world: NewWorld) -> None:
    world = new_world()
    world.running_node()
    with world.store.transaction() as tx:
        (boot,) = tx.boots.list()
        freeze_id = OperationId(new_id())

        def note(stage: str, boot_id: BootId, freeze_id: OperationId) -> bool:
            return quiesce.note(tx, world.clock.now(), boot_id, freeze_id, stage=stage, words="")

        assert not note("frozen", boot.id, freeze_id)
        tx.boots.change(boot.id, freeze_id=freeze_id, freeze_state=FreezeState.ASKED)
        assert not note("frozen", boot.id, OperationId(new_id()))
        assert not note("frozen", BootId(new_id()), freeze_id)
        assert note("frozen", boot.id, freeze_id)
        assert not note("frozen", boot.id, freeze_id)
        assert note("thawed", boot.id, freeze_id)
        assert tx.boots.get(boot.id).freeze_state is FreezeState.FAILED, "it went on before it was told to"
        assert not note("thawed", boot.id, freeze_id)
