"""m2 project: tenants and their members."""

from typing import TYPE_CHECKING, Annotated

import typer

from malleable.cli.command import group, register
from malleable.cli.formats import age
from malleable.cli.options import NewName, ProjectArgument, UserArgument
from malleable.cli.output import Column, done, show_list
from malleable.cli.session import Session, usage
from malleable.domain.projects import Role

if TYPE_CHECKING:
    from malleable.wire.projects import MemberView, ProjectView


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    noun = group(app, "project", "Tenants and their members.")
    register(noun, {"list": project_list, "create": project_create, "delete": project_delete})
    member = group(noun, "member", "Who belongs to a project.")
    register(member, {"list": member_list, "set": member_set, "delete": member_delete})


def project_list(session: Session) -> None:
    """List your projects; operators and admins see all."""
    now = session.now()
    columns: list[Column[ProjectView]] = [
        Column(title="name", cell=lambda project: project.name),
        Column(title="age", cell=lambda project: age(project.created_at, now)),
        Column(title="id", cell=lambda project: str(project.id), is_minor=True),
    ]
    show_list(session, session.m2.project_list(), columns, nothing="No projects.")


def project_create(session: Session, name: NewName) -> None:
    """Add a project."""
    from malleable.wire.projects import ProjectRequest

    project = session.m2.project_create(ProjectRequest(name=name))
    done(session, project, f"Project {project.name} is there; add people with `m2 project member set {name} USER`.")


def project_delete(session: Session, project: ProjectArgument) -> None:
    """Remove a project that has nothing any more."""
    session.m2.project_delete(project)
    done(session, None, f"Project {project} is removed.")


def member_list(session: Session, project: ProjectArgument) -> None:
    """List a project's members."""
    columns: list[Column[MemberView]] = [
        Column(title="user", cell=lambda member: member.user),
        Column(title="role", cell=lambda member: member.role),
    ]
    show_list(session, session.m2.member_list(project), columns, nothing="No members.")


def member_set(
    session: Session,
    project: ProjectArgument,
    user: UserArgument,
    role: Annotated[Role, typer.Option(help="member (uses and changes) or reader (looks).")] = Role.MEMBER,
) -> None:
    """Give a user a role in a project."""
    if role not in (Role.MEMBER, Role.READER):
        usage(f"{role} is not a role in a project.", "Use member or reader.")
    member = session.m2.member_set(project, user, role)
    done(session, member, f"{member.user} is {member.role} of {project}.")


def member_delete(session: Session, project: ProjectArgument, user: UserArgument) -> None:
    """Take a user out of a project."""
    session.m2.member_remove(project, user)
    done(session, None, f"{user} no longer belongs to {project}.")
