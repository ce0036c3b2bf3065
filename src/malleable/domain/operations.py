"""Operations: durable workflow instances, their steps, and what a step may answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from malleable.domain.errors import Public
from malleable.domain.ids import NodeId, OperationId, ProjectId, UserId


class OperationState(StrEnum):
    """Where an operation is. The last four are end states but for NEEDS_OPERATOR, which can be resumed."""

    PENDING = "pending"  #: nobody has begun
    RUNNING = "running"  #: a worker holds its lease
    WAITING = "waiting"  #: until next_due_at; costs a row, not a thread
    UNDOING = "undoing"  #: failed or cancelled; undos run in reverse (claimed and waiting like the above)
    SUCCEEDED = "succeeded"
    FAILED = "failed"  #: undone; nothing is left behind
    CANCELLED = "cancelled"  #: undone on request
    NEEDS_OPERATOR = "needs-operator"  #: parked: could not go on or back


#: States in which an operation still holds its node.
ACTIVE_STATES = frozenset(
    {
        OperationState.PENDING,
        OperationState.RUNNING,
        OperationState.WAITING,
        OperationState.UNDOING,
        OperationState.NEEDS_OPERATOR,
    }
)


class Direction(StrEnum):
    """Which way an operation walks its steps."""

    DO = "do"
    UNDO = "undo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One durable workflow instance; the engine alone writes it after it is added."""

    id: OperationId
    kind: str  #: name of the workflow
    node_id: NodeId | None  #: at most one active operation per node
    project_id: ProjectId | None  #: whose operation it is; None for the operator's own
    actor_id: UserId | None
    arguments: Mapping[str, object]  #: JSON, no secrets
    state: OperationState = OperationState.PENDING
    direction: Direction = Direction.DO
    step: str = ""  #: the step at hand, by name; "" before the first
    attempt: int = 0  #: of the step at hand; counts claims and retries
    is_cancel_requested: bool = False
    reason: str = ""  #: why it waits, failed or parked, in plain words; the provider's to read
    public_reason: str = ""  #: the same for tenants
    error: Mapping[str, object] | None = None  #: problem details of the failure that began the undoing
    result: Mapping[str, object] = field(default_factory=dict)
    resource: str = ""  #: the concurrency token it holds or waits for, e.g. "switch:<id>"
    worker: str = ""  #: who holds the lease
    fence: int = 0  #: grows with every claim; every write carries it
    lease_expires_at: datetime | None = None
    next_due_at: datetime  #: when a worker shall look at it
    step_deadline_at: datetime | None = None  #: when the step at hand has waited too long
    # The open line of the timeline: as StepRecord has it, for the step at hand.
    step_began_at: datetime | None = None  #: None: it is entered but not begun
    step_attempts: int = 0
    step_evidence: Mapping[str, object] = field(default_factory=dict)
    step_error: str = ""
    step_public_error: str = ""
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def is_active(self) -> bool:
        return self.state in ACTIVE_STATES

    def line(self, **ended: Any) -> "StepRecord":
        """Make the timeline's line of the step at hand, which is begun; ``ended`` are fields that its end sets."""
        if self.step_began_at is None:
            raise ValueError(f"step {self.step!r} is not begun")
        line = StepRecord(
            operation_id=self.id,
            ordinal=0,
            name=self.step,
            direction=self.direction,
            attempts=self.step_attempts,
            started_at=self.step_began_at,
            evidence=self.step_evidence,
            error=self.step_error,
            public_error=self.step_public_error,
        )
        return replace(line, **ended)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """One line of an operation's timeline: a step walked in one direction."""

    operation_id: OperationId
    ordinal: int  #: order of beginning, from 0
    name: str
    direction: Direction
    attempts: int
    started_at: datetime
    finished_at: datetime | None = None
    evidence: Mapping[str, object] = field(default_factory=dict)  #: what proves it, JSON, no secrets
    error: str = ""  #: the last failure, plain words; the provider's to read
    public_error: str = ""  #: the same for tenants


#: Beyond these no pause is shorter than its limit; what is tried for days counts further than a float does.
_DOUBLINGS_MAX = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How a step meets the failure kinds that may pass; Refused never repeats."""

    attempts: int = 5
    first_delay_s: float = 0.5
    max_delay_s: float = 15.0

    def delay_s(self, attempt: int) -> float:
        """Return the back-off before try ``attempt`` + 1."""
        doublings = min(max(attempt - 1, 0), _DOUBLINGS_MAX)
        return min(self.first_delay_s * 2.0**doublings, self.max_delay_s)


NOT_YET = Public("It is not ready yet.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """A step's answer: not yet; look again in ``seconds`` (or when woken)."""

    seconds: float
    reason: str
    #: The same for tenants, and what they can do when the step's deadline passes.
    public: Public = NOT_YET
    fix: str = "Find out why, and remove the cause; then try again."  #: for the provider, at the deadline
    memory: Mapping[str, object] = field(default_factory=dict)  #: kept in the step's evidence for the next look
    resource: str = ""  #: what wakes it before its time, e.g. "operation:<id>" or "network:<id>"
