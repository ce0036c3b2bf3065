"""Images, disks, snapshots and the targets that export disks."""

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, ForeignKey, Integer, Table, UniqueConstraint

from malleable.domain.disks import Consistency, DiskState, DiskUse, SnapshotState, TargetState
from malleable.domain.images import BootWay, ImageFormat, ImageState, UpProof
from malleable.domain.nodes import Firmware
from malleable.store.schema.columns import created, identity, metadata, pages, to, unique_where, words
from malleable.store.types import EnumText, Id, Instant, Sealed, TupleOf

images = Table(
    "images",
    metadata,
    identity(),
    words("name"),
    to("project_id", "projects", is_indexed=False, nullable=True),
    Column("state", EnumText(ImageState), nullable=False, index=True),
    Column("upload_format", EnumText(ImageFormat), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("files_bytes", BigInteger, nullable=False),
    words("sha256"),
    words("os"),
    words("architecture"),
    Column("firmwares", TupleOf(Firmware), nullable=False),
    Column("boot_ways", TupleOf(BootWay), nullable=False),
    Column("up_proof", EnumText(UpProof), nullable=False),
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
    Column("parent_id", Id),  # outlived: no foreign key
    words("pool"),
    created(),
    UniqueConstraint("project_id", "name"),
    info={"noun": "image"},
)
unique_where("uq_images_name_golden", images, "name", "project_id IS NULL")
pages(images, "name")

image_grants = Table(
    "image_grants",
    metadata,
    identity(),
    Column("image_id", Id, ForeignKey("images.id", ondelete="CASCADE"), nullable=False),
    Column("project_id", Id, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("is_accepted", Boolean, nullable=False),
    created(),
    UniqueConstraint("image_id", "project_id"),
    info={"noun": "image grant"},
)

signers = Table(
    "signers",
    metadata,
    identity(),
    words("name"),
    Column("project_id", Id, ForeignKey("projects.id", ondelete="CASCADE")),
    words("key"),
    created(),
    UniqueConstraint("project_id", "name"),
    info={"noun": "signer"},
)
unique_where("uq_signers_name_site", signers, "name", "project_id IS NULL")

fetch_logins = Table(
    "fetch_logins",
    metadata,
    identity(),
    Column("image_id", Id, ForeignKey("images.id", ondelete="CASCADE"), nullable=False),
    words("username"),
    Column("password", Sealed, nullable=False),
    UniqueConstraint("image_id"),
    info={"noun": "registry login"},
)

disks = Table(
    "disks",
    metadata,
    identity(),
    words("name"),
    to("project_id", "projects", is_indexed=False),
    to("image_id", "images", nullable=True),
    Column("snapshot_id", Id),  # outlived: no foreign key
    Column("state", EnumText(DiskState), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    words("pool"),
    created(),
    UniqueConstraint("project_id", "name"),
    info={"noun": "disk"},
)
pages(disks, "name")

disk_offers = Table(
    "disk_offers",
    metadata,
    identity(),
    Column("disk_id", Id, ForeignKey("disks.id", ondelete="CASCADE"), nullable=False),
    Column("project_id", Id, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("snapshots", Integer, nullable=False),
    Column("snapshot_bytes", BigInteger, nullable=False),
    created(),
    UniqueConstraint("disk_id"),
    info={"noun": "disk offer"},
)

snapshots = Table(
    "snapshots",
    metadata,
    identity(),
    words("name"),
    to("project_id", "projects", is_indexed=False),
    Column("disk_id", Id, ForeignKey("disks.id", ondelete="SET NULL"), index=True),
    to("image_id", "images", nullable=True),
    Column("state", EnumText(SnapshotState), nullable=False),
    Column("consistency", EnumText(Consistency)),
    words("consistency_reason"),
    Column("size_bytes", BigInteger, nullable=False),
    created(),
    UniqueConstraint("project_id", "name"),
    info={"noun": "snapshot"},
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
    Column("use", EnumText(DiskUse), nullable=False),
    Column("state", EnumText(TargetState), nullable=False),
    words("iqn"),
    words("initiator_iqn"),
    Column("lun", Integer, nullable=False),
    Column("daemon", Integer, nullable=False),
    words("chap_username"),
    Column("chap_password", Sealed, nullable=False),
    words("initiator_address"),
    words("pool"),
    created(),
    UniqueConstraint("disk_id"),
    UniqueConstraint("iqn"),
    CheckConstraint("(disk_id IS NULL) <> (image_id IS NULL)", name="presents"),
    info={"noun": "target"},
)
unique_where("uq_targets_node_id_boot", targets, "node_id", "use = 'boot'")

usage_records = Table(
    "usage_records",
    metadata,
    identity(),
    Column("project_id", Id, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    Column("at", Instant, nullable=False, index=True),
    Column("disks", Integer, nullable=False),
    Column("snapshots", Integer, nullable=False),
    Column("images", Integer, nullable=False),
    Column("disk_bytes", BigInteger, nullable=False),
    Column("image_bytes", BigInteger, nullable=False),
    Column("taken_bytes", BigInteger),
    UniqueConstraint("project_id", "at"),
    info={"noun": "usage record"},
)
pages(usage_records, "project_id")
