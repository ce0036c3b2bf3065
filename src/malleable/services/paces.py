"""Paces: how often a node's BMC may be used, by everybody together and by one caller."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from math import ceil
from threading import Lock

from malleable.domain.access import CALLER_PACES, CALLS_AT_ONCE, CONSOLE_IDLE_S, NODE_PACES, Verb
from malleable.domain.errors import TooMany
from malleable.domain.ids import NodeId
from malleable.domain.nodes import Node
from malleable.domain.store import Transaction
from malleable.services.caller import Caller
from malleable.services.parts import Parts

#: What was used up longer ago says nothing any more.
KEPT = timedelta(minutes=10)
_DONE = {
    Verb.POWER: "switched",
    Verb.CONSOLE: "asked for its console",
    Verb.CONSOLE_INPUT: "typed at",
    Verb.BOOT_DEVICE: "given a boot device",
}


class Paces:
    """Counts what is asked of BMCs, in the database: there may be several processes."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._lock = Lock()
        self._asking: Counter[NodeId] = Counter()

    def keep(self, tx: Transaction, caller: Caller, node: Node, verb: Verb) -> None:
        """Count one use of a node's BMC. Errors: TooMany with code "too-many-calls"; nothing is counted then."""
        now = self._parts.now()
        wait_s = tx.meters.take(f"{verb} node {node.id}", NODE_PACES[verb], now)
        if wait_s:
            raise too_many(f"Node {node.name} is {_DONE[verb]} too often.", wait_s)
        if caller.is_operator:
            return
        whose = f"token {caller.token_id}" if caller.token_node_id else f"user {caller.user_id}"
        wait_s = tx.meters.take(f"{verb} {whose}", CALLER_PACES[verb], now)
        if wait_s:
            raise too_many("You ask the nodes' management controllers too often.", wait_s)

    @contextmanager
    def asking(self, node: Node) -> Iterator[None]:
        """Count who waits for a node's BMC. Errors: TooMany: one that hangs shall not take all threads."""
        with self._lock:
            if self._asking[node.id] >= CALLS_AT_ONCE:
                raise too_many(f"Node {node.name} has not answered those who asked before.", 1.0)
            self._asking[node.id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._asking -= Counter([node.id])

    def opens_console(self, tx: Transaction, caller: Caller, node: Node) -> bool:
        """Note that a console is read; say whether it was not just now with this token."""
        key = f"console of {node.id} by {caller.token_id}"
        return tx.meters.open(key, CONSOLE_IDLE_S, self._parts.now())

    def expire(self) -> None:
        """Drop old meters; by itself, for whoever asks waits for no crowd of them to go."""
        with self._parts.store.transaction() as tx:
            tx.meters.forget(self._parts.now() - KEPT)


def too_many(message: str, wait_s: float) -> TooMany:
    """Refuse what comes too early, and say when to come again."""
    seconds = ceil(wait_s)
    return TooMany(message, code="too-many-calls", fix=f"Try again in {seconds} s.", details={"retry_after_s": seconds})
