"""Images, disks, snapshots and the targets that export disks."""

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

images = Table(
    "images",
    metadata,
    identity(),
    words("name"),
    to("project_id", "projects", is_indexed=False, nullable=True),
    Column("state", Text, nullable=False, index=True),
    words("upload_format"),
    Column("size_bytes", BigInteger, nullable=False),
    Column("files_bytes", BigInteger, nullable=False),
    words("sha256"),
    words("os"),
    words("architecture"),
    Column("firmwares", OBJECT, nullable=False),
    Column("boot_ways", OBJECT, nullable=False),
    Column("up_proof", Text, nullable=False),
    words("kernel"),
    words("initrd"),
    words("kernel_sha256"),
    words("initrd_sha256"),
    words("cmdline"),
    words("default_user"),
    Column("wants_seed_disk", Boolean, nullable=False),
    Column("has_multipath", Boolean, nullable=False),
    words("signed_by"),
    words("signing_key"),
    Column("parent_id", ID),
    words("pool"),
    created(),
    UniqueConstraint("project_id", "name"),
)
unique_where("uq_images_name_golden", images, "name", "project_id IS NULL")
pages(images, "name")

image_grants = Table(
    "image_grants",
    metadata,
    identity(),
    Column("image_id", ID, ForeignKey("images.id", ondelete="CASCADE"), nullable=False),
    Column("project_id", ID, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("is_accepted", Boolean, nullable=False),
    created(),
    UniqueConstraint("image_id", "project_id"),
)

signers = Table(
    "signers",
    metadata,
    identity(),
    words("name"),
    Column("project_id", ID, ForeignKey("projects.id", ondelete="CASCADE")),
    words("key"),
    created(),
    UniqueConstraint("project_id", "name"),
)
unique_where("uq_signers_name_site", signers, "name", "project_id IS NULL")

fetch_logins = Table(
    "fetch_logins",
    metadata,
    identity(),
    Column("image_id", ID, ForeignKey("images.id", ondelete="CASCADE"), nullable=False),
    words("username"),
    Column("password", LargeBinary, nullable=False),
    UniqueConstraint("image_id"),
)

disks = Table(
    "disks",
    metadata,
    identity(),
    words("name"),
    to("project_id", "projects", is_indexed=False),
    to("image_id", "images", nullable=True),
    Column("snapshot_id", ID),
    Column("state", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    words("pool"),
    created(),
    UniqueConstraint("project_id", "name"),
)
pages(disks, "name")

disk_offers = Table(
    "disk_offers",
    metadata,
    identity(),
    Column("disk_id", ID, ForeignKey("disks.id", ondelete="CASCADE"), nullable=False),
    Column("project_id", ID, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("snapshots", Integer, nullable=False),
    Column("snapshot_bytes", BigInteger, nullable=False),
    created(),
    UniqueConstraint("disk_id"),
)

snapshots = Table(
    "snapshots",
    metadata,
    identity(),
    words("name"),
    to("project_id", "projects", is_indexed=False),
    Column("disk_id", ID, ForeignKey("disks.id", ondelete="SET NULL"), index=True),
    to("image_id", "images", nullable=True),
    words("state"),
    Column("consistency", Text),
    words("consistency_reason"),
    Column("size_bytes", BigInteger, nullable=False),
    created(),
    UniqueConstraint("project_id", "name"),
)
pages(snapshots, "name")

targets = Table(
    "targets",
    metadata,
    identity(),
    to("disk_id", "disks", is_indexed=False, nullable=True),
    to("image_id", "images", nullable=True),
    to("node_id", "nodes"),
    to("network_id", "networks"),
    words("use"),
    Column("state", Text, nullable=False),
    words("iqn"),
    words("initiator_iqn"),
    Column("lun", Integer, nullable=False),
    Column("daemon", Integer, nullable=False),
    words("chap_username"),
    Column("chap_password", LargeBinary, nullable=False),
    words("initiator_address"),
    words("pool"),
    created(),
    UniqueConstraint("disk_id"),
    UniqueConstraint("iqn"),
    CheckConstraint("(disk_id IS NULL) <> (image_id IS NULL)", name="presents"),
)
unique_where("uq_targets_node_id_boot", targets, "node_id", "use = 'boot'")

usage_records = Table(
    "usage_records",
    metadata,
    identity(),
    Column("project_id", ID, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    Column("at", INSTANT, nullable=False, index=True),
    Column("disks", Integer, nullable=False),
    Column("snapshots", Integer, nullable=False),
    Column("images", Integer, nullable=False),
    Column("disk_bytes", BigInteger, nullable=False),
    Column("image_bytes", BigInteger, nullable=False),
    Column("taken_bytes", BigInteger),
    UniqueConstraint("project_id", "at"),
)
pages(usage_records, "project_id")
