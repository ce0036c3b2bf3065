"""What Prometheus and the log are told of an operation's end."""

from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from malleable.domain.ids import OperationId, new_id
from malleable.domain.operations import Operation, OperationState
from malleable.wiring.metrics import EngineMetrics

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def ended(state: OperationState, reason: str = "") -> Operation:
    return Operation(
        id=OperationId(new_id()),
        kind="release",
        node_id=None,
        project_id=None,
        actor_id=None,
        arguments={"name": "web"},
        state=state,
        step="shut-ports",
        reason=reason,
        next_due_at=NOW,
        created_at=NOW,
        finished_at=NOW,
    )


@pytest.mark.parametrize("state", [OperationState.SUCCEEDED, OperationState.FAILED, OperationState.CANCELLED])
def test_operations_are_counted_by_how_they_ended(state: OperationState) -> None:
    registry = CollectorRegistry()
    EngineMetrics(registry).operation_ended(ended(state))
    labels = {"workflow": "release", "state": state.value}
    assert registry.get_sample_value("malleable_operations_ended_total", labels) == 1


def test_who_reads_the_log_sees_what_failed_where_and_why() -> None:
    metrics = EngineMetrics(CollectorRegistry())
    failed = ended(OperationState.FAILED, "Switch tor1 does not answer.")
    with capture_logs() as lines:
        metrics.operation_ended(ended(OperationState.SUCCEEDED))
        metrics.operation_ended(failed)
    assert [line["log_level"] for line in lines] == ["info", "warning"]
    told = {"step": "shut-ports", "reason": failed.reason, "operation": str(failed.id), "about": "web"}
    assert told.items() <= lines[1].items()
