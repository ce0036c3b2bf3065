"""Concurrency tokens."""

import threading

import pytest
from tests.contract.store import values
from tests.contract.store.values import NOW, later

from malleable.domain.errors import FenceLost
from malleable.domain.operations import Operation, OperationState
from malleable.store import SqlStore

S = OperationState
R = "switch:1"


def running(store: SqlStore, count: int) -> list[Operation]:
    with store.transaction() as tx:
        for _ in range(count):
            tx.operations.add(values.operation())
        return list(tx.operations.claim("w1", NOW, 60, count))


def take(store: SqlStore, operation: Operation, limit: int = 1, resource: str = R) -> bool:
    with store.transaction() as tx:
        return tx.operations.take_resource(resource, limit, operation.id, operation.fence)


def test_there_are_as_many_tokens_as_the_limit(store: SqlStore) -> None:
    one, two, three = running(store, 3)
    assert take(store, one, limit=2)
    assert take(store, two, limit=2)
    assert not take(store, three, limit=2)
    assert take(store, three, resource="switch:2")
    assert take(store, one, limit=2), "held again"
    with store.transaction() as tx:
        assert tx.operations.release_resources(one.id) == (R,)
        assert tx.operations.release_resources(one.id) == ()
    assert take(store, three, limit=2)
    with store.transaction() as tx:
        assert tx.operations.release_resources(three.id) == (R, "switch:2")


@pytest.mark.parametrize("state", [S.SUCCEEDED, S.FAILED, S.CANCELLED, S.NEEDS_OPERATOR])
def test_what_has_ended_or_is_parked_holds_up_nobody(store: SqlStore, state: OperationState) -> None:
    one, two = running(store, 2)
    assert take(store, one)
    with store.transaction() as tx:
        tx.operations.write(one.id, one.fence, state=state)
    assert take(store, two)


def test_tokens_are_taken_under_the_fence(store: SqlStore) -> None:
    (old,) = running(store, 1)
    with store.transaction() as tx:
        tx.operations.claim("w2", later(60), 60, 1)
    with pytest.raises(FenceLost):
        take(store, old)


def test_who_was_woken_for_a_token_is_not_passed(store: SqlStore) -> None:
    holder, waiter, newcomer = running(store, 3)
    assert take(store, holder)
    with store.transaction() as tx:
        assert not tx.operations.take_resource(R, 1, waiter.id, waiter.fence)
        tx.operations.write(
            waiter.id, waiter.fence, state=S.WAITING, resource=R, lease_expires_at=None, next_due_at=later(60)
        )
    with store.transaction() as tx:
        tx.operations.release_resources(holder.id)
        assert tx.operations.wake(now=NOW, resource=R) == 1
    assert not take(store, newcomer), "it is woken"
    assert take(store, newcomer, limit=2), "there is one for each"
    with store.transaction() as tx:
        tx.operations.release_resources(newcomer.id)
        (woken,) = tx.operations.claim("w1", later(1), 60, 9)
    assert not take(store, newcomer), "it is on its way"
    assert take(store, woken)
    assert not take(store, newcomer), "it has it"


def test_of_two_who_were_woken_for_one_token_one_gets_it(store: SqlStore) -> None:
    one, two = running(store, 2)
    for operation in (one, two):
        with store.transaction() as tx:
            tx.operations.write(operation.id, operation.fence, resource=R)
    assert not take(store, one), "the other one is first"
    with store.transaction() as tx:
        tx.operations.write(one.id, one.fence, state=S.WAITING, lease_expires_at=None, next_due_at=later(60))
    assert take(store, two)


def test_a_token_given_back_while_another_asks_for_it_is_not_lost(postgres_store: SqlStore) -> None:
    """The release is not committed yet when the other one asks: it is refused, and looks again at once."""
    holder, asker = running(postgres_store, 2)
    assert take(postgres_store, holder)
    with postgres_store.transaction() as giving:
        giving.operations.release_resources(holder.id)
        giving.operations.wake(now=NOW, resource=R)
        with postgres_store.transaction() as tx:
            assert not tx.operations.take_resource(R, 1, asker.id, asker.fence)
            tx.operations.write(
                asker.id, asker.fence, state=S.WAITING, resource=R, lease_expires_at=None, next_due_at=later(60)
            )
    with postgres_store.transaction() as tx:
        (again,) = tx.operations.claim("w1", later(1), 60, 9)
    assert again.id == asker.id
    assert take(postgres_store, again)


def test_a_token_given_back_after_another_was_refused_wakes_it(postgres_store: SqlStore) -> None:
    """The refused one has not committed its wait yet: giving back waits for that, then finds it."""
    holder, asker = running(postgres_store, 2)
    assert take(postgres_store, holder)
    refused, given_back = threading.Event(), threading.Event()

    def give_back() -> None:
        refused.wait(timeout=10)
        with postgres_store.transaction() as tx:
            tx.operations.release_resources(holder.id)
            given_back.set()
            tx.operations.wake(now=NOW, resource=R)

    thread = threading.Thread(target=give_back)
    thread.start()
    with postgres_store.transaction() as tx:
        assert not tx.operations.take_resource(R, 1, asker.id, asker.fence)
        refused.set()
        assert not given_back.wait(timeout=0.2)
        tx.operations.write(
            asker.id, asker.fence, state=S.WAITING, resource=R, lease_expires_at=None, next_due_at=later(60)
        )
    thread.join()
    with postgres_store.transaction() as tx:
        assert [operation.id for operation in tx.operations.claim("w1", later(1), 60, 9)] == [asker.id]


def test_swapping_tokens_is_no_deadlock(postgres_store: SqlStore) -> None:
    """Two transactions each give back what the other one takes next."""
    one, two = running(postgres_store, 2)
    assert take(postgres_store, one, resource="a")
    assert take(postgres_store, two, resource="b")
    both_gave_back = threading.Barrier(2)

    def swap(operation: Operation, wanted: str) -> None:
        with postgres_store.transaction() as tx:
            tx.operations.release_resources(operation.id)
            both_gave_back.wait(timeout=10)
            tx.operations.take_resource(wanted, 1, operation.id, operation.fence)

    threads = [threading.Thread(target=swap, args=pair) for pair in ((one, "b"), (two, "a"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    with postgres_store.transaction() as tx:
        for operation, wanted in ((one, "b"), (two, "a")):
            assert tx.operations.take_resource(wanted, 1, operation.id, operation.fence)


def test_takers_at_once_get_no_more_than_the_limit(store: SqlStore) -> None:
    operations = running(store, 12)
    got: list[bool] = []
    together = threading.Barrier(len(operations))

    def ask(operation: Operation) -> None:
        together.wait(timeout=10)
        got.append(take(store, operation, limit=3))

    threads = [threading.Thread(target=ask, args=(operation,)) for operation in operations]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [False] * 9 + [True] * 3
