"""Calls about users, tokens, projects and their members."""

from collections.abc import Iterator
from uuid import UUID

from malleable.client.connection import Connection
from malleable.client.paths import v1
from malleable.domain.projects import ProjectRole
from malleable.wire.projects import (
    KeyRequest,
    KeyView,
    MemberRequest,
    MemberView,
    ProjectRequest,
    ProjectView,
    QuotaRequest,
    QuotaView,
    UsageRecordView,
)
from malleable.wire.users import (
    LoginRequest,
    PasswordRequest,
    TokenIssued,
    TokenRequest,
    TokenView,
    UserRequest,
    UserView,
    WhoamiView,
)


class AccountCalls(Connection):
    """Who may do what."""

    def login(self, request: LoginRequest) -> TokenIssued:
        """Trade a password for a token. Errors: Unauthenticated, Unavailable (too many tries)."""
        return self.post_once("/v1/login", TokenIssued, request)

    def whoami(self) -> WhoamiView:
        """Say who the token belongs to."""
        return self.get("/v1/whoami", WhoamiView)

    def token_list(self, *, user: str | None = None) -> Iterator[TokenView]:
        """List one's own tokens; an admin may ask for a user's."""
        return self.items("/v1/tokens", TokenView, {"user": user})

    def token_issue(self, request: TokenRequest) -> TokenIssued:
        """Make a token for oneself; its secret is shown this once."""
        return self.post("/v1/tokens", TokenIssued, request)

    def token_revoke(self, token: UUID) -> None:
        """Revoke a token."""
        self.delete(v1("tokens", token))

    def user_list(self) -> Iterator[UserView]:
        """List all accounts."""
        return self.items("/v1/users", UserView)

    def user_get(self, user: str) -> UserView:
        """Read an account."""
        return self.get(v1("users", user), UserView)

    def user_create(self, request: UserRequest) -> UserView:
        """Add an account. Errors: Conflict (name taken)."""
        return self.post("/v1/users", UserView, request)

    def user_delete(self, user: str) -> None:
        """Remove an account and its tokens."""
        self.delete(v1("users", user))

    def user_set_password(self, user: str, request: PasswordRequest) -> None:
        """Set a password."""
        self.put_silent(v1("users", user, "password"), request)

    def project_list(self) -> Iterator[ProjectView]:
        """List the projects one belongs to; operators and admins see all."""
        return self.items("/v1/projects", ProjectView)

    def project_get(self, project: str) -> ProjectView:
        """Read a project."""
        return self.get(v1("projects", project), ProjectView)

    def project_create(self, request: ProjectRequest) -> ProjectView:
        """Add a project. Errors: Conflict (name taken)."""
        return self.post("/v1/projects", ProjectView, request)

    def project_delete(self, project: str) -> None:
        """Remove a project. Errors: Conflict while it has anything."""
        self.delete(v1("projects", project))

    def quota_get(self, project: str) -> QuotaView:
        """Read a project's limits and what it has of each."""
        return self.get(v1("projects", project, "quota"), QuotaView)

    def usage_list(self, project: str, *, after: UUID | None = None) -> Iterator[UsageRecordView]:
        """List what a project had of the disk storage, hour by hour."""
        return self.items(v1("projects", project, "usage"), UsageRecordView, {"after": after})

    def quota_set(self, project: str, request: QuotaRequest) -> QuotaView:
        """Change the limits that were given to ``request``, None included."""
        return self.put(v1("projects", project, "quota"), QuotaView, request)

    def key_list(self, project: str) -> Iterator[KeyView]:
        """List a project's public SSH keys."""
        return self.items(v1("projects", project, "keys"), KeyView)

    def key_add(self, project: str, name: str, key: str) -> KeyView:
        """Give a project a public SSH key, or change the one of this name."""
        return self.put(v1("projects", project, "keys", name), KeyView, KeyRequest(key=key))

    def key_remove(self, project: str, name: str) -> None:
        """Take a key from a project."""
        self.delete(v1("projects", project, "keys", name))

    def member_list(self, project: str) -> Iterator[MemberView]:
        """List a project's members."""
        return self.items(v1("projects", project, "members"), MemberView)

    def member_set(self, project: str, user: str, role: ProjectRole) -> MemberView:
        """Give a user a role in a project."""
        return self.put(v1("projects", project, "members", user), MemberView, MemberRequest(role=role))

    def member_remove(self, project: str, user: str) -> None:
        """Take a user out of a project."""
        self.delete(v1("projects", project, "members", user))
