"""Lost replies, tries and back-off by kind of failure, deadlines, and waits that cost no thread."""

import threading
from collections.abc import Callable
from datetime import datetime

import pytest
from tests.contract.engine.shop import Answer, At, Shop, crash
from tests.contract.store import values

from malleable.domain.errors import Busy, Conflict, DriverError, Malformed, Refused, Unavailable, Unreachable
from malleable.domain.ids import NodeId, new_id
from malleable.domain.operations import Operation, OperationState, Retry, Wait
from malleable.workflows.steps import Context, Done
from malleable.workflows.worker import Worker

#: Names of the threads of a worker and its store: the pool, the two of the worker, LISTEN.
OURS = ("operation", "dispatch", "keep-leases", "store-listener")


class Device:
    """Acts once, loses the reply; a step that observes first does not make it act twice."""

    def __init__(self) -> None:
        self.acted = 0

    def step(self, context: Context) -> Done:
        if context.is_repeat and self.acted:
            return Done(evidence={"observed": True})
        self.acted += 1
        raise Unreachable("The reply was lost.")


def test_a_repeat_after_a_lost_reply_is_told_so(shop: Shop) -> None:
    device = Device()
    shop.workflow("make", shop.step("a", device.step))
    operation = shop.run(shop.begin("make"))
    assert (operation.state, device.acted) == ("succeeded", 1)
    [record] = shop.timeline(operation.id)
    assert (record.attempts, record.evidence) == (2, {"observed": True})


@pytest.mark.parametrize("where", ["a:begun", "a:acted"])
def test_a_repeat_after_a_crash_is_told_so(shop: Shop, where: str) -> None:
    repeats: list[bool] = []

    def look(context: Context) -> Done:
        repeats.append(context.is_repeat)
        return Done()

    shop.workflow("make", shop.step("a", look))
    assert shop.run(shop.begin("make"), probe=At(where, crash)).state == "succeeded"
    assert repeats == {"a:begun": [True], "a:acted": [False, True]}[where]


class Times:
    """Notes when a step is called, and answers the same each time."""

    def __init__(self, shop: Shop, answer: Answer) -> None:
        self._start, self._answer = shop.clock.now(), answer
        self.seconds: list[float] = []

    def step(self, context: Context) -> Done | Wait:
        self.seconds.append((context.now() - self._start).total_seconds())
        if isinstance(self._answer, Exception):
            raise self._answer
        assert isinstance(self._answer, Wait)
        return self._answer


@pytest.mark.parametrize("kind", [Unreachable, Busy, Malformed, Unavailable])
def test_what_may_pass_is_tried_again_with_growing_pauses(shop: Shop, kind: type[DriverError]) -> None:
    times = Times(shop, kind("not now"))
    retry = Retry(attempts=6, first_delay_s=1.0, max_delay_s=5.0)
    shop.workflow("make", shop.step("a", times.step, retry=retry))
    operation = shop.run(shop.begin("make"))
    assert times.seconds == [0, 1, 3, 7, 12, 17]
    assert operation.state == "failed"
    assert operation.error is not None
    assert (operation.error["code"], operation.error["step"]) == (kind.code, "a")


@pytest.mark.parametrize(
    ("error", "code"), [(Refused(), "refused"), (Conflict(), "conflict"), (KeyError(), "internal")]
)
def test_what_cannot_pass_is_not_tried_again(shop: Shop, error: Exception, code: str) -> None:
    times = Times(shop, error)
    shop.workflow("make", shop.step("a", times.step))
    operation = shop.run(shop.begin("make"))
    assert times.seconds == [0]
    assert operation.error is not None
    assert operation.error["code"] == code


def test_a_wait_sets_the_count_of_tries_back(shop: Shop) -> None:
    answers: list[Answer] = [Unreachable(), Unreachable(), Wait(seconds=1, reason="soon"), Unreachable(), Unreachable()]
    shop.workflow("make", shop.step("a", *answers, Done(), retry=Retry(attempts=3)))
    assert shop.run(shop.begin("make")).state == "succeeded"


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (Wait(seconds=4, reason="it boots"), [0, 4, 8, 10]),
        (Wait(seconds=3600, reason="it boots"), [0, 10]),
        (Unreachable("it boots"), [0, 4, 8, 10]),
    ],
    ids=["waits", "one long wait", "retries"],
)
def test_the_deadline_holds_over_all_waits_and_retries(shop: Shop, answer: Answer, seconds: list[float]) -> None:
    times, retry = Times(shop, answer), Retry(attempts=100, first_delay_s=4, max_delay_s=4)
    step = shop.step("a", times.step, deadline_s=10, retry=retry, explain=lambda context: "Kernel panic.")
    shop.workflow("make", step)
    operation = shop.run(shop.begin("make"))
    assert times.seconds == seconds
    assert operation.state == "failed"
    assert operation.error is not None
    assert operation.error["explanation"] == "Kernel panic."
    assert "it boots" in operation.reason
    assert operation.error["code"] == ("deadline" if isinstance(answer, Wait) else "unreachable")


def test_done_at_the_last_look_is_done(shop: Shop) -> None:
    shop.workflow("make", shop.step("a", Wait(seconds=3600, reason="slow"), Done(), deadline_s=10))
    assert shop.run(shop.begin("make")).state == "succeeded"


def test_each_step_has_its_own_deadline(shop: Shop) -> None:
    times = Times(shop, Wait(seconds=7, reason="slow"))
    shop.workflow("make", shop.step("a", Wait(seconds=8, reason="slow"), Done(), deadline_s=10))
    shop.workflow(
        "late",
        shop.step("a", Wait(seconds=8, reason="slow"), Done(), deadline_s=10),
        shop.step("b", times.step, deadline_s=10),
    )
    assert shop.run(shop.begin("late")).state == "failed"
    assert times.seconds == [8, 15, 18]


@pytest.mark.parametrize("trouble", [Refused("No console."), KeyError("no")])
def test_a_failing_explanation_hides_nothing(shop: Shop, trouble: Exception) -> None:
    def explain(context: Context) -> str:
        raise trouble

    shop.workflow("make", shop.step("a", Refused("The disk is full."), explain=explain))
    operation = shop.run(shop.begin("make"))
    assert (operation.state, operation.reason) == ("failed", "The disk is full.")
    assert operation.error is not None
    assert "No more is known" in str(operation.error["explanation"])
    assert "console" not in str(operation.error["explanation"])
    assert "unexplained" in str(operation.error["details"])


def test_a_wait_remembers(shop: Shop) -> None:
    def look(context: Context) -> Done | Wait:
        looks = int(str(context.memory.get("looks", 0))) + 1
        if looks == 3:
            return Done(evidence={"looks": looks})
        return Wait(seconds=1, reason="looks again", memory={"looks": looks})

    shop.workflow("make", shop.step("a", look))
    [record] = shop.timeline(shop.run(shop.begin("make")).id)
    assert (record.attempts, record.evidence) == (3, {"looks": 3})


def test_a_wait_ends_when_what_it_waits_for_comes(shop: Shop) -> None:
    shop.workflow("make", shop.step("a", Wait(seconds=3600, reason="slow", resource="boot:1"), Done()))
    operation_id, engine = shop.begin("make"), shop.engine()
    engine.run_due()
    assert (shop.operation(operation_id).resource, engine.run_due()) == ("boot:1", 0)
    with shop.store.transaction() as tx:
        assert tx.operations.wake_all(now=shop.clock.now(), resource="boot:1") == 1
    engine.run_due()
    assert shop.operation(operation_id).state == "succeeded"


def test_a_wake_up_during_the_look_is_not_lost(shop: Shop) -> None:
    node_id = NodeId(new_id())

    def look(context: Context) -> Wait:
        with shop.store.transaction() as tx:
            tx.operations.wake(now=context.now(), node_id=node_id)
        return Wait(seconds=3600, reason="has looked just before it came")

    shop.workflow("make", shop.step("a", look, Done()))
    operation_id, engine = shop.begin("make", node_id=node_id), shop.engine()
    engine.run_due()
    engine.run_due()
    assert shop.operation(operation_id).state == "succeeded"


def test_who_waits_for_an_operation_is_woken_by_its_end(shop: Shop) -> None:
    shop.workflow("first", shop.step("a"))
    first = shop.begin("first")
    waits = Wait(seconds=3600, reason="waits for the first", resource=f"operation:{first}")
    shop.workflow("second", shop.step("b", lambda context: Done() if context.is_repeat else waits))
    with shop.store.transaction() as tx:
        tx.operations.change(first, next_due_at=_in_a_while(shop))
    seconds = [shop.begin("second") for _ in range(3)]
    engine = shop.engine()
    engine.run_due()
    shop.advance(10)
    engine.run_due()
    engine.run_due()
    assert {shop.operation(id).state for id in seconds} == {"succeeded"}


def _in_a_while(shop: Shop) -> datetime:
    shop.advance(5)
    now = shop.clock.now()
    shop.advance(-5)
    return now


def test_a_thousand_waiting_operations_cost_no_thread(shop: Shop, until: Callable[..., None]) -> None:
    def look(context: Context) -> Done | Wait:
        return Done() if context.is_repeat else Wait(seconds=60, reason="the machine boots")

    shop.workflow("make", shop.step("a", look))
    with shop.store.transaction() as tx:
        for _ in range(1000):
            tx.operations.add(_pending(shop))
    worker = Worker(shop.engine(), threads=4)
    worker.start()
    try:
        until(lambda: _count(shop, OperationState.WAITING) == 1000, seconds=60)
        assert sum(thread.name.startswith(OURS) for thread in threading.enumerate()) <= 4 + 3
        shop.advance(60)
        shop.store.signal("work")
        until(lambda: _count(shop, OperationState.SUCCEEDED) == 1000, seconds=60)
    finally:
        worker.stop()


def _pending(shop: Shop) -> Operation:
    return values.operation(kind="make", next_due_at=shop.clock.now())


def _count(shop: Shop, state: OperationState) -> int:
    with shop.store.reading() as tx:
        return tx.operations.count(state=state)


def test_what_is_tried_for_days_still_has_a_pause() -> None:
    assert Retry(first_delay_s=0.5, max_delay_s=15.0).delay_s(100_000) == 15.0
    assert Retry(first_delay_s=0.5, max_delay_s=15.0).delay_s(2) == 1.0
