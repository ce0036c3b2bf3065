"""Operations and their timelines."""

from datetime import datetime
from uuid import UUID

from malleable.domain.operations import Direction, OperationState
from malleable.wire.shapes import Answer


class StepView(Answer):
    """One line of a timeline."""

    ordinal: int
    name: str
    direction: Direction
    attempts: int
    started_at: datetime
    finished_at: datetime | None
    evidence: dict[str, object]
    error: str


class OperationView(Answer):
    """Something that takes time."""

    id: UUID
    kind: str
    node_id: UUID | None
    node: str | None
    project_id: UUID | None
    project: str | None
    actor_id: UUID | None
    arguments: dict[str, object]
    state: OperationState
    direction: Direction
    step: str
    attempt: int
    is_cancel_requested: bool
    reason: str
    error: dict[str, object] | None
    result: dict[str, object]
    next_due_at: datetime
    step_deadline_at: datetime | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class OperationDetail(OperationView):
    """An operation with its timeline, in order of beginning."""

    steps: tuple[StepView, ...]
