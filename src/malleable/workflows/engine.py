"""The engine: walks operations through their steps, durably, on any number of workers.

One transaction ends a step and begins the next (``boundary``): it carries the fence, writes the step's proof and its
changes, gives back the concurrency token and takes the next one. Devices are talked to between transactions, never
inside one. So a worker may die after any line: whoever takes the lease over sees either the step begun (and observes
before acting again) or the step ended with everything it wrote.
"""

from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any, Concatenate, ParamSpec, TypeVar

import structlog

from malleable.cores import anywhere
from malleable.domain.errors import Busy, FenceLost, Malformed, MalleableError, Public, Unavailable, Unreachable
from malleable.domain.ids import OperationId
from malleable.domain.operations import Direction, Operation, OperationState, Wait
from malleable.domain.ports import Clock, Drivers
from malleable.domain.store import Store, Transaction
from malleable.workflows import plan
from malleable.workflows.boundary import Begun, Boundary, Unopened, Unwritten, park, public_of, resumed
from malleable.workflows.plan import Place
from malleable.workflows.steps import Context, Done, Observer, Probe, Workflow

log = structlog.get_logger()

P = ParamSpec("P")
T = TypeVar("T")

#: Unavailable is the database's: a step that found it away is tried again when it is back.
_MAY_PASS = (Unreachable, Busy, Malformed, Unavailable)


class UnknownWorkflow(MalleableError):
    """This version of the software does not know the workflow."""

    code = "unknown-workflow"


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
        self._is_stopping = False

    def claim(self, limit: int) -> tuple[Operation, ...]:
        """Take the lease of up to ``limit`` due operations."""
        with self.store.transaction() as tx:
            return self.claim_in(tx, limit)

    def claim_in(self, tx: Transaction, limit: int) -> tuple[Operation, ...]:
        """Take the lease of up to ``limit`` due operations, if the transaction commits."""
        return tx.operations.claim(self.worker, self.clock.now(), self.lease_s, limit)

    def glimpse(self, tx: Transaction, operation: Operation) -> Begun | None:
        """End the step of an operation that was claimed in this transaction, where the database alone tells its end.

        Returns the next step, begun, to be walked once it is committed; None: nothing was done. No lock is taken but
        those of the claim: a next step that needs a token, or that something opens, is left to whoever walks.
        """
        workflow = self.workflows.get(operation.kind)
        if workflow is None or not any(step.name == operation.step and step.glimpse for step in workflow.steps):
            return None
        try:
            begun, done = self._glimpsed(tx, workflow, operation)
        except (Busy, Unavailable):
            raise
        except Exception as e:  # the transaction is another's: whoever walks meets it again
            log.warning("a glimpse failed", operation=str(operation.id), exc_info=e)
            return None
        if begun is None or done is None:
            return None
        # Not stopping, even if it begins to at this moment: None would say that nothing was done.
        return self._boundary(tx, begun.operation, opens=False, is_stopping=False).finish(begun.place, done)

    def _glimpsed(self, tx: Transaction, workflow: Workflow, operation: Operation) -> tuple[Begun | None, Done | None]:
        begun = None if self._is_stopping else resumed(workflow, operation, self.clock.now())
        if begun is None or begun.place.direction is Direction.UNDO or begun.place.step.glimpse is None:
            return None, None
        following = plan.following(workflow, operation, begun.place)
        if following is None or any((following.step.resource, following.step.opening, following.step.pause)):
            return None, None
        return begun, begun.place.step.glimpse(self._context(begun.operation), tx)

    def glimpse_committed(self, operation: Operation) -> None:
        """Have it measured that a glimpse has ended the step of an operation; it took one statement."""
        if self._observer is not None:
            self._observer.step_ended(operation, operation.step, Direction.DO, 0.0, "done")

    def enter(self, tx: Transaction, operation: Operation) -> Begun | None:
        """Add an operation that is claimed and stands at its first step; None: it waits for its turn.

        ``walk`` what is begun once it is committed. If the process dies before, the lease runs out like any other.
        """
        now = self.clock.now()
        claim: dict[str, Any] = {"worker": self.worker, "fence": operation.fence + 1, "state": OperationState.RUNNING}
        claim |= {"lease_expires_at": now + timedelta(seconds=self.lease_s), "started_at": now}
        return self._boundary(tx, operation, opens=False).take(claim)

    def keep(self, ids: Collection[OperationId]) -> None:
        """Renew the leases of what this worker walks; that of anything else runs out."""
        with self.store.transaction() as tx:
            tx.operations.keep(ids, self.worker, self.clock.now(), self.lease_s)

    def stop(self) -> None:
        """Begin no further step: ``walk`` returns after the step at hand and leaves the rest to other workers."""
        self._is_stopping = True

    def run_due(self, limit: int = 100) -> int:
        """Claim and walk what is due now, in this thread; return how many operations were claimed."""
        claimed = self.claim(limit)
        for operation in claimed:
            self.walk(operation)
        return len(claimed)

    def walk(self, operation: Operation, begun: Begun | None = None) -> datetime | None:
        """Walk a claimed operation until it waits, ends, parks, or is lost to another worker.

        Returns when it is due again, if it waits.
        Errors: Busy, Unavailable (the database's): the operation stays leased until the lease runs out.
        """
        self._at("claimed", operation)
        latest = operation
        try:
            try:
                # What was claimed so long ago may be another's by now: only a write can tell.
                held = operation if self._is_held(operation) else self._hold(operation)
                following = begun or self._begin(held)
                while isinstance(following, Begun):
                    latest = following.operation
                    following = self._walk_step(following)
                return following.next_due_at if following.is_active and not following.worker else None
            except (FenceLost, Busy, Unavailable):
                raise
            except Exception as e:  # noqa: BLE001  a defect outside of any step: it must not come back for ever
                self._park(latest, e)
        except FenceLost:
            log.warning("operation taken over by another worker", operation=str(operation.id))
        return None

    def _is_held(self, operation: Operation) -> bool:
        """Tell whether it is ours until the lease is next renewed, by what is known without asking."""
        soon = self.clock.now() + timedelta(seconds=self.lease_s / 3)
        return operation.lease_expires_at is not None and soon < operation.lease_expires_at

    def _hold(self, operation: Operation) -> Operation:
        """Take the lease for its full time from now. Errors: FenceLost."""
        until = self.clock.now() + timedelta(seconds=self.lease_s)
        with self.store.transaction() as tx:
            tx.operations.write(operation.id, operation.fence, lease_expires_at=until)
        return replace(operation, lease_expires_at=until)

    # -- one step ---------------------------------------------------------------------------------------------------

    def _begin(self, operation: Operation) -> Begun | Operation:
        """Enter the place a claimed operation stands at."""
        if operation.kind not in self.workflows:
            raise UnknownWorkflow(
                f"This version does not know the workflow {operation.kind!r}.",
                fix="Run it with the version that began it.",
            )
        workflow, now = self.workflows[operation.kind], self.clock.now()
        begun = None if self._is_stopping else resumed(workflow, operation, now)
        return begun or self._cross(operation, Boundary.begin)

    def _walk_step(self, begun: Begun) -> Begun | Operation:
        operation, place = begun.operation, begun.place
        self._at("begun", operation)
        started_s = self.clock.monotonic_s()
        context = replace(self._context(operation), intent=begun.intent)
        with anywhere() if place.step.is_laborious else nullcontext():
            outcome = _asked(place.function, context)
        self._at("acted", operation)
        name, following = self._settle(context, place, outcome)
        if self._observer is not None:
            seconds = self.clock.monotonic_s() - started_s
            self._observer.step_ended(operation, place.step.name, place.direction, seconds, name)
        self._at("committed", operation)
        return following

    def _settle(
        self, context: Context, place: Place, outcome: Done | Wait | Exception
    ) -> tuple[str, Begun | Operation]:
        """Write what came of a step, in one transaction; return the outcome's name and what ``_cross`` does."""
        operation, now = context.operation, self.clock.now()
        is_late = operation.step_deadline_at is not None and now >= operation.step_deadline_at
        try:
            if isinstance(outcome, Done):
                return "done", self._cross(operation, Boundary.finish, place, outcome)
            if isinstance(outcome, Wait) and not is_late:
                return "wait", self._cross(operation, Boundary.wait, outcome)
        except Unwritten as e:
            outcome = e.error
        error = _deadline(place, outcome) if isinstance(outcome, Wait) else outcome
        if isinstance(error, _MAY_PASS) and not is_late and operation.attempt < place.step.retry.attempts:
            return "retry", self._cross(operation, Boundary.retry, place, error)
        return "failed", self._cross(operation, Boundary.fail, place, self._explain(context, place, error))

    def _cross(
        self,
        operation: Operation,
        act: Callable[Concatenate[Boundary, P], Begun | None],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Begun | Operation:
        """Do one thing at the boundary between two steps, in one transaction; return the next step begun.

        If there is none now: the operation as it was left.
        """

        since_s = self.clock.monotonic_s()

        def cross(*, opens: bool) -> tuple[Begun | None, Operation]:
            with self.store.transaction() as tx:
                boundary = self._boundary(tx, operation, opens=opens)
                begun = act(boundary, *args, **kwargs)
            return begun, boundary.operation

        try:
            begun, ended = cross(opens=True)
        except Unopened as e:
            if not isinstance(e.__cause__, MalleableError):
                log.error("a defect kept a step from being opened", operation=str(operation.id), exc_info=e.__cause__)
            begun, ended = cross(opens=False)
        if begun is not None and self.clock.monotonic_s() - since_s > self.lease_s / 3:
            self._hold(begun.operation)  # no lease is renewed while a transaction has its row
        if ended.state is OperationState.NEEDS_OPERATOR:
            self._tell_parked(ended, str((ended.error or {}).get("code", "")))
        elif self._observer is not None and ended.finished_at is not None:
            self._observer.operation_ended(ended)
        return begun or ended

    def _context(self, operation: Operation) -> Context:
        return Context(
            operation=operation,
            store=self.store,
            drivers=self.drivers,
            clock=self.clock,
            memory=operation.step_evidence,
            is_repeat=operation.step_attempts > 1,
        )

    def _boundary(
        self, tx: Transaction, operation: Operation, *, opens: bool, is_stopping: bool | None = None
    ) -> Boundary:
        return Boundary(
            tx,
            self.workflows[operation.kind],
            operation,
            self.clock.now(),
            limits=self.drivers.limits,
            context=self._context if opens else None,
            is_stopping=self._is_stopping if is_stopping is None else is_stopping,
        )

    def _tell_parked(self, operation: Operation, code: str, defect: Exception | None = None) -> None:
        about = {"operation": str(operation.id), "kind": operation.kind, "step": operation.step, "code": code}
        log.warning("operation needs an operator", **about, reason=operation.reason, exc_info=defect)
        if self._observer is not None:
            self._observer.operation_ended(operation)

    # -- failure ----------------------------------------------------------------------------------------------------

    def _explain(self, context: Context, place: Place, error: Exception) -> dict[str, object]:
        """Say what went wrong and what to do, as problem details."""
        if not isinstance(error, MalleableError):
            log.error("step failed by a defect", operation=str(context.operation.id), exc_info=error)
            error = _defect(error)
        public = public_of(error, place)
        problem: dict[str, object] = {"code": error.code, "message": error.message, "fix": error.fix}
        problem |= {"details": error.details, "step": place.step.name}
        problem["public"] = asdict(public)
        if place.step.explain is not None:
            more = _asked(place.step.explain, context)
            if isinstance(more, Exception):
                why = more if isinstance(more, MalleableError) else _defect(more)
                problem["details"] = {**error.details, "unexplained": str(why)}
                more = f"No more is known: {public_of(why, place).message}"
            problem["explanation"] = more
        return problem

    def _park(self, operation: Operation, error: Exception) -> None:
        known = error if isinstance(error, MalleableError) else _defect(error)
        with self.store.transaction() as tx:
            parked = park(tx, operation, str(known), known.public().message, self.clock.now())
        self._tell_parked(parked, known.code, error)

    def _at(self, point: str, operation: Operation) -> None:
        if self._probe is not None:
            self._probe.at(point, operation)


def _asked(function: Callable[[Context], T], context: Context) -> T | Exception:
    """Run what a workflow brings along; any failure of it becomes data, here and nowhere else."""
    try:
        return function(context)
    except FenceLost:
        raise
    except Exception as e:  # noqa: BLE001
        return e


def _defect(error: Exception) -> MalleableError:
    return MalleableError(
        f"A defect of the software stopped the step: {type(error).__name__}.",
        code="internal",
        fix="Report it with the server's log of this moment.",
    )


def _deadline(place: Place, wait: Wait) -> MalleableError:
    return MalleableError(
        f"The step {place.step.name} was not finished within {place.step.deadline_s:.0f} s: {wait.reason}.",
        code="deadline",
        fix=wait.fix,
        public=Public(
            f"The step {place.step.name} was not finished within {place.step.deadline_s:.0f} s. {wait.public.message}",
            wait.public.fix,
        ),
    )
