"""The pool. All of it is the provider's to read."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field

from malleable.domain.pool import DifferenceKind, Noun, Remedy
from malleable.wire.shapes import Answer, Request

#: The shortest keeps clear of hosts whose clocks do not quite agree.
GRACE_MIN_S, GRACE_S, GRACE_MAX_S = 60, 3600, 10 * 366 * 86400
Grace = Annotated[int, Field(ge=GRACE_MIN_S, le=GRACE_MAX_S)]


class CollectRequest(Request):
    """Which orphans to remove."""

    older_than_s: Grace = GRACE_S


class StockView(Answer):
    """How many there are of one kind; some are in the making or on their way out."""

    in_pool: int
    in_database: int


class PoolView(Answer):
    """How full the pool is; ``is_full``: nothing new is made, what is there goes on."""

    total_bytes: int
    free_bytes: int
    reserve_bytes: int
    is_full: bool
    images: StockView
    disks: StockView
    snapshots: StockView


class DifferenceView(Answer):
    """One thing that the database and the world do not agree on."""

    kind: DifferenceKind
    noun: Noun
    id: UUID | None  #: null of a file, and of a target that the database does not know
    name: str  #: of a target its IQN, of a file its place; empty where only the database would know it
    project: str | None
    network: str | None  #: of a target
    made_at: datetime | None  #: null where nothing tells it
    reason: str
    remedy: Remedy


class UnseenView(Answer):
    """A place where nobody could look."""

    place: str
    reason: str


class AuditView(Answer):
    """All differences, counted; the first of them told, lost ones before orphans."""

    at: datetime
    lost: int
    orphans: int
    removable: int
    differences: tuple[DifferenceView, ...]
    unseen: tuple[UnseenView, ...]
