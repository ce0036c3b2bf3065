"""Disks and the targets that present them."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field

from malleable.domain.disks import DiskState, TargetState
from malleable.wire.nodes import BootOptions
from malleable.wire.shapes import MAX_BYTES, Answer, Name, Ref, Request


class DiskRequest(Request):
    """A new disk, cloned from an image; grown when ``size_bytes`` is larger than the image."""

    name: Name
    project: Ref | None = None
    image: Ref
    size_bytes: Annotated[int, Field(ge=1, le=MAX_BYTES)] | None = None


class DiskMoveRequest(BootOptions):
    """Stop the node that runs the disk, and boot the disk on another."""

    node: Ref
    network: Ref | None = None  #: null: the network it runs on now


class DiskView(Answer):
    """A disk; ``node`` is where it runs."""

    id: UUID
    name: str
    project_id: UUID
    project: str
    image_id: UUID
    image: str
    state: DiskState
    size_bytes: int
    node_id: UUID | None
    node: str | None
    created_at: datetime


class TargetView(Answer):
    """A disk presented to a node; never its CHAP secret."""

    id: UUID
    disk_id: UUID
    disk: str
    node_id: UUID
    node: str
    network_id: UUID
    network: str
    state: TargetState
    iqn: str
    initiator_address: str
    created_at: datetime
