"""The tables: one per domain value, columns named as its fields.

Rules that must hold between transactions are constraints here. Their names are looked up in ``conflicts``, which turns
a violation into words. ``info["noun"]`` is what the product calls one row.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from malleable.domain.disks import DiskState, SnapshotState, TargetState
from malleable.domain.images import BootWay, ImageFormat, ImageState, UpProof
from malleable.domain.networks import AttachmentState, Channel, NetworkKind, NetworkState
from malleable.domain.nodes import BootState, Firmware, NodeState, PowerState
from malleable.domain.operations import ACTIVE_STATES, Direction, OperationState
from malleable.domain.projects import Role
from malleable.domain.switches import PortState
from malleable.store.types import (
    EnumText,
    Id,
    Instant,
    JsonObject,
    PortConfigJson,
    QuotaJson,
    Sealed,
    TupleOf,
    VerbatimJson,
)

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
    return Column("id", Id, primary_key=True)


def _to(name: str, table: str, *, is_indexed: bool = True, nullable: bool = False) -> Column[object]:
    """Point to a row that cannot be removed as long as this one points to it.

    Indexed but where a unique constraint begins with the column.
    """
    foreign_key = ForeignKey(f"{table}.id", ondelete="RESTRICT")
    return Column(name, Id, foreign_key, index=is_indexed, nullable=nullable)


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False)


def _created() -> Column[object]:
    return Column("created_at", Instant, nullable=False)


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
    Column("key_check", Sealed),
    CheckConstraint("id = 1", name="one_row"),
    info={"noun": "site"},
)

projects = Table("projects", metadata, _id(), _text("name"), _created(), UniqueConstraint("name"))
projects.append_column(Column("quota", QuotaJson, nullable=False))
projects.info["noun"] = "project"

users = Table(
    "users",
    metadata,
    _id(),
    _text("name"),
    Column("password_hash", Sealed, nullable=False),
    Column("site_role", EnumText(Role)),
    _created(),
    UniqueConstraint("name"),
    CheckConstraint("site_role IN ('admin', 'operator', 'gateway')", name="site_role"),
    info={"noun": "user"},
)

memberships = Table(
    "memberships",
    metadata,
    _id(),
    _to("user_id", "users", is_indexed=False),
    _to("project_id", "projects"),
    Column("role", EnumText(Role), nullable=False),
    UniqueConstraint("user_id", "project_id"),
    CheckConstraint("role IN ('member', 'reader')", name="role"),
    info={"noun": "membership"},
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
    Column("expires_at", Instant, nullable=False),
    Column("revoked_at", Instant),
    _created(),
    UniqueConstraint("secret_sha256"),
    info={"noun": "token"},
)

nodes = Table(
    "nodes",
    metadata,
    _id(),
    _text("name"),
    Column("state", EnumText(NodeState), nullable=False),
    _text("state_reason"),
    Column("state_since", Instant, nullable=False),
    _to("project_id", "projects", is_indexed=False, nullable=True),
    Column("boot", EnumText(BootState), nullable=False),
    Column("power", EnumText(PowerState), nullable=False),
    Column("power_seen_at", Instant),
    _text("power_driver"),
    _text("bmc_address"),
    _text("bmc_username"),
    Column("bmc_password", Sealed, nullable=False),
    _text("bmc_system"),
    Column("firmware", EnumText(Firmware)),
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
    info={"noun": "node"},
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
    Column("settings", JsonObject, nullable=False),
    _text("username"),
    Column("password", Sealed, nullable=False),
    _created(),
    UniqueConstraint("name"),
    info={"noun": "switch"},
)

switch_ports = Table(
    "switch_ports",
    metadata,
    _id(),
    _to("switch_id", "switches", is_indexed=False),
    _text("name"),
    Column("wanted", PortConfigJson, nullable=False),
    Column("wanted_generation", BigInteger, nullable=False),
    Column("observed", PortConfigJson),
    Column("observed_generation", BigInteger, nullable=False),
    Column("observed_at", Instant),
    Column("state", EnumText(PortState), nullable=False, index=True),
    _created(),
    UniqueConstraint("switch_id", "name"),
    info={"noun": "switch port"},
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
    info={"noun": "NIC"},
)

networks = Table(
    "networks",
    metadata,
    _id(),
    _text("name"),
    _to("project_id", "projects", is_indexed=False, nullable=True),
    Column("kind", EnumText(NetworkKind), nullable=False),
    _text("fabric"),
    Column("vid", Integer, nullable=False),
    _text("cidr"),
    Column("state", EnumText(NetworkState), nullable=False),
    Column("generation", BigInteger, nullable=False, index=True),
    Column("served_generation", BigInteger, nullable=False),
    _text("portal_epoch"),
    _created(),
    UniqueConstraint("project_id", "name"),
    UniqueConstraint("fabric", "vid"),
    CheckConstraint("vid BETWEEN 1 AND 4094", name="vid"),
    info={"noun": "network"},
)
_unique_where("uq_networks_name_provider", networks, "name", "project_id IS NULL")

vlans = Table(
    "vlans",
    metadata,
    _id(),
    _text("fabric"),
    Column("vid", Integer, nullable=False),
    # Deferred: a network takes its VLAN before it is added, in the same transaction. RESTRICT is never deferred.
    Column("network_id", Id, ForeignKey("networks.id", ondelete="RESTRICT", deferrable=True, initially="DEFERRED")),
    Column("reusable_at", Instant, nullable=False),
    UniqueConstraint("fabric", "vid"),
    UniqueConstraint("network_id"),
    CheckConstraint("vid BETWEEN 1 AND 4094", name="vid"),
    info={"noun": "VLAN"},
)

attachments = Table(
    "attachments",
    metadata,
    _id(),
    _to("nic_id", "nics", is_indexed=False),
    _to("network_id", "networks", is_indexed=False),
    Column("channel", EnumText(Channel), nullable=False),
    Column("state", EnumText(AttachmentState), nullable=False),
    _text("address"),
    _created(),
    UniqueConstraint("nic_id", "network_id"),
    UniqueConstraint("network_id", "address"),
    info={"noun": "attachment"},
)
_unique_where("uq_attachments_native", attachments, "nic_id", "channel = 'native'")

images = Table(
    "images",
    metadata,
    _id(),
    _text("name"),
    _to("project_id", "projects", is_indexed=False, nullable=True),
    Column("state", EnumText(ImageState), nullable=False),
    Column("upload_format", EnumText(ImageFormat), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    _text("sha256"),
    _text("os"),
    _text("architecture"),
    Column("firmwares", TupleOf(Firmware), nullable=False),
    Column("boot_ways", TupleOf(BootWay), nullable=False),
    Column("up_proof", EnumText(UpProof), nullable=False),
    _text("kernel"),
    _text("initrd"),
    _text("cmdline"),
    _text("default_user"),
    Column("parent_id", Id),  # outlived: no foreign key
    _created(),
    UniqueConstraint("project_id", "name"),
    info={"noun": "image"},
)
_unique_where("uq_images_name_golden", images, "name", "project_id IS NULL")

disks = Table(
    "disks",
    metadata,
    _id(),
    _text("name"),
    _to("project_id", "projects", is_indexed=False),
    _to("image_id", "images"),
    Column("snapshot_id", Id),  # outlived: no foreign key
    Column("state", EnumText(DiskState), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    _created(),
    UniqueConstraint("project_id", "name"),
    info={"noun": "disk"},
)

snapshots = Table(
    "snapshots",
    metadata,
    _id(),
    _text("name"),
    _to("project_id", "projects", is_indexed=False),
    Column("disk_id", Id, ForeignKey("disks.id", ondelete="SET NULL"), index=True),
    _to("image_id", "images"),
    Column("state", EnumText(SnapshotState), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    _created(),
    UniqueConstraint("project_id", "name"),
    info={"noun": "snapshot"},
)

targets = Table(
    "targets",
    metadata,
    _id(),
    _to("disk_id", "disks", is_indexed=False),
    _to("node_id", "nodes"),
    _to("network_id", "networks"),
    Column("state", EnumText(TargetState), nullable=False),
    _text("iqn"),
    _text("initiator_iqn"),
    Column("lun", Integer, nullable=False),
    _text("chap_username"),
    Column("chap_password", Sealed, nullable=False),
    _text("initiator_address"),
    _created(),
    UniqueConstraint("disk_id"),
    UniqueConstraint("iqn"),
    info={"noun": "target"},
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
    Column("way", EnumText(BootWay), nullable=False),
    _text("hostname"),
    Column("ssh_keys", TupleOf(), nullable=False),
    Column("user_data", Sealed, nullable=False),
    Column("token", Sealed, nullable=False),
    Column("armed_at", Instant),
    Column("script_fetched_at", Instant),
    Column("kernel_fetched_at", Instant),
    Column("metadata_fetched_at", Instant),
    Column("phoned_home_at", Instant),
    UniqueConstraint("node_id"),
    info={"noun": "boot intent"},
)

# Operations and events outlive what they tell of, so their ids of nodes, projects and users are no foreign keys.
operations = Table(
    "operations",
    metadata,
    _id(),
    _text("kind"),
    Column("node_id", Id),
    Column("project_id", Id),
    Column("actor_id", Id),
    Column("arguments", JsonObject, nullable=False),
    Column("state", EnumText(OperationState), nullable=False),
    Column("direction", EnumText(Direction), nullable=False),
    _text("step"),
    Column("attempt", Integer, nullable=False),
    Column("is_cancel_requested", Boolean, nullable=False),
    _text("reason"),
    _text("public_reason"),
    Column("error", JsonObject),
    Column("result", JsonObject, nullable=False),
    _text("resource"),
    _text("worker"),
    Column("fence", BigInteger, nullable=False),
    Column("lease_expires_at", Instant),
    Column("next_due_at", Instant, nullable=False),
    Column("step_deadline_at", Instant),
    _created(),
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
_pages(operations, "node_id project_id state")
#: Queries that shall use a partial index repeat its condition to the letter: SQLite proves nothing else.
ACTIVE = "state IN ({})".format(", ".join(f"'{state}'" for state in sorted(ACTIVE_STATES)))
_unique_where("uq_operations_active_node", operations, "node_id", ACTIVE)
for _column in ("worker", "resource"):
    _active = text(ACTIVE)
    Index(f"ix_operations_active_{_column}", operations.c[_column], sqlite_where=_active, postgresql_where=_active)

steps = Table(
    "steps",
    metadata,
    Column("operation_id", Id, ForeignKey("operations.id", ondelete="CASCADE"), nullable=False),
    Column("ordinal", Integer, nullable=False),
    _text("name"),
    Column("direction", EnumText(Direction), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("finished_at", Instant),
    Column("evidence", JsonObject, nullable=False),
    _text("error"),
    _text("public_error"),
    PrimaryKeyConstraint("operation_id", "ordinal"),
    info={"noun": "step"},
)
_unique_where("uq_steps_open", steps, "operation_id name direction", "finished_at IS NULL")

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
    _id(),
    Column("kind", Text, nullable=False),
    Column("at", Instant, nullable=False),
    Column("actor_id", Id),
    Column("project_id", Id),
    Column("node_id", Id),
    Column("operation_id", Id),
    Column("data", VerbatimJson, nullable=False),
    Column("detail", VerbatimJson, nullable=False),
    _text("detail_hash"),
    info={"noun": "event"},
)
_pages(events, "kind project_id node_id operation_id")

event_links = Table(
    "event_links",
    metadata,
    _text("chain"),
    Column("position", BigInteger, nullable=False),
    Column("event_id", Id, ForeignKey("events.id", ondelete="RESTRICT"), nullable=False, index=True),
    _text("previous_hash"),
    _text("hash"),
    PrimaryKeyConstraint("chain", "position"),
    info={"noun": "event link"},
)

event_chains = Table(
    "event_chains",
    metadata,
    Column("chain", Text, primary_key=True),
    Column("position", BigInteger, nullable=False),
    _text("hash"),
    info={"noun": "event chain"},
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("user_id", Id, nullable=False),
    _text("key"),
    _text("request_sha256"),
    Column("status", Integer),
    Column("body", Sealed, nullable=False),
    Column("created_at", Instant, nullable=False, index=True),
    PrimaryKeyConstraint("user_id", "key"),
    info={"noun": "stored reply"},
)
