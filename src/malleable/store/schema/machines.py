"""Nodes, their NICs and what they boot."""

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, Index, Integer, Table, UniqueConstraint, func

from malleable.domain.freezes import FreezeState
from malleable.domain.images import BootWay
from malleable.domain.nodes import BootDevice, BootState, Firmware, NodeState, PowerState
from malleable.domain.seeds import Document
from malleable.store.schema.columns import created, identity, metadata, pages, to, words
from malleable.store.types import EnumText, Id, Instant, LinesText, ScrubPolicyText, ScrubsText, Sealed, TupleOf

nodes = Table(
    "nodes",
    metadata,
    identity(),
    words("name"),
    Column("state", EnumText(NodeState), nullable=False),
    words("state_reason"),
    Column("state_since", Instant, nullable=False),
    to("project_id", "projects", is_indexed=False, nullable=True),
    Column("boot", EnumText(BootState), nullable=False),
    Column("power", EnumText(PowerState), nullable=False),
    Column("boot_device", EnumText(BootDevice), nullable=False),
    Column("power_seen_at", Instant),
    words("power_driver"),
    words("bmc_address"),
    words("bmc_username"),
    Column("bmc_password", Sealed, nullable=False),
    Column("bmc_password_next", Sealed),
    words("bmc_system"),
    Column("firmware", EnumText(Firmware)),
    words("system_uuid"),
    words("vendor"),
    words("model"),
    words("serial"),
    Column("cpu_count", Integer),
    Column("memory_mib", BigInteger),
    Column("scrub_policy", ScrubPolicyText, nullable=False),
    Column("can_scrub", ScrubsText, nullable=False),
    Column("drives", LinesText, nullable=False),
    Column("is_rotated", Boolean, nullable=False),
    Column("is_unscrubbed", Boolean, nullable=False),
    created(),
    UniqueConstraint("name"),
    CheckConstraint("state NOT IN ('allocated', 'releasing') OR project_id IS NOT NULL", name="held"),
    CheckConstraint("project_id IS NULL OR state IN ('allocated', 'releasing', 'quarantined')", name="holder"),
    CheckConstraint("state != 'free' OR NOT is_unscrubbed", name="scrubbed"),
    CheckConstraint("project_id IS NOT NULL OR boot_device = 'network'", name="chosen"),
    info={"noun": "node"},
)
# As ``domain.nodes.dns_name``: in a network's DNS no two nodes are called the same.
Index("uq_nodes_dns_name", func.replace(func.replace(nodes.c.name, ".", "-"), "_", "-"), unique=True)
pages(nodes, "state project_id bmc_address")

nics = Table(
    "nics",
    metadata,
    identity(),
    to("node_id", "nodes", is_indexed=False),
    words("name"),
    words("mac"),
    to("switch_port_id", "switch_ports", is_indexed=False, nullable=True),
    words("bond"),
    UniqueConstraint("node_id", "name"),
    UniqueConstraint("mac"),
    UniqueConstraint("switch_port_id"),
    info={"noun": "NIC"},
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
    Column("way", EnumText(BootWay), nullable=False),
    words("hostname"),
    Column("ssh_keys", TupleOf(), nullable=False),
    Column("documents", TupleOf(Document), nullable=False),
    Column("has_seed_disk", Boolean, nullable=False),
    Column("token", Sealed, nullable=False),
    Column("armed_at", Instant),
    Column("script_fetched_at", Instant),
    Column("kernel_fetched_at", Instant),
    Column("metadata_fetched_at", Instant),
    Column("phoned_home_at", Instant),
    Column("has_hook", Boolean, nullable=False),
    Column("finished_at", Instant),
    Column("exit_status", Integer),
    words("finish_log"),
    words("refusal"),
    words("hindrance"),
    Column("agent_seen_at", Instant),
    Column("freeze_id", Id),  # its operation may be forgotten: no foreign key
    words("freeze_serial"),
    Column("freeze_state", EnumText(FreezeState)),
    Column("frozen_at", Instant),
    words("freeze_reason"),
    UniqueConstraint("node_id"),
    info={"noun": "boot intent"},
)

seeds = Table(
    "seeds",
    metadata,
    identity(),
    to("node_id", "nodes", is_indexed=False),
    Column("user_data", Sealed, nullable=False),
    Column("network_config", Sealed, nullable=False),
    UniqueConstraint("node_id"),
    info={"noun": "seed"},
)

console_writers = Table(
    "console_writers",
    metadata,
    identity(),
    to("node_id", "nodes", is_indexed=False),
    Column("user_id", Id, nullable=False),
    Column("token_id", Id, nullable=False),
    words("token"),
    Column("seen_at", Instant, nullable=False),
    Column("busy_until", Instant),
    Column("written_bytes", BigInteger, nullable=False),
    created(),
    UniqueConstraint("node_id"),
    info={"noun": "console writer"},
)
