"""What Prometheus is told of the engine."""

from prometheus_client import CollectorRegistry, Counter, Histogram

from malleable.domain.operations import Direction, Operation

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
            "Operations by workflow and direction of their end.",
            ["workflow", "direction"],
            registry=registry,
        )

    def step_ended(self, operation: Operation, step: str, direction: Direction, seconds: float, outcome: str) -> None:
        """Take note of one walk through a step."""
        self._steps.labels(operation.kind, step, direction.value, outcome).observe(seconds)

    def operation_ended(self, operation: Operation) -> None:
        """Take note of an operation's end."""
        self._operations.labels(operation.kind, operation.direction.value).inc()
