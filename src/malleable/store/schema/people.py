"""Who uses the site: projects, users, their roles, their tokens, and the replies kept for them."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
)

from malleable.domain.access import Verb
from malleable.domain.projects import Role
from malleable.store.schema.columns import created, identity, metadata, to, words
from malleable.store.types import EnumText, Id, Instant, QuotaJson, Sealed, TupleOf

site = Table(
    "site",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("network_generation", BigInteger, nullable=False),
    Column("key_check", Sealed),
    CheckConstraint("id = 1", name="one_row"),
    info={"noun": "site"},
)

projects = Table(
    "projects",
    metadata,
    identity(),
    words("name"),
    Column("quota", QuotaJson, nullable=False),
    Column("needs_signed_images", Boolean, nullable=False),
    words("pool"),
    created(),
    UniqueConstraint("name"),
    info={"noun": "project"},
)

Index(None, projects.c.pool)

users = Table(
    "users",
    metadata,
    identity(),
    words("name"),
    Column("password_hash", Sealed, nullable=False),
    Column("site_role", EnumText(Role)),
    created(),
    UniqueConstraint("name"),
    CheckConstraint("site_role IN ('admin', 'operator', 'gateway')", name="site_role"),
    info={"noun": "user"},
)

memberships = Table(
    "memberships",
    metadata,
    identity(),
    to("user_id", "users", is_indexed=False),
    to("project_id", "projects"),
    Column("role", EnumText(Role), nullable=False),
    UniqueConstraint("user_id", "project_id"),
    CheckConstraint("role IN ('member', 'reader')", name="role"),
    info={"noun": "membership"},
)

project_keys = Table(
    "project_keys",
    metadata,
    identity(),
    Column("project_id", Id, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    words("name"),
    words("key"),
    created(),
    UniqueConstraint("project_id", "name"),
    info={"noun": "project key"},
)

tokens = Table(
    "tokens",
    metadata,
    identity(),
    to("user_id", "users"),
    words("name"),
    words("secret_sha256"),
    to("project_id", "projects", nullable=True),
    Column("node_id", Id, ForeignKey("nodes.id", ondelete="CASCADE"), index=True),
    Column("verbs", TupleOf(Verb), nullable=False),
    Column("fabrics", TupleOf(), nullable=False),
    Column("is_read_only", Boolean, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("revoked_at", Instant),
    created(),
    UniqueConstraint("secret_sha256"),
    info={"noun": "token"},
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("user_id", Id, nullable=False),
    words("key"),
    words("request_sha256"),
    Column("status", Integer),
    Column("body", Sealed, nullable=False),
    Column("created_at", Instant, nullable=False, index=True),
    PrimaryKeyConstraint("user_id", "key"),
    info={"noun": "stored reply"},
)

meters = Table(
    "meters",
    metadata,
    Column("key", Text, primary_key=True),
    Column("until_us", BigInteger, nullable=False, index=True),
    info={"noun": "meter"},
)
