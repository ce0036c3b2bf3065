"""Cancelling and failing: the undos run in reverse, can be resumed themselves, and never end half-way unseen."""

from contextlib import suppress
from dataclasses import asdict
from functools import partial

import pytest
from tests.contract.engine.shop import LEASE_S, At, Crash, Shop, crash

from malleable.domain.errors import Conflict, Refused, Unreachable
from malleable.domain.ids import OperationId
from malleable.domain.operations import Operation, Retry, Wait
from malleable.domain.store import Transaction
from malleable.workflows.steps import Context, Done, Workflow

NAMES = ("a", "b", "c")


def _three(shop: Shop) -> Workflow:
    return shop.workflow("make", *(shop.step(name) for name in NAMES))


def _boundaries(shop: Shop) -> int:
    probe = At(-1, crash)
    _three(shop)
    shop.run(shop.begin("make"), probe=probe)
    shop.calls.clear()
    return len(probe.seen)


def test_a_cancel_at_any_boundary_undoes_in_reverse_what_was_begun(shop: Shop) -> None:
    cancelled = 0
    for place in range(_boundaries(shop)):
        operation_id = shop.begin("make")
        operation = shop.run(operation_id, probe=At(place, partial(_cancel, shop, operation_id)))
        done = [call for call in shop.calls if call in NAMES]
        if operation.state == "cancelled":
            cancelled += 1
            undone = [call for call in shop.calls if call.startswith("-")]
            assert undone == [f"-{name}" for name in reversed(NAMES[: len(undone)])]
            assert len(undone) == len(done)
            assert shop.calls[-1] == "[undone]"
        else:
            assert (operation.state, done) == ("succeeded", list(NAMES))
        shop.calls.clear()
    assert cancelled == 9  # everywhere but after the last commit


def _cancel(shop: Shop, operation_id: OperationId) -> None:
    with suppress(Conflict):  # it has ended already
        shop.cancel(operation_id)


def test_a_cancel_before_the_first_step_calls_none(shop: Shop) -> None:
    _three(shop)
    operation_id = shop.begin("make")
    shop.cancel(operation_id)
    operation = shop.run(operation_id)
    assert (operation.state, shop.calls) == ("cancelled", ["[undone]"])
    assert operation.finished_at is not None


@pytest.mark.parametrize("answer", [Wait(seconds=3600, reason="slow"), Unreachable()], ids=["waits", "retries"])
def test_what_waits_is_cancelled_at_once(shop: Shop, answer: Wait | Unreachable) -> None:
    long = Retry(first_delay_s=3600, max_delay_s=3600)
    shop.workflow("make", shop.step("a"), shop.step("b", answer, deadline_s=7200, retry=long))
    operation_id, engine = shop.begin("make"), shop.engine()
    engine.run_due()
    assert engine.run_due() == 0
    shop.cancel(operation_id)
    engine.run_due()
    assert shop.operation(operation_id).state == "cancelled"
    assert shop.calls == ["a", "b", "-b", "-a", "[undone]"]


def test_a_cancel_during_a_step_that_goes_on_to_wait_is_not_kept_waiting(shop: Shop) -> None:
    ids: list[OperationId] = []

    def look(context: Context) -> Wait:
        shop.cancel(ids[0])
        return Wait(seconds=3600, reason="slow")

    shop.workflow("make", shop.step("a", look, deadline_s=7200))
    ids.append(shop.begin("make"))
    engine = shop.engine()
    engine.run_due()
    engine.run_due()
    assert shop.operation(ids[0]).state == "cancelled"


def test_a_failure_undoes_in_reverse_and_keeps_its_reason(shop: Shop) -> None:
    shop.workflow(
        "make", shop.step("a"), shop.step("b", undo=None), shop.step("c", Refused("No such port.", fix="Add it."))
    )
    operation = shop.run(shop.begin("make"))
    assert shop.calls == ["a", "b", "c", "-c", "-a", "[undone]"]
    assert (operation.state, operation.reason) == ("failed", "No such port.")
    assert operation.error == {
        "code": "refused",
        "message": "No such port.",
        "fix": "Add it.",
        "details": {},
        "step": "c",
        "public": asdict(Refused().public()),
    }


def test_undoing_survives_a_crash_at_every_boundary(shop: Shop) -> None:
    probe = At(-1, crash)
    shop.workflow("fail", shop.step("a"), shop.step("b"), shop.step("c", Refused("no")))
    shop.run(shop.begin("fail"), probe=probe)
    first = next(place for place, name in enumerate(probe.seen) if name.startswith("-"))
    assert len(probe.seen) - first == 9
    for place in range(first, len(probe.seen)):
        shop.calls.clear()
        operation = shop.run(shop.begin("fail"), probe=At(place, crash))
        assert operation.state == "failed"
        undone = [call for call in shop.calls if call.startswith("-")]
        assert list(dict.fromkeys(undone)) == ["-c", "-b", "-a"]
        assert len(undone) <= 4  # at most the one at hand twice
        assert shop.calls.count("[undone]") == 1


def test_an_undo_is_tried_again_by_kind_of_failure_and_waits_like_a_step(shop: Shop) -> None:
    undo = (Unreachable(), Wait(seconds=5, reason="powers off"), Unreachable(), Done())
    shop.workflow("fail", shop.step("a", undo=undo), shop.step("b", Refused("no")))
    operation = shop.run(shop.begin("fail"))
    assert operation.state == "failed"
    assert shop.calls == ["a", "b", "-b", "-a", "-a", "-a", "-a", "[undone]"]


def _quarantine(shop: Shop) -> None:
    def note(tx: Transaction, operation: Operation, now: object) -> None:
        shop.calls.append(f"[stuck {operation.reason}]")

    steps = shop.step("a", undo=(Refused("The port does not answer."),)), shop.step("b", Refused("no"))
    shop.workflow("fail", *steps, on_stuck=note)


def test_an_undo_that_fails_ends_in_quarantine_never_free(shop: Shop) -> None:
    _quarantine(shop)
    operation = shop.run(shop.begin("fail"))
    assert shop.calls == ["a", "b", "-b", "-a", "[stuck a: The port does not answer.]"]
    assert (operation.state, operation.error and operation.error["message"]) == ("failed", "no")


def test_an_undo_that_fails_parks_where_no_quarantine_is_and_can_be_resumed(shop: Shop) -> None:
    repeats: list[bool] = []

    def undo(context: Context) -> Done:
        repeats.append(context.is_repeat)
        if len(repeats) == 1:
            raise Refused("The port does not answer.")
        return Done()

    shop.workflow("fail", shop.step("a", undo=(undo,)), shop.step("b", Refused("no")))
    operation = shop.run(shop.begin("fail"))
    assert (operation.state, operation.reason) == ("needs-operator", "a: The port does not answer.")
    assert (operation.worker, operation.resource, operation.finished_at) == ("", "", None)
    shop.advance(3600)
    assert shop.engine().run_due() == 0
    with pytest.raises(Conflict):
        shop.cancel(operation.id)

    shop.resume(operation.id)
    assert shop.run(operation.id).state == "failed"
    assert repeats == [False, True]


def test_what_only_goes_forward_parks_when_it_fails_and_goes_on_when_resumed(shop: Shop) -> None:
    step = shop.step("b", Refused("The switch is locked."), Done())
    shop.workflow("give-back", shop.step("a"), step, shop.step("c"), is_forward_only=True)
    operation = shop.run(shop.begin("give-back"))
    assert (operation.state, operation.reason) == ("needs-operator", "b: The switch is locked.")
    shop.resume(operation.id)
    assert shop.run(operation.id).state == "succeeded"
    assert shop.calls == ["a", "b", "b", "c", "[done]"]


def test_what_only_goes_forward_passes_over_a_cancel(shop: Shop) -> None:
    shop.workflow("give-back", shop.step("a"), shop.step("b"), is_forward_only=True)
    operation_id = shop.begin("give-back")
    with shop.store.transaction() as tx:
        tx.operations.change(operation_id, is_cancel_requested=True)
    assert shop.run(operation_id).state == "succeeded"


@pytest.mark.parametrize("kind", ["release", "stop", "detach"])
def test_a_cancel_of_what_only_goes_forward_is_refused(shop: Shop, kind: str) -> None:
    with pytest.raises(Conflict) as caught:
        shop.cancel(shop.begin(kind))
    assert caught.value.code == "not-cancellable"


def test_a_parked_operation_that_is_cancelled_turns_back(shop: Shop) -> None:
    def forbid(tx: Transaction, operation: Operation, now: object) -> None:
        raise KeyError("on_done")

    shop.workflow("make", shop.step("a"), shop.step("b"), on_done=forbid)
    operation = shop.run(shop.begin("make"))
    assert operation.state == "needs-operator"
    shop.cancel(operation.id)
    assert shop.run(operation.id).state == "cancelled"
    assert shop.calls[-3:] == ["-b", "-a", "[undone]"]


def test_a_token_held_by_a_dead_worker_is_given_back_when_its_step_is_not_entered_again(shop: Shop) -> None:
    shop.limits = {"switch": 1}
    held = shop.step("b", undo=None, resource=lambda operation: "switch:1")
    shop.workflow("make", shop.step("a", undo=(Wait(seconds=60, reason="slow"), Done())), held)
    dies, other = shop.begin("make"), shop.begin("make")
    with pytest.raises(Crash):
        shop.engine(probe=At("b:begun", crash)).run_due(1)
    shop.cancel(dies)
    shop.advance(LEASE_S)
    shop.engine().run_due()
    assert shop.operation(dies).reason == "slow"  # it walks its undos still, and is at no switch
    shop.engine().run_due()
    assert shop.operation(other).state == "succeeded"
