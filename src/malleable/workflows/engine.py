"""The engine: walks operations through their steps, durably, on any number of workers.

One transaction ends a step and begins the next: it carries the fence, writes the step's proof and its changes, gives
back the concurrency token and takes the next one. Devices are talked to between transactions, never inside one. So a
worker may die after any line: whoever takes the lease over sees either the step begun (and observes before acting
again) or the step ended with everything it wrote.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, cast

import structlog

from malleable.domain.errors import Busy, DriverError, FenceLost, Malformed, MalleableError, Unavailable, Unreachable
from malleable.domain.operations import ACTIVE_STATES, Direction, Operation, OperationState, StepRecord, Wait
from malleable.domain.ports import Clock, Drivers
from malleable.domain.store import WORK, Store, Transaction
from malleable.workflows import plan
from malleable.workflows.plan import Place, UnknownStep
from malleable.workflows.steps import Context, Done, Observer, Probe, Workflow

log = structlog.get_logger()

#: A token's holder wakes the next in line; this is only the fallback when that wake-up is lost.
RESOURCE_RECHECK_S = 2.0
_MAY_PASS = (Unreachable, Busy, Malformed)


class Engine:
    """Walks operations in the calling thread; ``Worker`` gives it threads."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        drivers: Drivers,
        workflows: Mapping[str, Workflow],
        worker: str,
        lease_s: float = 2.0,
        observer: Observer | None = None,
        probe: Probe | None = None,
    ) -> None:
        self.store, self.clock, self.drivers, self.workflows = store, clock, drivers, workflows
        self.worker, self.lease_s = worker, lease_s
        self._observer, self._probe = observer, probe

    def claim(self, limit: int) -> tuple[Operation, ...]:
        """Take the lease of up to ``limit`` due operations."""
        with self.store.transaction() as tx:
            return tx.operations.claim(self.worker, self.clock.now(), self.lease_s, limit)

    def run_due(self, limit: int = 100) -> int:
        """Claim and walk what is due now, in this thread; return how many operations were claimed."""
        claimed = self.claim(limit)
        for operation in claimed:
            self.walk(operation)
        return len(claimed)

    def walk(self, operation: Operation) -> None:
        """Walk a claimed operation until it waits, ends, or is lost to another worker."""
        self._at("claimed", operation)
        try:
            begun = self._begin(operation)
            while begun is not None:
                begun = self._walk_step(*begun)
        except FenceLost:
            log.warning("operation taken over by another worker", operation=str(operation.id))

    # -- one step ---------------------------------------------------------------------------------------------------

    def _begin(self, operation: Operation) -> tuple[Operation, Place, StepRecord] | None:
        """Enter the place a claimed operation stands at."""
        workflow = self.workflows.get(operation.kind)
        if workflow is None:
            self._park(operation, f"This version does not know the workflow {operation.kind!r}.")
            return None
        with self.store.transaction() as tx:
            now = self.clock.now()
            if operation.direction is Direction.DO and operation.is_cancel_requested and workflow.on_undone:
                return self._turn_back(tx, workflow, operation, _cancelled(), now)
            try:
                place = plan.current(workflow, operation)
            except UnknownStep as e:
                self._park(operation, str(e), tx)
                return None
            return self._enter(tx, workflow, operation, place, now)

    def _enter(
        self, tx: Transaction, workflow: Workflow, operation: Operation, place: Place | None, now: datetime
    ) -> tuple[Operation, Place, StepRecord] | None:
        """Begin a step (or end the operation when there is none) inside the transaction at hand."""
        if place is None:
            self._end(tx, workflow, operation, now)
            return None
        step, is_new = place.step, operation.step != place.step.name or operation.direction is not place.direction
        changes: dict[str, object] = {"step": step.name, "direction": place.direction, "reason": ""}
        changes["state"] = OperationState.RUNNING if place.direction is Direction.DO else OperationState.UNDOING
        changes["attempt"] = 1 if is_new else operation.attempt + 1
        if is_new or operation.step_deadline_at is None:
            changes["step_deadline_at"] = now + timedelta(seconds=step.deadline_s)
        resource = step.resource(operation) if step.resource else ""
        if resource and not self._take(tx, operation, resource):
            changes |= {"attempt": 0 if is_new else operation.attempt, "resource": resource}
            self._let_go(tx, operation, now, RESOURCE_RECHECK_S, f"waits for its turn at {resource}", changes)
            return None
        changes["resource"] = resource
        tx.operations.write(operation.id, operation.fence, **changes)
        record = tx.operations.begin_step(operation.id, step.name, place.direction, now)
        return replace(operation, **cast(dict[str, Any], changes)), place, record

    def _walk_step(
        self, operation: Operation, place: Place, record: StepRecord
    ) -> tuple[Operation, Place, StepRecord] | None:
        self._at("begun", operation)
        started_s = self.clock.monotonic_s()
        context = Context(
            operation=operation,
            store=self.store,
            drivers=self.drivers,
            clock=self.clock,
            memory=record.evidence,
            is_repeat=record.attempts > 1,
        )
        outcome: Done | Wait | Exception
        try:
            outcome = place.function(context)
        except FenceLost:
            raise
        except Exception as e:  # noqa: BLE001  the one place where any failure of a step becomes data
            outcome = e
        self._at("acted", operation)
        name, following = self._settle(context, place, outcome)
        if self._observer is not None:
            seconds = self.clock.monotonic_s() - started_s
            self._observer.step_ended(operation, place.step.name, place.direction, seconds, name)
        self._at("committed", operation)
        return following

    def _settle(
        self, context: Context, place: Place, outcome: Done | Wait | Exception
    ) -> tuple[str, tuple[Operation, Place, StepRecord] | None]:
        """Write what came of a step, in one transaction; return the outcome's name and the next step begun."""
        operation, now = context.operation, self.clock.now()
        workflow = self.workflows[operation.kind]
        is_late = operation.step_deadline_at is not None and now >= operation.step_deadline_at
        if isinstance(outcome, Done):
            try:
                return "done", self._finish_step(workflow, operation, place, outcome)
            except (FenceLost, Busy, Unavailable):
                raise  # lost to another worker, or the database's own trouble: the lease settles both
            except Exception as e:  # noqa: BLE001  what the step wanted written was refused: the step has failed
                outcome = e
        if isinstance(outcome, Wait) and not is_late:
            self._wait(operation, place, outcome, now)
            return "wait", None
        if isinstance(outcome, Wait):
            outcome = _deadline(place, outcome)
        elif isinstance(outcome, _MAY_PASS) and not is_late and operation.attempt < place.step.retry.attempts:
            self._retry(operation, place, outcome, now)
            return "retry", None
        problem = self._explain(context, place, outcome)
        return "failed", self._fail(workflow, operation, place, problem)

    def _finish_step(
        self, workflow: Workflow, operation: Operation, place: Place, done: Done
    ) -> tuple[Operation, Place, StepRecord] | None:
        with self.store.transaction() as tx:
            now = self.clock.now()
            result = {**operation.result, **done.result}
            tx.operations.write(operation.id, operation.fence, result=result)
            tx.operations.end_step(
                operation.id, place.step.name, place.direction, finished_at=now, evidence=dict(done.evidence)
            )
            if done.write is not None:
                done.write(tx)
            self._release(tx, operation, now)
            latest = tx.operations.get(operation.id)
            if latest.is_cancel_requested and latest.direction is Direction.DO and workflow.on_undone:
                return self._turn_back(tx, workflow, latest, _cancelled(), now)
            return self._enter(tx, workflow, latest, plan.following(workflow, latest, place), now)

    def _wait(self, operation: Operation, place: Place, wait: Wait, now: datetime) -> None:
        with self.store.transaction() as tx:
            # A wait is not a failed try: the count of tries starts again at the next look.
            self._let_go(tx, operation, now, wait.seconds, wait.reason, {"attempt": 0, "resource": wait.resource})
            if wait.memory:
                tx.operations.end_step(operation.id, place.step.name, place.direction, evidence=dict(wait.memory))

    def _retry(self, operation: Operation, place: Place, error: MalleableError, now: datetime) -> None:
        delay_s = place.step.retry.delay_s(operation.attempt)
        with self.store.transaction() as tx:
            self._let_go(tx, operation, now, delay_s, f"will try again: {error}", {})
            tx.operations.end_step(operation.id, place.step.name, place.direction, error=str(error))

    def _let_go(
        self,
        tx: Transaction,
        operation: Operation,
        now: datetime,
        delay_s: float,
        reason: str,
        changes: Mapping[str, object],
    ) -> None:
        """Give the lease back until later."""
        direction = changes.get("direction", operation.direction)
        values: dict[str, object] = {
            "resource": "",
            **changes,
            "state": OperationState.WAITING if direction is Direction.DO else OperationState.UNDOING,
            "worker": "",
            "lease_expires_at": None,
            "reason": reason,
            "next_due_at": now + timedelta(seconds=delay_s),
        }
        tx.operations.write(operation.id, operation.fence, **values)
        self._release(tx, operation, now)

    # -- failure and the ends ---------------------------------------------------------------------------------------

    def _explain(self, context: Context, place: Place, error: Exception) -> dict[str, object]:
        if not isinstance(error, MalleableError):
            log.error("step failed by a defect", operation=str(context.operation.id), exc_info=error)
            error = MalleableError(
                f"A defect of the software stopped the step: {type(error).__name__}.",
                code="internal",
                fix="Report it with the server's log of this moment.",
            )
        problem: dict[str, object] = {"code": error.code, "message": error.message, "fix": error.fix}
        problem |= {"details": error.details, "step": place.step.name}
        if place.step.explain is not None:
            try:
                problem["explanation"] = place.step.explain(context)
            except DriverError as e:
                problem["explanation"] = f"(no more is known: {e})"
        return problem

    def _fail(
        self, workflow: Workflow, operation: Operation, place: Place, problem: dict[str, object]
    ) -> tuple[Operation, Place, StepRecord] | None:
        with self.store.transaction() as tx:
            now, message = self.clock.now(), str(problem["message"])
            tx.operations.write(operation.id, operation.fence, error=operation.error or problem)
            tx.operations.end_step(operation.id, place.step.name, place.direction, finished_at=now, error=message)
            self._release(tx, operation, now)
            latest = tx.operations.get(operation.id)
            if place.direction is Direction.DO and workflow.on_undone is not None:
                return self._turn_back(tx, workflow, latest, problem, now)
            self._stuck(tx, workflow, latest, f"{place.step.name}: {message}", now)
        return None

    def _turn_back(
        self, tx: Transaction, workflow: Workflow, operation: Operation, problem: Mapping[str, object], now: datetime
    ) -> tuple[Operation, Place, StepRecord] | None:
        """Begin to undo."""
        tx.operations.write(
            operation.id,
            operation.fence,
            direction=Direction.UNDO,
            state=OperationState.UNDOING,
            error=dict(operation.error or problem),
            step_deadline_at=None,
        )
        place = plan.unwinding(workflow, operation)
        return self._enter(tx, workflow, tx.operations.get(operation.id), place, now)

    def _stuck(self, tx: Transaction, workflow: Workflow, operation: Operation, reason: str, now: datetime) -> None:
        if workflow.on_stuck is None:
            self._park(operation, reason, tx)
            return
        self._close(tx, operation, OperationState.FAILED, reason, now)
        workflow.on_stuck(tx, tx.operations.get(operation.id), now)

    def _end(self, tx: Transaction, workflow: Workflow, operation: Operation, now: datetime) -> None:
        if operation.direction is Direction.DO:
            self._close(tx, operation, OperationState.SUCCEEDED, "", now)
            workflow.on_done(tx, tx.operations.get(operation.id), now)
            return
        problem = operation.error or {}
        state = OperationState.CANCELLED if problem.get("code") == "cancelled" else OperationState.FAILED
        self._close(tx, operation, state, str(problem.get("message", "")), now)
        if workflow.on_undone is not None:
            workflow.on_undone(tx, tx.operations.get(operation.id), now)

    def _close(self, tx: Transaction, operation: Operation, state: OperationState, reason: str, now: datetime) -> None:
        tx.operations.write(
            operation.id,
            operation.fence,
            state=state,
            reason=reason,
            finished_at=now,
            worker="",
            lease_expires_at=None,
            resource="",
        )
        self._release(tx, operation, now)
        # Who waits for this operation as its predecessor waits for this resource.
        tx.operations.wake(now=now, resource=f"operation:{operation.id}")
        tx.notify(WORK)
        if self._observer is not None:
            self._observer.operation_ended(operation)

    def _park(self, operation: Operation, reason: str, tx: Transaction | None = None) -> None:
        """Stop visibly where only a person can decide."""
        if tx is None:
            with self.store.transaction() as own:
                self._park(operation, reason, own)
            return
        log.error("operation needs an operator", operation=str(operation.id), kind=operation.kind, reason=reason)
        tx.operations.write(
            operation.id,
            operation.fence,
            state=OperationState.NEEDS_OPERATOR,
            reason=reason,
            worker="",
            lease_expires_at=None,
        )
        self._release(tx, operation, self.clock.now())

    # -- tokens and seams -------------------------------------------------------------------------------------------

    def _take(self, tx: Transaction, operation: Operation, resource: str) -> bool:
        limit = self.drivers.limits.get(resource.partition(":")[0], 1)
        return tx.operations.take_resource(resource, limit, operation.id, operation.fence)

    def _release(self, tx: Transaction, operation: Operation, now: datetime) -> None:
        if not operation.resource:
            return
        for resource in tx.operations.release_resources(operation.id):
            tx.operations.wake(now=now, resource=resource)
            tx.notify(WORK)

    def _at(self, point: str, operation: Operation) -> None:
        if self._probe is not None:
            self._probe.at(point, operation)


def is_active(operation: Operation) -> bool:
    """Say whether an operation still runs, waits or is parked."""
    return operation.state in ACTIVE_STATES


def _cancelled() -> dict[str, object]:
    return {"code": "cancelled", "message": "Cancelled on request.", "fix": ""}


def _deadline(place: Place, wait: Wait) -> MalleableError:
    return MalleableError(
        f"The step {place.step.name} was not finished within {place.step.deadline_s:.0f} s: {wait.reason}.",
        code="deadline",
        fix="See the explanation; repair the cause, then try again.",
    )
