"""Disks that outlive leases, and the targets that present one to a node."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from secrets import token_hex

from malleable.domain.ids import DiskId, DiskOfferId, ImageId, NetworkId, NodeId, ProjectId, SnapshotId, TargetId
from malleable.domain.secrets import Secret

#: So many disks are made by one request at most: the rows of all are one transaction.
BATCH_MAX = 256
_SECTOR_BYTES = 512


def whole_sectors(size_bytes: int) -> int:
    """Round a size up to whole sectors: a target presents no part of one, so that the end would be missing."""
    return -(-size_bytes // _SECTOR_BYTES) * _SECTOR_BYTES


class DiskState(StrEnum):
    """A disk is usable only when ready."""

    CREATING = "creating"
    READY = "ready"
    ROLLING_BACK = "rolling-back"
    GROWING = "growing"
    FLATTENING = "flattening"
    DELETING = "deleting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A copy-on-write clone that belongs to a project and outlives every node it runs on."""

    id: DiskId
    name: str
    project_id: ProjectId
    image_id: ImageId | None  #: what it boots as, also when it was cloned from a snapshot; None: it was made blank
    snapshot_id: SnapshotId | None = None  #: what it was cloned from, if not from the image; None when that is gone
    state: DiskState
    size_bytes: int
    pool: str = ""  #: of its project
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskOffer:
    """A disk's owner would give it to another project; it is that project's once it has accepted."""

    id: DiskOfferId
    disk_id: DiskId
    project_id: ProjectId  #: who may have it
    snapshots: int = 0  #: so many go with it, unless they are deleted before; 0: it is given only while it has none
    snapshot_bytes: int = 0  #: how large these may become
    created_at: datetime


class SnapshotState(StrEnum):
    """A snapshot is usable only when ready."""

    CREATING = "creating"
    READY = "ready"
    DELETING = "deleting"


class Consistency(StrEnum):
    """What a snapshot kept of writes that were under way."""

    QUIESCED = "quiesced"  #: a node had the disk, and wrote nothing to it at that moment: its filesystems are clean
    CRASH = "crash"  #: a node had the disk: what a power cut at that moment would have left
    IDLE = "idle"  #: no node had it: all that its last one had written


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A disk's content of one moment. It outlives its disk."""

    id: SnapshotId
    name: str
    project_id: ProjectId
    disk_id: DiskId | None  #: None when the disk is gone
    image_id: ImageId | None  #: what its disk boots as; None: its disk was made blank
    state: SnapshotState
    consistency: Consistency | None = None  #: None until it is taken
    consistency_reason: str = ""  #: why it is no better than "crash"
    size_bytes: int
    created_at: datetime


class DiskUse(StrEnum):
    """What a node has a disk for."""

    BOOT = "boot"  #: its firmware starts it; at most one per node
    DATA = "data"  #: its system logs in to it


class TargetState(StrEnum):
    """Whether the target daemon presents the disk."""

    EXPORTING = "exporting"
    EXPORTED = "exported"
    REVOKING = "revoking"  #: never restored after a crash; the row goes once zero sessions are proven


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One disk presented to one node, at most one per disk; or an image, to be read by as many nodes as like.

    Exactly one of ``disk_id`` and ``image_id`` is there. The database sees to both.
    """

    id: TargetId
    disk_id: DiskId | None
    image_id: ImageId | None = None  #: read only
    node_id: NodeId
    network_id: NetworkId
    use: DiskUse = DiskUse.BOOT
    state: TargetState
    iqn: str  #: unguessable, new for every target
    initiator_iqn: str  #: what the node calls itself
    lun: int = 1  #: LUN 0 is tgt's controller
    daemon: int = 0  #: whose port the node is told; it stays, whoever serves it
    chap_username: str
    chap_password: Secret  #: the tenant's root can read it in the iBFT; new for every target
    initiator_address: str  #: the only IPv4 address that may log in
    pool: str = ""  #: of an image: the one of the project that reads it, whose user opens it
    created_at: datetime


def new_iqn(year_month: str = "2026-11") -> str:
    """Make an unguessable target name (RFC 3720 §3.2.6.3): names leak by discovery within a network."""
    return f"iqn.{year_month}.org.malleable:{token_hex(12)}"


def initiator_iqn(node_id: NodeId) -> str:
    """Name a node as an initiator; not a secret and never an access rule (tgt ORs name and address rules)."""
    return f"iqn.2026-11.org.malleable:node:{node_id}"
