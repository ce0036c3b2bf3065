"""Users, tokens and logging in."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field, StringConstraints

from malleable.domain.access import Verb
from malleable.domain.projects import Role, SiteRole
from malleable.wire.shapes import Answer, Line, Name, Open, Ref, Request

PASSWORD_MIN_CHARS = 10
TOKEN_DEFAULT_TTL_S = 12 * 3600
TOKEN_MAX_TTL_S = 30 * 24 * 3600

#: A password being set; one being tried may have any length up to the same bound.
NewPassword = Annotated[str, StringConstraints(min_length=PASSWORD_MIN_CHARS, max_length=1000)]
Password = Annotated[str, StringConstraints(max_length=1000)]
Ttl = Annotated[int, Field(ge=1, le=TOKEN_MAX_TTL_S)]


class UserView(Answer):
    """A local account; never its password's hash."""

    id: Open[UUID]
    name: Open[str]
    site_role: Open[Role | None]
    created_at: Open[datetime]


class LoginRequest(Request):
    """Trade a password for a token."""

    username: Annotated[str, StringConstraints(max_length=200)]
    password: Password
    name: Line = "login"
    ttl_s: Ttl = TOKEN_DEFAULT_TTL_S
    project: Ref | None = None
    is_read_only: bool = False


class TokenRequest(Request):
    """A further token for oneself; never with more rights than the one in use."""

    name: Line
    ttl_s: Ttl = TOKEN_DEFAULT_TTL_S
    project: Ref | None = None
    is_read_only: bool = False


class TokenView(Answer):
    """A token without its secret."""

    id: Open[UUID]
    user_id: Open[UUID]
    user: Open[str]
    name: Open[str]
    project_id: Open[UUID | None]
    project: Open[str | None]
    node_id: Open[UUID | None] = None  #: narrowed to one node
    node: Open[str | None] = None
    verbs: Open[tuple[Verb, ...]] = ()  #: what it is good for there
    fabrics: tuple[str, ...] = ()  #: that a gateway serves with it; "*": all
    is_read_only: Open[bool]
    expires_at: Open[datetime]
    revoked_at: Open[datetime | None]
    created_at: Open[datetime]


class TokenIssued(Answer):
    """A new token; this is the only time its secret is shown."""

    id: Open[UUID]
    token: Open[str] = Field(repr=False)
    expires_at: Open[datetime]
    user: Open[UserView]


class MembershipView(Answer):
    """One of the caller's memberships."""

    project_id: Open[UUID]
    project: Open[str]
    role: Open[Role]


class WhoamiView(Answer):
    """Who the token belongs to and what it may do."""

    user: Open[UserView]
    site_role: Open[Role | None]
    memberships: Open[tuple[MembershipView, ...]]
    token: Open[TokenView]


class UserRequest(Request):
    """A new local account."""

    name: Name
    password: NewPassword = Field(repr=False)
    site_role: SiteRole | None = None


class PasswordRequest(Request):
    """A new password; the old one is needed unless an admin sets it for somebody else."""

    password: NewPassword = Field(repr=False)
    old_password: Password | None = Field(default=None, repr=False)
