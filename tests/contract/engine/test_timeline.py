"""The step log: what the CLI shows, what an audit reads, what metrics count."""

from dataclasses import dataclass, field

from tests.contract.engine.shop import Shop

from malleable.domain.errors import Refused, Unreachable
from malleable.domain.operations import Direction, Operation, Retry, Wait
from malleable.workflows.steps import Context, Done


def _takes(shop: Shop, seconds: float, **evidence: object) -> Done:
    shop.advance(seconds)
    return Done(evidence=evidence)


def _fails(shop: Shop, seconds: float) -> Done:
    shop.advance(seconds)
    raise Unreachable("No answer.", fix="Look at the cable.")


def _workflow(shop: Shop) -> None:
    retry = Retry(attempts=3, first_delay_s=10)
    shop.workflow(
        "make",
        shop.step("a", lambda context: _takes(shop, 2, power="off")),
        shop.step("b", lambda context: _fails(shop, 1), lambda context: _takes(shop, 1, port="p1"), retry=retry),
        shop.step("c", Wait(seconds=5, reason="boots"), Refused("It lies."), undo=None),
    )


def test_steps_are_recorded_in_order_with_their_tries_times_and_proofs(shop: Shop) -> None:
    _workflow(shop)
    began = shop.clock.now()
    operation = shop.run(shop.begin("make"))
    lines = [
        (
            record.name,
            record.direction,
            record.attempts,
            (record.started_at - began).total_seconds(),
            record.finished_at and (record.finished_at - began).total_seconds(),
            record.evidence,
            record.error,
        )
        for record in shop.timeline(operation.id)
    ]
    do, undo = Direction.DO, Direction.UNDO
    assert lines == [
        ("a", do, 1, 0, 2, {"power": "off"}, ""),
        ("b", do, 2, 2, 14, {"port": "p1"}, "No answer. Look at the cable."),
        ("c", do, 2, 14, 19, {}, "It lies."),
        ("b", undo, 1, 19, 19, {}, ""),
        ("a", undo, 1, 19, 19, {}, ""),
    ]
    assert [record.ordinal for record in shop.timeline(operation.id)] == [0, 1, 2, 3, 4]
    assert (operation.started_at, operation.finished_at) == (began, shop.clock.now())


def test_what_waits_says_why_and_until_when(shop: Shop) -> None:
    _workflow(shop)
    operation_id, engine = shop.begin("make"), shop.engine()
    engine.run_due()
    operation = shop.operation(operation_id)
    assert (operation.state, operation.step) == ("waiting", "b")
    assert operation.reason == "will try again: No answer. Look at the cable."
    shop.advance(10)
    engine.run_due()
    operation = shop.operation(operation_id)
    assert (operation.state, operation.step, operation.reason) == ("waiting", "c", "boots")
    assert operation.step_deadline_at is not None
    assert operation.next_due_at < operation.step_deadline_at


def test_why_a_step_is_done_again_is_told_until_it_has_ended(shop: Shop) -> None:
    """A device that is away is waited for longer by the try itself than between two of them."""
    told: list[str] = []

    def look(context: Context) -> Done | Wait:
        told.append(shop.operation(context.operation.id).reason)
        if len(told) in (1, 2):
            raise Unreachable("No answer.")
        return Wait(seconds=5, reason="boots") if len(told) == 3 else Done()

    shop.workflow("make", shop.step("a", look), shop.step("b"))
    operation = shop.run(shop.begin("make"))
    assert told == ["", "will try again: No answer.", "will try again: No answer.", ""]
    assert (operation.state, operation.reason) == ("succeeded", "")


def test_results_of_steps_are_gathered(shop: Shop) -> None:
    def second(context: Context) -> Done:
        assert context.operation.result == {"disk": "d1"}
        return Done(result={"target": "t1"})

    shop.workflow("make", shop.step("a", Done(result={"disk": "d1"})), shop.step("b", second))
    assert shop.run(shop.begin("make")).result == {"disk": "d1", "target": "t1"}


@dataclass
class Notes:
    """An observer."""

    steps: list[tuple[str, str, float, str]] = field(default_factory=list)
    ends: list[tuple[str, str]] = field(default_factory=list)

    def step_ended(self, operation: Operation, step: str, direction: Direction, seconds: float, outcome: str) -> None:
        self.steps.append((step, direction.value, seconds, outcome))

    def operation_ended(self, operation: Operation) -> None:
        self.ends.append((operation.kind, operation.state.value))


def test_time_per_step_and_the_end_are_always_measured(shop: Shop) -> None:
    _workflow(shop)
    notes = Notes()
    engine, operation_id = shop.engine(observer=notes), shop.begin("make")
    while shop.operation(operation_id).finished_at is None:
        engine.run_due()
        shop.pass_time()
    assert notes.steps == [
        ("a", "do", 2, "done"),
        ("b", "do", 1, "retry"),
        ("b", "do", 1, "done"),
        ("c", "do", 0, "wait"),
        ("c", "do", 0, "failed"),
        ("b", "undo", 0, "done"),
        ("a", "undo", 0, "done"),
    ]
    assert notes.ends == [("make", "failed")]
