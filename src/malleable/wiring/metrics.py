"""What Prometheus is told of the engine."""

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram

from malleable.domain.operations import Direction, Operation, OperationState

log = structlog.get_logger()

#: From a database write to a machine's self-test.
BUCKETS_S = (0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1200)


class EngineMetrics:
    """An engine's observer that counts and measures; labels are names of workflows and steps, never of objects."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ["workflow", "step", "direction", "outcome"]
        self._steps = Histogram(
            "malleable_step_seconds", "Time spent in steps.", labels, registry=registry, buckets=BUCKETS_S
        )
        self._operations = Counter(
            "malleable_operations_ended",
            "Operations by workflow and the state they ended in, or needs-operator when they were parked.",
            ["workflow", "state"],
            registry=registry,
        )

    def step_ended(self, operation: Operation, step: str, direction: Direction, seconds: float, outcome: str) -> None:
        """Take note of one walk through a step."""
        self._steps.labels(operation.kind, step, direction.value, outcome).observe(seconds)

    def operation_ended(self, operation: Operation) -> None:
        """Take note of an operation's end; one that did not succeed is told to whoever reads the log."""
        self._operations.labels(operation.kind, operation.state.value).inc()
        tell = log.info if operation.state is OperationState.SUCCEEDED else log.warning
        tell(
            "operation ended",
            kind=operation.kind,
            state=operation.state.value,
            operation=str(operation.id),
            node=str(operation.node_id or ""),
            about=str(operation.arguments.get("name", "")),
            step=operation.step,
            reason=operation.reason,
        )
