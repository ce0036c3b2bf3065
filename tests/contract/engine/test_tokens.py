"""Concurrency tokens: few at one resource at once, across all workers; a dead one delays only its own."""

import threading
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest
from tests.conftest import KEY
from tests.contract.engine.shop import Shop

from malleable.domain.errors import Unreachable
from malleable.domain.ids import OperationId
from malleable.domain.operations import Operation, OperationState, Retry, Wait
from malleable.domain.store import Store
from malleable.store import open_store
from malleable.wiring.clock import SystemClock
from malleable.workflows.boundary import RESOURCE_RECHECK_S
from malleable.workflows.steps import Context, Done
from malleable.workflows.worker import Worker


def _switch(operation: Operation) -> str:
    return f"switch:{operation.arguments['switch']}"


class Crowd:
    """A step that knows how many are inside it, per resource."""

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), Counter[str]()
        self.most: Counter[str] = Counter()

    def step(self, context: Context) -> Done:
        name = _switch(context.operation)
        with self._lock:
            self._inside[name] += 1
            self.most[name] = max(self.most[name], self._inside[name])
        threading.Event().wait(0.01)  # long enough for others to come in, if they could
        with self._lock:
            self._inside[name] -= 1
        return Done()


def _work(shop: Shop, stores: list[Store], ids: list[OperationId], until: Callable[..., None]) -> None:
    """Walk operations on several real workers."""
    workers = [
        Worker(Shop(store, shop.clock, shop.workflows, shop.limits).engine(worker=str(i)), threads=4)
        for i, store in enumerate(stores)
    ]
    for worker in workers:
        worker.start()
    try:
        until(lambda: _count(shop, OperationState.SUCCEEDED) == len(ids), seconds=60)
    finally:
        for worker in workers:
            worker.stop()


def _count(shop: Shop, state: OperationState) -> int:
    with shop.store.reading() as tx:
        return tx.operations.count(state=state)


def test_a_limit_holds_across_two_workers(shop: Shop, store_url: str, until: Callable[..., None]) -> None:
    crowd = Crowd()
    shop.clock, shop.limits = SystemClock(), {"switch": 1, "pool": 3}
    shop.workflow("one", shop.step("a", crowd.step, resource=_switch))
    shop.workflow("three", shop.step("a", crowd.step, resource=lambda operation: "pool:3"))
    ids = [shop.begin("one", switch=number % 2) for number in range(20)]
    ids += [shop.begin("three", switch="pool") for _ in range(20)]
    other = open_store(store_url, KEY)
    _work(shop, [shop.store, other], ids, until)
    other.close()
    assert crowd.most["switch:0"] == crowd.most["switch:1"] == 1
    assert 1 <= crowd.most["switch:pool"] <= 3


def test_a_dead_switch_delays_only_its_own_ports(shop: Shop, until: Callable[..., None]) -> None:
    answered, stuck = threading.Event(), threading.Event()

    def connect(context: Context) -> Done:
        if context.argument("switch") == "dead":
            stuck.set()
            assert answered.wait(30)
        return Done()

    shop.clock, shop.limits = SystemClock(), {"switch": 1}
    shop.workflow("attach", shop.step("a", connect, resource=_switch))
    dead = [shop.begin("attach", switch="dead") for _ in range(10)]
    alive = [shop.begin("attach", switch="alive") for _ in range(10)]
    worker = Worker(shop.engine(lease_s=30.0), threads=2)  # one of them is held by the dead switch, the other works
    worker.start()
    try:
        assert stuck.wait(10)
        until(lambda: all(shop.operation(id).state == "succeeded" for id in alive), seconds=10)
        waiting = [shop.operation(id) for id in dead]
        assert sorted(operation.state for operation in waiting) == ["running"] + ["waiting"] * 9
        assert {operation.reason for operation in waiting} == {"", "waits for its turn at switch:dead"}
        answered.set()
        until(lambda: all(shop.operation(id).state == "succeeded" for id in dead), seconds=20)
    finally:
        answered.set()
        worker.stop()


def test_a_switch_that_does_not_answer_fails_only_its_own_ports(shop: Shop) -> None:
    def connect(context: Context) -> Done:
        if context.argument("switch") == "dead":
            raise Unreachable("No answer.")
        return Done()

    shop.limits = {"switch": 1}
    shop.workflow("attach", shop.step("a", connect, resource=_switch, retry=Retry(attempts=3)))
    ids = [shop.begin("attach", switch=name) for name in ("dead", "alive") * 5]
    shop.engine().run_due()
    assert [shop.operation(id).state for id in ids[1::2]] == ["succeeded"] * 5
    shop.run(*ids)
    assert [shop.operation(id).state for id in ids[::2]] == ["failed"] * 5


def test_the_oldest_has_its_turn_first_and_at_once(shop: Shop) -> None:
    turns: list[OperationId] = []
    shop.limits = {"switch": 1}
    engines = [shop.engine() for _ in range(2)]

    def crowd(context: Context) -> Done:
        turns.append(context.operation.id)
        if len(turns) == 1:
            engines[1].run_due()  # all the others find it taken, youngest first
        return Done()

    shop.workflow("attach", shop.step("a", crowd, resource=_switch), shop.step("b"))
    ids = [shop.begin("attach", switch="x") for _ in range(5)]
    with shop.store.transaction() as tx:
        for age, id in enumerate(ids[1:]):
            tx.operations.change(id, next_due_at=shop.clock.now().replace(microsecond=1000 - age * 100))
    shop.advance(0.01)
    started = shop.clock.now()
    while engines[0].run_due(1):
        pass
    assert turns == ids
    assert shop.clock.now() == started  # woken by whom they waited for, not by time


def _hold(shop: Shop, name: str) -> OperationId:
    """Let an operation that nobody walks hold a token."""
    holder = shop.begin("holder")
    [claimed] = shop.engine(lease_s=3600.0).claim(1)
    with shop.store.transaction() as tx:
        assert tx.operations.take_resource(name, 1, holder, claimed.fence)
    return holder


def test_a_lost_wake_up_is_repaired_by_looking_again(shop: Shop) -> None:
    shop.limits = {"switch": 1}
    shop.workflow("attach", shop.step("a", resource=_switch))
    holder, engine = _hold(shop, "switch:x"), shop.engine()
    waits = shop.begin("attach", switch="x")
    engine.run_due()
    with shop.store.transaction() as tx:
        tx.operations.release_resources(holder)  # and wakes nobody
    assert engine.run_due() == 0
    shop.advance(RESOURCE_RECHECK_S)
    engine.run_due()
    assert shop.operation(waits).state == "succeeded"


def test_waiting_for_a_turn_is_no_try_and_takes_no_time_from_the_step(shop: Shop) -> None:
    shop.limits = {"switch": 1}
    boots = Wait(seconds=4, reason="boots")
    shop.workflow("attach", shop.step("a", boots, Done(), resource=_switch, deadline_s=5))
    holder, waits, engine = _hold(shop, "switch:x"), shop.begin("attach", switch="x"), shop.engine()
    for _ in range(5):
        engine.run_due()
        shop.advance(RESOURCE_RECHECK_S)
    operation = shop.operation(waits)
    assert (operation.state, operation.step, operation.attempt) == ("waiting", "a", 0)
    assert shop.timeline(waits) == ()
    with shop.store.transaction() as tx:
        tx.operations.release_resources(holder)
    engine.run_due()
    assert shop.operation(waits).reason == "boots"
    assert shop.run(waits).state == "succeeded"
    assert [record.attempts for record in shop.timeline(waits)] == [2]


def test_who_is_cancelled_when_it_is_its_turn_passes_the_turn_on(shop: Shop) -> None:
    shop.limits = {"switch": 1}
    shop.workflow("attach", shop.step("a", undo=None, resource=_switch))
    holder, engine = _hold(shop, "switch:x"), shop.engine()
    first, second = shop.begin("attach", switch="x"), shop.begin("attach", switch="x")
    engine.run_due()
    with shop.store.transaction() as tx:
        for name in tx.operations.release_resources(holder):
            tx.operations.wake(now=shop.clock.now(), resource=name)
    shop.cancel(first)
    engine.run_due()
    engine.run_due()
    assert [shop.operation(id).state for id in (first, second)] == ["cancelled", "succeeded"]


@pytest.mark.parametrize(("second", "expected"), [("x", ["x1", "x2", "y1"]), ("z", ["x1", "y1", "x2"])])
def test_a_token_is_kept_between_steps_at_one_resource_and_given_back_otherwise(
    shop: Shop, second: str, expected: list[str]
) -> None:
    order: list[str] = []
    shop.limits = {"switch": 1}
    engines = [shop.engine() for _ in range(2)]

    def note(name: str, context: Context) -> Done:
        engines[1].run_due()  # who else is due comes first, if it can
        order.append(name)
        return Done()

    at_x, at_second = (lambda operation: "switch:x"), (lambda operation: f"switch:{second}")
    shop.workflow("y", shop.step("1", partial(note, "y1"), resource=at_x))
    shop.workflow(
        "x", shop.step("1", partial(note, "x1"), resource=at_x), shop.step("2", partial(note, "x2"), resource=at_second)
    )
    x, y = shop.begin("x"), shop.begin("y")
    engines[0].run_due(1)
    shop.run(x, y)
    assert order == expected
    assert shop.operation(y).fence == 2  # it found the token taken once, and was not called again to find it so
