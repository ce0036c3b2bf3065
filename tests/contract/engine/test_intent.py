"""An operation begins with what it is for, or not at all; a node has one at a time."""

import threading

import pytest
from tests.contract.engine.shop import Shop
from tests.contract.store import values

from malleable.domain.errors import Conflict
from malleable.domain.ids import NodeId, OperationId, new_id
from malleable.workflows import requests


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
    node_id = NodeId(new_id())
    first = shop.begin("make", node_id=node_id)
    with pytest.raises(Conflict) as caught:
        shop.begin("make", node_id=node_id)
    assert str(first) in f"{caught.value.message} {caught.value.fix} {caught.value.details}"
    assert "make" in caught.value.message
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
