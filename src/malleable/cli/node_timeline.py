"""m2 node timeline: what happened to a node, operation by operation."""

from typing import Annotated

import typer

from malleable.cli.formats import ago, span
from malleable.cli.options import NodeArgument, Since, since
from malleable.cli.session import Session
from malleable.cli.timeline import dominant, timeline, total_seconds


def node_timeline(
    session: Session,
    node: NodeArgument,
    back: Since = "7d",
    last: Annotated[
        int, typer.Option("--last", "-n", metavar="N", min=1, help="How many of the latest operations.")
    ] = 3,
) -> None:
    """Show the latest operations of a node: each step, its seconds, and what dominated."""
    found = list(session.m2.operation_list(node=node, after=since(back)))[-last:]
    operations = [session.m2.operation_get(operation.id) for operation in found]
    if session.is_json:
        session.write_json([operation.model_dump(mode="json") for operation in operations])
        return
    if not operations:
        session.hint(f"Nothing happened to {node} in {back}; look further back with --since.")
    now = session.now()
    for operation in operations:
        slow = dominant(operation, now)
        session.out.print(
            f"{operation.kind}: {operation.state}, {span(total_seconds(operation, now))}"
            + (f", {slow}" if slow else "")
            + f", {ago(operation.created_at, now)}",
            style="bold",
        )
        session.out.print(timeline(operation, now, session.out.width))
        session.out.print()
