"""The end of access to a node: with its holder's time, in the transaction that ends that."""

from datetime import datetime

from malleable.domain.nodes import Node
from malleable.domain.operations import Operation
from malleable.domain.store import Transaction
from malleable.workflows.requests import record


def revoke_access(tx: Transaction, now: datetime, node: Node, *, operation: Operation) -> None:
    """Revoke every token for the node, which its holder has lost or gives back in this transaction.

    Called after the node's row is changed: whoever issues such a token locks that row first, and sees it changed.
    """
    count = tx.tokens.revoke_of_node(node.id, now)
    if count:
        record(tx, now, "node.access-revoked", node=node, operation=operation, data={"count": count})
