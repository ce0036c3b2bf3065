"""Make the first schema: a frozen copy of what ``store.schema`` was; never edit it after a release."""

from alembic import op
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    insert,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None

ID = Uuid().with_variant(LargeBinary(16), "sqlite")
INSTANT = DateTime(timezone=True).with_variant(Text(), "sqlite")
OBJECT = JSON().with_variant(JSONB(), "postgresql")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _id() -> Column[object]:
    return Column("id", ID, primary_key=True)


def _to(name: str, table: str, *, is_indexed: bool = True, nullable: bool = False) -> Column[object]:
    """Point to a row that cannot be removed as long as this one points to it.

    Indexed but where a unique constraint begins with the column.
    """
    foreign_key = ForeignKey(f"{table}.id", ondelete="RESTRICT")
    return Column(name, ID, foreign_key, index=is_indexed, nullable=nullable)


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False)


def _created() -> Column[object]:
    return Column("created_at", INSTANT, nullable=False)


def _unique_where(name: str, table: Table, columns: str, where: str) -> None:
    """Make ``columns`` unique among the rows that match ``where``."""
    condition = text(where)
    Index(name, *(table.c[c] for c in columns.split()), unique=True, sqlite_where=condition, postgresql_where=condition)


def _pages(table: Table, columns: str) -> None:
    """Index each of ``columns`` together with the id: a page of the matches is read in order, without sorting all."""
    for name in columns.split():
        Index(None, table.c[name], table.c.id)


site = Table(
    "site",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("network_generation", BigInteger, nullable=False),
    Column("key_check", LargeBinary),
    CheckConstraint("id = 1", name="one_row"),
)

projects = Table("projects", metadata, _id(), _text("name"), _created(), UniqueConstraint("name"))
projects.append_column(Column("quota", OBJECT, nullable=False))

users = Table(
    "users",
    metadata,
    _id(),
    _text("name"),
    Column("password_hash", LargeBinary, nullable=False),
    Column("site_role", Text),
    _created(),
    UniqueConstraint("name"),
    CheckConstraint("site_role IN ('admin', 'operator', 'gateway')", name="site_role"),
)

memberships = Table(
    "memberships",
    metadata,
    _id(),
    _to("user_id", "users", is_indexed=False),
    _to("project_id", "projects"),
    Column("role", Text, nullable=False),
    UniqueConstraint("user_id", "project_id"),
    CheckConstraint("role IN ('member', 'reader')", name="role"),
)

tokens = Table(
    "tokens",
    metadata,
    _id(),
    _to("user_id", "users"),
    _text("name"),
    _text("secret_sha256"),
    _to("project_id", "projects", nullable=True),
    Column("is_read_only", Boolean, nullable=False),
    Column("expires_at", INSTANT, nullable=False),
    Column("revoked_at", INSTANT),
    _created(),
    UniqueConstraint("secret_sha256"),
)

nodes = Table(
    "nodes",
    metadata,
    _id(),
    _text("name"),
    Column("state", Text, nullable=False),
    _text("state_reason"),
    Column("state_since", INSTANT, nullable=False),
    _to("project_id", "projects", is_indexed=False, nullable=True),
    Column("boot", Text, nullable=False),
    Column("power", Text, nullable=False),
    Column("power_seen_at", INSTANT),
    _text("power_driver"),
    _text("bmc_address"),
    _text("bmc_username"),
    Column("bmc_password", LargeBinary, nullable=False),
    _text("bmc_system"),
    Column("firmware", Text),
    _text("system_uuid"),
    _text("vendor"),
    _text("model"),
    _text("serial"),
    Column("cpu_count", Integer),
    Column("memory_mib", BigInteger),
    _created(),
    UniqueConstraint("name"),
    CheckConstraint("state NOT IN ('allocated', 'releasing') OR project_id IS NOT NULL", name="held"),
    CheckConstraint("project_id IS NULL OR state IN ('allocated', 'releasing', 'quarantined')", name="holder"),
)
_pages(nodes, "state project_id")

switches = Table(
    "switches",
    metadata,
    _id(),
    _text("name"),
    _text("driver"),
    Column("fabric", Text, nullable=False, index=True),
    _text("address"),
    Column("settings", OBJECT, nullable=False),
    _text("username"),
    Column("password", LargeBinary, nullable=False),
    _created(),
    UniqueConstraint("name"),
)

switch_ports = Table(
    "switch_ports",
    metadata,
    _id(),
    _to("switch_id", "switches", is_indexed=False),
    _text("name"),
    Column("wanted", OBJECT, nullable=False),
    Column("wanted_generation", BigInteger, nullable=False),
    Column("observed", OBJECT),
    Column("observed_generation", BigInteger, nullable=False),
    Column("observed_at", INSTANT),
    Column("state", Text, nullable=False, index=True),
    _created(),
    UniqueConstraint("switch_id", "name"),
)

nics = Table(
    "nics",
    metadata,
    _id(),
    _to("node_id", "nodes", is_indexed=False),
    _text("name"),
    _text("mac"),
    _to("switch_port_id", "switch_ports", is_indexed=False, nullable=True),
    UniqueConstraint("node_id", "name"),
    UniqueConstraint("mac"),
    UniqueConstraint("switch_port_id"),
)

networks = Table(
    "networks",
    metadata,
    _id(),
    _text("name"),
    _to("project_id", "projects", is_indexed=False, nullable=True),
    Column("kind", Text, nullable=False),
    _text("fabric"),
    Column("vid", Integer, nullable=False),
    _text("cidr"),
    Column("state", Text, nullable=False),
    Column("generation", BigInteger, nullable=False, index=True),
    Column("served_generation", BigInteger, nullable=False),
    _text("portal_epoch"),
    _created(),
    UniqueConstraint("project_id", "name"),
    UniqueConstraint("fabric", "vid"),
    CheckConstraint("vid BETWEEN 1 AND 4094", name="vid"),
)
_unique_where("uq_networks_name_provider", networks, "name", "project_id IS NULL")

vlans = Table(
    "vlans",
    metadata,
    _id(),
    _text("fabric"),
    Column("vid", Integer, nullable=False),
    # Deferred: a network takes its VLAN before it is added, in the same transaction. RESTRICT is never deferred.
    Column("network_id", ID, ForeignKey("networks.id", ondelete="RESTRICT", deferrable=True, initially="DEFERRED")),
    Column("reusable_at", INSTANT, nullable=False),
    UniqueConstraint("fabric", "vid"),
    UniqueConstraint("network_id"),
    CheckConstraint("vid BETWEEN 1 AND 4094", name="vid"),
)

attachments = Table(
    "attachments",
    metadata,
    _id(),
    _to("nic_id", "nics", is_indexed=False),
    _to("network_id", "networks", is_indexed=False),
    Column("channel", Text, nullable=False),
    Column("state", Text, nullable=False),
    _text("address"),
    _created(),
    UniqueConstraint("nic_id", "network_id"),
    UniqueConstraint("network_id", "address"),
)
_unique_where("uq_attachments_native", attachments, "nic_id", "channel = 'native'")

images = Table(
    "images",
    metadata,
    _id(),
    _text("name"),
    _to("project_id", "projects", is_indexed=False, nullable=True),
    Column("state", Text, nullable=False),
    _text("upload_format"),
    Column("size_bytes", BigInteger, nullable=False),
    _text("sha256"),
    _text("os"),
    _text("architecture"),
    Column("firmwares", OBJECT, nullable=False),
    Column("boot_ways", OBJECT, nullable=False),
    Column("up_proof", Text, nullable=False),
    _text("kernel"),
    _text("initrd"),
    _text("cmdline"),
    _text("default_user"),
    Column("parent_id", ID),
    _created(),
    UniqueConstraint("project_id", "name"),
)
_unique_where("uq_images_name_golden", images, "name", "project_id IS NULL")

disks = Table(
    "disks",
    metadata,
    _id(),
    _text("name"),
    _to("project_id", "projects", is_indexed=False),
    _to("image_id", "images"),
    Column("snapshot_id", ID),
    Column("state", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    _created(),
    UniqueConstraint("project_id", "name"),
)

snapshots = Table(
    "snapshots",
    metadata,
    _id(),
    _text("name"),
    _to("project_id", "projects", is_indexed=False),
    Column("disk_id", ID, ForeignKey("disks.id", ondelete="SET NULL"), index=True),
    _to("image_id", "images"),
    _text("state"),
    Column("size_bytes", BigInteger, nullable=False),
    _created(),
    UniqueConstraint("project_id", "name"),
)

targets = Table(
    "targets",
    metadata,
    _id(),
    _to("disk_id", "disks", is_indexed=False),
    _to("node_id", "nodes"),
    _to("network_id", "networks"),
    Column("state", Text, nullable=False),
    _text("iqn"),
    _text("initiator_iqn"),
    Column("lun", Integer, nullable=False),
    _text("chap_username"),
    Column("chap_password", LargeBinary, nullable=False),
    _text("initiator_address"),
    _created(),
    UniqueConstraint("disk_id"),
    UniqueConstraint("iqn"),
)

boots = Table(
    "boots",
    metadata,
    _id(),
    _to("node_id", "nodes", is_indexed=False),
    _to("network_id", "networks"),
    _to("attachment_id", "attachments"),
    _to("target_id", "targets", nullable=True),
    _text("mac"),
    Column("way", Text, nullable=False),
    _text("hostname"),
    Column("ssh_keys", OBJECT, nullable=False),
    Column("user_data", LargeBinary, nullable=False),
    Column("token", LargeBinary, nullable=False),
    Column("armed_at", INSTANT),
    Column("script_fetched_at", INSTANT),
    Column("kernel_fetched_at", INSTANT),
    Column("metadata_fetched_at", INSTANT),
    Column("phoned_home_at", INSTANT),
    UniqueConstraint("node_id"),
)

# Operations and events outlive what they tell of, so their ids of nodes, projects and users are no foreign keys.
operations = Table(
    "operations",
    metadata,
    _id(),
    _text("kind"),
    Column("node_id", ID),
    Column("project_id", ID),
    Column("actor_id", ID),
    Column("arguments", OBJECT, nullable=False),
    Column("state", Text, nullable=False),
    Column("direction", Text, nullable=False),
    _text("step"),
    Column("attempt", Integer, nullable=False),
    Column("is_cancel_requested", Boolean, nullable=False),
    _text("reason"),
    _text("public_reason"),
    Column("error", OBJECT),
    Column("result", OBJECT, nullable=False),
    _text("resource"),
    _text("worker"),
    Column("fence", BigInteger, nullable=False),
    Column("lease_expires_at", INSTANT),
    Column("next_due_at", INSTANT, nullable=False),
    Column("step_deadline_at", INSTANT),
    _created(),
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
_pages(operations, "node_id project_id state")
ACTIVE = "state IN ('needs-operator', 'pending', 'running', 'undoing', 'waiting')"
_unique_where("uq_operations_active_node", operations, "node_id", ACTIVE)
for _column in ("worker", "resource"):
    _active = text(ACTIVE)
    Index(f"ix_operations_active_{_column}", operations.c[_column], sqlite_where=_active, postgresql_where=_active)

steps = Table(
    "steps",
    metadata,
    Column("operation_id", ID, ForeignKey("operations.id", ondelete="CASCADE"), nullable=False),
    Column("ordinal", Integer, nullable=False),
    _text("name"),
    Column("direction", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("started_at", INSTANT, nullable=False),
    Column("finished_at", INSTANT),
    Column("evidence", OBJECT, nullable=False),
    _text("error"),
    _text("public_error"),
    PrimaryKeyConstraint("operation_id", "ordinal"),
)
_unique_where("uq_steps_open", steps, "operation_id name direction", "finished_at IS NULL")

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
    _id(),
    Column("kind", Text, nullable=False),
    Column("at", INSTANT, nullable=False),
    Column("actor_id", ID),
    Column("project_id", ID),
    Column("node_id", ID),
    Column("operation_id", ID),
    Column("data", JSON, nullable=False),
    Column("detail", JSON, nullable=False),
    _text("detail_hash"),
)
_pages(events, "kind project_id node_id operation_id")

event_links = Table(
    "event_links",
    metadata,
    _text("chain"),
    Column("position", BigInteger, nullable=False),
    Column("event_id", ID, ForeignKey("events.id", ondelete="RESTRICT"), nullable=False, index=True),
    _text("previous_hash"),
    _text("hash"),
    PrimaryKeyConstraint("chain", "position"),
)

event_chains = Table(
    "event_chains",
    metadata,
    Column("chain", Text, primary_key=True),
    Column("position", BigInteger, nullable=False),
    _text("hash"),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("user_id", ID, nullable=False),
    _text("key"),
    _text("request_sha256"),
    Column("status", Integer),
    Column("body", LargeBinary, nullable=False),
    Column("created_at", INSTANT, nullable=False, index=True),
    PrimaryKeyConstraint("user_id", "key"),
)


def upgrade() -> None:
    """Create all tables, and the one row of the site."""
    connection = op.get_bind()
    metadata.create_all(connection, checkfirst=False)
    connection.execute(insert(site).values(id=1, network_generation=0))
