"""The work queue: leases, fences, wake-ups."""

from dataclasses import replace

import pytest
from tests.contract.store import values
from tests.contract.store.values import NOW, later

from malleable.domain.errors import Conflict, FenceLost
from malleable.domain.ids import NodeId, new_id
from malleable.domain.operations import Direction, Operation, OperationState
from malleable.store import SqlStore

S = OperationState
LEASE_S = 2.0


def add(store: SqlStore, **changes: object) -> Operation:
    operation = values.operation(**changes)
    with store.transaction() as tx:
        tx.operations.add(operation)
    return operation


def read(store: SqlStore, operation: Operation) -> Operation:
    with store.reading() as tx:
        return tx.operations.get(operation.id)


def claim(store: SqlStore, at: float = 0.0, worker: str = "w1", limit: int = 10) -> list[Operation]:
    with store.transaction() as tx:
        return list(tx.operations.claim(worker, later(at), LEASE_S, limit))


def let_go(store: SqlStore, operation: Operation, due: float, **changes: object) -> None:
    """Write as the engine does when an operation has to wait."""
    values: dict[str, object] = {"state": S.WAITING, "worker": "", "lease_expires_at": None, **changes}
    with store.transaction() as tx:
        tx.operations.write(operation.id, operation.fence, next_due_at=later(due), **values)


def test_a_claim_takes_the_lease(store: SqlStore) -> None:
    added = add(store)
    leased = replace(added, worker="w1", fence=1, lease_expires_at=later(LEASE_S))
    expected = replace(leased, state=S.RUNNING, attempt=1, started_at=NOW)
    assert claim(store) == [expected]
    assert read(store, added) == expected
    assert claim(store, worker="w2") == []


def test_what_is_not_due_is_not_claimed(store: SqlStore) -> None:
    add(store, next_due_at=later(10))
    assert claim(store, at=9.9) == []
    assert len(claim(store, at=10.0)) == 1


@pytest.mark.parametrize("state", [S.SUCCEEDED, S.FAILED, S.CANCELLED, S.NEEDS_OPERATOR])
def test_what_has_ended_or_is_parked_is_not_claimed(store: SqlStore, state: OperationState) -> None:
    add(store, state=state)
    assert claim(store, at=1000) == []
    with store.reading() as tx:
        assert tx.operations.next_due() is None


def test_the_oldest_due_comes_first_and_no_more_than_asked_for(store: SqlStore) -> None:
    due = {seconds: add(store, next_due_at=later(seconds)).id for seconds in (-1, -7, -3, -5)}
    assert [operation.id for operation in claim(store, limit=3)] == [due[-7], due[-5], due[-3]]
    assert [operation.id for operation in claim(store, limit=3)] == [due[-1]]


def test_another_worker_takes_over_when_the_lease_runs_out(store: SqlStore) -> None:
    add(store)
    (first,) = claim(store)
    assert claim(store, at=LEASE_S - 0.1, worker="w2") == []
    (second,) = claim(store, at=LEASE_S, worker="w2")
    assert (second.worker, second.fence, second.state) == ("w2", 2, S.RUNNING)
    assert second.started_at == first.started_at, "it was started once"


def test_keep_renews_leases_of_one_worker(store: SqlStore) -> None:
    for _ in range(3):
        add(store)
    ids = [operation.id for operation in (*claim(store, worker="w1", limit=2), *claim(store, worker="w2"))]
    with store.transaction() as tx:
        assert tx.operations.keep(ids, "w1", later(1.5), LEASE_S) == 2
        assert tx.operations.keep(ids, "w3", later(1.5), LEASE_S) == 0
        assert tx.operations.keep([], "w2", later(1.5), LEASE_S) == 0
    assert len(claim(store, at=2.0, worker="w4")) == 1
    assert len(claim(store, at=3.5, worker="w4")) == 2


def test_keep_renews_nothing_that_was_let_go(store: SqlStore) -> None:
    add(store)
    (operation,) = claim(store)
    let_go(store, operation, due=60, state=S.UNDOING)
    with store.transaction() as tx:
        assert tx.operations.keep([operation.id], "w1", later(1), LEASE_S) == 0


def test_writes_carry_the_fence(store: SqlStore) -> None:
    add(store)
    (old,) = claim(store)
    with store.transaction() as tx:
        tx.operations.write(old.id, old.fence, step_error="still mine")
        tx.operations.write(old.id, old.fence)
    (new,) = claim(store, at=LEASE_S, worker="w2")
    with pytest.raises(FenceLost), store.transaction() as tx:
        tx.operations.write(old.id, old.fence, step_error="not mine any more")
    with pytest.raises(FenceLost), store.transaction() as tx:
        tx.operations.write(old.id, old.fence)
    assert read(store, new).step_error == "still mine"


def test_a_write_says_whether_a_cancel_is_asked_for(store: SqlStore) -> None:
    add(store)
    (operation,) = claim(store)
    with store.transaction() as tx:
        assert not tx.operations.write(operation.id, operation.fence, reason="x").is_cancel_requested
        tx.operations.change(operation.id, is_cancel_requested=True)
        assert tx.operations.write(operation.id, operation.fence).is_cancel_requested


def test_a_write_breaks_no_rule(store: SqlStore) -> None:
    """An ended operation that is opened again finds its node busy with the next one."""
    node_id = NodeId(new_id())
    ended = add(store, node_id=node_id, state=S.FAILED)
    add(store, node_id=node_id)
    with pytest.raises(Conflict, match="The node is busy"), store.transaction() as tx:
        tx.operations.write(ended.id, ended.fence, state=S.UNDOING)


def test_waiting_costs_a_row_until_it_is_due(store: SqlStore) -> None:
    add(store)
    (operation,) = claim(store)
    let_go(store, operation, due=30)
    assert claim(store, at=29) == []
    (again,) = claim(store, at=30)
    assert (again.state, again.fence) == (S.RUNNING, 2)


def test_undoing_stays_undoing_when_claimed(store: SqlStore) -> None:
    add(store)
    (operation,) = claim(store)
    let_go(store, operation, due=30, state=S.UNDOING, direction=Direction.UNDO)
    assert claim(store, at=29) == []
    (again,) = claim(store, at=30)
    assert again.state is S.UNDOING
    assert claim(store, at=31) == []
    assert len(claim(store, at=32, worker="w2")) == 1, "its lease ran out"


def test_next_due_is_the_earliest_due_time_or_end_of_a_lease(store: SqlStore) -> None:
    with store.reading() as tx:
        assert tx.operations.next_due() is None
    add(store, next_due_at=later(60))
    with store.reading() as tx:
        assert tx.operations.next_due() == later(60)
    add(store)
    claim(store)
    with store.reading() as tx:
        assert tx.operations.next_due() == later(LEASE_S)


def test_waking_a_node_makes_its_waiting_operation_due(store: SqlStore) -> None:
    node_id, other = NodeId(new_id()), NodeId(new_id())
    for id in (node_id, other):
        add(store, node_id=id)
    for operation in claim(store):
        let_go(store, operation, due=60)
    with store.transaction() as tx:
        assert tx.operations.wake(now=later(1), node_id=node_id) == 1
        assert tx.operations.wake(now=later(1), node_id=NodeId(new_id())) == 0
    assert [operation.node_id for operation in claim(store, at=1)] == [node_id]


def test_waking_never_puts_off(store: SqlStore) -> None:
    operation = add(store, node_id=NodeId(new_id()), resource="r")
    with store.transaction() as tx:
        tx.operations.wake(now=later(5), node_id=operation.node_id)
        tx.operations.wake(now=later(5), resource="r")
        tx.operations.wake_all(now=later(5), resource="r")
    assert read(store, operation).next_due_at == NOW


def test_a_wake_up_while_the_operation_is_worked_on_is_not_lost(store: SqlStore) -> None:
    node_id = NodeId(new_id())
    add(store, node_id=node_id)
    (operation,) = claim(store)
    with store.transaction() as tx:
        tx.operations.wake(now=later(0.5), node_id=node_id)
    assert claim(store, at=1, worker="w2") == [], "its worker still has it"
    let_go(store, operation, due=60)
    (again,) = claim(store, at=1)
    let_go(store, again, due=60)
    assert claim(store, at=2) == [], "one wake-up ends one wait"


@pytest.mark.parametrize("state", [S.SUCCEEDED, S.NEEDS_OPERATOR])
def test_waking_leaves_what_has_ended_or_is_parked(store: SqlStore, state: OperationState) -> None:
    operation = add(store, node_id=NodeId(new_id()), resource="r", state=state, next_due_at=later(60))
    with store.transaction() as tx:
        tx.operations.wake(now=NOW, resource="r", node_id=operation.node_id)
        tx.operations.wake_all(now=NOW, resource="r")
    assert read(store, operation) == operation


def test_a_resource_wakes_the_oldest_that_still_waits_for_it(store: SqlStore) -> None:
    for _ in range(4):
        add(store)
    holder, *waiting = claim(store)
    with store.transaction() as tx:
        assert tx.operations.take_resource("switch:1", 1, holder.id, holder.fence)
    let_go(store, holder, due=60, resource="switch:1")
    let_go(store, waiting[0], due=60, resource="switch:2")
    let_go(store, waiting[2], due=60, resource="switch:1")
    let_go(store, waiting[1], due=60, resource="switch:1")
    for expected in (waiting[1], waiting[2]):
        with store.transaction() as tx:
            assert tx.operations.wake(now=later(1), resource="switch:1") == 1
        assert [operation.id for operation in claim(store, at=1)] == [expected.id]
    with store.transaction() as tx:
        assert tx.operations.wake(now=later(1), resource="switch:1") == 0
    assert claim(store, at=1) == [], "the holder waits for something else"


def test_a_resource_can_wake_all(store: SqlStore) -> None:
    for _ in range(3):
        add(store)
    first, second, other = claim(store)
    for operation, resource in ((first, "network:1"), (second, "network:1"), (other, "network:2")):
        let_go(store, operation, due=60, resource=resource)
    with store.transaction() as tx:
        assert tx.operations.wake_all(now=later(1), resource="network:1") == 2
    assert {operation.id for operation in claim(store, at=1)} == {first.id, second.id}


def test_workers_never_claim_the_same_operation(postgres_store: SqlStore) -> None:
    operations = {add(postgres_store).id for _ in range(6)}
    with postgres_store.transaction() as one, postgres_store.transaction() as two:
        mine = one.operations.claim("w1", NOW, LEASE_S, 4)
        yours = two.operations.claim("w2", NOW, LEASE_S, 4)
    assert (len(mine), len(yours)) == (4, 2), "rows another claims are skipped, not waited for"
    assert {operation.id for operation in (*mine, *yours)} == operations
