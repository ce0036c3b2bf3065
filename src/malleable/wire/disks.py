"""Disks and the targets that present them."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field

from malleable.domain.disks import BATCH_MAX, DiskState, DiskUse, TargetState
from malleable.wire.nodes import BootOptions
from malleable.wire.shapes import Answer, DiskBytes, Name, Open, Ref, Request


class DiskOrigin(Request):
    """What new disks shall be: clones of an image or of a snapshot, grown when ``size_bytes`` is larger, or blank."""

    project: Ref | None = None
    image: Ref | None = None
    snapshot: Ref | None = None
    size_bytes: DiskBytes | None = None


class DiskRequest(DiskOrigin):
    """A new disk."""

    name: Name


class DiskBatchRequest(DiskOrigin):
    """New disks that are alike; all of them are made, or none."""

    names: Annotated[tuple[Name, ...], Field(min_length=1, max_length=BATCH_MAX)]


class DiskMoveRequest(BootOptions):
    """Take the disk from its node and have it on another.

    The node that boots it is stopped, and the other boots it; of a disk for data ``node`` alone counts.
    """

    node: Ref
    network: Ref | None = None  #: null: the network it runs on now


class DiskAttachRequest(Request):
    """Which running node shall have the disk, for data."""

    node: Ref


class DiskNameRequest(Request):
    """A disk's new name."""

    name: Name


class DiskView(Answer):
    """A disk; ``node`` is which node has it, and ``use`` for what.

    ``snapshot`` is what it was cloned from, if that is still there. ``image`` is null for a disk that was made blank.
    """

    id: Open[UUID]
    name: Open[str]
    project_id: Open[UUID]
    project: Open[str]
    image_id: Open[UUID | None]
    image: Open[str | None]
    snapshot_id: Open[UUID | None] = None
    snapshot: Open[str | None] = None
    state: Open[DiskState]
    size_bytes: Open[int]
    node_id: Open[UUID | None]
    node: Open[str | None]
    use: Open[DiskUse | None] = None
    created_at: Open[datetime]


class DiskOfferRequest(Request):
    """Whom a disk is to be given to; with its snapshots, or only if it has none."""

    receiver: Ref
    with_snapshots: bool = False


class DiskAcceptRequest(Request):
    """How an offered disk shall be called from now on; null: as before."""

    name: Name | None = None
    unsigned: bool = False  #: also where only signed images boot


class DiskOfferView(Answer):
    """A disk that a project would give to another, and how many snapshots go with it at most."""

    id: Open[UUID]
    disk_id: Open[UUID]
    disk: Open[str]
    image: Open[str | None]
    size_bytes: Open[int]
    snapshots: Open[int] = 0
    snapshot_bytes: Open[int] = 0
    owner_id: Open[UUID]
    owner: Open[str]
    receiver_id: Open[UUID]
    receiver: Open[str]
    created_at: Open[datetime]


class TargetView(Answer):
    """A disk presented to a node, or an image that it reads and never writes; never its CHAP secret."""

    id: Open[UUID]
    disk_id: Open[UUID | None]
    disk: Open[str | None]
    image_id: Open[UUID | None] = None
    image: Open[str | None] = None
    node_id: Open[UUID]
    node: Open[str]
    network_id: Open[UUID]
    network: Open[str]
    use: Open[DiskUse] = DiskUse.BOOT
    state: Open[TargetState]
    iqn: Open[str]
    daemon: Open[int] = 0  #: the number of the network's target daemon that the node logs in to
    initiator_address: Open[str]
    created_at: Open[datetime]
