"""Projects and their members."""

from datetime import datetime
from uuid import UUID

from malleable.domain.projects import Role
from malleable.wire.shapes import Answer, Name, Open, Request


class ProjectRequest(Request):
    """A new project."""

    name: Name


class ProjectView(Answer):
    """A project."""

    id: Open[UUID]
    name: Open[str]
    created_at: Open[datetime]


class MemberRequest(Request):
    """A user's role in a project: member or reader."""

    role: Role = Role.MEMBER


class MemberView(Answer):
    """A member of a project."""

    user_id: Open[UUID]
    user: Open[str]
    role: Open[Role]
