"""Snapshots of disks."""

from datetime import datetime
from uuid import UUID

from malleable.domain.disks import Consistency, SnapshotState
from malleable.wire.shapes import Answer, DiskBytes, Name, Open, Ref, Request


class SnapshotRequest(Request):
    """A snapshot to take."""

    name: Name
    disk: Ref
    project: Ref | None = None  #: where to look for the disk's name
    #: true: have its node's system stop writing meanwhile, or take none; false: do not; null: do so if it can
    quiesce: bool | None = None


class SnapshotNameRequest(Request):
    """A snapshot's new name."""

    name: Name


class PromoteRequest(Request):
    """An image to make of a snapshot; it boots as the snapshot's disk did."""

    name: Name
    golden: bool = False  #: for everybody instead of the project; admins only


class RollBackRequest(Request):
    """Which of its snapshots a disk shall be again."""

    snapshot: Ref


class GrowRequest(Request):
    """How large a disk shall become."""

    size_bytes: DiskBytes


class SnapshotView(Answer):
    """A snapshot; ``disk`` is null when its disk is gone, ``image`` when that was made blank."""

    id: Open[UUID]
    name: Open[str]
    project_id: Open[UUID]
    project: Open[str]
    disk_id: Open[UUID | None]
    disk: Open[str | None]
    image_id: Open[UUID | None]
    image: Open[str | None]
    state: Open[SnapshotState]
    consistency: Open[Consistency | None] = None  #: null until it is taken
    consistency_reason: Open[str] = ""  #: why it is no better than "crash"
    size_bytes: Open[int]
    created_at: Open[datetime]
