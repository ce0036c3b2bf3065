"""Follow an operation before people's eyes: steps as they pass, the wait's reason, and what it came to."""

import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING

import typer

from malleable.cli.command import FAILED, INTERRUPTED, tell
from malleable.cli.formats import printable, span
from malleable.cli.session import Session
from malleable.cli.timeline import (
    copied,
    dominant,
    seconds_of,
    step_label,
    step_note,
    subject,
    tenths,
    total_seconds,
    walked,
)
from malleable.domain.errors import Conflict, NotFound
from malleable.domain.nodes import NodeState
from malleable.domain.operations import Direction, OperationState

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

    from malleable.wire.operations import OperationDetail, OperationView, StepView

#: What a person reads at the end, by end state.
_ENDS = {
    OperationState.FAILED: "failed and was undone",
    OperationState.CANCELLED: "was cancelled and undone",
    OperationState.NEEDS_OPERATOR: "is parked: it could go neither on nor back",
}

#: The same where a step stood still: its name is in front of the reason.
_LEFT = {Direction.DO: "failed", Direction.UNDO: "failed and could not be undone"}
_OF_PORTS = frozenset({"attach", "detach"})
_MENDS = "Once the switch answers, the port is shut, and then carries again what the node is still on."


def finish(
    session: Session, operation: "OperationView", *, is_watching: bool, what: str = ""
) -> "OperationDetail | None":
    """Follow a slow command's operation to its end, or say at once how to follow it later (None).

    ``what`` names it at the end; "" takes its kind and node.
    Errors: typer.Exit, 1 when the operation did not succeed, 130 when Ctrl-C left it running.
    """
    if not is_watching:
        if session.is_json:
            session.write_json(operation.model_dump(mode="json"))
        else:
            session.out.print(str(operation.id))
            session.hint(f"It runs; follow it with `m2 operation watch {operation.id}`.")
        return None
    ended = follow(session, operation)
    if session.is_json:
        session.write_json(ended.model_dump(mode="json"))
    conclude(session, ended, what)
    return ended


def follow(session: Session, operation: "OperationView") -> "OperationDetail":
    """Show an operation's progress until it ends; Ctrl-C stops the showing, never the operation."""
    console = session.err if session.is_json else session.out
    live = console.is_terminal and not console.is_dumb_terminal
    view: _LiveView | _PlainView = _LiveView(session, console) if live else _PlainView(session, console)
    try:
        with view:
            return session.m2.operation_wait(operation.id, view.update)
    except KeyboardInterrupt as e:
        session.err.print(
            f"Detached; the operation goes on.\n"
            f"  follow it:  m2 operation watch {operation.id}\n"
            f"  undo it:    m2 operation cancel {operation.id}"
        )
        raise typer.Exit(INTERRUPTED) from e


def conclude(session: Session, operation: "OperationDetail", what: str = "") -> None:
    """Write the last line: total seconds and what dominated, or why it failed and what to do."""
    now = session.now()
    what, took = what or title(operation), span(total_seconds(operation, now))
    if operation.state is OperationState.SUCCEEDED:
        slow = dominant(operation, now)
        session.say(f"{what} done in {took}" + (f", {slow}." if slow else "."))
        return
    tell(session, _failure(operation, what, took, is_stuck=_is_quarantined(session, operation)))
    raise typer.Exit(FAILED)


def _is_quarantined(session: Session, operation: "OperationDetail") -> bool:
    """Say whether a failed operation left its node out of use: then it was not undone, or not wholly."""
    if operation.state is not OperationState.FAILED or operation.node is None:
        return False
    try:
        return session.m2.node_get(str(operation.node_id)).state is NodeState.QUARANTINED
    except NotFound:
        return False


def _failure(operation: "OperationDetail", what: str, took: str, *, is_stuck: bool) -> Conflict:
    problem = operation.error or {}
    why = str(problem.get("detail") or problem.get("message") or operation.reason)
    fix = str(problem.get("fix") or "")
    end = _ENDS.get(operation.state, operation.state)
    if operation.state is OperationState.NEEDS_OPERATOR:
        fix = f"{fix} An operator removes the cause, then runs `m2 operation resume {operation.id}`.".strip()
        why = operation.reason or why
    if operation.state is OperationState.FAILED and operation.reason.startswith(f"{operation.step}: "):
        end = _LEFT[operation.direction]
        fix = f"{fix} {_MENDS if operation.kind in _OF_PORTS else ''}".strip()
        why = operation.reason
    if is_stuck:
        end = f"failed and left {operation.node} quarantined"
        fix = f"{fix} An operator removes the cause, then runs `m2 node readmit {operation.node}`.".strip()
        why = operation.reason or why
    fix = fix or f"See what happened: `m2 operation show {operation.id}`."
    message = f"{what} {end} after {took}"
    return Conflict(
        printable(f"{message}: {why}" if why else f"{message}."),
        fix=printable(fix),
        code=str(problem.get("code") or operation.state),
    )


def title(operation: "OperationView") -> str:
    """Name an operation: its kind and what it is about."""
    return f"{operation.kind} {subject(operation)}".strip()


class _PlainView(AbstractContextManager["_PlainView"]):
    """For logs and pipes: one line per step that ended and per new reason to wait."""

    def __init__(self, session: Session, console: "Console") -> None:
        self._session, self._console = session, console
        self._shown: set[int] = set()
        self._told: set[tuple[str, str]] = set()
        self._tenths: dict[int, int] = {}  #: of steps that copy, by ordinal: the tenth told last

    def __exit__(self, *_: object) -> None:
        return None

    def update(self, operation: "OperationDetail") -> None:
        if self._session.is_json:
            return
        now = self._session.now()
        for step in walked(operation):
            if step.finished_at and step.ordinal not in self._shown:
                self._shown.add(step.ordinal)
                note = step_note(step)
                self._print(f"{span(seconds_of(step, now)):>9}  {step_label(step)}" + (f"  {note}" if note else ""))
            elif step.finished_at is None:
                self._tell_copy(step)
        news = (operation.step, operation.reason)
        if operation.reason and news not in self._told and operation.finished_at is None:
            # Once: a step that waits says the same again after every look.
            self._told.add(news)
            why = operation.reason.removeprefix(f"{operation.step}: ")  # of one that parks, it begins with the step
            self._print(f"           {operation.step}: {why}")

    def _tell_copy(self, step: "StepView") -> None:
        """Print a line for each tenth of a copy: whoever reads a log wants no line a second."""
        told, tenth = copied(step), tenths(step)
        if told and self._tenths.get(step.ordinal) != tenth:  # it goes back where a copy begins anew
            self._tenths[step.ordinal] = tenth
            self._print(f"           {step_label(step)}: {told}")

    def _print(self, line: str) -> None:
        self._console.print(printable(line), soft_wrap=True)


class _LiveView(AbstractContextManager["_LiveView"]):
    """For terminals: all steps, a spinner on the one at hand with its seconds and what it waits for."""

    def __init__(self, session: Session, console: "Console") -> None:
        from rich.spinner import Spinner

        self._session, self._console = session, console
        self._operation: OperationDetail | None = None
        self._spinner = Spinner("dots" if console.encoding.startswith("utf") else "line", style="cyan")
        self._live: Live | None = None

    def __enter__(self) -> "_LiveView":
        from rich.live import Live

        self._live = Live(
            console=self._console, get_renderable=self._draw, refresh_per_second=10, vertical_overflow="visible"
        )
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, value, traceback)

    def update(self, operation: "OperationDetail") -> None:
        self._operation = operation

    def _draw(self) -> "RenderableType":
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 1, 0, 0))
        table.add_column(width=1)
        table.add_column(justify="right", min_width=9, no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        if self._operation is None:
            return table
        now = self._session.now()
        steps = walked(self._operation)
        for step in steps:
            mark: RenderableType = Text("✓" if self._console.encoding.startswith("utf") else "+", style="green")
            note = Text(step_note(step), style="dim")
            if step.finished_at is None:
                mark = self._spinner.render(time.monotonic())
                note = Text(printable(self._operation.reason or step_note(step)), style="yellow")
            table.add_row(mark, span(seconds_of(step, now)), step_label(step), note)
        if self._operation.finished_at is None and all(step.finished_at for step in steps):
            waiting = printable(self._operation.reason or "waiting for a worker")
            table.add_row(self._spinner.render(time.monotonic()), "", Text(waiting, style="yellow"), "")
        return table
