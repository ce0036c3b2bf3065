"""What this version cannot walk, and what is broken, ends visibly and holds up nobody."""

from collections.abc import Callable
from typing import NoReturn

import pytest
from structlog.testing import capture_logs
from tests.contract.engine.shop import At, Crash, Shop, crash
from tests.contract.engine.test_timeline import Notes

from malleable.domain.errors import Busy, Conflict, Refused
from malleable.domain.ids import NodeId, OperationId, new_id
from malleable.domain.operations import Operation
from malleable.domain.store import Transaction
from malleable.workflows.boundary import DEATHS_MAX
from malleable.workflows.steps import Done, Workflow


def _raise(*arguments: object) -> NoReturn:
    raise KeyError("a defect")


def _refuse(*arguments: object) -> NoReturn:
    raise Conflict("The name is taken.", fix="Choose another.")


def _crashed_at(shop: Shop, where: str) -> OperationId:
    operation_id = shop.begin("make")
    with pytest.raises(Crash):
        shop.engine(probe=At(where, crash)).run_due()
    return operation_id


def test_a_step_that_an_upgrade_removed_parks_visibly_and_goes_on_after_going_back(shop: Shop) -> None:
    old = shop.workflow("make", shop.step("a"), shop.step("b"), shop.step("c"))
    operation_id = _crashed_at(shop, "b:begun")
    shop.workflow("make", shop.step("a"), shop.step("c"))
    operation = shop.run(operation_id)
    assert operation.state == "needs-operator"
    assert "'b'" in operation.reason
    assert "'make'" in operation.reason
    shop.workflows["make"] = old
    shop.resume(operation_id)
    assert shop.run(operation_id).state == "succeeded"


def test_a_cancel_at_a_removed_step_parks_too(shop: Shop) -> None:
    shop.workflow("make", shop.step("a"), shop.step("b"))
    operation_id = _crashed_at(shop, "b:begun")
    shop.workflow("make", shop.step("a"))
    shop.cancel(operation_id)
    operation = shop.run(operation_id)
    assert operation.state == "needs-operator"
    assert "'b'" in operation.reason


def test_steps_added_before_and_after_the_one_at_hand_do_no_harm(shop: Shop) -> None:
    shop.workflow("make", shop.step("a"), shop.step("b"))
    operation_id = _crashed_at(shop, "b:begun")
    shop.calls.clear()
    shop.workflow("make", *(shop.step(name) for name in ("new", "a", "b", "newer")))
    assert shop.run(operation_id).state == "succeeded"
    assert shop.calls == ["b", "newer", "[done]"]


def test_an_unknown_workflow_parks_visibly(shop: Shop) -> None:
    operation = shop.run(shop.begin("from-the-future"))
    assert operation.state == "needs-operator"
    assert "'from-the-future'" in operation.reason
    with pytest.raises(Conflict):
        shop.begin("make", node_id=_held_by_parked(shop))


def _held_by_parked(shop: Shop) -> NodeId:
    node_id = NodeId(new_id())
    assert shop.run(shop.begin("from-the-future", node_id=node_id)).state == "needs-operator"
    return node_id


def _poison(shop: Shop, name: str) -> Workflow:
    failing = shop.step("b", Refused("no"))
    made = {
        "step": lambda: shop.workflow("poison", shop.step("a"), shop.step("b", KeyError("a defect"))),
        "undo": lambda: shop.workflow("poison", shop.step("a", undo=(KeyError("a defect"),)), failing),
        "write": lambda: shop.workflow("poison", shop.step("a"), shop.step("b", Done(write=_raise))),
        "refused write": lambda: shop.workflow("poison", shop.step("a"), shop.step("b", Done(write=_refuse))),
        "on_done": lambda: shop.workflow("poison", shop.step("a"), on_done=_raise),
        "on_done of nothing": lambda: shop.workflow("poison", on_done=_refuse),
        "on_undone": lambda: shop.workflow("poison", shop.step("a"), failing, on_undone=_raise),
        "on_undone of nothing": lambda: shop.workflow(
            "poison", shop.step("b", Refused("no"), undo=None), on_undone=_raise
        ),
        "on_stuck": lambda: shop.workflow("poison", failing, is_forward_only=True, on_stuck=_raise),
        "resource": lambda: shop.workflow("poison", shop.step("a"), shop.step("b", resource=_raise)),
        "needed": lambda: shop.workflow("poison", shop.step("a", needed=_raise)),
    }
    return made[name]()


@pytest.mark.parametrize(
    ("name", "state"),
    {
        "step": "failed",
        "undo": "needs-operator",
        "write": "failed",
        "refused write": "failed",
        "on_done": "needs-operator",
        "on_done of nothing": "needs-operator",
        "on_undone": "needs-operator",
        "on_undone of nothing": "needs-operator",
        "on_stuck": "needs-operator",
        "resource": "needs-operator",
        "needed": "needs-operator",
    }.items(),
)
def test_a_poison_operation_ends_visibly_and_delays_nobody(shop: Shop, name: str, state: str) -> None:
    _poison(shop, name)
    shop.workflow("make", shop.step("x"))
    poison, healthy = shop.begin("poison"), shop.begin("make")
    engine = shop.engine()
    engine.run_due()
    assert shop.operation(healthy).state == "succeeded"
    operation = shop.operation(poison)
    assert operation.state == state
    assert operation.reason
    assert operation.worker == ""
    assert operation.lease_expires_at is None
    shop.advance(3600)
    assert engine.run_due() == 0


def test_a_refused_write_is_the_steps_failure_and_leaves_nothing_of_it(shop: Shop) -> None:
    _poison(shop, "refused write")
    operation = shop.run(shop.begin("poison"))
    assert operation.error is not None
    assert (operation.error["code"], operation.error["step"]) == ("conflict", "b")
    assert (operation.reason, shop.calls) == ("The name is taken.", ["a", "b", "-b", "-a", "[undone]"])


def test_a_closing_that_fails_keeps_the_last_step_open_and_is_repaired_by_resuming(shop: Shop) -> None:
    _poison(shop, "on_done")
    operation = shop.run(shop.begin("poison"))
    assert "KeyError" in operation.reason
    assert [record.finished_at for record in shop.timeline(operation.id)] == [None]
    shop.workflow("poison", shop.step("a"))
    shop.resume(operation.id)
    assert shop.run(operation.id).state == "succeeded"
    [record] = shop.timeline(operation.id)
    assert (record.attempts, record.finished_at) == (2, operation.next_due_at)


def test_a_step_that_kills_its_workers_is_stopped(shop: Shop) -> None:
    shop.workflow("make", shop.step("a", Crash()), shop.step("b"))
    operation = shop.run(shop.begin("make"))
    assert operation.state == "needs-operator"
    assert "died" in operation.reason
    assert len(shop.calls) == 5 + DEATHS_MAX  # its tries, and as many deaths more


def test_a_parked_operation_holds_no_token(shop: Shop) -> None:
    shop.limits = {"switch": 1}
    step = shop.step("a", Refused("locked"), Done(), resource=lambda operation: "switch:1")
    shop.workflow("make", step, is_forward_only=True)
    assert shop.run(shop.begin("make")).state == "needs-operator"
    assert shop.run(shop.begin("make")).state == "succeeded"


def test_trouble_of_the_database_while_closing_parks_nothing(shop: Shop) -> None:
    troubles = [Busy("A deadlock.")]

    def on_done(tx: Transaction, operation: Operation, now: object) -> None:
        if troubles:
            raise troubles.pop()

    shop.workflow("make", shop.step("a"), on_done=on_done)
    operation_id = shop.begin("make")
    with pytest.raises(Busy):
        shop.engine().run_due()
    assert shop.operation(operation_id).state == "running"
    assert shop.run(operation_id).state == "succeeded"


def _park_by_refusal(shop: Shop) -> OperationId:
    shop.workflow("make", shop.step("a", Refused("The switch refuses.")), is_forward_only=True)
    return shop.begin("make")


def _park_by_defect(shop: Shop) -> OperationId:
    shop.workflow("make", shop.step("a"), on_done=_raise)
    return shop.begin("make")


@pytest.mark.parametrize(("park", "code"), [(_park_by_refusal, "refused"), (_park_by_defect, "internal")])
def test_what_is_parked_is_told_in_the_log_and_to_the_observer(
    shop: Shop, park: Callable[[Shop], OperationId], code: str
) -> None:
    operation_id, notes = park(shop), Notes()
    with capture_logs() as lines:
        shop.engine(observer=notes).run_due()
    (line,) = [line for line in lines if line["event"] == "operation needs an operator"]
    told = {"operation": str(operation_id), "kind": "make", "step": "a", "code": code, "log_level": "warning"}
    assert told.items() <= line.items()
    assert line["reason"] == shop.operation(operation_id).reason
    assert notes.ends == [("make", "needs-operator")]
