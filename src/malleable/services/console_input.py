"""Console input: what the holder of a node types at its serial console, one writer at a time."""

from contextlib import ExitStack, suppress
from datetime import datetime, timedelta

from malleable.domain.access import INPUT_MAX_S, INPUT_WITHIN_S, TAKE_PACE, WRITER_IDLE_S, ConsoleWriter, Verb
from malleable.domain.errors import Conflict, StoreBusy, Unavailable
from malleable.domain.ids import ConsoleWriterId, new_id
from malleable.domain.nodes import Node, NodeState
from malleable.domain.operations import ACTIVE_STATES
from malleable.domain.projects import Token
from malleable.domain.store import Transaction
from malleable.services.access import live_token, token_facts
from malleable.services.caller import Caller
from malleable.services.finding import find_node, names_of
from malleable.services.paces import Paces, too_many
from malleable.services.parts import Parts
from malleable.workflows.powering import NO_DRIVER, bmc_of
from malleable.workflows.requests import record


class ConsoleInputs:
    """Types at consoles through BMCs. A release waits for the end of the input under way; none begins after it."""

    def __init__(self, parts: Parts, paces: Paces) -> None:
        self._parts, self._paces = parts, paces

    def console_write(self, caller: Caller, ref: str, text: str) -> int:
        """Type ``text`` at a node's console; "" only keeps others from it. Return how many bytes it was.

        Errors: NotFound, Forbidden; Conflict with code "console-closed", "console-taken" (somebody else types) or
        "being-provisioned"; TooMany; the driver's own, Refused with code "no-console-input" among them.
        """
        data = text.encode()
        with ExitStack() as asking:
            with self._parts.store.transaction() as tx:
                node, token = self._writable(tx, caller, ref)
                asking.enter_context(self._paces.asking(node))
                self._paces.keep(tx, caller, node, Verb.CONSOLE_INPUT)
                writer = self._claim(tx, caller, node, token, len(data))
            driver = self._parts.drivers.power.get(node.power_driver)
            try:
                if driver is None:
                    raise Conflict(
                        f"There is no power driver {node.power_driver} here.", code="no-driver", public=NO_DRIVER
                    )
                if data:
                    driver.console_write(bmc_of(node), data, within_s=INPUT_WITHIN_S)
            finally:
                # What was typed was typed: if this cannot be written, its time runs out by itself.
                with suppress(StoreBusy, Unavailable), self._parts.store.transaction() as tx:
                    tx.console_writers.change(writer.id, expect={"busy_until": writer.busy_until}, busy_until=None)
        return len(data)

    def console_leave(self, caller: Caller, ref: str) -> None:
        """Let somebody else type; nothing more if one does not type with this token. Errors: NotFound, Forbidden."""
        with self._parts.store.transaction() as tx:
            node = find_node(tx, caller, "node_console_input", ref)
            tx.nodes.change(node.id)  # locks it: an input may be beginning
            writer = tx.console_writers.find(node_id=node.id, token_id=caller.token_id)
            # An input under way is one that a release has to wait for.
            if writer is not None and not _is_busy(writer, self._parts.now()):
                self._end(tx, node, writer)

    def _writable(self, tx: Transaction, caller: Caller, ref: str) -> tuple[Node, Token]:
        """Find a node at whose console the caller may type at this moment, and lock it."""
        node = find_node(tx, caller, "node_console_input", ref)
        token = live_token(tx, caller, self._parts)
        if not tx.nodes.change(node.id, expect={"state": NodeState.ALLOCATED, "project_id": node.project_id}):
            raise Conflict(f"Node {node.name} is {node.state}: its console is closed.", code="console-closed")
        if tx.operations.count(node_id=node.id, kind="provision", state=list(ACTIVE_STATES)):
            # Undone, that hands the node to somebody else without a release, which alone waits for an input's end.
            raise Conflict(
                f"Node {node.name} is being provisioned; until that is done its console is only read.",
                code="being-provisioned",
                fix="Wait for the operation's end; `m2 node console --follow` shows how far the node is.",
            )
        return node, token

    def _claim(self, tx: Transaction, caller: Caller, node: Node, token: Token, count: int) -> ConsoleWriter:
        """Be the one who types, for the time of one input and a while after it."""
        now = self._parts.now()
        until = now + timedelta(seconds=INPUT_MAX_S)
        writer = tx.console_writers.find(node_id=node.id)
        if writer is not None and _is_busy(writer, now):
            raise too_many(f"The last input to the console of node {node.name} has not ended.", 1.0)
        if writer is not None and writer.token_id == token.id:
            written = writer.written_bytes + count
            tx.console_writers.change(writer.id, seen_at=now, busy_until=until, written_bytes=written)
            return tx.console_writers.get(writer.id)
        if writer is not None and (now - writer.seen_at).total_seconds() < WRITER_IDLE_S:
            who = names_of(tx.users, [writer.user_id]).get(writer.user_id, "somebody")
            raise Conflict(
                f"{who} types at the console of node {node.name}, with token {writer.token}.",
                code="console-taken",
                fix=f"Wait until they have left, or have shown no sign for {WRITER_IDLE_S:.0f} s. Reading goes on.",
            )
        wait_s = tx.meters.take(f"console taken of node {node.id}", TAKE_PACE, now)
        if wait_s:
            raise too_many(f"The console of node {node.name} changes hands too often.", wait_s)
        if writer is not None:
            self._end(tx, node, writer)
        opened = ConsoleWriter(
            id=ConsoleWriterId(new_id()),
            node_id=node.id,
            user_id=caller.user_id,
            token_id=token.id,
            token=token.name,
            seen_at=now,
            busy_until=until,
            written_bytes=count,
            created_at=now,
        )
        tx.console_writers.add(opened)
        record(tx, now, "node.console-taken", node=node, actor_id=caller.user_id, data=token_facts(token))
        return tx.console_writers.get(opened.id)

    def _end(self, tx: Transaction, node: Node, writer: ConsoleWriter) -> None:
        tx.console_writers.remove(writer.id)
        data = {"token_id": str(writer.token_id), "token": writer.token, "count": writer.written_bytes}
        record(tx, self._parts.now(), "node.console-left", node=node, actor_id=writer.user_id, data=data)


def _is_busy(writer: ConsoleWriter, now: datetime) -> bool:
    return writer.busy_until is not None and writer.busy_until > now
