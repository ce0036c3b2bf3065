"""Operations."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from malleable.api.audience import Audience
from malleable.api.calls import After, Call, Limit, RefQuery, accepted, call_of, ok, page_of
from malleable.api.routing import guarded
from malleable.domain.operations import Operation, OperationState, StepRecord
from malleable.services.parts import Shown
from malleable.wire.operations import OperationDetail, OperationView, StepView
from malleable.wire.shapes import Listing

routes = guarded("operations", prefix="/v1/operations")


def operation_view(shown: Shown[Operation], audience: Audience) -> OperationView:
    """Show an operation."""
    return OperationView(**_fields(shown, audience))


def operation_detail(shown: Shown[Operation], steps: tuple[StepRecord, ...], audience: Audience) -> OperationDetail:
    """Show an operation with its timeline."""
    return OperationDetail(**_fields(shown, audience), steps=tuple(step_view(step, audience) for step in steps))


def _fields(shown: Shown[Operation], audience: Audience) -> dict[str, Any]:
    operation, names = shown.value, shown.names
    is_tenant = audience is Audience.TENANT
    return {
        "id": operation.id,
        "kind": operation.kind,
        "node_id": operation.node_id,
        "node": names.get(operation.node_id) if operation.node_id else None,
        "project_id": operation.project_id,
        "project": names.get(operation.project_id) if operation.project_id else None,
        "actor_id": operation.actor_id,
        "arguments": operation.arguments,
        "state": operation.state,
        "direction": operation.direction,
        "step": operation.step,
        "attempt": operation.attempt,
        "is_cancel_requested": operation.is_cancel_requested,
        "reason": operation.public_reason if is_tenant else operation.reason,
        "public_reason": operation.public_reason,
        "error": _public_error(operation.error) if is_tenant else operation.error,
        "result": operation.result,
        "next_due_at": operation.next_due_at,
        "step_deadline_at": operation.step_deadline_at,
        "created_at": operation.created_at,
        "started_at": operation.started_at,
        "finished_at": operation.finished_at,
    }


def _public_error(error: Mapping[str, object] | None) -> dict[str, object] | None:
    """Put the words for tenants in the place of the provider's."""
    if error is None:
        return None
    public = error.get("public")
    return {**error, "message": "", "fix": "", **(public if isinstance(public, Mapping) else {})}


def step_view(step: StepRecord, audience: Audience) -> StepView:
    """Show one line of a timeline."""
    return StepView(
        ordinal=step.ordinal,
        name=step.name,
        direction=step.direction,
        attempts=step.attempts,
        started_at=step.started_at,
        finished_at=step.finished_at,
        evidence=dict(step.evidence),
        error=step.public_error if audience is Audience.TENANT else step.error,
    )


def begun(call: Call, operation: Operation | Shown[Operation]) -> Response:
    """Answer 202 with an operation that has just begun; its names are read unless they come with it."""
    if isinstance(operation, Operation):
        operation = call.services.operations.operation_shown(operation)
    return accepted(operation_view(operation, call.audience), call, operation.value)


@routes.get("", response_model=Listing[OperationView])
def operation_list(
    request: Request,
    after: After = None,
    limit: Limit = 100,
    node: RefQuery = None,
    project: RefQuery = None,
    state: OperationState | None = None,
    kind: RefQuery = None,
) -> Response:
    """List operations: those of one's projects; operators and admins all."""
    call = call_of(request)
    page = call.services.operations.operation_list(
        call.caller, page_of(after, limit), node=node, project=project, state=state, kind=kind
    )
    items = tuple(operation_view(Shown(value=operation, names=page.names), call.audience) for operation in page.items)
    return ok(Listing[OperationView](items=items, next=str(page.next) if page.next else None), call)


@routes.get("/{operation}", response_model=OperationDetail)
def operation_get(request: Request, operation: UUID) -> Response:
    """Read an operation with its timeline."""
    call = call_of(request)
    shown, steps = call.services.operations.operation_get(call.caller, operation)
    return ok(operation_detail(shown, steps, call.audience), call)


@routes.post("/{operation}/cancel", status_code=202, response_model=OperationView)
def operation_cancel(request: Request, operation: UUID) -> Response:
    """Ask an operation to undo itself."""
    call = call_of(request)
    return begun(call, call.services.operations.operation_cancel(call.caller, operation))


@routes.post("/{operation}/resume", status_code=202, response_model=OperationView)
def operation_resume(request: Request, operation: UUID) -> Response:
    """Let a parked operation go on."""
    call = call_of(request)
    return begun(call, call.services.operations.operation_resume(call.caller, operation))
