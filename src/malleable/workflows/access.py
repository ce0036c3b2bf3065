"""The end of access to a node: with its holder's time, in the transaction that ends that; its console is cut."""

from datetime import datetime

from malleable.domain.access import INPUT_MAX_S
from malleable.domain.errors import Public
from malleable.domain.nodes import Node
from malleable.domain.operations import Operation, Wait
from malleable.domain.store import Transaction
from malleable.workflows.requests import record
from malleable.workflows.steps import Context, Done, Step

_TYPED_AT = "typed_at"


def revoke_access(tx: Transaction, now: datetime, node: Node, *, operation: Operation) -> None:
    """Revoke every token for the node, which its holder has lost or gives back in this transaction.

    Called after the node's row is changed: whoever issues such a token locks that row first, and sees it changed.
    """
    count = tx.tokens.revoke_of_node(node.id, now)
    if count:
        record(tx, now, "node.access-revoked", node=node, operation=operation, data={"count": count})


def console_arguments(tx: Transaction, node: Node) -> dict[str, object]:
    """Say whether somebody may be typing at the node's console; who comes later finds it closed."""
    return {_TYPED_AT: True} if tx.console_writers.count(node_id=node.id) else {}


def cut_console(context: Context) -> Done | Wait:
    """Prove that nobody types at the console any more: no input can begin, so the one under way has to end."""
    node_id = context.operation.node_id
    with context.store.glance() as tx:
        writer = tx.console_writers.find(node_id=node_id)
    if writer is None:
        return Done(evidence={"console": "nobody typed at it"})
    now = context.now()
    if writer.busy_until is not None and writer.busy_until > now:
        return Wait(
            seconds=min(1.0, (writer.busy_until - now).total_seconds()),
            reason=f"an input by token {writer.token} is still on its way to the console",
            public=Public("An input is still on its way to the console."),
        )
    gone = writer

    def write(tx: Transaction) -> None:
        tx.console_writers.remove(gone.id)
        data = {"token_id": str(gone.token_id), "token": gone.token, "count": gone.written_bytes}
        record(tx, context.now(), "node.console-cut", operation=context.operation, data=data)

    return Done(evidence={"console": "cut", "typed_at": gone.seen_at.isoformat()}, write=write)


CUT_CONSOLE = Step(
    name="cut-console",
    do=cut_console,
    # No undo: whoever typed has lost the node.
    deadline_s=4 * INPUT_MAX_S,
    needed=lambda operation: bool(operation.arguments.get(_TYPED_AT)),
)
