"""Switches and their ports, networks, their VLANs and who is attached."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
)

from malleable.store.migrations.initial.columns import (
    ID,
    INSTANT,
    OBJECT,
    created,
    identity,
    metadata,
    pages,
    to,
    unique_where,
    words,
)

switches = Table(
    "switches",
    metadata,
    identity(),
    words("name"),
    words("driver"),
    Column("fabric", Text, nullable=False, index=True),
    words("address"),
    Column("settings", OBJECT, nullable=False),
    Column("vnis", OBJECT, nullable=False),
    words("username"),
    Column("password", LargeBinary, nullable=False),
    created(),
    UniqueConstraint("name"),
)

switch_ports = Table(
    "switch_ports",
    metadata,
    identity(),
    to("switch_id", "switches", is_indexed=False),
    words("name"),
    Column("wanted", OBJECT, nullable=False),
    Column("wanted_generation", BigInteger, nullable=False),
    Column("observed", OBJECT),
    Column("observed_generation", BigInteger, nullable=False),
    Column("observed_at", INSTANT),
    Column("state", Text, nullable=False, index=True),
    created(),
    UniqueConstraint("switch_id", "name"),
)

gateways = Table(
    "gateways",
    metadata,
    identity(),
    words("name"),
    Column("seen_at", INSTANT, nullable=False),
    Column("troubles", OBJECT, nullable=False),
    Column("holds_writers", Boolean, nullable=False),
    Column("fabrics", OBJECT, nullable=False),
    Column("serves", OBJECT, nullable=False),
    words("instance"),
    created(),
    UniqueConstraint("name"),
)

networks = Table(
    "networks",
    metadata,
    identity(),
    words("name"),
    to("project_id", "projects", is_indexed=False, nullable=True),
    Column("kind", Text, nullable=False),
    words("fabric"),
    Column("vid", Integer, nullable=False),
    Column("vni", Integer),
    words("cidr"),
    words("cidr6"),
    Column("addressing", OBJECT, nullable=False),
    Column("mtu", Integer, nullable=False),
    Column("has_nat", Boolean, nullable=False),
    Column("has_outside_dns", Boolean, nullable=False),
    Column("is_public", Boolean, nullable=False),
    Column("has_service", Boolean, nullable=False),
    Column("address_guard", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("generation", BigInteger, nullable=False, index=True),
    Column("served_generation", BigInteger, nullable=False),
    words("portal_epoch"),
    created(),
    UniqueConstraint("project_id", "name"),
    UniqueConstraint("fabric", "vid"),
    UniqueConstraint("vni"),
    CheckConstraint("vid BETWEEN 1 AND 4094", name="vid"),
    CheckConstraint("vni BETWEEN 1 AND 16777215", name="vni"),
)
unique_where("uq_networks_name_provider", networks, "name", "project_id IS NULL")
pages(networks, "name")

vlans = Table(
    "vlans",
    metadata,
    identity(),
    words("fabric"),
    Column("vid", Integer, nullable=False),
    # Deferred: a network takes its VLAN before it is added, in the same transaction. RESTRICT is never deferred.
    Column("network_id", ID, ForeignKey("networks.id", ondelete="RESTRICT", deferrable=True, initially="DEFERRED")),
    Column("reusable_at", INSTANT, nullable=False),
    Column("vni", Integer),
    UniqueConstraint("fabric", "vid"),
    UniqueConstraint("network_id"),
    UniqueConstraint("vni"),
    CheckConstraint("vid BETWEEN 1 AND 4094", name="vid"),
    CheckConstraint("vni BETWEEN 1 AND 16777215", name="vni"),
)

grants = Table(
    "grants",
    metadata,
    identity(),
    to("network_id", "networks", is_indexed=False),
    to("project_id", "projects"),
    Column("state", Text, nullable=False),
    created(),
    UniqueConstraint("network_id", "project_id"),
)

attachments = Table(
    "attachments",
    metadata,
    identity(),
    to("nic_id", "nics", is_indexed=False),
    to("network_id", "networks"),
    Column("channel", Text, nullable=False),
    Column("state", Text, nullable=False),
    words("address"),
    words("address6"),
    created(),
    UniqueConstraint("nic_id", "network_id"),
)
unique_where("uq_attachments_native", attachments, "nic_id", "channel = 'native'")
unique_where("uq_attachments_network_id_address", attachments, "network_id address", "address <> ''")
unique_where("uq_attachments_network_id_address6", attachments, "network_id address6", "address6 <> ''")

reservations = Table(
    "reservations",
    metadata,
    identity(),
    to("network_id", "networks", is_indexed=False),
    words("name"),
    words("address"),
    words("address6"),
    words("mac"),
    words("hostname"),
    Column("project_id", ID, ForeignKey("projects.id", ondelete="SET NULL"), index=True),
    created(),
    UniqueConstraint("network_id", "name"),
)
for _column in ("address", "address6", "mac", "hostname"):
    unique_where(f"uq_reservations_network_id_{_column}", reservations, f"network_id {_column}", f"{_column} <> ''")

permits = Table(
    "permits",
    metadata,
    identity(),
    to("reservation_id", "reservations", is_indexed=False),
    Column("attachment_id", ID, ForeignKey("attachments.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("is_ending", Boolean, nullable=False),
    created(),
    UniqueConstraint("reservation_id", "attachment_id"),
)
