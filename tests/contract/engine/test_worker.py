"""A worker process: quiet when idle, quick when woken, patient with its database, tidy when it stops."""

import gc
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import datetime

import pytest
from tests.conftest import KEY
from tests.contract.engine.restarting import RestartingPostgres, restarting_postgres
from tests.contract.engine.shop import Shop, has, working

from malleable.domain.errors import Unavailable
from malleable.domain.ids import OperationId
from malleable.domain.operations import Operation, OperationState, Wait
from malleable.domain.store import WORK
from malleable.store import SqlStore, open_store
from malleable.store.migrate import upgrade
from malleable.wiring.clock import SystemClock
from malleable.workflows.boundary import Begun
from malleable.workflows.engine import Engine
from malleable.workflows.steps import Context, Done
from malleable.workflows.worker import Worker

Until = Callable[..., None]

IDLE_S = 5.0


def test_work_begins_at_once_and_ends_by_itself(live: Shop, until: Until) -> None:
    live.workflow("make", live.step("a"), live.step("b", Wait(seconds=0.2, reason="boots"), Done()))
    with working(live.engine()):
        until(lambda: live.store.wait(WORK, 0, 0) >= 0, seconds=5)
        began_s = time.monotonic()
        until(has(live, live.begin("make"), "succeeded"), seconds=5)
        assert time.monotonic() - began_s < 1.5


def _cpu_s(threads: Iterable[threading.Thread]) -> float:
    clocks = [time.pthread_getcpuclockid(thread.ident) for thread in threads if thread.ident]
    return sum(time.clock_gettime(clock) for clock in clocks)


@pytest.mark.parametrize("waiting", [0, 100])
def test_an_idle_worker_asks_less_than_once_a_second_and_uses_no_cpu(
    live: Shop, store: SqlStore, until: Until, waiting: int
) -> None:
    live.workflow("make", live.step("a", Wait(seconds=3600, reason="boots"), deadline_s=7200))
    statements = Counter[str]()
    ids = [live.begin("make") for _ in range(waiting)]
    others = set(threading.enumerate())
    with working(live.engine()):
        until(lambda: all(live.operation(id).state == "waiting" for id in ids), seconds=30)
        threading.Event().wait(1.0)  # the last leases are renewed, the last signals heard
        store.database.statements.heard = lambda sql: statements.update([sql])
        gc.collect()  # of what other tests left: not the worker's to pay
        own = set(threading.enumerate()) - others
        cpu_s = _cpu_s(own)
        threading.Event().wait(IDLE_S)
        cpu_s = _cpu_s(own) - cpu_s
    assert {"dispatch", "keep-leases"} <= {thread.name for thread in own}
    assert statements.total() < IDLE_S, statements
    assert cpu_s < IDLE_S / 100


def test_what_falls_due_before_the_next_look_is_known_without_one(live: Shop, store: SqlStore, until: Until) -> None:
    """Whoever leaves an operation waiting says until when: there is nothing to ask the database before."""
    entered, may_wait = threading.Event(), threading.Event()

    def wait_a_little(context: Context) -> Wait:
        entered.set()
        assert may_wait.wait(20)
        return Wait(seconds=0.5, reason="boots")

    live.workflow("make", live.step("a", wait_a_little, Done()))
    looks: list[str] = []
    store.database.statements.heard = lambda sql: looks.append(sql) if sql.startswith("SELECT min(") else None
    with working(live.engine()):
        operation_id = live.begin("make")
        assert entered.wait(10)
        until(lambda: len(looks) >= 2, seconds=10)
        threading.Event().wait(0.1)  # it has looked once more since it claimed, and rests
        before = len(looks)
        may_wait.set()
        until(has(live, operation_id, "succeeded"), seconds=10)
    store.database.statements.heard = None
    assert len(looks) - before <= 2, "one that finds it, and one that finds no more"


def test_stop_finishes_the_step_at_hand_and_leaves_the_rest(live: Shop, until: Until) -> None:
    """The lease is held meanwhile, however long it takes, and the next worker begins at the next step."""
    entered, may_end = threading.Event(), threading.Event()

    def slow(context: Context) -> Done:
        entered.set()
        assert may_end.wait(20)
        return Done(evidence={"finished": True})

    live.workflow("make", live.step("a", slow), live.step("b"), live.step("c"))
    worker = Worker(live.engine(lease_s=0.3), threads=2)
    worker.start()
    operation_id, other = live.begin("make"), live.engine()
    assert entered.wait(10)
    stopping = threading.Thread(target=worker.stop)
    stopping.start()
    stopping.join(1.0)
    assert stopping.is_alive()
    assert other.run_due() == 0
    may_end.set()
    stopping.join(10)
    assert not stopping.is_alive()

    assert live.calls == ["a"]
    operation = live.operation(operation_id)
    assert (operation.state, operation.step, operation.worker) == ("waiting", "b", "")
    assert other.run_due() == 1
    assert live.operation(operation_id).state == "succeeded"
    assert [record.attempts for record in live.timeline(operation_id)] == [1, 1, 1]


def test_stop_returns_at_once_when_nothing_is_at_hand(live: Shop) -> None:
    before = threading.active_count()
    worker = Worker(live.engine(), threads=2)
    worker.start()
    began_s = time.monotonic()
    worker.stop()
    assert time.monotonic() - began_s < 1.0
    assert threading.active_count() <= before + 1  # LISTEN is the store's


def test_a_long_step_keeps_its_lease(live: Shop, until: Until) -> None:
    entered, may_end = threading.Event(), threading.Event()

    def slow(context: Context) -> Done:
        assert not context.is_repeat
        entered.set()
        assert may_end.wait(20)
        return Done()

    live.workflow("make", live.step("a", slow))
    operation_id, other = live.begin("make"), live.engine()
    with working(live.engine(lease_s=0.3)):
        assert entered.wait(10)
        for _ in range(4):
            threading.Event().wait(0.3)
            assert other.run_due() == 0
        may_end.set()
        until(has(live, operation_id, "succeeded"), seconds=5)


def test_what_the_database_interrupted_goes_on_soon_however_busy_the_worker_is(live: Shop, until: Until) -> None:
    """Its lease must not be renewed for ever along with those of the steps at hand."""
    may_end, troubles = threading.Event(), [Unavailable("The database went away.")]

    def on_done(tx: object, operation: Operation, now: object) -> None:
        if troubles:
            raise troubles.pop()

    live.workflow("long", live.step("a", lambda context: Done(evidence={"in time": may_end.wait(20)})))
    live.workflow("make", live.step("a"), on_done=on_done)
    with working(live.engine(lease_s=1.0)):
        long = live.begin("long")
        until(has(live, long, "running"), seconds=5)
        until(has(live, live.begin("make"), "succeeded"), seconds=5)
        may_end.set()
        until(has(live, long, "succeeded"), seconds=5)


def test_a_process_that_slept_past_its_lease_does_not_ask_a_device_twice_at_once(live: Shop, until: Until) -> None:
    inside: list[str] = []
    entered, may_end = threading.Event(), threading.Event()

    def slow(context: Context) -> Done:
        inside.append("in")
        assert inside.count("in") - inside.count("out") == 1
        entered.set()
        assert may_end.wait(20)
        inside.append("out")
        return Done()

    live.workflow("make", live.step("a", slow))
    operation_id = live.begin("make")
    with working(live.engine()):
        assert entered.wait(10)
        with live.store.transaction() as tx:  # as if nobody had renewed it for long
            tx.operations.change(operation_id, lease_expires_at=live.clock.now().replace(year=2020))
            tx.notify(WORK)
        until(lambda: live.operation(operation_id).fence == 2, seconds=10)
        may_end.set()
        until(has(live, operation_id, "succeeded"), seconds=10)
    assert inside == ["in", "out"] * 2


def test_no_defect_ends_who_hands_out_work_or_keeps_leases(live: Shop, until: Until) -> None:
    troubles = {"claim": [RuntimeError("claim")], "keep": [RuntimeError("keep")], "walk": [RuntimeError("walk")]}

    class Troubled(Engine):
        def claim(self, limit: int) -> tuple[Operation, ...]:
            _meet(troubles["claim"])
            return super().claim(limit)

        def keep(self, ids: Collection[OperationId]) -> None:
            _meet(troubles["keep"])
            super().keep(ids)

        def walk(self, operation: Operation, begun: Begun | None = None) -> datetime | None:
            _meet(troubles["walk"])
            return super().walk(operation, begun)

    may_end = threading.Event()
    live.workflow("make", live.step("a", lambda context: Done(evidence={"in time": may_end.wait(20)})))
    with working(live.engine(Troubled, lease_s=0.6)):
        operation_id = live.begin("make")
        until(lambda: not any(troubles.values()), seconds=15)
        may_end.set()
        until(has(live, operation_id, "succeeded"), seconds=10)


def _meet(troubles: list[RuntimeError]) -> None:
    if troubles:
        raise troubles.pop()


@pytest.fixture
def restarting() -> Iterator[RestartingPostgres]:
    with restarting_postgres() as server:
        yield server


def test_a_restart_of_the_database_kills_no_worker_and_fails_no_operation(
    restarting: RestartingPostgres, until: Until
) -> None:
    upgrade(restarting.url)
    store = open_store(restarting.url, KEY)
    shop = Shop(store, clock=SystemClock())
    entered, may_end = threading.Event(), threading.Event()

    def reads(context: Context) -> Done:
        entered.set()
        assert may_end.wait(30)
        with context.store.reading() as tx:
            return Done(evidence={"operations": tx.operations.count()})

    shop.workflow("make", shop.step("a"), shop.step("b", reads), shop.step("c"))
    with working(shop.engine(), threads=4):
        ids = [shop.begin("make") for _ in range(3)]
        assert entered.wait(10)
        restarting.stop()
        may_end.set()  # the steps at hand meet a database that is away
        threading.Event().wait(1.5)
        restarting.start()
        until(lambda: _count(store, OperationState.SUCCEEDED) == len(ids), seconds=20)
        until(has(shop, shop.begin("make"), "succeeded"), seconds=5)
    store.close()


def _count(store: SqlStore, state: OperationState) -> int:
    try:
        with store.reading() as tx:
            return tx.operations.count(state=state)
    except Unavailable:
        return 0
