"""Steps that end by what the database tells: in the transaction that claims them, or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from tests.contract.engine.shop import LEASE_S, Shop
from tests.contract.store import values

from malleable.domain.errors import Conflict
from malleable.domain.ids import OperationId
from malleable.domain.operations import Operation, Wait
from malleable.domain.store import Transaction
from malleable.workflows.boundary import Begun
from malleable.workflows.engine import Engine
from malleable.workflows.steps import Context, Done

ASKED = Wait(seconds=60, reason="asked", resource="network:1")


def told(context: Context, tx: Transaction) -> Done | None:
    """See whether the answer is there."""
    return Done(evidence={"seen": context.operation.step}) if tx.projects.find(name="answer") else None


def resource(_: Operation) -> str:
    return "targets:n"


def asking(shop: Shop, **following: Any) -> OperationId:
    """Make an operation that waits for an answer at "a" and goes on with "b"."""
    shop.workflow("make", shop.step("a", ASKED, Done(), glimpse=told), shop.step("b", **following))
    operation_id = shop.begin("make")
    assert shop.engine().run_due() == 1
    return operation_id


@contextmanager
def woken(shop: Shop, engine: Engine, *, has_answer: bool = True) -> Iterator[list[Begun | None]]:
    """Wake who waits, with or without an answer, claim it and have a glimpse."""
    with shop.store.transaction() as tx:
        if has_answer:
            tx.projects.add(values.project(name="answer"))
        tx.operations.wake_all(now=shop.clock.now(), resource="network:1")
        yield [engine.glimpse(tx, operation) for operation in engine.claim_in(tx, 10)]


def test_a_step_ends_with_the_answer_that_it_waited_for(shop: Shop) -> None:
    operation_id, engine = asking(shop), shop.engine()
    with woken(shop, engine) as seen:
        [begun] = seen
    assert begun is not None
    operation = shop.operation(operation_id)
    assert (operation.step, operation.state, operation.step_attempts, operation.resource) == ("b", "running", 1, "")
    assert [line.evidence for line in shop.timeline(operation_id)] == [{"seen": "a"}, {}]
    engine.walk(begun.operation, begun)
    assert shop.operation(operation_id).state == "succeeded"
    assert shop.calls == ["a", "b", "[done]"]


def test_a_step_without_an_answer_looks_for_itself(shop: Shop) -> None:
    operation_id = asking(shop)
    with woken(shop, shop.engine(), has_answer=False) as seen:
        assert seen == [None]
    assert shop.operation(operation_id).step == "a"
    assert shop.run(operation_id).state == "succeeded"
    assert shop.calls == ["a", "a", "b", "[done]"]


def test_what_is_rolled_back_has_ended_nothing(shop: Shop) -> None:
    operation_id = asking(shop)
    with suppress(Conflict), woken(shop, shop.engine()):
        raise Conflict
    operation = shop.operation(operation_id)
    assert (operation.step, operation.state, operation.fence) == ("a", "waiting", 1)


def test_who_dies_after_a_glimpse_leaves_the_next_step_to_another(shop: Shop) -> None:
    operation_id = asking(shop)
    with woken(shop, shop.engine()) as seen:
        assert seen != [None]
    assert shop.run(operation_id).state == "succeeded"
    assert shop.calls == ["a", "b", "[done]"]


@pytest.mark.parametrize("following", [{"resource": resource}, {"opening": lambda context, tx: None}])
def test_a_next_step_that_locks_something_is_left_to_who_walks(shop: Shop, following: dict[str, Any]) -> None:
    operation_id = asking(shop, **following)
    with woken(shop, shop.engine()) as seen:
        assert seen == [None]
    assert shop.run(operation_id).state == "succeeded"
    assert shop.calls == ["a", "a", "b", "[done]"]


def test_a_cancelled_operation_turns_back_instead(shop: Shop) -> None:
    operation_id = asking(shop)
    shop.cancel(operation_id)
    with woken(shop, shop.engine()) as seen:
        assert seen == [None]
    assert shop.run(operation_id).state == "cancelled"


def test_an_operation_of_another_version_breaks_nobodys_transaction(shop: Shop) -> None:
    operation_id = asking(shop)
    shop.workflow("make", shop.step("other", glimpse=told))
    with woken(shop, shop.engine()) as seen:
        assert seen == [None]
    del shop.workflows["make"]
    assert shop.operation(operation_id).step == "a"


def test_a_glimpse_that_fails_breaks_nobodys_transaction(shop: Shop) -> None:
    def broken(context: Context, _: Transaction) -> Done:
        return Done(evidence={"never": context.argument("nothing")})

    shop.workflow("make", shop.step("a", ASKED, Done(), glimpse=broken), shop.step("b"))
    operation_id = shop.begin("make")
    assert shop.engine().run_due() == 1
    with woken(shop, shop.engine()) as seen:
        assert seen == [None]
    with shop.store.reading() as tx:
        assert tx.projects.find(name="answer") is not None
    assert shop.run(operation_id).state == "succeeded"


def test_a_lease_that_ran_out_before_the_next_step_is_walked_is_another_workers(shop: Shop) -> None:
    operation_id, slow = asking(shop), shop.engine()
    with woken(shop, slow) as seen:
        [begun] = seen
    assert begun is not None
    shop.advance(LEASE_S + 0.1)
    (taken,) = shop.engine().claim(10)
    slow.walk(begun.operation, begun)
    assert shop.calls == ["a"]
    assert (shop.operation(operation_id).step, shop.operation(operation_id).fence) == ("b", taken.fence)


def test_a_stop_amid_a_glimpse_undoes_nothing(shop: Shop) -> None:
    engine = shop.engine()

    def stopped(context: Context, tx: Transaction) -> Done | None:
        engine.stop()
        return told(context, tx)

    shop.workflow("make", shop.step("a", ASKED, Done(), glimpse=stopped), shop.step("b"))
    operation_id = shop.begin("make")
    assert shop.engine().run_due() == 1
    with woken(shop, engine) as seen:
        [begun] = seen
    assert begun is not None
    assert (shop.operation(operation_id).step, shop.operation(operation_id).state) == ("b", "running")
