"""Copies are told while they run, and end when nobody wants them any more."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from tests.sweep.image_verbs import IMAGE_VERBS
from tests.sweep.storage_verbs import STORAGE_VERBS
from tests.sweep.verb import Verb
from tests.sweep.world import LEASE_S, Crash, World

from malleable.domain.errors import Unavailable
from malleable.domain.ids import OperationId
from malleable.domain.progress import OnProgress
from malleable.workflows import progress
from malleable.workflows.steps import Context

NewWorld = Callable[[], World]
#: What copies, and what follows them: the calls that are told of.
COPIES = {
    "import-raw": {"seal"},
    "import-qcow2": {"convert", "seal"},
    "promote-snapshot": {"promote"},
    "copy-image": {"promote"},
    "fetch-raw": {"fetch", "seal"},
}
VERBS = [verb for verb in (*STORAGE_VERBS, *IMAGE_VERBS) if verb.name in COPIES]
EVERY_COPY = pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
PIECE_S = 0.4


@dataclass
class Watched:
    """Whatever copies takes its time for each piece, and somebody looks on."""

    world: World
    look: Callable[[str], object]
    told: list[tuple[str, Mapping[str, object]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        world = self.world
        world.disks.copy_bytes = 32
        slow: Any = {name: Slowly(self, getattr(world.drivers, name)) for name in ("disks", "converter", "fetcher")}
        world.drivers = replace(world.drivers, **slow)

    def follow(self, call: str, on_progress: OnProgress) -> OnProgress:
        def follow(done_bytes: int, of_bytes: int) -> None:
            self.world.clock.advance(PIECE_S)
            on_progress(done_bytes, of_bytes)
            with self.world.store.reading() as tx:
                (operation,) = tx.operations.list(state="running")
            self.told.append((call, operation.step_evidence))
            self.look(call)

        return follow


@dataclass
class Slowly:
    watched: Watched
    inner: Any

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.inner, name)
        if name == "within":
            return lambda pool: Slowly(self.watched, call(pool))
        if name not in {"seal", "promote", "convert", "fetch"}:
            return call
        return lambda *args, on_progress, **named: call(
            *args, on_progress=self.watched.follow(name, on_progress), **named
        )


@EVERY_COPY
def test_a_copy_is_told_at_most_once_a_second(new_world: NewWorld, verb: Verb) -> None:
    world = new_world()
    node_id, operation_id = verb.begin(world)
    watched = Watched(world, lambda _: None)
    assert world.run(operation_id).state == "succeeded"
    verb.check(world, node_id)
    assert {call for call, _ in watched.told} == COPIES[verb.name]
    figures = [evidence for call, evidence in watched.told if call in ("seal", "promote") and evidence]
    assert len(figures) > 5
    assert len({str(evidence) for evidence in figures}) <= len(figures) * PIECE_S / progress.EVERY_S + 1
    last = figures[-1]
    rate = last["bytes_per_s"]
    assert isinstance(rate, int)
    assert 0 < last["done_bytes"] <= last["of_bytes"]  # type: ignore[operator]
    assert rate == pytest.approx(world.disks.copy_bytes / PIECE_S, rel=0.5)


@EVERY_COPY
def test_a_copy_that_is_cancelled_amid_it_ends_within_a_second(new_world: NewWorld, verb: Verb) -> None:
    world = new_world()
    node_id, operation_id = verb.begin(world)

    def cancel(call: str) -> None:
        if len([one for one, _ in watched.told if one == call]) == 2 and call in ("seal", "promote"):
            assert verb.cancel(world, operation_id) == "accepted"

    watched = Watched(world, cancel)
    assert world.run(operation_id).state == "cancelled"
    verb.check_undone(world, node_id)
    copied = [call for call, _ in watched.told if call in ("seal", "promote")]
    assert len(copied) <= 2 + progress.EVERY_S / PIECE_S


@EVERY_COPY
def test_a_copy_whose_worker_dies_amid_it_begins_anew(new_world: NewWorld, verb: Verb) -> None:
    world = new_world()
    node_id, operation_id = verb.begin(world)

    reasons: list[str] = []

    def die(_: str) -> None:
        reasons.append(world.operation(operation_id).public_reason)
        if len(watched.told) == 4:
            raise Crash

    watched = Watched(world, die)
    assert world.run(operation_id).state == "succeeded"
    assert set(reasons[:4]) == {""}
    assert "broken off" in reasons[4]
    assert world.operation(operation_id).public_reason == ""
    verb.check(world, node_id)


def test_a_copy_that_another_worker_has_taken_over_ends(new_world: NewWorld) -> None:
    world = new_world()
    verb = next(verb for verb in VERBS if verb.name == "copy-image")
    node_id, operation_id = verb.begin(world)

    def take_over(_: str) -> None:
        if len(watched.told) == 2:
            world.clock.advance(2 * LEASE_S)
            assert world.engine().run_due() == 1

    watched = Watched(world, take_over)
    world.engine().run_due()
    assert len(watched.told) <= world.size_bytes // world.disks.copy_bytes + 10
    assert world.operation(operation_id).state == "succeeded"
    verb.check(world, node_id)


def test_a_database_that_is_away_ends_no_copy(new_world: NewWorld) -> None:
    class Away:
        def transaction(self) -> None:
            asked.append(world.clock.monotonic_s())
            raise Unavailable("The database does not answer.")

    world = new_world()
    operation_id: OperationId = VERBS[0].begin(world)[1]
    asked: list[float] = []
    context = Context(
        operation=world.operation(operation_id),
        store=Away(),  # type: ignore[arg-type]
        drivers=world.drivers,
        clock=world.clock,
        memory={},
        is_repeat=False,
    )
    told = progress.Progress(context)
    for done in range(10):
        told(done, 10)
        world.clock.advance(PIECE_S)
    assert len(asked) == 3
