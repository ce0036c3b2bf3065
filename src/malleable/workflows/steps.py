"""What a workflow is made of: a visible table of steps, each with its do, its undo and its limits."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Protocol, TypeAlias, TypeVar

from malleable.domain.errors import SOME_DEVICE, Conflict
from malleable.domain.ids import NodeId
from malleable.domain.operations import Direction, Operation, Retry, Wait
from malleable.domain.ports import Clock, Drivers
from malleable.domain.store import Store, Transaction

T = TypeVar("T")
Write: TypeAlias = Callable[[Transaction], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A step's answer: it is so, and here is the proof.

    ``write`` runs in the transaction that ends the step, under the fence: exactly once, or not at all.
    """

    evidence: Mapping[str, object] = field(default_factory=dict)
    write: Write | None = None
    result: Mapping[str, object] = field(default_factory=dict)  #: merged into the operation's result


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask(Wait):
    """A wait for the answer to what ``write`` asks of others.

    Both are committed together, under the fence: no answer can come before the operation waits for it. What ``write``
    returns joins ``memory``.
    """

    write: Callable[[Transaction], Mapping[str, object]]

    def asked(self, tx: Transaction) -> Wait:
        """Ask now, where the fence has been carried already; return the wait for the answer."""
        told = {field.name: getattr(self, field.name) for field in fields(Wait)}
        return Wait(**{**told, "memory": {**self.memory, **self.write(tx)}})


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a step may use."""

    operation: Operation
    store: Store
    drivers: Drivers
    clock: Clock
    memory: Mapping[str, object]  #: what this step's earlier looks left (``Wait.memory``)
    is_repeat: bool  #: an earlier try may have acted: observe first, then act
    intent: object = None  #: what ``Step.opening`` has written; None: the step does so itself

    def now(self) -> datetime:
        return self.clock.now()

    @property
    def node_id(self) -> NodeId:
        """The operation's node. Errors: Conflict when it is about none."""
        if self.operation.node_id is None:
            raise Conflict("The operation is about no node.", code="no-argument")
        return self.operation.node_id

    def argument(self, name: str) -> str:
        """Read a text argument of the operation. Errors: Conflict when the operation was begun without it."""
        value = self.operation.arguments.get(name)
        if not isinstance(value, str):
            raise Conflict(f"The operation has no argument {name!r}.", code="no-argument")
        return value

    def write(self, change: Callable[[Transaction], T]) -> T:
        """Commit ``change`` now, under the fence: for an intent that must be durable before the device is asked.

        Errors: FenceLost.
        """
        with self.store.transaction() as tx:
            tx.operations.write(self.operation.id, self.operation.fence)
            return change(tx)


StepFunction: TypeAlias = Callable[[Context], Done | Wait]
#: What must be durable before a step's device is asked, written as the step first begins, in that very transaction.
#: What it returns is the step's ``Context.intent``; a Wait begins the step by waiting. ``do`` can do without it: where
#: it raises, the step begins without.
Opening: TypeAlias = Callable[[Context, Transaction], object]
#: A look of ``do`` for which the database alone is asked; None: not yet, or ``do`` has to see for itself.
Glimpse: TypeAlias = Callable[[Context, Transaction], Done | None]


def _always(_: Operation) -> bool:
    return True


def turns(limits: Mapping[str, int], resource: str, operation: Operation) -> Mapping[str, int]:
    """Name the concurrency tokens of a step at a resource, in the order to take them, and how many of each there are.

    Where one project may have some of them only ("pool-project" beside "pool"), one of those comes first, and is kept
    while it waits for the other: so no project stands in line for the resource with more. What is of no project counts
    as the site's.
    """
    kind = resource.partition(":")[0]
    share = f"{kind}-project"
    found = {f"{share}:{operation.project_id or 'site'}": limits.get(share, 0), resource: limits.get(kind, 1)}
    return {name: limit for name, limit in found.items() if limit}


def take_turns(tx: Transaction, limits: Mapping[str, int], resource: str, operation: Operation) -> str:
    """Take the tokens of a resource; return which one is lacking, "": none. Errors: FenceLost."""
    for name, limit in turns(limits, resource, operation).items():
        if not tx.operations.take_resource(name, limit, operation.id, operation.fence):
            return name
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step. Functions are idempotent and hold no state."""

    name: str  #: stable: running operations find their place by it after an upgrade
    do: StepFunction
    undo: StepFunction | None = None  #: None gets a comment at the step table saying why
    opening: Opening | None = None  #: of ``do``: it saves the transaction that the step would need for its intent
    pause: Callable[[Operation], Wait] | None = None  #: what it begins with, written in the statement that enters it
    #: Of ``do``, for what others tell the database: whoever tells it ends the step in the same transaction. Its Done
    #: writes nothing.
    glimpse: Glimpse | None = None
    deadline_s: float = 120.0  #: for the whole stay in the step, waits and retries included
    sla_s: float = 10.0  #: longer than this is worth a look; shown, never enforced
    retry: Retry = field(default_factory=Retry)
    resource: Callable[[Operation], str] | None = None  #: the concurrency token, "kind:id"
    needed: Callable[[Operation], bool] = _always  #: decided by the arguments alone
    #: More words for a failure, which tenants read too, e.g. the console's last lines.
    explain: Callable[[Context], str] | None = None
    device: str = SOME_DEVICE  #: what it asks, as tenants are told
    is_laborious: bool = False  #: it reads or writes whole disks: let any core do it


#: Runs in the transaction that ends the operation.
Ending: TypeAlias = Callable[[Transaction, Operation, datetime], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    """A named list of steps and its three ends."""

    name: str
    steps: tuple[Step, ...]
    on_done: Ending
    on_undone: Ending | None  #: after a clean unwinding; None: this workflow only goes forward and cannot be cancelled
    on_stuck: Ending | None = None  #: it can go neither on nor back (quarantine); None: it parks as needs-operator


class Observer(Protocol):
    """Who measures the engine."""

    def step_ended(self, operation: Operation, step: str, direction: Direction, seconds: float, outcome: str) -> None:
        """Take note of one walk through a step; ``outcome`` is done, wait, retry or failed."""

    def operation_ended(self, operation: Operation) -> None:
        """Take note of an operation's end, or that it is parked (NEEDS_OPERATOR) and may go on when it is resumed."""


class Probe(Protocol):
    """A seam at every boundary of the engine, so that tests can stop the process exactly there."""

    def at(self, point: str, operation: Operation) -> None:
        """Be called at "claimed", "begun", "acted" and "committed"."""
