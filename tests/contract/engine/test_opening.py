"""What is written as a step begins: with that, or not at all; and looks that need nothing written before."""

from collections.abc import Callable

import pytest
from tests.contract.engine.shop import At, Crash, Shop, crash
from tests.contract.store import values

from malleable.domain.errors import Conflict, FenceLost
from malleable.domain.ids import NodeId, new_id
from malleable.domain.operations import Operation, OperationState, Wait
from malleable.domain.store import Transaction
from malleable.store import SqlStore
from malleable.workflows.steps import Context, Done


def opened(context: Context, tx: Transaction) -> str:
    tx.projects.add(values.project(name=context.operation.step))
    return f"intent of {context.operation.step}"


def told(context: Context) -> Done:
    return Done(evidence={"intent": context.intent})


def targets(_: Operation) -> str:
    return "targets:n"


def projects(shop: Shop) -> list[str]:
    with shop.store.reading() as tx:
        return [project.name for project in tx.projects.list()]


def evidence(shop: Shop, operation_id: object) -> list[object]:
    return [line.evidence.get("intent") for line in shop.timeline(operation_id)]  # type: ignore[arg-type]


def test_what_opens_a_step_is_written_as_it_begins(shop: Shop) -> None:
    shop.workflow("make", shop.step("a"), shop.step("b", told, opening=opened))
    operation_id = shop.begin("make")
    with pytest.raises(Crash):
        shop.engine(probe=At("a:committed", crash)).run_due()
    operation = shop.operation(operation_id)
    assert (operation.step, operation.step_attempts, projects(shop)) == ("b", 1, ["b"])


def test_a_step_finds_what_was_written_as_it_began(shop: Shop) -> None:
    shop.workflow("make", shop.step("a", told, opening=opened), shop.step("b", told, opening=opened))
    operation_id = shop.begin("make")
    assert shop.run(operation_id).state == "succeeded"
    assert evidence(shop, operation_id) == ["intent of a", "intent of b"]


def test_a_step_is_opened_once(shop: Shop) -> None:
    """A repeat after a crash finds no intent, and sees to that itself."""
    shop.workflow("make", shop.step("a", told, opening=opened))
    operation_id = shop.begin("make")
    with pytest.raises(Crash):
        shop.engine(probe=At("a:acted", crash)).run_due()
    assert shop.run(operation_id).state == "succeeded"
    assert evidence(shop, operation_id) == [None]
    assert projects(shop) == ["a"]


def test_a_step_whose_opening_fails_begins_without_and_what_was_before_it_stands(shop: Shop) -> None:
    def refused(context: Context, tx: Transaction) -> None:
        opened(context, tx)
        raise Conflict("Taken.")

    shop.workflow("make", shop.step("a"), shop.step("b", told, opening=refused))
    operation_id = shop.begin("make")
    assert shop.run(operation_id).state == "succeeded"
    assert shop.calls == ["a", "b", "[done]"]
    assert evidence(shop, operation_id) == [None, None]
    assert projects(shop) == []


def test_a_step_may_begin_by_waiting(shop: Shop) -> None:
    def waits(context: Context, tx: Transaction) -> Wait:
        opened(context, tx)
        return Wait(seconds=5, reason="asked", memory={"asked": True}, resource="network:1")

    def look(context: Context) -> Done:
        return Done(evidence=dict(context.memory))

    shop.workflow("make", shop.step("a"), shop.step("b", look, opening=waits))
    operation_id = shop.begin("make")
    shop.engine().run_due()
    waiting = shop.operation(operation_id)
    assert (waiting.state, waiting.step, waiting.reason) == (OperationState.WAITING, "b", "asked")
    assert (shop.calls, projects(shop)) == (["a"], ["b"])
    with shop.store.transaction() as tx:
        assert tx.operations.wake_all(now=shop.clock.now(), resource="network:1") == 1
    assert shop.engine().run_due() == 1
    assert shop.operation(operation_id).state == "succeeded"
    assert shop.timeline(operation_id)[1].evidence == {"asked": True}


def pause(_: Operation) -> Wait:
    return Wait(seconds=5, reason="just begun", resource="boot:1")


@pytest.mark.parametrize("is_first", [True, False])
def test_a_step_that_begins_with_a_pause_looks_after_it(shop: Shop, is_first: bool) -> None:
    before = () if is_first else (shop.step("a"),)
    shop.workflow("make", *before, shop.step("b", pause=pause))
    operation_id = shop.begin("make")
    shop.engine().run_due()
    waiting = shop.operation(operation_id)
    assert (waiting.state, waiting.step, waiting.reason) == (OperationState.WAITING, "b", "just begun")
    assert (waiting.worker, waiting.lease_expires_at, waiting.attempt) == ("", None, 0)
    assert shop.engine().run_due() == 0
    assert "b" not in shop.calls
    with shop.store.transaction() as tx:
        assert tx.operations.wake_all(now=shop.clock.now(), resource="boot:1") == 1
    assert shop.engine().run_due() == 1
    assert shop.operation(operation_id).state == "succeeded"
    assert [line.name for line in shop.timeline(operation_id)] == [step.name for step in shop.workflows["make"].steps]


def test_a_wake_up_before_the_pause_is_written_ends_it_at_once(shop: Shop) -> None:
    shop.workflow("make", shop.step("a"), shop.step("b", pause=pause))
    node_id = NodeId(new_id())
    operation_id = shop.begin("make", node_id=node_id)

    def wake() -> None:
        with shop.store.transaction() as tx:
            tx.operations.wake(now=shop.clock.now(), node_id=node_id)

    shop.engine(probe=At("a:acted", wake)).run_due()
    assert shop.operation(operation_id).state == OperationState.WAITING
    assert shop.engine().run_due() == 1
    assert shop.operation(operation_id).state == "succeeded"


@pytest.mark.parametrize("point", ["a:begun", "a:acted", "a:committed"])
def test_a_cancel_before_a_pause_does_not_wait_for_its_end(shop: Shop, point: str) -> None:
    shop.workflow("make", shop.step("a"), shop.step("b", pause=pause))
    operation_id = shop.begin("make")
    shop.engine(probe=At(point, lambda: shop.cancel(operation_id))).run_due()
    assert shop.engine().run_due() == 1
    assert shop.operation(operation_id).state == "cancelled"
    assert shop.calls == ["a", "-b", "-a", "[undone]"]


def test_a_pause_is_written_by_the_statement_that_enters_the_step(shop: Shop) -> None:
    shop.workflow("make", shop.step("a"), shop.step("b", pause=pause))
    shop.begin("make")
    assert isinstance(shop.store, SqlStore)
    heard: list[str] = []
    statements = shop.store.database.statements
    engine = shop.engine(probe=At("a:acted", lambda: setattr(statements, "heard", heard.append)))
    engine.run_due()
    statements.heard = None
    assert len([sql for sql in heard if sql.startswith("UPDATE operations")]) == 1, heard


def test_a_cancel_undoes_a_step_that_began_by_waiting(shop: Shop) -> None:
    def waits(context: Context, tx: Transaction) -> Wait:
        return Wait(seconds=5, reason="asked")

    shop.workflow("make", shop.step("a"), shop.step("b", opening=waits))
    operation_id = shop.begin("make")
    shop.engine().run_due()
    shop.cancel(operation_id)
    assert shop.run(operation_id).state == "cancelled"
    assert shop.calls == ["a", "-b", "-a", "[undone]"]


def test_a_step_that_waits_for_its_turn_is_not_opened(shop: Shop) -> None:
    hold = Wait(seconds=100, reason="holds it")
    shop.workflow("hold", shop.step("h", crash_once(), hold, resource=lambda _: "switch:1"))
    shop.workflow("make", shop.step("a", told, opening=opened, resource=lambda _: "switch:1"))
    first = shop.begin("hold")
    with pytest.raises(Crash):
        shop.engine().run_due()
    second = shop.begin("make")
    shop.engine().run_due()
    assert shop.operation(second).state is OperationState.WAITING
    assert projects(shop) == []
    shop.cancel(first)
    shop.run(first, second)
    assert evidence(shop, second) == ["intent of a"]


def crash_once() -> Callable[[Context], Done]:
    def die(_: Context) -> Done:
        raise Crash

    return die


def test_a_stale_worker_opens_nothing(shop: Shop) -> None:
    shop.workflow("make", shop.step("a"), shop.step("b", told, opening=opened))
    shop.begin("make")
    slow = shop.engine()
    (claimed,) = slow.claim(1)
    shop.advance(10)
    with pytest.raises(Crash):
        shop.engine(probe=At("a:begun", crash)).run_due()
    slow.walk(claimed)
    assert projects(shop) == []
    with pytest.raises(FenceLost), shop.store.transaction() as tx:
        tx.operations.write(claimed.id, claimed.fence)


def test_a_stale_worker_takes_no_look_that_was_waited_for(shop: Shop) -> None:
    shop.workflow("make", shop.step("a", Wait(seconds=5, reason="not yet"), Done()))
    shop.begin("make")
    shop.engine().run_due()
    shop.advance(5)
    slow = shop.engine()
    (claimed,) = slow.claim(1)
    shop.advance(10)
    shop.engine().run_due()
    assert shop.calls == ["a", "a", "[done]"]
    slow.walk(claimed)
    assert shop.calls == ["a", "a", "[done]"]


def test_what_opens_a_step_is_locked_before_those_who_are_woken_for_the_last_ones_token(shop: Shop) -> None:
    """A step that ends may lock the same, the site's row, and then wakes; in two orders they would wait in a circle."""
    shop.limits = {"targets": 1}
    shop.workflow("make", shop.step("a", resource=targets), shop.step("b", told, opening=opened))
    shop.workflow("wait", shop.step("w", resource=targets))
    assert isinstance(shop.store, SqlStore)
    statements = shop.store.database.statements
    shop.begin("make")
    heard: list[str] = []

    def wait_behind() -> None:
        shop.begin("wait")
        shop.engine().run_due()
        statements.heard = heard.append

    shop.engine(probe=At("a:acted", wait_behind)).run_due()
    statements.heard = None
    order = [sql.split()[2] for sql in heard if sql.startswith(("INSERT INTO projects", "DELETE FROM resource_tokens"))]
    assert order[:2] == ["projects", "resource_tokens"], heard


def test_a_look_that_was_waited_for_needs_no_transaction_but_the_claims_and_its_own(shop: Shop) -> None:
    shop.workflow("make", shop.step("a", Wait(seconds=5, reason="not yet"), Done(evidence={"it": "is"})))
    operation_id = shop.begin("make")
    shop.engine().run_due()
    shop.advance(5)
    engine = shop.engine()
    (claimed,) = engine.claim(1)
    assert isinstance(shop.store, SqlStore)
    heard: list[str] = []
    shop.store.database.statements.heard = heard.append
    engine.walk(claimed)
    shop.store.database.statements.heard = None
    assert [sql.split()[0] for sql in heard].count("UPDATE") <= 2, heard
    (line,) = shop.timeline(operation_id)
    assert (line.attempts, line.evidence) == (2, {"it": "is"})
    assert shop.operation(operation_id).state == "succeeded"


def test_a_look_that_a_crash_broke_off_is_counted_with_the_next_one(shop: Shop) -> None:
    """Nothing was written of it; so it counts towards the deaths at this step, not in its timeline."""
    wait = Wait(seconds=5, reason="not yet")
    shop.workflow("make", shop.step("a", wait, crash_once(), wait, Done()))
    operation_id = shop.begin("make")
    assert shop.run(operation_id).state == "succeeded"
    (line,) = shop.timeline(operation_id)
    assert line.attempts == 3
