"""Where the database and what it speaks of do not agree: in the pool, at the target daemons, among the uploads."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal, TypeAlias
from uuid import UUID

from malleable.domain.ids import NetworkId, ProjectId

#: An upload is the folder an image is received in; its id is the image's. A file is what nobody of us made.
Noun: TypeAlias = Literal["image", "disk", "snapshot", "upload", "target", "file"]


class DifferenceKind(StrEnum):
    """Which side has it."""

    LOST = "lost"  #: the database says it is there, and it is not
    ORPHAN = "orphan"  #: it is there, and the database does not know it


class Remedy(StrEnum):
    """What a collection does about a difference."""

    REMOVE = "remove"
    RESTORE = "restore"  #: the daemon is told again what it shall present
    WAIT = "wait"  #: nothing yet: it is too young to be judged
    TELL = "tell"  #: nothing: only a person can know


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that only one side has."""

    kind: DifferenceKind
    noun: Noun
    id: UUID | None  #: None of a file, and of a target that the database does not know
    name: str = ""  #: of a target its IQN, of a file its place; "" where only the database would know it
    project_id: ProjectId | None = None
    network_id: NetworkId | None = None  #: of a target
    made_at: datetime | None  #: None where nothing tells it
    reason: str
    remedy: Remedy


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """All differences at one moment."""

    at: datetime
    differences: tuple[Difference, ...]  #: what is lost first, then in order of noun and age
    unseen: Mapping[str, str]  #: where nobody could look, and why: of these places nothing is said
    known_count: int  #: how many things of the pool the database knows
