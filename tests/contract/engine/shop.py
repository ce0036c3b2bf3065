"""A workshop for the engine's contract: small workflows, a clock that stands still, as many workers as a test wants."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from malleable.domain.ids import NodeId, OperationId, ProjectId
from malleable.domain.operations import Direction, Operation, OperationState, StepRecord, Wait
from malleable.domain.ports import Clock, Drivers
from malleable.domain.store import Store, Transaction
from malleable.sim.clock import ManualClock
from malleable.sim.disks import SimDisks
from malleable.sim.targets import SimTargets
from malleable.workflows import requests
from malleable.workflows.engine import Engine
from malleable.workflows.steps import Context, Done, Ending, Step, Workflow
from malleable.workflows.worker import Worker

#: What a step does when it is called: answer, fail, or look for itself.
Answer: TypeAlias = Done | Wait | BaseException | Callable[[Context], Done | Wait]

LEASE_S = 2.0


class Crash(BaseException):
    """The worker dies here."""


@dataclass
class At:
    """A probe that acts once, at the n-th boundary (or at the first that is named so)."""

    where: int | str
    act: Callable[[], object]
    seen: list[str] = field(default_factory=list)
    has_acted: bool = False

    def at(self, point: str, operation: Operation) -> None:
        self.seen.append(f"{'-' * (operation.direction is Direction.UNDO)}{operation.step}:{point}")
        is_here = self.where in (len(self.seen) - 1, self.seen[-1])
        if is_here and not self.has_acted:
            self.has_acted = True
            self.act()


def crash() -> None:
    raise Crash


@dataclass
class Shop:
    """A store, a clock, the workflows of one test, and what their steps were asked."""

    store: Store
    clock: Clock = field(default_factory=ManualClock)
    workflows: dict[str, Workflow] = field(default_factory=dict)
    limits: Mapping[str, int] = field(default_factory=dict)
    #: Names of the calls, in order; undos with a dash before the name, ends in brackets.
    calls: list[str] = field(default_factory=list)
    workers: int = 0

    # -- making -----------------------------------------------------------------------------------------------------

    def step(self, name: str, *answers: Answer, undo: tuple[Answer, ...] | None = (), **settings: Any) -> Step:
        """Make a step that gives these answers in turn, the last one for ever; without any it is done at once."""
        return Step(
            name=name,
            do=_scripted(self.calls, name, answers),
            undo=None if undo is None else _scripted(self.calls, f"-{name}", undo),
            **settings,
        )

    def workflow(
        self,
        name: str,
        *steps: Step,
        on_done: Ending | None = None,
        on_undone: Ending | None = None,
        on_stuck: Ending | None = None,
        is_forward_only: bool = False,
    ) -> Workflow:
        """Make a workflow known to the engines; its ends only note that they were called, unless given."""
        made = Workflow(
            name=name,
            steps=steps,
            on_done=on_done or self._ending("[done]"),
            on_undone=None if is_forward_only else on_undone or self._ending("[undone]"),
            on_stuck=on_stuck,
        )
        self.workflows[name] = made
        return made

    def _ending(self, name: str) -> Ending:
        def note(tx: Transaction, operation: Operation, now: object) -> None:
            self.calls.append(name)

        return note

    def engine(self, made: type[Engine] = Engine, **settings: Any) -> Engine:
        """Start one more worker."""
        self.workers += 1
        nothing: Any = {"power": {}, "switches": {}, "disks": SimDisks(), "targets": SimTargets()}
        return made(
            store=self.store,
            clock=self.clock,
            drivers=Drivers(**nothing, limits=self.limits),
            workflows=self.workflows,
            **{"worker": f"worker-{self.workers}", "lease_s": LEASE_S, **settings},
        )

    # -- asking -----------------------------------------------------------------------------------------------------

    def begin(
        self, kind: str, *, node_id: NodeId | None = None, project_id: ProjectId | None = None, **arguments: object
    ) -> OperationId:
        whose: Any = {"node_id": node_id, "project_id": project_id}
        with self.store.transaction() as tx:
            return requests.begin(tx, self.clock.now(), kind, **whose, arguments=arguments).id

    def cancel(self, operation_id: OperationId) -> None:
        with self.store.transaction() as tx:
            requests.cancel(tx, self.clock.now(), tx.operations.get(operation_id))

    def resume(self, operation_id: OperationId) -> None:
        with self.store.transaction() as tx:
            requests.resume(tx, self.clock.now(), tx.operations.get(operation_id))

    # -- working ----------------------------------------------------------------------------------------------------

    def run(self, *operation_ids: OperationId, probe: At | None = None) -> Operation:
        """Work, with time passing as needed, until all rest; replace a crashed worker. Return the last."""
        engine = self.engine(probe=probe)
        for _ in range(500):
            try:
                engine.run_due()
            except Crash:
                engine = self.engine(probe=probe)
            found = [self.operation(operation_id) for operation_id in operation_ids]
            if all(is_at_rest(operation) for operation in found):
                return found[-1]
            self.pass_time()
        raise AssertionError(f"never rests: {found}")

    def pass_time(self) -> None:
        """Let time pass until something falls due."""
        assert isinstance(self.clock, ManualClock)
        with self.store.reading() as tx:
            due = tx.operations.next_due()
        if due is not None:
            self.clock.advance_to(due)

    def advance(self, seconds: float) -> None:
        assert isinstance(self.clock, ManualClock)
        self.clock.advance(seconds)

    # -- looking ----------------------------------------------------------------------------------------------------

    def operation(self, operation_id: OperationId) -> Operation:
        with self.store.reading() as tx:
            return tx.operations.get(operation_id)

    def timeline(self, operation_id: OperationId) -> tuple[StepRecord, ...]:
        with self.store.reading() as tx:
            return tx.operations.steps([operation_id])


def is_at_rest(operation: Operation) -> bool:
    return operation.finished_at is not None or operation.state is OperationState.NEEDS_OPERATOR


def _scripted(calls: list[str], name: str, answers: tuple[Answer, ...]) -> Callable[[Context], Done | Wait]:
    return partial(_answer, calls, name, list(answers or (Done(),)))


def _answer(calls: list[str], name: str, left: list[Answer], context: Context) -> Done | Wait:
    calls.append(name)
    answer = left.pop(0) if len(left) > 1 else left[0]
    if isinstance(answer, BaseException):
        raise answer
    return answer if isinstance(answer, Done | Wait) else answer(context)


@contextmanager
def working(engine: Engine, *, threads: int = 2) -> Iterator[Worker]:
    """Keep a worker at work."""
    worker = Worker(engine, threads=threads)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


def has(shop: Shop, operation_id: OperationId, state: str) -> Callable[[], bool]:
    """Make what says whether an operation is in a state."""
    return lambda: shop.operation(operation_id).state == state
