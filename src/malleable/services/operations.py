"""Operations: what goes on, and its timeline."""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from malleable.domain.access import Verb
from malleable.domain.ids import NodeId
from malleable.domain.operations import Operation, OperationState, StepRecord
from malleable.domain.store import Page, Transaction
from malleable.services.authorization import require
from malleable.services.caller import Caller
from malleable.services.finding import find_identified, find_named, find_project, listed, names_of
from malleable.services.parts import Listed, Parts, Shown
from malleable.workflows import requests


class Operations:
    """Durable workflow instances."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def operation_list(
        self,
        caller: Caller,
        page: Page,
        *,
        node: str | None = None,
        project: str | None = None,
        state: OperationState | None = None,
        kind: str | None = None,
    ) -> Listed[Operation]:
        """List the operations of one's projects; operators and admins: all. Errors: NotFound."""
        require(caller, "operation_list")
        wanted: dict[str, object] = {} if caller.is_operator else {"project_id": list(caller.memberships)}
        if state is not None:
            wanted["state"] = state
        if kind is not None:
            wanted["kind"] = kind if kind.isprintable() else ""
        with self._parts.store.reading() as tx:
            if project is not None:
                wanted["project_id"] = find_project(tx, caller, project).id
            if node is not None:
                wanted["node_id"] = node_id_of(tx, node)
            found = tx.operations.list(page, **wanted)
            return listed(found, page, _names(tx, found))

    def operation_get(self, caller: Caller, operation_id: UUID) -> tuple[Shown[Operation], tuple[StepRecord, ...]]:
        """Read one operation and its timeline. Errors: NotFound."""
        with self._parts.store.reading() as tx:
            operation = self._find(tx, caller, "operation_get", operation_id)
            shown = _without_console(operation, caller)
            return Shown(value=shown, names=_names(tx, [operation])), tx.operations.steps([operation.id])

    def operation_shown(self, operation: Operation) -> Shown[Operation]:
        """Add names to an operation that its caller has just begun."""
        with self._parts.store.glance() as tx:
            return Shown(value=operation, names=_names(tx, [operation]))

    def operation_cancel(self, caller: Caller, operation_id: UUID) -> Operation:
        """Ask an operation to undo itself. Errors: NotFound, Forbidden, Conflict."""
        with self._parts.store.transaction() as tx:
            operation = self._find(tx, caller, "operation_cancel", operation_id)
            return requests.cancel(tx, self._parts.now(), operation)

    def operation_resume(self, caller: Caller, operation_id: UUID) -> Operation:
        """Let a parked operation go on. Errors: NotFound, Forbidden, Conflict."""
        with self._parts.store.transaction() as tx:
            operation = self._find(tx, caller, "operation_resume", operation_id)
            return requests.resume(tx, self._parts.now(), operation)

    def _find(self, tx: Transaction, caller: Caller, action: str, operation_id: UUID) -> Operation:
        operation = find_identified(tx.operations, operation_id, "operation")
        # Who may only switch a node follows what that began, and nothing else that is done to the node.
        node_id = operation.node_id if operation.kind == "power" else None
        what = f"operation {operation_id}"
        require(caller, action, what=what, project_id=operation.project_id, node_id=node_id)
        return operation


def _without_console(operation: Operation, caller: Caller) -> Operation:
    """Take the explanation, which quotes the console, from who may switch the node and not read that."""
    if caller.token_node_id is None or Verb.CONSOLE in caller.verbs or not operation.error:
        return operation
    told = {name: value for name, value in operation.error.items() if name != "explanation"}
    return replace(operation, error=told)


def node_id_of(tx: Transaction, ref: str) -> NodeId:
    """Find a node for use as a filter only: what matches is filtered by project besides. Errors: NotFound."""
    return find_named(tx.nodes, ref, "node").id


def _names(tx: Transaction, operations: Sequence[Operation]) -> dict[UUID, str]:
    projects = names_of(tx.projects, (o.project_id for o in operations))
    return {**projects, **names_of(tx.nodes, (o.node_id for o in operations))}
