"""Switches and their ports, networks, their VLANs and who is attached."""

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, ForeignKey, Integer, Table, Text, UniqueConstraint

from malleable.domain.networks import AddressGuard, AttachmentState, Channel, GrantState, NetworkKind, NetworkState
from malleable.domain.switches import PortState
from malleable.store.schema.columns import created, identity, metadata, pages, to, unique_where, words
from malleable.store.types import (
    AddressingJson,
    EnumText,
    Id,
    Instant,
    JsonObject,
    NumbersJson,
    PortConfigJson,
    Sealed,
    TupleOf,
)

switches = Table(
    "switches",
    metadata,
    identity(),
    words("name"),
    words("driver"),
    Column("fabric", Text, nullable=False, index=True),
    words("address"),
    Column("settings", JsonObject, nullable=False),
    Column("vnis", NumbersJson, nullable=False),
    words("username"),
    Column("password", Sealed, nullable=False),
    created(),
    UniqueConstraint("name"),
    info={"noun": "switch"},
)

switch_ports = Table(
    "switch_ports",
    metadata,
    identity(),
    to("switch_id", "switches", is_indexed=False),
    words("name"),
    Column("wanted", PortConfigJson, nullable=False),
    Column("wanted_generation", BigInteger, nullable=False),
    Column("observed", PortConfigJson),
    Column("observed_generation", BigInteger, nullable=False),
    Column("observed_at", Instant),
    Column("state", EnumText(PortState), nullable=False, index=True),
    created(),
    UniqueConstraint("switch_id", "name"),
    info={"noun": "switch port"},
)

gateways = Table(
    "gateways",
    metadata,
    identity(),
    words("name"),
    Column("seen_at", Instant, nullable=False),
    Column("troubles", TupleOf(), nullable=False),
    Column("holds_writers", Boolean, nullable=False),
    Column("fabrics", TupleOf(), nullable=False),
    Column("serves", TupleOf(), nullable=False),
    words("instance"),
    created(),
    UniqueConstraint("name"),
    info={"noun": "gateway"},
)

networks = Table(
    "networks",
    metadata,
    identity(),
    words("name"),
    to("project_id", "projects", is_indexed=False, nullable=True),
    Column("kind", EnumText(NetworkKind), nullable=False),
    words("fabric"),
    Column("vid", Integer, nullable=False),
    Column("vni", Integer),
    words("cidr"),
    words("cidr6"),
    Column("addressing", AddressingJson, nullable=False),
    Column("mtu", Integer, nullable=False),
    Column("has_nat", Boolean, nullable=False),
    Column("has_outside_dns", Boolean, nullable=False),
    Column("is_public", Boolean, nullable=False),
    Column("has_service", Boolean, nullable=False),
    Column("address_guard", EnumText(AddressGuard), nullable=False),
    Column("state", EnumText(NetworkState), nullable=False),
    Column("generation", BigInteger, nullable=False, index=True),
    Column("served_generation", BigInteger, nullable=False),
    words("portal_epoch"),
    created(),
    UniqueConstraint("project_id", "name"),
    UniqueConstraint("fabric", "vid"),
    UniqueConstraint("vni"),
    CheckConstraint("vid BETWEEN 1 AND 4094", name="vid"),
    CheckConstraint("vni BETWEEN 1 AND 16777215", name="vni"),
    info={"noun": "network"},
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
    Column("network_id", Id, ForeignKey("networks.id", ondelete="RESTRICT", deferrable=True, initially="DEFERRED")),
    Column("reusable_at", Instant, nullable=False),
    Column("vni", Integer),
    UniqueConstraint("fabric", "vid"),
    UniqueConstraint("network_id"),
    UniqueConstraint("vni"),
    CheckConstraint("vid BETWEEN 1 AND 4094", name="vid"),
    CheckConstraint("vni BETWEEN 1 AND 16777215", name="vni"),
    info={"noun": "VLAN"},
)

grants = Table(
    "grants",
    metadata,
    identity(),
    to("network_id", "networks", is_indexed=False),
    to("project_id", "projects"),
    Column("state", EnumText(GrantState), nullable=False),
    created(),
    UniqueConstraint("network_id", "project_id"),
    info={"noun": "network grant"},
)

attachments = Table(
    "attachments",
    metadata,
    identity(),
    to("nic_id", "nics", is_indexed=False),
    to("network_id", "networks"),
    Column("channel", EnumText(Channel), nullable=False),
    Column("state", EnumText(AttachmentState), nullable=False),
    words("address"),
    words("address6"),
    created(),
    UniqueConstraint("nic_id", "network_id"),
    info={"noun": "attachment"},
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
    Column("project_id", Id, ForeignKey("projects.id", ondelete="SET NULL"), index=True),
    created(),
    UniqueConstraint("network_id", "name"),
    info={"noun": "reservation"},
)
for _column in ("address", "address6", "mac", "hostname"):
    unique_where(f"uq_reservations_network_id_{_column}", reservations, f"network_id {_column}", f"{_column} <> ''")

permits = Table(
    "permits",
    metadata,
    identity(),
    to("reservation_id", "reservations", is_indexed=False),
    Column("attachment_id", Id, ForeignKey("attachments.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("is_ending", Boolean, nullable=False),
    created(),
    UniqueConstraint("reservation_id", "attachment_id"),
    info={"noun": "permit"},
)
