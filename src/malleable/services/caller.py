"""Who calls, with the rights of the token in use."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from malleable.domain.access import Verb
from malleable.domain.ids import NodeId, ProjectId, TokenId, UserId
from malleable.domain.projects import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A user as narrowed by a token: its scope is applied already, so no rule has to think of it."""

    user_id: UserId
    name: str
    site_role: Role | None = None  #: None also for a token narrowed to one project
    memberships: Mapping[ProjectId, Role] = field(default_factory=dict)
    token_id: TokenId
    token_project_id: ProjectId | None = None
    token_node_id: NodeId | None = None  #: narrowed to one node: good for ``verbs`` there, and for nothing else
    verbs: frozenset[Verb] = frozenset()
    fabrics: frozenset[str] = frozenset()  #: a gateway's: what it serves, or ``ALL_FABRICS``
    is_read_only: bool = False
    expires_at: datetime

    @property
    def is_admin(self) -> bool:
        return self.site_role is Role.ADMIN

    @property
    def is_operator(self) -> bool:
        """Say whether the caller runs the machine room; admins do everything operators do."""
        return self.site_role in (Role.ADMIN, Role.OPERATOR)
