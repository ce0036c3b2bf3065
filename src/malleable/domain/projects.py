"""Projects, users, roles and tokens."""

from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum

from malleable.domain.access import Verb
from malleable.domain.ids import MembershipId, NodeId, ProjectId, ProjectKeyId, TokenId, UsageRecordId, UserId
from malleable.domain.secrets import Secret


class Role(StrEnum):
    """What a person may do. Admin and operator hold for the site, member and reader for one project."""

    ADMIN = "admin"  #: everything, users and golden images included
    OPERATOR = "operator"  #: the machine room: nodes, switches, networks of the provider; sees all operations
    MEMBER = "member"  #: uses and changes what the project has
    READER = "reader"  #: looks at what the project has
    GATEWAY = "gateway"  #: the process beside the nodes; only the gateway's own calls


class SiteRole(StrEnum):
    """The roles that hold for the site."""

    ADMIN = Role.ADMIN.value
    OPERATOR = Role.OPERATOR.value
    GATEWAY = Role.GATEWAY.value


class ProjectRole(StrEnum):
    """The roles that hold for one project."""

    MEMBER = Role.MEMBER.value
    READER = Role.READER.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """What a project has, or what a request is about to take."""

    nodes: int = 0  #: held: allocated, or on their way back; not those in quarantine, which it cannot give back
    networks: int = 0
    attachments: int = 0  #: of the nodes it holds, on whosever network
    disks: int = 0
    disk_bytes: int = 0  #: of disks and snapshots: as large as they may become, whatever they share
    snapshots: int = 0
    images: int = 0  #: its own, failed imports too; golden ones are nobody's
    #: of the same: what is announced until an image is sealed, then its raw content with holes; and the files beside it
    image_bytes: int = 0
    taken_bytes: int = 0  #: of the pool, for it alone, as they were measured last: nodes write without asking


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRecord:
    """What a project had of the disk storage at one moment; at most one per hour."""

    id: UsageRecordId
    project_id: ProjectId
    at: datetime
    disks: int
    snapshots: int
    images: int  #: its own
    disk_bytes: int  #: of disks and snapshots: as large as they may become, whatever they share
    image_bytes: int
    taken_bytes: int | None = None  #: of the pool, without what is shared with others' images; None: not measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """How much of each a project may have; None: no limit. Less than it has already takes nothing away."""

    nodes: int | None = None
    networks: int | None = None
    attachments: int | None = None
    disks: int | None = None
    disk_bytes: int | None = None
    snapshots: int | None = None
    images: int | None = None
    image_bytes: int | None = None
    taken_bytes: int | None = None

    def limits(self, wanted: Holdings) -> dict[str, int]:
        """List the limits of what is wanted at all; whatever is kept in the pool will take some of it."""
        names = {name for name in HOLDINGS if getattr(wanted, name)}
        if names & _STORED:
            names.add("taken_bytes")
        limits = {name: getattr(self, name) for name in HOLDINGS if name in names}
        return {name: limit for name, limit in limits.items() if limit is not None}


#: What is counted, by the names of the fields.
HOLDINGS = tuple(field.name for field in fields(Holdings))
#: Of these, what is kept in the pool.
_STORED = frozenset({"disks", "disk_bytes", "snapshots", "images", "image_bytes"})
NO_LIMITS = Quota()


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A tenant."""

    id: ProjectId
    name: str
    quota: Quota = NO_LIMITS
    needs_signed_images: bool = False  #: it imports and boots only what somebody signed whom it trusts
    pool: str = ""  #: where its disks and images are, for ever; "": where the site's are
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A person or a program with a local account."""

    id: UserId
    name: str
    password_hash: Secret  #: argon2id
    site_role: Role | None  #: admin, operator or gateway; None for people who only belong to projects
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """A user's role in a project; unique per (user, project)."""

    id: MembershipId
    user_id: UserId
    project_id: ProjectId
    role: Role  #: member or reader


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectKey:
    """A public SSH key that logs in to whatever the project starts from now on; names are unique per project."""

    id: ProjectKeyId
    project_id: ProjectId
    name: str
    key: str  #: one line of authorized_keys
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A bearer token: only its hash is kept; rights are the user's, narrowed by its scope."""

    id: TokenId
    user_id: UserId
    name: str
    secret_sha256: str  #: hex; the secret has 256 bits, so a plain hash is enough
    project_id: ProjectId | None  #: narrowed to one project
    node_id: NodeId | None = None  #: narrowed to one node, as long as that project holds it
    verbs: tuple[Verb, ...] = ()  #: what it is good for there; of a token for a node alone
    fabrics: tuple[str, ...] = ()  #: that a gateway serves with it, or ``ALL_FABRICS``; none: it serves nothing
    is_read_only: bool
    expires_at: datetime
    revoked_at: datetime | None = None
    created_at: datetime
