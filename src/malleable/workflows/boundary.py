"""The boundary between two steps: one transaction, under the fence, that ends the one and begins the other."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from malleable.domain.errors import Busy, FenceLost, MalleableError, Public, Unavailable
from malleable.domain.operations import Direction, Operation, OperationState, StepRecord, Wait
from malleable.domain.store import EVENTS, GATEWAY, WORK, Transaction
from malleable.workflows import plan
from malleable.workflows.plan import Place
from malleable.workflows.steps import Ask, Context, Done, Step, Workflow, take_turns, turns

T = TypeVar("T")

#: Whoever gives a token back wakes the next in line; this is only the fallback when that wake-up is lost. Every waiting
#: operation costs one look per this time: 500 at one switch cost 50 looks a second.
RESOURCE_RECHECK_S = 10.0
#: So often may workers die at one step, beyond its tries, before somebody has to look at it.
DEATHS_MAX = 5
CANCELLED: Mapping[str, object] = {
    "code": "cancelled",
    "message": "Cancelled on request.",
    "fix": "",
    "public": {"message": "Cancelled on request.", "fix": ""},
}
TAKES_ITS_TURN = Public("It waits for its turn.")
#: What a step says while it is done once more because nothing came of its last try, not even an error.
_AGAIN = {
    "reason": "its worker ended amid this step; it is done again from its beginning",
    "public_reason": "It was broken off amid this step, which is done again from its beginning.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A step that is begun in the database and not yet walked."""

    operation: Operation
    place: Place
    intent: object = None  #: what the step's opening has written


class Unopened(Exception):
    """What opens the next step could not be written; nothing is, and the step can begin without."""


class Unwritten(Exception):
    """What a step wanted written could not be."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        super().__init__(str(error))


class Deadly(MalleableError):
    """The worker died at this step again and again."""

    code = "deadly-step"


def resumed(workflow: Workflow, operation: Operation, now: datetime) -> Begun | None:
    """Go on with the look that a claimed operation waited for, if there is nothing to write before: no token to take.

    Only under the lease of its claim: without a write nobody is asked for the fence. Errors: UnknownStep.
    """
    is_open = operation.step_began_at is not None and operation.step_deadline_at is not None
    is_ours = operation.lease_expires_at is not None and now < operation.lease_expires_at
    if not is_open or not is_ours or operation.attempt > 1 or operation.is_cancel_requested:
        return None
    place = plan.current(workflow, operation)
    if place is None or place.step.name != operation.step or place.step.resource is not None:
        return None
    again = replace(operation, step_attempts=operation.step_attempts + 1, resource="")
    return Begun(operation=again, place=place)


class Boundary:
    """One claimed operation inside one transaction.

    The first statement of every method carries the fence and raises FenceLost. Resources are taken last of all, as the
    store wants it. Everything holds only if the transaction commits.
    """

    def __init__(
        self,
        tx: Transaction,
        workflow: Workflow,
        operation: Operation,
        now: datetime,
        *,
        limits: Mapping[str, int],
        context: Callable[[Operation], Context] | None,
        is_stopping: bool = False,
    ) -> None:
        self.operation = operation  #: as this transaction leaves it
        self._tx, self._workflow, self._now, self._limits = tx, workflow, now, limits
        self._context = context  #: for what opens a step; None: it begins without
        self._is_stopping = is_stopping
        self._is_walking = True  #: so what it says it holds, it holds
        self._held = operation.resource
        self._has_new_deadline = self._has_new_line = False

    # -- what may come of a step --------------------------------------------------------------------------------------

    def begin(self) -> Begun | None:
        """Enter the place at which a claimed operation stands. Errors: UnknownStep, Unopened."""
        operation, workflow = self.operation, self._workflow
        self._is_walking = False
        if operation.attempt == 1:
            self._held = ""  # what waits has no try behind it: its resource is what it waits for
        else:
            # Whoever lost it, maybe token in hand, may have died between a commit and telling others of it.
            for channel in (EVENTS, GATEWAY, WORK):
                self._tx.notify(channel)
        if not (operation.is_cancel_requested and self._can_turn_back):
            place = plan.current(workflow, operation)
            if place is not None and operation.attempt > place.step.retry.attempts + DEATHS_MAX:
                raise Deadly(f"The worker died {operation.attempt - 1} times at step {operation.step}.")
            return self._enter(place)
        if operation.resource:
            # It may have been woken to take a token that it will not take now: the next in line shall have it.
            self._wake_one(operation.resource)
        left = operation.line() if operation.step_began_at is not None else None
        return self._turn_back(CANCELLED, plan.unwinding(workflow, operation), left)

    def take(self, claim: Mapping[str, object]) -> Begun | None:
        """Add an operation that is claimed, and enter its first place. Errors: Conflict when its node has another."""
        self._is_walking = False
        place = plan.current(self._workflow, self.operation)
        self.operation = replace(self.operation, **{**claim, **self._entering(place)})
        self._tx.operations.add(self.operation)
        return self._enter(place, is_written=True)

    def finish(self, place: Place, done: Done) -> Begun | None:
        """End a step and begin the next one. Errors: Unwritten, Unopened."""
        before, following = self.operation, plan.following(self._workflow, self.operation, place)
        result = {"result": {**before.result, **done.result}} if done.result else {}
        # One statement for both: this is what most of the engine's time goes into.
        if following is not None:
            is_cancelled = self._write(**result, **self._beginning(following))
        else:
            is_cancelled = not self._ends(result)
        self._tx.operations.add_step(before.line(finished_at=self._now, evidence=dict(done.evidence)))
        if done.write is not None:
            self._written(done.write)
        if following is not None and self._pauses(following):
            self._leave(is_cancelled=is_cancelled)
            return None
        if is_cancelled and before.direction is Direction.DO and self._workflow.on_undone is not None:
            return self._turn_back(CANCELLED, plan.unwinding(self._workflow, before))
        return self._enter(following, is_written=True)

    def _ends(self, result: Mapping[str, object]) -> bool:
        """Write that the operation is at its end, unless it can turn back and a cancel is asked for."""
        changes, operation = {**result, **self._ending()}, self.operation
        if not self._can_turn_back:
            self._write(**changes)
            return True
        expect = {"fence": operation.fence, "is_cancel_requested": False}
        if self._tx.operations.change(operation.id, expect=expect, **changes):
            self.operation = replace(operation, **changes)
            return True
        return not self._write(**result, **self._entering(None))

    def wait(self, wait: Wait) -> None:
        """Give the lease back until the wait is over, or until the step's deadline. Errors: Unwritten."""
        # A wait is not a failed try: the count of tries starts again at the next look.
        until, memory = self._until(wait.seconds), dict(wait.memory)
        kept: dict[str, Any] = {"step_evidence": memory} if memory else {}
        self._let_go(until, wait.reason, wait.public, attempt=0, resource=wait.resource, **kept)
        if isinstance(wait, Ask):
            memory |= self._written(wait.write)
            self._write(step_evidence=memory)

    def retry(self, place: Place, error: Exception) -> None:
        """Give the lease back until the step's next try."""
        public = public_of(error, place)
        due_at = self._until(place.step.retry.delay_s(self.operation.attempt))
        errors = {"step_error": str(error), "step_public_error": public.message}
        why = _why_again(str(error), public.message)
        self._let_go(due_at, why["reason"], Public(why["public_reason"]), **errors)

    def fail(self, place: Place, problem: Mapping[str, object]) -> Begun | None:
        """Turn back after a step's failure; end or park the operation when it cannot."""
        message, public = str(problem["message"]), public_message(problem)
        before = self.operation
        line = before.line(error=message, public_error=public)
        if self._can_turn_back:
            back = plan.unwinding(self._workflow, before)
            return self._turn_back(problem, back, replace(line, finished_at=self._now))
        # The line stays open: when the operation is resumed, the step knows that it was tried before.
        self._write(error=dict(before.error or problem), step_error=message, step_public_error=public)
        reason, public = f"{place.step.name}: {message}", f"{place.step.name}: {public}"
        if self._workflow.on_stuck is None:
            self.operation = park(self._tx, self.operation, reason, public, self._now)
        else:
            self._tx.operations.add_step(replace(line, finished_at=self._now))
            self._write(**self._closed(OperationState.FAILED, reason, public))
            self._let_others()
            self._workflow.on_stuck(self._tx, self.operation, self._now)
        return None

    # -- entering and turning back ------------------------------------------------------------------------------------

    @property
    def _can_turn_back(self) -> bool:
        return self.operation.direction is Direction.DO and self._workflow.on_undone is not None

    def _turn_back(
        self, problem: Mapping[str, object], back: Place | None, left: StepRecord | None = None
    ) -> Begun | None:
        """Begin to undo; ``left`` is the line of a step that is left half-way."""
        error = dict(self.operation.error or problem)
        self._write(**{"direction": Direction.UNDO, **self._entering(back), "error": error})
        if left is not None:
            self._tx.operations.add_step(left)
        if not self._held:  # nor is it known to: but it may have stood in line with a token of its project in hand
            _give_back_tokens(self._tx, self.operation, self._now)
        return self._enter(back, is_written=True)

    def _entering(self, place: Place | None) -> dict[str, Any]:
        """Say what the operation's row tells once it has entered a place."""
        if place is None:
            return {"step_began_at": None}
        step, operation = place.step, self.operation
        is_new = operation.step != step.name or operation.direction is not place.direction
        self._has_new_deadline = is_new or operation.step_deadline_at is None
        deadline_at = self._now + timedelta(seconds=step.deadline_s)
        self._has_new_line = is_new or operation.step_began_at is None
        line: dict[str, Any] = {"step_attempts": operation.step_attempts + 1}
        if self._has_new_line:
            line = {"step_began_at": self._now, "step_attempts": 1, "step_evidence": {}}
            line |= {"step_error": "", "step_public_error": ""}
        is_again = not self._has_new_line and operation.attempt > 1
        return {
            "reason": "",
            "public_reason": "",
            **(_why_again(operation.step_error, operation.step_public_error) if is_again else {}),
            **line,
            "step": step.name,
            "direction": place.direction,
            "state": OperationState.RUNNING if place.direction is Direction.DO else OperationState.UNDOING,
            "attempt": 1 if is_new else operation.attempt,  # it was counted by the claim
            "step_deadline_at": deadline_at if self._has_new_deadline else operation.step_deadline_at,
            "resource": self._resource_of(step),
        }

    def _pauses(self, place: Place) -> bool:
        return place.step.pause is not None and place.direction is Direction.DO and self._has_new_line

    def _beginning(self, place: Place) -> dict[str, Any]:
        """Say what the row tells once a place is entered; it waits there already if that is how the step begins."""
        entered = self._entering(place)
        if place.step.pause is None or not self._pauses(place):
            return entered
        wait = place.step.pause(self.operation)
        until = min(self._now + timedelta(seconds=wait.seconds), entered["step_deadline_at"])
        return entered | self._letting_go(until, wait.reason, wait.public, attempt=0, resource=wait.resource)

    def _enter(self, place: Place | None, *, is_written: bool = False) -> Begun | None:
        """Begin a step, or end the operation when there is none."""
        if place is None:
            if self.operation.finished_at is None:
                self._write(**self._ending())
            self._end()
            return None
        if not is_written:
            self._write(**self._entering(place))
        resource = self.operation.resource
        if self._is_stopping:
            self._give_way(0.0, "its worker stops", Public("It goes on in a moment."), "")
            self._tx.notify(WORK)
            return None
        if not resource:
            # Opened first: what it locks comes before the rows of those that are woken to take a token, everywhere.
            begun = self._open(place)
            self._release()
            return begun
        if lacking := self._lacks(resource):
            self._give_way(RESOURCE_RECHECK_S, f"waits for its turn at {lacking}", TAKES_ITS_TURN, lacking)
            return None
        return self._open(place)

    def _open(self, place: Place) -> Begun | None:
        """Write what opens a step that is entered; None: it begins by waiting. Errors: Unopened."""
        if place.step.pause is not None and self._pauses(place):
            self.wait(place.step.pause(self.operation))
            return None
        opening = place.step.opening if self._has_new_line and place.direction is Direction.DO else None
        if opening is None or self._context is None:
            return Begun(operation=self.operation, place=place)
        try:
            intent = opening(self._context(self.operation), self._tx)
            if isinstance(intent, Wait):
                self.wait(intent)
                return None
        except FenceLost:
            raise
        except Exception as e:
            raise Unopened from e
        return Begun(operation=self.operation, place=place, intent=intent)

    def _give_way(self, delay_s: float, reason: str, public: Public, resource: str) -> None:
        """Leave a step that is entered but not begun: that was no try, and its time has not begun to run."""
        deadline_at = None if self._has_new_deadline else self.operation.step_deadline_at
        line: dict[str, Any] = {"step_attempts": self.operation.step_attempts - 1}
        if self._has_new_line:
            line = {"step_began_at": None}
        self._let_go(
            self._now + timedelta(seconds=delay_s),
            reason,
            public,
            attempt=self.operation.attempt - 1,
            step_deadline_at=deadline_at,
            resource=resource,
            **line,
        )

    # -- the ends -----------------------------------------------------------------------------------------------------

    def _ending(self) -> dict[str, Any]:
        """Say what the operation's row tells once there is nothing more to do or to undo."""
        if self.operation.direction is Direction.DO:
            return self._closed(OperationState.SUCCEEDED, "", "")
        problem = self.operation.error or {}
        is_cancelled = problem.get("code") == CANCELLED["code"]
        state = OperationState.CANCELLED if is_cancelled else OperationState.FAILED
        return self._closed(state, str(problem.get("message", "")), public_message(problem))

    def _closed(self, state: OperationState, reason: str, public_reason: str) -> dict[str, Any]:
        ended: dict[str, Any] = {"state": state, "reason": reason, "public_reason": public_reason}
        ended |= {"finished_at": self._now, "worker": "", "lease_expires_at": None, "resource": ""}
        return {**ended, "step_began_at": None}

    def _end(self) -> None:
        """Do what belongs to the end that is written."""
        self._let_others()
        if self.operation.direction is Direction.DO:
            self._workflow.on_done(self._tx, self.operation, self._now)
        elif self._workflow.on_undone is not None:
            self._workflow.on_undone(self._tx, self.operation, self._now)

    def _let_others(self) -> None:
        self._release()
        # Who waits for this operation as its predecessor waits for this resource.
        if self._tx.operations.wake_all(now=self._now, resource=f"operation:{self.operation.id}"):
            self._tx.notify(WORK)

    # -- statements ---------------------------------------------------------------------------------------------------

    def _write(self, **changes: Any) -> bool:
        """Change the operation's row; say whether a cancel is asked for."""
        standing = self._tx.operations.write(self.operation.id, self.operation.fence, **changes)
        self.operation = replace(self.operation, **{**changes, "next_due_at": standing.next_due_at})
        return standing.is_cancel_requested

    def _written(self, write: Callable[[Transaction], T]) -> T:
        """Write what a step wants written."""
        try:
            return write(self._tx)
        except (FenceLost, Busy, Unavailable):
            raise  # lost to another worker, or the database's own trouble: the lease settles both
        except Exception as e:
            raise Unwritten(e) from e

    def _let_go(self, due_at: datetime, reason: str, public: Public, *, resource: str = "", **changes: Any) -> None:
        """Give the lease and the token back until later."""
        changes = {"step_attempts": self.operation.step_attempts, **changes}
        is_cancelled = self._write(**changes, **self._letting_go(due_at, reason, public, resource=resource))
        self._leave(is_cancelled=is_cancelled)

    def _letting_go(
        self, due_at: datetime, reason: str, public: Public, *, resource: str, **changes: Any
    ) -> dict[str, Any]:
        """Say what the operation's row tells while nobody walks it."""
        is_doing = self.operation.direction is Direction.DO
        return {
            **changes,
            "state": OperationState.WAITING if is_doing else OperationState.UNDOING,
            "resource": resource,
            "reason": reason,
            "public_reason": public.message,
            "worker": "",
            "lease_expires_at": None,
            "next_due_at": due_at,
        }

    def _leave(self, *, is_cancelled: bool) -> None:
        """Give the token back; be due now if a cancel is asked for."""
        if is_cancelled and self._can_turn_back:
            self._write(next_due_at=self._now)  # it was asked for while the step ran: do not wait before undoing
        self._release()

    def _until(self, seconds: float) -> datetime:
        due_at, deadline_at = self._now + timedelta(seconds=seconds), self.operation.step_deadline_at
        return due_at if deadline_at is None or deadline_at <= self._now else min(due_at, deadline_at)

    def _resource_of(self, step: Step) -> str:
        resource = step.resource(self.operation) if step.resource else ""
        return resource if resource in turns(self._limits, resource, self.operation) else ""

    def _lacks(self, resource: str) -> str:
        """Give back the tokens of another step; take this one's. Return which one is lacking; "": none."""
        if self._held and self._held == resource and self._is_walking:
            return ""
        if self._held != resource:
            self._release()
        self._held = ""
        if lacking := take_turns(self._tx, self._limits, resource, self.operation):
            return lacking
        self._held = resource
        return ""

    def _release(self) -> None:
        if self._held:
            _give_back_tokens(self._tx, self.operation, self._now)
        self._held = ""

    def _wake_one(self, resource: str) -> None:
        _wake_one(self._tx, resource, self._now)


def public_of(error: Exception, place: Place) -> Public:
    """Say to a tenant what went wrong at a step."""
    known = error if isinstance(error, MalleableError) else MalleableError()
    return known.public(place.step.device)


def public_message(problem: Mapping[str, object]) -> str:
    """Read what tenants are told out of problem details; "" when there is nothing."""
    public = problem.get("public")
    return str(public.get("message", "")) if isinstance(public, Mapping) else ""


def _why_again(error: str, public_error: str) -> Mapping[str, str]:
    """Say why a step is done once more; also while it is, for trying what hangs takes longer than the wait before."""
    if not error:
        return _AGAIN
    return {"reason": f"will try again: {error}", "public_reason": f"{public_error} It is tried again."}


def park(tx: Transaction, operation: Operation, reason: str, public_reason: str, now: datetime) -> Operation:
    """Stop visibly where only a person can decide; return the operation as it is then. Errors: FenceLost."""
    changes: dict[str, Any] = {"state": OperationState.NEEDS_OPERATOR, "reason": reason, "public_reason": public_reason}
    changes |= {"worker": "", "lease_expires_at": None, "resource": ""}
    tx.operations.write(operation.id, operation.fence, **changes)
    _give_back_tokens(tx, operation, now)
    return replace(operation, **changes)


def _give_back_tokens(tx: Transaction, operation: Operation, now: datetime) -> None:
    for resource in tx.operations.release_resources(operation.id):
        _wake_one(tx, resource, now)


def _wake_one(tx: Transaction, resource: str, now: datetime) -> None:
    if tx.operations.wake(now=now, resource=resource):
        tx.notify(WORK)
