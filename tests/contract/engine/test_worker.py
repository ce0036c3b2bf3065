"""A worker process: quiet when idle, quick when woken, patient with its database, tidy when it stops."""

import gc
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime

import pytest
from tests.conftest import KEY
from tests.contract.engine.restarting import RestartingPostgres, restarting_postgres
from tests.contract.engine.shop import Shop

from malleable.domain.errors import Conflict, Unavailable
from malleable.domain.ids import OperationId
from malleable.domain.operations import Operation, OperationState, Wait
from malleable.domain.store import WORK, Transaction
from malleable.store import SqlStore, open_store
from malleable.store.migrate import upgrade
from malleable.wiring.clock import SystemClock
from malleable.workflows import requests
from malleable.workflows.boundary import Begun
from malleable.workflows.engine import Engine
from malleable.workflows.steps import Context, Done
from malleable.workflows.worker import Worker

Until = Callable[..., None]

IDLE_S = 5.0


@contextmanager
def _working(engine: Engine, *, threads: int = 2) -> Iterator[Worker]:
    worker = Worker(engine, threads=threads)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


@pytest.fixture
def live(shop: Shop) -> Shop:
    """A workshop in real time."""
    shop.clock = SystemClock()
    return shop


def _has(shop: Shop, operation_id: OperationId, state: str) -> Callable[[], bool]:
    return lambda: shop.operation(operation_id).state == state


def test_work_begins_at_once_and_ends_by_itself(live: Shop, until: Until) -> None:
    live.workflow("make", live.step("a"), live.step("b", Wait(seconds=0.2, reason="boots"), Done()))
    with _working(live.engine()):
        until(lambda: live.store.wait(WORK, 0, 0) >= 0, seconds=5)
        began_s = time.monotonic()
        until(_has(live, live.begin("make"), "succeeded"), seconds=5)
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
    with _working(live.engine()):
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
    with _working(live.engine()):
        operation_id = live.begin("make")
        assert entered.wait(10)
        until(lambda: len(looks) >= 2, seconds=10)
        threading.Event().wait(0.1)  # it has looked once more since it claimed, and rests
        before = len(looks)
        may_wait.set()
        until(_has(live, operation_id, "succeeded"), seconds=10)
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


def _begin_here(shop: Shop, worker: Worker, kind: str) -> tuple[OperationId, Begun | None]:
    with shop.store.transaction() as tx:
        operation = requests.begin(tx, shop.clock.now(), kind, adds=False)
        return operation.id, worker.enter(tx, operation)


def test_an_asker_finds_a_thread_while_the_dispatcher_claims(live: Shop) -> None:
    """SQLite makes the dispatcher wait for the transaction in which the asker's operation is added."""
    live.workflow("make", live.step("a"))
    with live.store.transaction() as tx:
        requests.begin(tx, live.clock.now(), "make")
    worker = Worker(live.engine(), threads=4)
    try:
        with live.store.transaction() as tx:
            operation = requests.begin(tx, live.clock.now(), "make", adds=False)
            worker.start()
            threading.Event().wait(0.3)
            begun = worker.enter(tx, operation)
        assert begun is not None
        worker.walk_soon(begun)
        assert live.operation(operation.id).state == "succeeded"
    finally:
        worker.stop()


def test_what_its_asker_begins_is_done_when_the_asker_goes_on(live: Shop) -> None:
    live.workflow("make", live.step("a"), live.step("b"))
    with _working(live.engine()) as worker:
        operation_id, begun = _begin_here(live, worker, "make")
        assert begun is not None
        worker.walk_soon(begun)
        operation = live.operation(operation_id)
    assert (operation.state, operation.fence) == ("succeeded", 1)
    assert live.calls == ["a", "b", "[done]"]


def test_an_asker_does_not_wait_for_what_hangs(live: Shop, until: Until) -> None:
    """Its lease is kept meanwhile: no other worker begins it again."""
    entered, may_end = threading.Event(), threading.Event()

    def slow(context: Context) -> Done:
        entered.set()
        assert may_end.wait(20)
        return Done()

    live.workflow("make", live.step("a", slow))
    other = live.engine()
    with _working(live.engine(lease_s=0.3), threads=1) as worker:
        hanging_id, begun = _begin_here(live, worker, "make")
        assert begun is not None
        worker.walk_soon(begun)
        assert entered.wait(10)
        assert live.operation(hanging_id).state == "running"
        # The only thread is taken: this one is for any worker, and nobody waits for it.
        next_id, begun = _begin_here(live, worker, "make")
        assert begun is None
        assert live.operation(next_id).state == "pending"
        threading.Event().wait(0.6)
        assert len(other.claim(10)) == 1
        may_end.set()
        until(_has(live, hanging_id, "succeeded"), seconds=5)


def test_what_an_asker_began_and_died_goes_on_elsewhere(shop: Shop) -> None:
    shop.workflow("make", shop.step("a"))
    with shop.store.transaction() as tx:
        operation = requests.begin(tx, shop.clock.now(), "make", adds=False)
        assert shop.engine().enter(tx, operation) is not None
    assert shop.engine().run_due() == 0
    ended = shop.run(operation.id)
    assert (ended.state, ended.fence) == ("succeeded", 2)
    assert [record.attempts for record in shop.timeline(operation.id)] == [2]


def test_what_waits_for_its_turn_is_not_begun_by_its_asker(shop: Shop) -> None:
    shop.limits = {"pool": 1}
    shop.workflow("make", shop.step("a", resource=lambda _: "pool:default"))
    engine, ids, begun = shop.engine(), [], []
    for _ in range(2):
        with shop.store.transaction() as tx:
            operation = requests.begin(tx, shop.clock.now(), "make", adds=False)
            begun.append(engine.enter(tx, operation))
            ids.append(operation.id)
    assert begun[0] is not None
    assert begun[1] is None
    engine.walk(begun[0].operation, begun[0])
    assert [shop.operation(id).state for id in ids] == ["succeeded", "waiting"]
    assert shop.engine().run_due() == 1
    assert shop.operation(ids[1]).state == "succeeded"


def test_a_worker_that_does_not_run_begins_nothing(live: Shop) -> None:
    live.workflow("make", live.step("a"))
    operation_id, begun = _begin_here(live, Worker(live.engine()), "make")
    assert begun is None
    assert live.operation(operation_id).state == "pending"


def _refuses(worker: Worker) -> bool:
    """Say whether a worker that stops takes no more."""
    try:
        worker._pool.submit(int)
    except RuntimeError:
        return True
    return False


def _waiting(shop: Shop) -> OperationId:
    """Make an operation that waits for a network for a minute, and then is at its end."""
    shop.workflow("make", shop.step("a", Wait(seconds=60, reason="asked", resource="network:1"), Done()))
    operation_id = shop.begin("make")
    assert shop.engine().run_due() == 1
    return operation_id


def _wake(tx: Transaction, shop: Shop) -> None:
    assert tx.operations.wake_all(now=shop.clock.now(), resource="network:1") == 1


def test_what_is_woken_here_is_claimed_with_that_and_walked_once_it_is_committed(live: Shop, until: Until) -> None:
    operation_id = _waiting(live)
    with _working(live.engine()) as worker:
        with worker.claiming() as claim:
            with live.store.transaction() as tx:
                _wake(tx, live)
                claim(tx)
                assert live.calls == ["a"]
            assert live.engine().claim(10) == ()
            assert live.operation(operation_id).state == "running"
        until(_has(live, operation_id, "succeeded"), seconds=5)
    assert live.operation(operation_id).fence == 2


def test_what_is_woken_and_rolled_back_waits_on_and_keeps_no_thread(live: Shop, until: Until) -> None:
    operation_id = _waiting(live)
    with _working(live.engine(), threads=1) as worker:
        with suppress(Conflict), worker.claiming() as claim, live.store.transaction() as tx:
            _wake(tx, live)
            claim(tx)
            raise Conflict
        assert live.operation(operation_id).state == "waiting"
        with worker.claiming() as claim, live.store.transaction() as tx:
            _wake(tx, live)
            claim(tx)
        until(_has(live, operation_id, "succeeded"), seconds=5)


def test_what_is_woken_where_no_worker_runs_is_left_to_another(live: Shop, until: Until) -> None:
    operation_id = _waiting(live)
    with _working(live.engine()):
        with Worker(live.engine()).claiming() as claim, live.store.transaction() as tx:
            _wake(tx, live)
            claim(tx)
        until(_has(live, operation_id, "succeeded"), seconds=5)


def test_blocks_at_once_claim_no_more_than_there_are_threads(live: Shop, until: Until) -> None:
    first_id, second_id = _waiting(live), _waiting(live)
    with _working(live.engine(), threads=1) as worker:
        with worker.claiming() as claim:
            with live.store.transaction() as tx:
                assert tx.operations.wake_all(now=live.clock.now(), resource="network:1") == 2
                claim(tx)
            # One is claimed and not walked yet. No second block may claim another one for the same thread.
            with worker.claiming() as other_claim, live.store.transaction() as tx:
                other_claim(tx)
            states = [live.operation(id).state for id in (first_id, second_id)]
            assert sorted(states) == ["running", "waiting"]
        until(_has(live, first_id, "succeeded"), seconds=5)
        until(_has(live, second_id, "succeeded"), seconds=5)


def test_what_was_claimed_by_a_worker_that_stopped_meanwhile_goes_on_elsewhere(shop: Shop) -> None:
    operation_id = _waiting(shop)
    worker = Worker(shop.engine(), threads=2)
    worker.start()
    with worker.claiming() as claim:
        with shop.store.transaction() as tx:
            _wake(tx, shop)
            claim(tx)
        worker.stop()
    assert shop.run(operation_id).state == "succeeded"


def test_what_is_handed_out_to_a_worker_that_ends_a_long_step_goes_on_elsewhere(live: Shop, until: Until) -> None:
    entered, may_end = threading.Event(), threading.Event()

    def slow(_: Context) -> Done:
        entered.set()
        assert may_end.wait(20)
        return Done()

    live.workflow("long", live.step("s", slow))
    operation_id = _waiting(live)
    worker = Worker(live.engine(lease_s=0.6), threads=2)
    worker.start()
    live.begin("long")
    assert entered.wait(10)
    with worker.claiming() as claim:
        with live.store.transaction() as tx:
            _wake(tx, live)
            claim(tx)
        ending = threading.Thread(target=worker.stop)
        ending.start()
        until(lambda: _refuses(worker), seconds=5)
    other = live.engine()
    until(lambda: operation_id in [one.id for one in other.claim(10)], seconds=5)
    may_end.set()
    ending.join(10)


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
    with _working(live.engine(lease_s=0.3)):
        assert entered.wait(10)
        for _ in range(4):
            threading.Event().wait(0.3)
            assert other.run_due() == 0
        may_end.set()
        until(_has(live, operation_id, "succeeded"), seconds=5)


def test_what_the_database_interrupted_goes_on_soon_however_busy_the_worker_is(live: Shop, until: Until) -> None:
    """Its lease must not be renewed for ever along with those of the steps at hand."""
    may_end, troubles = threading.Event(), [Unavailable("The database went away.")]

    def on_done(tx: object, operation: Operation, now: object) -> None:
        if troubles:
            raise troubles.pop()

    live.workflow("long", live.step("a", lambda context: Done(evidence={"in time": may_end.wait(20)})))
    live.workflow("make", live.step("a"), on_done=on_done)
    with _working(live.engine(lease_s=1.0)):
        long = live.begin("long")
        until(_has(live, long, "running"), seconds=5)
        until(_has(live, live.begin("make"), "succeeded"), seconds=5)
        may_end.set()
        until(_has(live, long, "succeeded"), seconds=5)


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
    with _working(live.engine()):
        assert entered.wait(10)
        with live.store.transaction() as tx:  # as if nobody had renewed it for long
            tx.operations.change(operation_id, lease_expires_at=live.clock.now().replace(year=2020))
            tx.notify(WORK)
        until(lambda: live.operation(operation_id).fence == 2, seconds=10)
        may_end.set()
        until(_has(live, operation_id, "succeeded"), seconds=10)
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
    with _working(live.engine(Troubled, lease_s=0.6)):
        operation_id = live.begin("make")
        until(lambda: not any(troubles.values()), seconds=15)
        may_end.set()
        until(_has(live, operation_id, "succeeded"), seconds=10)


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
    with _working(shop.engine(), threads=4):
        ids = [shop.begin("make") for _ in range(3)]
        assert entered.wait(10)
        restarting.stop()
        may_end.set()  # the steps at hand meet a database that is away
        threading.Event().wait(1.5)
        restarting.start()
        until(lambda: _count(store, OperationState.SUCCEEDED) == len(ids), seconds=20)
        until(_has(shop, shop.begin("make"), "succeeded"), seconds=5)
    store.close()


def _count(store: SqlStore, state: OperationState) -> int:
    try:
        with store.reading() as tx:
            return tx.operations.count(state=state)
    except Unavailable:
        return 0
