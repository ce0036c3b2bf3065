"""Who uses the site: projects, users, their roles, their tokens, and the replies kept for them."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
)

from malleable.store.migrations.initial.columns import ID, INSTANT, OBJECT, created, identity, metadata, to, words

site = Table(
    "site",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("network_generation", BigInteger, nullable=False),
    Column("key_check", LargeBinary),
    CheckConstraint("id = 1", name="one_row"),
)

projects = Table(
    "projects",
    metadata,
    identity(),
    words("name"),
    Column("quota", OBJECT, nullable=False),
    Column("needs_signed_images", Boolean, nullable=False),
    words("pool"),
    created(),
    UniqueConstraint("name"),
)

Index(None, projects.c.pool)

users = Table(
    "users",
    metadata,
    identity(),
    words("name"),
    Column("password_hash", LargeBinary, nullable=False),
    Column("site_role", Text),
    created(),
    UniqueConstraint("name"),
    CheckConstraint("site_role IN ('admin', 'operator', 'gateway')", name="site_role"),
)

memberships = Table(
    "memberships",
    metadata,
    identity(),
    to("user_id", "users", is_indexed=False),
    to("project_id", "projects"),
    Column("role", Text, nullable=False),
    UniqueConstraint("user_id", "project_id"),
    CheckConstraint("role IN ('member', 'reader')", name="role"),
)

project_keys = Table(
    "project_keys",
    metadata,
    identity(),
    Column("project_id", ID, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    words("name"),
    words("key"),
    created(),
    UniqueConstraint("project_id", "name"),
)

tokens = Table(
    "tokens",
    metadata,
    identity(),
    to("user_id", "users"),
    words("name"),
    words("secret_sha256"),
    to("project_id", "projects", nullable=True),
    Column("node_id", ID, ForeignKey("nodes.id", ondelete="CASCADE"), index=True),
    Column("verbs", OBJECT, nullable=False),
    Column("fabrics", OBJECT, nullable=False),
    Column("is_read_only", Boolean, nullable=False),
    Column("expires_at", INSTANT, nullable=False),
    Column("revoked_at", INSTANT),
    created(),
    UniqueConstraint("secret_sha256"),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("user_id", ID, nullable=False),
    words("key"),
    words("request_sha256"),
    Column("status", Integer),
    Column("body", LargeBinary, nullable=False),
    Column("created_at", INSTANT, nullable=False, index=True),
    PrimaryKeyConstraint("user_id", "key"),
)

meters = Table(
    "meters",
    metadata,
    Column("key", Text, primary_key=True),
    Column("until_us", BigInteger, nullable=False, index=True),
)
