"""Operations and their steps, and the events that tell of everything."""

from sqlalchemy import (
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

from malleable.domain.operations import ACTIVE_STATES, Direction, OperationState
from malleable.store.schema.columns import created, identity, metadata, pages, unique_where, words
from malleable.store.types import EnumText, Id, Instant, JsonObject, VerbatimJson

# Operations and events outlive what they tell of, so their ids of nodes, projects and users are no foreign keys.
operations = Table(
    "operations",
    metadata,
    identity(),
    words("kind"),
    Column("node_id", Id),
    Column("project_id", Id),
    Column("actor_id", Id),
    Column("arguments", JsonObject, nullable=False),
    Column("state", EnumText(OperationState), nullable=False),
    Column("direction", EnumText(Direction), nullable=False),
    words("step"),
    Column("attempt", Integer, nullable=False),
    Column("is_cancel_requested", Boolean, nullable=False),
    words("reason"),
    words("public_reason"),
    Column("error", JsonObject),
    Column("result", JsonObject, nullable=False),
    words("resource"),
    words("worker"),
    Column("fence", BigInteger, nullable=False),
    Column("lease_expires_at", Instant),
    Column("next_due_at", Instant, nullable=False),
    Column("step_deadline_at", Instant),
    Column("step_began_at", Instant),
    Column("step_attempts", Integer, nullable=False),
    Column("step_evidence", JsonObject, nullable=False),
    words("step_error"),
    words("step_public_error"),
    created(),
    Column("started_at", Instant),
    Column("finished_at", Instant),
    # Not fields of Operation: when it was woken while a worker held it, and when a worker may next claim it.
    Column("woken_at", Instant),
    Column(
        "claimable_at",
        Instant,
        Computed(
            "CASE WHEN state IN ('pending', 'waiting') THEN next_due_at"
            " WHEN state IN ('running', 'undoing') THEN coalesce(lease_expires_at, next_due_at) END",
            persisted=True,
        ),
        index=True,
    ),
    info={"noun": "operation"},
)
pages(operations, "node_id project_id state")
#: Queries that shall use a partial index repeat its condition to the letter: SQLite proves nothing else.
ACTIVE = "state IN ({})".format(", ".join(f"'{state}'" for state in sorted(ACTIVE_STATES)))
unique_where("uq_operations_active_node", operations, "node_id", ACTIVE)
_active = text(ACTIVE)
Index("ix_operations_active_resource", operations.c.resource, sqlite_where=_active, postgresql_where=_active)

steps = Table(
    "steps",
    metadata,
    Column("operation_id", Id, ForeignKey("operations.id", ondelete="CASCADE"), nullable=False),
    Column("ordinal", Integer, nullable=False),
    words("name"),
    Column("direction", EnumText(Direction), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("finished_at", Instant),
    Column("evidence", JsonObject, nullable=False),
    words("error"),
    words("public_error"),
    PrimaryKeyConstraint("operation_id", "ordinal"),
    info={"noun": "step"},
)

resource_tokens = Table(
    "resource_tokens",
    metadata,
    Column("resource", Text, nullable=False),
    Column("operation_id", Id, ForeignKey("operations.id", ondelete="CASCADE"), nullable=False, index=True),
    PrimaryKeyConstraint("resource", "operation_id"),
    info={"noun": "concurrency token"},
)

events = Table(
    "events",
    metadata,
    identity(),
    Column("kind", Text, nullable=False),
    Column("at", Instant, nullable=False),
    Column("actor_id", Id),
    Column("project_id", Id),
    Column("node_id", Id),
    Column("operation_id", Id),
    Column("data", VerbatimJson, nullable=False),
    Column("detail", VerbatimJson, nullable=False),
    words("detail_hash"),
    info={"noun": "event"},
)
pages(events, "kind project_id node_id operation_id")

event_links = Table(
    "event_links",
    metadata,
    words("chain"),
    Column("position", BigInteger, nullable=False),
    Column("event_id", Id, ForeignKey("events.id", ondelete="RESTRICT"), nullable=False, index=True),
    words("previous_hash"),
    words("hash"),
    PrimaryKeyConstraint("chain", "position"),
    info={"noun": "event link"},
)

event_chains = Table(
    "event_chains",
    metadata,
    Column("chain", Text, primary_key=True),
    Column("position", BigInteger, nullable=False),
    words("hash"),
    info={"noun": "event chain"},
)
