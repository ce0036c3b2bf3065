"""What agents may do that a snapshot waits for: it ends in time, and says of itself no more than is proven."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from tests.sweep.freeze_verbs import assert_nothing_is_asked, begin, no_snapshot
from tests.sweep.storage_verbs import new_snapshot
from tests.sweep.world import Act, World

from malleable.domain.disks import Consistency
from malleable.domain.errors import Conflict
from malleable.domain.freezes import FreezeState
from malleable.domain.ids import BootId, OperationId, new_id
from malleable.sim.agents import Manner
from malleable.workflows import quiesce, release, snapshots

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
    node_id, operation_id = begin(world)
    ended = world.run(operation_id)
    assert (ended.state, (ended.error or {})["code"]) == ("failed", "not-quiesced"), ended
    assert words in str((ended.error or {})["message"])
    no_snapshot(world, node_id)


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


def begin_another(world: World, *, quiesce: bool | None) -> OperationId:
    """Begin to snapshot the disk that runs once more."""
    with world.store.transaction() as tx:
        (disk,) = tx.disks.list()
        snapshot, now = replace(new_snapshot(world, disk), name="another"), world.clock.now()
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


def test_what_is_said_out_of_turn_changes_nothing(new_world: NewWorld) -> None:
    world = new_world()
    world.running_node()
    with world.store.transaction() as tx:
        (boot,) = tx.boots.list()
        freeze_id = OperationId(new_id())
        assert not quiesce.note(tx, boot.id, freeze_id, "frozen", "")
        tx.boots.change(boot.id, freeze_id=freeze_id, freeze_state=FreezeState.ASKED)
        assert not quiesce.note(tx, boot.id, OperationId(new_id()), "frozen", "")
        assert not quiesce.note(tx, BootId(new_id()), freeze_id, "frozen", "")
        assert quiesce.note(tx, boot.id, freeze_id, "frozen", "")
        assert not quiesce.note(tx, boot.id, freeze_id, "frozen", "")
        assert quiesce.note(tx, boot.id, freeze_id, "thawed", "")
        assert tx.boots.get(boot.id).freeze_state is FreezeState.FAILED, "it went on before it was told to"
        assert not quiesce.note(tx, boot.id, freeze_id, "thawed", "")
