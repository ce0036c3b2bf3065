"""An operation's steps over time: what took how long, and what dominated."""

from datetime import datetime
from typing import TYPE_CHECKING

from malleable.cli.formats import printable, size, span
from malleable.domain.operations import Direction

if TYPE_CHECKING:
    from rich.table import Table

    from malleable.wire.operations import OperationDetail, OperationView, StepView

BAR_MIN_COLUMNS, BAR_MAX_COLUMNS = 10, 60
#: What the other columns of a timeline need beside the bars.
OTHER_COLUMNS = 52


def subject(operation: "OperationView") -> str:
    """Name what an operation is about: its node, or the disk, image or network; "" when nothing tells."""
    return operation.node or str(operation.arguments.get("name", ""))


def seconds_of(step: "StepView", now: datetime) -> float:
    """Return how long a step took, or has taken up to now."""
    return max(((step.finished_at or now) - step.started_at).total_seconds(), 0.0)


def walked(operation: "OperationDetail") -> "tuple[StepView, ...]":
    """Return the steps, each with an end but the one at hand: one that was given up ended where the next began."""
    steps = operation.steps
    ends = [*(step.started_at for step in steps[1:]), operation.finished_at]
    return tuple(
        step if step.finished_at else step.model_copy(update={"finished_at": end})
        for step, end in zip(steps, ends, strict=False)
    )


def total_seconds(operation: "OperationDetail", now: datetime) -> float:
    """Return how long an operation took from the request on, or has taken up to now."""
    return max(((operation.finished_at or now) - operation.created_at).total_seconds(), 0.0)


def dominant(operation: "OperationDetail", now: datetime) -> str:
    """Name what took longest: 'mostly await-login, 28.1 s (74 %)'; "" when nothing stands out."""
    total = total_seconds(operation, now)
    if len(operation.steps) < 2 or total <= 0:
        return ""
    slowest = max(walked(operation), key=lambda step: seconds_of(step, now))
    took = seconds_of(slowest, now)
    share = min(took / total, 1.0)
    return f"mostly {slowest.name}, {span(took)} ({share:.0%})" if share >= 0.3 else ""


def step_label(step: "StepView") -> str:
    """Name a step and the way it was walked."""
    return f"undo {step.name}" if step.direction is Direction.UNDO else step.name


def step_note(step: "StepView") -> str:
    """Say what went wrong on a step's way, or how far it is; looking again while it waits is nothing wrong."""
    attempts = f" ({step.attempts} attempts)" if step.attempts > 1 else ""
    if step.error:
        return f"{printable(step.error)}{attempts}"
    return printable(copied(step))


def copied(step: "StepView") -> str:
    """Say how far a step's copy is, and how fast it was of late; "" for what copies nothing, or tells nothing yet."""
    done, whole = _bytes_of(step, "done_bytes"), _bytes_of(step, "of_bytes")
    rate = f", {size(_bytes_of(step, 'bytes_per_s'))}/s" if "bytes_per_s" in step.evidence else ""
    return f"{size(done)} of {size(whole)}{rate}" if whole else ""


def tenths(step: "StepView") -> int:
    """Say how far a step's copy is, 0 to 10."""
    return 10 * _bytes_of(step, "done_bytes") // max(_bytes_of(step, "of_bytes"), 1)


def _bytes_of(step: "StepView", name: str) -> int:
    told = step.evidence.get(name)
    return told if isinstance(told, int) else 0


def proofs(operation: "OperationDetail") -> "dict[str, str]":
    """Say of each step what proves it, or what went wrong; by the operation's kind and the step."""
    return {f"{operation.kind} {step_label(step)}": printable(_proof(step)) for step in operation.steps}


def _proof(step: "StepView") -> str:
    told = (
        f"{name}: {(', '.join(map(str, v)) or 'none') if isinstance(v, list) else v}"
        for name, v in step.evidence.items()
    )
    return step.error or "; ".join(told) or "done"


def bar(offset_s: float, length_s: float, total_s: float, columns: int) -> str:
    """Draw a stretch of time in eighths of a column; the shortest still shows, none leaves its room."""
    eighths = columns * 8
    scale = eighths / total_s if total_s > 1e-6 else 0.0
    begin = min(max(round(offset_s * scale), 0), eighths - 1)
    end = min(max(round((offset_s + length_s) * scale), begin + 1), eighths)
    full, rest = divmod(end - begin // 8 * 8, 8)
    return " " * (begin // 8) + "█" * full + " ▏▎▍▌▋▊▉"[rest].strip()


def timeline(operation: "OperationDetail", now: datetime, columns: int) -> "Table":
    """Draw the table: step, seconds, a bar where in time it lay, and what was unusual."""
    from rich.table import Table
    from rich.text import Text

    total = total_seconds(operation, now)
    width = max(BAR_MIN_COLUMNS, min(BAR_MAX_COLUMNS, columns - OTHER_COLUMNS))
    given_up = {step.ordinal for step in operation.steps if step.finished_at is None}
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("STEP", no_wrap=True)
    table.add_column("TOOK", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, width=width)
    table.add_column("", overflow="fold")
    for step in walked(operation):
        took = seconds_of(step, now)
        drawn = bar((step.started_at - operation.created_at).total_seconds(), took, total, width)
        is_wrong = step.error and (step.finished_at is None or step.ordinal in given_up)
        colour = "red" if is_wrong else "yellow" if step.direction is Direction.UNDO else "cyan"
        running = "" if step.finished_at else " …"
        table.add_row(step_label(step), span(took) + running, Text(drawn, colour), Text(step_note(step), "dim"))
    return table
