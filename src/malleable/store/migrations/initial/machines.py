"""Nodes, their NICs and what they boot."""

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, Integer, LargeBinary, Table, Text, UniqueConstraint

from malleable.store.migrations.initial.columns import INSTANT, OBJECT, created, identity, metadata, pages, to, words

nodes = Table(
    "nodes",
    metadata,
    identity(),
    words("name"),
    Column("state", Text, nullable=False),
    words("state_reason"),
    Column("state_since", INSTANT, nullable=False),
    to("project_id", "projects", is_indexed=False, nullable=True),
    Column("boot", Text, nullable=False),
    Column("power", Text, nullable=False),
    Column("power_seen_at", INSTANT),
    words("power_driver"),
    words("bmc_address"),
    words("bmc_username"),
    Column("bmc_password", LargeBinary, nullable=False),
    Column("bmc_password_next", LargeBinary),
    words("bmc_system"),
    Column("firmware", Text),
    words("system_uuid"),
    words("vendor"),
    words("model"),
    words("serial"),
    Column("cpu_count", Integer),
    Column("memory_mib", BigInteger),
    words("scrub_policy"),
    words("can_scrub"),
    words("drives"),
    Column("is_rotated", Boolean, nullable=False),
    Column("is_unscrubbed", Boolean, nullable=False),
    created(),
    UniqueConstraint("name"),
    CheckConstraint("state NOT IN ('allocated', 'releasing') OR project_id IS NOT NULL", name="held"),
    CheckConstraint("project_id IS NULL OR state IN ('allocated', 'releasing', 'quarantined')", name="holder"),
    CheckConstraint("state != 'free' OR NOT is_unscrubbed", name="scrubbed"),
)
pages(nodes, "state project_id bmc_address")

nics = Table(
    "nics",
    metadata,
    identity(),
    to("node_id", "nodes", is_indexed=False),
    words("name"),
    words("mac"),
    to("switch_port_id", "switch_ports", is_indexed=False, nullable=True),
    UniqueConstraint("node_id", "name"),
    UniqueConstraint("mac"),
    UniqueConstraint("switch_port_id"),
)

boots = Table(
    "boots",
    metadata,
    identity(),
    to("node_id", "nodes", is_indexed=False),
    to("network_id", "networks"),
    to("attachment_id", "attachments"),
    to("target_id", "targets", nullable=True),
    words("mac"),
    Column("way", Text, nullable=False),
    words("hostname"),
    Column("ssh_keys", OBJECT, nullable=False),
    Column("documents", OBJECT, nullable=False),
    Column("has_seed_disk", Boolean, nullable=False),
    Column("token", LargeBinary, nullable=False),
    Column("armed_at", INSTANT),
    Column("script_fetched_at", INSTANT),
    Column("kernel_fetched_at", INSTANT),
    Column("metadata_fetched_at", INSTANT),
    Column("phoned_home_at", INSTANT),
    Column("has_hook", Boolean, nullable=False),
    Column("finished_at", INSTANT),
    Column("exit_status", Integer),
    words("finish_log"),
    UniqueConstraint("node_id"),
)

seeds = Table(
    "seeds",
    metadata,
    identity(),
    to("node_id", "nodes", is_indexed=False),
    Column("user_data", LargeBinary, nullable=False),
    Column("network_config", LargeBinary, nullable=False),
    UniqueConstraint("node_id"),
)
