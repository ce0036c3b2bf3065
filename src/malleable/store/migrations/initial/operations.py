"""Operations and their steps, and the events that tell of everything."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Computed,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)

from malleable.store.migrations.initial.columns import (
    ID,
    INSTANT,
    OBJECT,
    created,
    identity,
    metadata,
    pages,
    unique_where,
    words,
)

# Operations and events outlive what they tell of, so their ids of nodes, projects and users are no foreign keys.
operations = Table(
    "operations",
    metadata,
    identity(),
    words("kind"),
    Column("node_id", ID),
    Column("project_id", ID),
    Column("actor_id", ID),
    Column("arguments", OBJECT, nullable=False),
    Column("state", Text, nullable=False),
    Column("direction", Text, nullable=False),
    words("step"),
    Column("attempt", Integer, nullable=False),
    Column("is_cancel_requested", Boolean, nullable=False),
    words("reason"),
    words("public_reason"),
    Column("error", OBJECT),
    Column("result", OBJECT, nullable=False),
    words("resource"),
    words("worker"),
    Column("fence", BigInteger, nullable=False),
    Column("lease_expires_at", INSTANT),
    Column("next_due_at", INSTANT, nullable=False),
    Column("step_deadline_at", INSTANT),
    Column("step_began_at", INSTANT),
    Column("step_attempts", Integer, nullable=False),
    Column("step_evidence", OBJECT, nullable=False),
    words("step_error"),
    words("step_public_error"),
    created(),
    Column("started_at", INSTANT),
    Column("finished_at", INSTANT),
    # Not fields of Operation: when it was woken while a worker held it, and when a worker may next claim it.
    Column("woken_at", INSTANT),
    Column(
        "claimable_at",
        INSTANT,
        Computed(
            "CASE WHEN state IN ('pending', 'waiting') THEN next_due_at"
            " WHEN state IN ('running', 'undoing') THEN coalesce(lease_expires_at, next_due_at) END",
            persisted=True,
        ),
        index=True,
    ),
)
pages(operations, "node_id project_id state")
ACTIVE = "state IN ('needs-operator', 'pending', 'running', 'undoing', 'waiting')"
unique_where("uq_operations_active_node", operations, "node_id", ACTIVE)
_active = text(ACTIVE)
Index("ix_operations_active_resource", operations.c.resource, sqlite_where=_active, postgresql_where=_active)

steps = Table(
    "steps",
    metadata,
    Column("operation_id", ID, ForeignKey("operations.id", ondelete="CASCADE"), nullable=False),
    Column("ordinal", Integer, nullable=False),
    words("name"),
    Column("direction", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("started_at", INSTANT, nullable=False),
    Column("finished_at", INSTANT),
    Column("evidence", OBJECT, nullable=False),
    words("error"),
    words("public_error"),
    PrimaryKeyConstraint("operation_id", "ordinal"),
)

resource_tokens = Table(
    "resource_tokens",
    metadata,
    Column("resource", Text, nullable=False),
    Column("operation_id", ID, ForeignKey("operations.id", ondelete="CASCADE"), nullable=False, index=True),
    PrimaryKeyConstraint("resource", "operation_id"),
)

events = Table(
    "events",
    metadata,
    identity(),
    Column("kind", Text, nullable=False),
    Column("at", INSTANT, nullable=False),
    Column("actor_id", ID),
    Column("project_id", ID),
    Column("node_id", ID),
    Column("operation_id", ID),
    Column("data", JSON, nullable=False),
    Column("detail", JSON, nullable=False),
    words("detail_hash"),
)
pages(events, "kind project_id node_id operation_id")

event_links = Table(
    "event_links",
    metadata,
    words("chain"),
    Column("position", BigInteger, nullable=False),
    Column("event_id", ID, ForeignKey("events.id", ondelete="RESTRICT"), nullable=False, index=True),
    words("previous_hash"),
    words("hash"),
    PrimaryKeyConstraint("chain", "position"),
)

event_chains = Table(
    "event_chains",
    metadata,
    Column("chain", Text, primary_key=True),
    Column("position", BigInteger, nullable=False),
    words("hash"),
)
