"""What a worker's own process has it do at once: new operations, and what its transactions wake."""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

from tests.contract.engine.shop import Shop, has, working

from malleable.domain.errors import Conflict
from malleable.domain.ids import OperationId
from malleable.domain.operations import Operation, Wait
from malleable.domain.store import Transaction
from malleable.workflows import requests
from malleable.workflows.boundary import Begun
from malleable.workflows.engine import Engine
from malleable.workflows.steps import Context, Done
from malleable.workflows.worker import Worker

Until = Callable[..., None]

IDLE_S = 5.0


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


def test_an_asker_finds_a_thread_while_claims_are_handed_out(live: Shop) -> None:
    """What is claimed takes the thread that was kept for it, not another one beside that."""
    half_way, may_end = threading.Event(), threading.Event()

    class Slowly(tuple[Operation, ...]):
        def __iter__(self) -> Iterator[Operation]:
            for operation in super().__iter__():
                yield operation
                half_way.set()
                assert may_end.wait(20)

    class SlowEngine(Engine):
        def claim(self, limit: int) -> tuple[Operation, ...]:
            return Slowly(super().claim(limit))

    def slow(_: Context) -> Done:
        assert may_end.wait(20)
        return Done()

    live.workflow("make", live.step("a", slow))
    live.begin("make")
    with working(live.engine(SlowEngine), threads=4) as worker:
        assert half_way.wait(10)
        _, begun = _begin_here(live, worker, "make")
        may_end.set()
        assert begun is not None
        worker.walk_soon(begun)


def test_what_its_asker_begins_is_done_when_the_asker_goes_on(live: Shop) -> None:
    live.workflow("make", live.step("a"), live.step("b"))
    with working(live.engine()) as worker:
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
    with working(live.engine(lease_s=0.3), threads=1) as worker:
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
        until(has(live, hanging_id, "succeeded"), seconds=5)


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
    with working(live.engine()) as worker:
        with worker.claiming() as claim:
            with live.store.transaction() as tx:
                _wake(tx, live)
                claim(tx)
                assert live.calls == ["a"]
            assert live.engine().claim(10) == ()
            assert live.operation(operation_id).state == "running"
        until(has(live, operation_id, "succeeded"), seconds=5)
    assert live.operation(operation_id).fence == 2


def test_what_is_woken_and_rolled_back_waits_on_and_keeps_no_thread(live: Shop, until: Until) -> None:
    operation_id = _waiting(live)
    with working(live.engine(), threads=1) as worker:
        with suppress(Conflict), worker.claiming() as claim, live.store.transaction() as tx:
            _wake(tx, live)
            claim(tx)
            raise Conflict
        assert live.operation(operation_id).state == "waiting"
        with worker.claiming() as claim, live.store.transaction() as tx:
            _wake(tx, live)
            claim(tx)
        until(has(live, operation_id, "succeeded"), seconds=5)


def test_what_is_woken_where_no_worker_runs_is_left_to_another(live: Shop, until: Until) -> None:
    operation_id = _waiting(live)
    with working(live.engine()):
        with Worker(live.engine()).claiming() as claim, live.store.transaction() as tx:
            _wake(tx, live)
            claim(tx)
        until(has(live, operation_id, "succeeded"), seconds=5)


def test_blocks_at_once_claim_no_more_than_there_are_threads(live: Shop, until: Until) -> None:
    first_id, second_id = _waiting(live), _waiting(live)
    with working(live.engine(), threads=1) as worker:
        with worker.claiming() as claim:
            with live.store.transaction() as tx:
                assert tx.operations.wake_all(now=live.clock.now(), resource="network:1") == 2
                claim(tx)
            # One is claimed and not walked yet. No second block may claim another one for the same thread.
            with worker.claiming() as other_claim, live.store.transaction() as tx:
                other_claim(tx)
            states = [live.operation(id).state for id in (first_id, second_id)]
            assert sorted(states) == ["running", "waiting"]
        until(has(live, first_id, "succeeded"), seconds=5)
        until(has(live, second_id, "succeeded"), seconds=5)


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
