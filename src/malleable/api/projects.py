"""Projects, their limits and their members."""

from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from malleable.api.calls import After, Limit, call_of, created, edge_of, nothing, ok, page_of
from malleable.api.routing import guarded
from malleable.domain.projects import Project, ProjectKey, UsageRecord
from malleable.services.quotas import Standing
from malleable.wire.projects import (
    HoldingsView,
    KeyRequest,
    KeyView,
    LimitsView,
    MemberRequest,
    MemberView,
    ProjectRequest,
    ProjectView,
    QuotaRequest,
    QuotaView,
    UsageRecordView,
)
from malleable.wire.shapes import Listing, Name

routes = guarded("projects", prefix="/v1/projects")


def project_view(project: Project) -> ProjectView:
    """Show a project."""
    return ProjectView(
        id=project.id,
        name=project.name,
        needs_signed_images=project.needs_signed_images,
        pool=project.pool,
        created_at=project.created_at,
    )


def quota_view(standing: Standing) -> QuotaView:
    """Show a project's limits beside what it has."""
    project = standing.project
    return QuotaView(
        project_id=project.id,
        project=project.name,
        limits=LimitsView(**asdict(project.quota)),
        in_use=HoldingsView(**asdict(standing.in_use)),
    )


@routes.get("", response_model=Listing[ProjectView])
def project_list(request: Request, after: After = None, limit: Limit = 100) -> Response:
    """List projects: one's own; operators and admins all."""
    call = call_of(request)
    page = call.services.projects.project_list(call.caller, page_of(after, limit))
    items = tuple(project_view(project) for project in page.items)
    return ok(Listing[ProjectView](items=items, next=str(page.next) if page.next else None), call)


@routes.post("", status_code=201, response_model=ProjectView)
async def project_create(request: Request, body: ProjectRequest) -> Response:
    """Add a project, with its disks and images in a pool of its own if one is named."""
    call = call_of(request)
    project = await edge_of(request).on_device(
        lambda: call.services.projects.project_create(call.caller, body.name, pool=body.pool or "")
    )
    return created(project_view(project), call)


@routes.get("/{project}", response_model=ProjectView)
def project_get(request: Request, project: str) -> Response:
    """Read a project."""
    call = call_of(request)
    return ok(project_view(call.services.projects.project_get(call.caller, project)), call)


@routes.delete("/{project}", status_code=204)
def project_delete(request: Request, project: str) -> Response:
    """Remove an empty project."""
    call = call_of(request)
    call.services.projects.project_delete(call.caller, project)
    return nothing()


@routes.get("/{project}/quota", response_model=QuotaView)
def quota_get(request: Request, project: str) -> Response:
    """Read a project's limits and what it has of each."""
    call = call_of(request)
    return ok(quota_view(call.services.quotas.quota_get(call.caller, project)), call)


@routes.get("/{project}/usage", response_model=Listing[UsageRecordView])
def usage_list(request: Request, project: str, after: After = None, limit: Limit = 100) -> Response:
    """List what a project had of the disk storage, once an hour, oldest first; for a plot ask again ``after`` the last.

    Records of the last 90 days are kept, if the site did not decide otherwise.
    """
    call = call_of(request)
    page = call.services.quotas.usage_list(call.caller, project, page_of(after, limit))
    items = tuple(UsageRecordView(**_told(record)) for record in page.items)
    return ok(Listing[UsageRecordView](items=items, next=str(page.next) if page.next else None), call)


def _told(record: UsageRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in UsageRecordView.model_fields}


@routes.put("/{project}/quota", response_model=QuotaView)
def quota_set(request: Request, project: str, body: QuotaRequest) -> Response:
    """Change limits of a project: null lifts one, what is left out stays. Nothing is taken away from it."""
    call = call_of(request)
    changes = body.model_dump(exclude_unset=True)
    return ok(quota_view(call.services.quotas.quota_set(call.caller, project, changes)), call)


def key_view(key: ProjectKey) -> KeyView:
    """Show a key."""
    return KeyView(id=key.id, name=key.name, key=key.key, created_at=key.created_at)


@routes.get("/{project}/keys", response_model=Listing[KeyView])
def key_list(request: Request, project: str, after: After = None, limit: Limit = 100) -> Response:
    """List a project's public SSH keys."""
    call = call_of(request)
    page = call.services.keys.key_list(call.caller, project, page_of(after, limit))
    items = tuple(key_view(key) for key in page.items)
    return ok(Listing[KeyView](items=items, next=str(page.next) if page.next else None), call)


@routes.put("/{project}/keys/{key}", response_model=KeyView)
def key_add(request: Request, project: str, key: Name, body: KeyRequest) -> Response:
    """Give a project a public SSH key of this name: every machine it starts from now on gets it."""
    call = call_of(request)
    return ok(key_view(call.services.keys.key_add(call.caller, project, name=key, key=body.key)), call)


@routes.delete("/{project}/keys/{key}", status_code=204)
def key_remove(request: Request, project: str, key: str) -> Response:
    """Take a key from a project; a machine that has it keeps it until it starts again."""
    call = call_of(request)
    call.services.keys.key_remove(call.caller, project, key)
    return nothing()


@routes.get("/{project}/members", response_model=Listing[MemberView])
def member_list(request: Request, project: str, after: After = None, limit: Limit = 100) -> Response:
    """List who belongs to a project."""
    call = call_of(request)
    page = call.services.projects.member_list(call.caller, project, page_of(after, limit))
    items = tuple(MemberView(user_id=m.user_id, user=page.names[m.user_id], role=m.role) for m in page.items)
    return ok(Listing[MemberView](items=items, next=str(page.next) if page.next else None), call)


@routes.put("/{project}/members/{user}", response_model=MemberView)
def member_set(request: Request, project: str, user: str, body: MemberRequest) -> Response:
    """Give a user a role in a project, or change it."""
    call = call_of(request)
    member, name = call.services.projects.member_set(call.caller, project, user, body.role)
    return ok(MemberView(user_id=member.user_id, user=name, role=member.role), call)


@routes.delete("/{project}/members/{user}", status_code=204)
def member_remove(request: Request, project: str, user: str) -> Response:
    """Take a user out of a project."""
    call = call_of(request)
    call.services.projects.member_remove(call.caller, project, user)
    return nothing()
