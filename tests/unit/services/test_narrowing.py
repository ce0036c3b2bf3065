"""What a token leaves of its user's rights."""

from datetime import UTC, datetime

from malleable.domain.ids import MembershipId, ProjectId, TokenId, UserId, new_id
from malleable.domain.projects import Membership, Role, Token, User
from malleable.domain.secrets import Secret
from malleable.services.authentication import narrowed

NOW = datetime(2026, 11, 20, tzinfo=UTC)
ALPHA, BETA = ProjectId(new_id()), ProjectId(new_id())


def user(site_role: Role | None = None) -> User:
    return User(id=UserId(new_id()), name="x", password_hash=Secret(""), site_role=site_role, created_at=NOW)


def token(project_id: ProjectId | None = None) -> Token:
    return Token(
        id=TokenId(new_id()),
        user_id=UserId(new_id()),
        name="t",
        secret_sha256="",
        project_id=project_id,
        is_read_only=False,
        expires_at=NOW,
        created_at=NOW,
    )


def member(project_id: ProjectId, role: Role) -> Membership:
    return Membership(id=MembershipId(new_id()), user_id=UserId(new_id()), project_id=project_id, role=role)


BOTH = (member(ALPHA, Role.MEMBER), member(BETA, Role.READER))


def test_a_plain_token_leaves_everything() -> None:
    caller = narrowed(user(Role.OPERATOR), BOTH, token())
    assert caller.site_role is Role.OPERATOR
    assert caller.memberships == {ALPHA: Role.MEMBER, BETA: Role.READER}


def test_a_projects_token_leaves_that_project_alone() -> None:
    caller = narrowed(user(Role.OPERATOR), BOTH, token(BETA))
    assert caller.site_role is None
    assert caller.memberships == {BETA: Role.READER}


def test_an_admins_projects_token_is_a_members() -> None:
    caller = narrowed(user(Role.ADMIN), (), token(ALPHA))
    assert caller.site_role is None
    assert caller.memberships == {ALPHA: Role.MEMBER}


def test_a_projects_token_is_worth_nothing_after_leaving() -> None:
    caller = narrowed(user(), (member(ALPHA, Role.MEMBER),), token(BETA))
    assert caller.memberships == {}
