"""m2 operation: what takes time."""

from typing import TYPE_CHECKING, Annotated

import typer

from malleable.cli.command import group, register
from malleable.cli.formats import age, ago, span
from malleable.cli.operation_ref import find_operation, short_id
from malleable.cli.options import NodeOption, Since, Watch, since
from malleable.cli.output import Column, done, show_facts, show_list
from malleable.cli.progress import conclude, finish, follow, title
from malleable.cli.session import Session
from malleable.cli.timeline import dominant, proofs, subject, timeline, total_seconds
from malleable.domain.operations import OperationState

if TYPE_CHECKING:
    from malleable.wire.operations import OperationDetail, OperationView

OperationArgument = Annotated[
    str, typer.Argument(metavar="OPERATION", help="Its id, the end of it, or a node: its latest.", show_default=False)
]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    noun = group(app, "operation", "What takes time: see it, follow it, undo it.")
    register(
        noun,
        {
            "list": operation_list,
            "show": operation_show,
            "watch": operation_watch,
            "cancel": operation_cancel,
            "resume": operation_resume,
        },
    )


def operation_list(
    session: Session,
    node: NodeOption = None,
    state: Annotated[OperationState | None, typer.Option(help="Only those in this state.")] = None,
    kind: Annotated[str | None, typer.Option(metavar="KIND", help="E.g. provision or release.")] = None,
    back: Since = "1d",
) -> None:
    """List operations, oldest first: of the last day, or as far back as you ask; parked ones however old."""
    now = session.now()
    columns: list[Column[OperationView]] = [
        Column(title="kind", cell=lambda operation: operation.kind),
        Column(title="about", cell=lambda operation: subject(operation) or "-"),
        Column(title="project", cell=lambda operation: operation.project or "-", is_minor=True),
        Column(title="state", cell=lambda operation: operation.state),
        Column(title="age", cell=lambda operation: age(operation.created_at, now), is_number=True, is_minor=True),
        Column(title="id", cell=lambda operation: short_id(operation.id)),
        Column(title="at", cell=_at, is_wrapped=True),
    ]
    is_parked = state is OperationState.NEEDS_OPERATOR
    after = None if is_parked else since(back)
    nothing = "None is parked." if is_parked else f"No operations in {back}; look further back with --since."
    found = session.m2.operation_list(node=node, project=session.project, state=state, kind=kind, after=after)
    show_list(session, found, columns, nothing=nothing)


def _at(operation: "OperationView") -> str:
    if operation.finished_at is not None:
        return "" if operation.state is OperationState.SUCCEEDED else operation.reason
    return f"{operation.step}: {operation.reason}" if operation.reason else operation.step


def operation_show(
    session: Session,
    operation: OperationArgument,
    has_proof: Annotated[bool, typer.Option("--proof", help="Also what proves each step.")] = False,
) -> None:
    """Show an operation's timeline: each step, its seconds, what dominated, and with --proof what proves each."""
    found = session.m2.operation_get(find_operation(session, operation))
    if session.is_json:
        session.write_json(found.model_dump(mode="json"))
        return
    now = session.now()
    show_facts(session, _facts(session, found))
    if found.steps:
        session.out.print()
        session.out.print(timeline(found, now, session.out.width))
    if has_proof:
        session.out.print()
        show_facts(session, proofs(found))


def _facts(session: Session, operation: "OperationDetail") -> dict[str, str]:
    now = session.now()
    problem = operation.error or {}
    slow = dominant(operation, now)
    return {
        "operation": str(operation.id),
        "kind": operation.kind,
        "node": operation.node or "",
        "about": "" if operation.node else subject(operation),
        "project": operation.project or "",
        "state": operation.state,
        "reason": operation.reason,
        "tenants read": operation.public_reason if operation.public_reason != operation.reason else "",
        "error": str(problem.get("message") or problem.get("detail") or ""),
        "fix": str(problem.get("fix") or ""),
        "explanation": str(problem.get("explanation") or ""),
        "began": ago(operation.created_at, now),
        "took" if operation.finished_at else "takes": span(total_seconds(operation, now))
        + (f", {slow}" if slow else ""),
    }


def operation_watch(session: Session, operation: OperationArgument) -> None:
    """Follow an operation to its end; Ctrl-C stops the watching, not the operation."""
    ended = follow(session, session.m2.operation_get(find_operation(session, operation)))
    if session.is_json:
        session.write_json(ended.model_dump(mode="json"))
    conclude(session, ended)


def operation_cancel(session: Session, operation: OperationArgument, watch: Watch = True) -> None:
    """Undo an operation that has not ended; done when nothing of it is left."""
    found = session.m2.operation_cancel(find_operation(session, operation))
    if not watch:
        done(session, found, f"It is being undone; follow it with `m2 operation watch {operation}`.")
        return
    ended = follow(session, found)
    if session.is_json:
        session.write_json(ended.model_dump(mode="json"))
    if ended.state is OperationState.CANCELLED:
        session.say(f"{title(ended)} is undone; nothing of it is left.")
    else:
        conclude(session, ended)


def operation_resume(session: Session, operation: OperationArgument, watch: Watch = True) -> None:
    """Let a parked operation try again, after you removed what stopped it."""
    found = session.m2.operation_resume(find_operation(session, operation))
    finish(session, found, is_watching=watch)
