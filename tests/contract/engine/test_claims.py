"""One worker at a time per operation; whoever lost it writes nothing any more."""

import threading
from collections import Counter
from collections.abc import Callable
from typing import NoReturn

import pytest
from tests.contract.engine.shop import LEASE_S, Answer, At, Crash, Shop, crash
from tests.contract.store import values

from malleable.domain.errors import Refused, Unreachable
from malleable.domain.operations import Operation, OperationState, Wait
from malleable.domain.store import EVENTS, GATEWAY, WORK, Transaction
from malleable.workflows.engine import Engine
from malleable.workflows.steps import Context, Done


def test_two_engines_never_run_one_operation_at_once(shop: Shop) -> None:
    inside: Counter[object] = Counter()
    most: list[int] = []

    def alone(context: Context) -> Done:
        inside[context.operation.id] += 1
        most.append(inside[context.operation.id])
        inside[context.operation.id] -= 1
        return Done()

    shop.workflow("make", *(shop.step(name, alone) for name in "abc"))
    ids = [shop.begin("make") for _ in range(30)]
    engines = [shop.engine(worker=f"w{number % 2}") for number in range(4)]

    def work(engine: Engine) -> None:
        while engine.run_due(3):
            pass

    threads = [threading.Thread(target=work, args=(engine,)) for engine in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {shop.operation(id).state for id in ids} == {"succeeded"}
    assert (len(most), set(most)) == (90, {1})
    assert all(record.attempts == 1 for id in ids for record in shop.timeline(id))


def test_the_oldest_due_is_claimed_first(shop: Shop) -> None:
    ids = []
    for _ in range(3):
        ids.append(shop.begin("make"))
        shop.advance(1)
    assert [operation.id for operation in shop.engine().claim(2)] == ids[:2]


def test_a_lease_holds_until_it_runs_out_and_is_renewed_for_all_at_once(shop: Shop) -> None:
    shop.begin("make"), shop.begin("make")
    holder, other = shop.engine(), shop.engine()
    ids = [operation.id for operation in holder.claim(5)]
    assert len(ids) == 2
    for _ in range(3):
        shop.advance(LEASE_S * 0.9)
        holder.keep(ids)
        assert other.claim(5) == ()
    shop.advance(LEASE_S)
    assert len(other.claim(5)) == 2


def test_what_is_under_a_workers_name_and_not_walked_runs_out(shop: Shop) -> None:
    """A claim whose commit was never answered, or one of a dead worker of the same name."""
    shop.begin("make"), shop.begin("make")
    holder, other = shop.engine(), shop.engine()
    walked, unknown = holder.claim(5)
    shop.advance(LEASE_S * 0.9)
    holder.keep([walked.id])
    shop.advance(LEASE_S * 0.2)
    assert [operation.id for operation in other.claim(5)] == [unknown.id]
    holder.keep([walked.id, unknown.id])  # too late for that, and harmless
    assert shop.operation(unknown.id).worker == other.worker


@pytest.mark.parametrize("is_slow", ["the claim", "the boundary"])
def test_no_device_is_asked_under_a_lease_that_is_about_to_run_out(shop: Shop, is_slow: str) -> None:
    other = shop.engine()

    def pass_most_of_it(*_: object) -> None:
        shop.advance(LEASE_S * 0.8)

    def asks(context: Context) -> Done:
        shop.advance(LEASE_S * 0.8)  # until the lease is renewed along with the others
        assert other.claim(5) == ()
        return Done()

    second = shop.step("b", asks, opening=pass_most_of_it)
    shop.workflow("make", *([shop.step("a"), second] if is_slow == "the boundary" else [shop.step("a", asks)]))
    operation_id, engine = shop.begin("make"), shop.engine()
    (claimed,) = engine.claim(5)
    if is_slow == "the claim":
        pass_most_of_it()
    engine.walk(claimed)
    assert shop.operation(operation_id).state == "succeeded", shop.operation(operation_id).error


def test_a_lease_that_another_took_during_a_slow_claim_is_not_taken_back(shop: Shop) -> None:
    usurper = shop.engine(worker="usurper")

    def committed_late() -> None:
        shop.advance(LEASE_S)
        assert len(usurper.claim(5)) == 1

    shop.workflow("make", shop.step("a"))
    operation_id = shop.begin("make")
    shop.engine(probe=At(":claimed", committed_late)).run_due()  # quietly
    assert shop.calls == []
    assert shop.operation(operation_id).worker == "usurper"


def test_who_takes_over_announces_what_the_dead_one_may_have_kept_to_itself(shop: Shop) -> None:
    shop.workflow("make", shop.step("a"))
    shop.begin("make")
    with pytest.raises(Crash):
        shop.engine(probe=At("a:begun", crash)).run_due()
    channels = (EVENTS, GATEWAY, WORK)
    seen = {channel: shop.store.wait(channel, 0, 0) for channel in channels}
    shop.advance(LEASE_S)
    shop.engine().run_due()
    for channel in channels:
        assert shop.store.wait(channel, 0, seen[channel]) > seen[channel]


def _add_project(tx: Transaction) -> None:
    tx.projects.add(values.project(name="forged"))


def _write_in_mid_step(context: Context) -> NoReturn:
    context.write(_add_project)
    raise AssertionError("a stale worker could write")


STALE: dict[str, Answer] = {
    "done": Done(write=_add_project, evidence={"by": "stale"}, result={"by": "stale"}),
    "write in mid-step": _write_in_mid_step,
    "wait": Wait(seconds=60, reason="forged", memory={"by": "stale"}),
    "retry": Unreachable("forged"),
    "fail": Refused("forged"),
}


def _usurped(
    shop: Shop, answer: Answer, take: Callable[[Engine], object]
) -> tuple[Callable[[Context], object], Engine]:
    """Make a step during whose first call the lease runs out and another worker comes."""
    usurper = shop.engine(worker="usurper")

    def act(context: Context) -> Done | Wait:
        if context.is_repeat:
            return Done(evidence={"by": "usurper"})
        shop.advance(LEASE_S + 1)
        take(usurper)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, Done | Wait) else answer(context)  # type: ignore[operator]

    return act, usurper


@pytest.mark.parametrize("answer", STALE.values(), ids=STALE.keys())
def test_a_stale_worker_writes_nothing_beside_the_one_that_works(shop: Shop, answer: Answer) -> None:
    claimed: list[tuple[Operation, ...]] = []
    act, usurper = _usurped(shop, answer, lambda engine: claimed.append(engine.claim(1)))
    shop.workflow("make", shop.step("a", act), shop.step("b"))  # type: ignore[arg-type]
    operation_id = shop.begin("make")
    assert shop.engine(worker="stale").run_due() == 1  # quietly

    [[taken]] = claimed
    assert shop.operation(operation_id) == taken
    assert [(record.evidence, record.error) for record in shop.timeline(operation_id)] == [({}, "")]
    usurper.walk(taken)
    _assert_by_usurper(shop, shop.operation(operation_id))


@pytest.mark.parametrize("answer", STALE.values(), ids=STALE.keys())
def test_a_stale_worker_writes_nothing_after_the_end(shop: Shop, answer: Answer) -> None:
    act, _ = _usurped(shop, answer, lambda engine: engine.run_due())
    shop.workflow("make", shop.step("a", act), shop.step("b"))  # type: ignore[arg-type]
    operation_id = shop.begin("make")
    shop.engine(worker="stale").run_due()
    _assert_by_usurper(shop, shop.operation(operation_id))


def _assert_by_usurper(shop: Shop, operation: Operation) -> None:
    assert (operation.state, operation.result, operation.error) == (OperationState.SUCCEEDED, {}, None)
    assert [record.evidence for record in shop.timeline(operation.id)] == [{"by": "usurper"}, {}]
    assert shop.calls == ["a", "a", "b", "[done]"]
    with shop.store.reading() as tx:
        assert tx.projects.find(name="forged") is None
