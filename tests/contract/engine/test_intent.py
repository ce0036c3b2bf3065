"""An operation begins with what it is for, or not at all; a node has one at a time."""

import threading

import pytest
from tests.contract.engine.shop import Shop
from tests.contract.store import values

from malleable.domain.errors import Conflict
from malleable.domain.ids import NodeId, OperationId, new_id
from malleable.domain.store import Transaction
from malleable.workflows import requests
from malleable.workflows.steps import Ask, Context, Done


def test_intent_and_operation_are_committed_together(shop: Shop) -> None:
    shop.workflow("make", shop.step("a"))
    project = values.project()
    with shop.store.transaction() as tx:
        tx.projects.add(project)
        operation = requests.begin(tx, shop.clock.now(), "make")
    with shop.store.reading() as tx:
        assert tx.projects.get(project.id)
    assert shop.run(operation.id).state == "succeeded"


def test_a_rollback_leaves_neither_intent_nor_operation(shop: Shop) -> None:
    def fail() -> None:
        with shop.store.transaction() as tx:
            tx.projects.add(values.project())
            requests.begin(tx, shop.clock.now(), "make")
            raise KeyError("no")

    with pytest.raises(KeyError):
        fail()
    with shop.store.reading() as tx:
        assert (tx.projects.count(), tx.operations.count(), tx.operations.next_due()) == (0, 0, None)
    assert shop.engine().run_due() == 0


def test_a_node_has_one_active_operation_and_the_loser_is_told_which(shop: Shop) -> None:
    shop.workflow("make", shop.step("a"))
    node = values.node()
    node_id = node.id
    with shop.store.transaction() as tx:
        tx.nodes.add(node)
    first = shop.begin("make", node_id=node_id)
    with pytest.raises(Conflict) as caught:
        shop.begin("make", node_id=node_id)
    assert str(first) in f"{caught.value.message} {caught.value.fix} {caught.value.details}"
    assert f"{node.name} is busy: make" in caught.value.message
    assert shop.run(first).state == "succeeded"
    assert shop.run(shop.begin("make", node_id=node_id)).state == "succeeded"


def test_of_many_who_want_one_node_at_once_one_wins(shop: Shop) -> None:
    node_id, barrier = NodeId(new_id()), threading.Barrier(8)
    won: list[OperationId] = []
    lost: list[Conflict] = []

    def want() -> None:
        barrier.wait()
        try:
            won.append(shop.begin("make", node_id=node_id))
        except Conflict as e:
            lost.append(e)

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 7)


def test_what_a_step_asks_of_others_is_committed_with_its_wait(shop: Shop) -> None:
    project = values.project()

    def answer(tx: Transaction) -> dict[str, object]:
        tx.projects.add(project)
        # An answer that comes at once finds the operation waiting.
        assert tx.operations.wake_all(now=shop.clock.now(), resource="network:1") == 1
        return {"asked": "for this"}

    def look(context: Context) -> Done | Ask:
        if "asked" in context.memory:
            return Done(evidence=dict(context.memory))
        return Ask(seconds=60, reason="asked", memory={"looks": 1}, resource="network:1", write=answer)

    shop.workflow("make", shop.step("a", look))
    operation = shop.begin("make")
    assert shop.engine().run_due() == 1
    assert shop.engine().run_due() == 1, "woken, not waiting for a minute"
    with shop.store.reading() as tx:
        assert tx.projects.get(project.id)
        assert tx.operations.get(operation).state == "succeeded"
        (line,) = tx.operations.steps([operation])
    assert line.evidence == {"looks": 1, "asked": "for this"}


def test_what_a_step_cannot_ask_for_fails_it(shop: Shop) -> None:
    def refuse(tx: Transaction) -> dict[str, object]:
        tx.projects.add(values.project())
        raise Conflict("Taken.", code="taken")

    ask = Ask(seconds=60, reason="asked", write=refuse)
    shop.workflow("make", shop.step("a", ask))
    ended = shop.run(shop.begin("make"))
    assert ended.state == "failed"
    assert "Taken." in ended.reason
    with shop.store.reading() as tx:
        assert tx.projects.count() == 0
