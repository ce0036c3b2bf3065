"""Projects, their limits and their members."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field, StringConstraints

from malleable.domain.projects import ProjectRole, Role
from malleable.wire.shapes import MAX_COUNT, Answer, Name, Open, Request


class ProjectRequest(Request):
    """A new project."""

    name: Name
    pool: Name | None = None  #: of Ceph, for its disks and images alone; null: where the site's are. It stays


#: One line of authorized_keys, without options: type, key, comment.
PublicKey = Annotated[
    str,
    StringConstraints(
        max_length=16 * 1024,
        pattern=r"^(ssh-(ed25519|rsa)|ecdsa-sha2-nistp[0-9]+|sk-[a-z0-9-]+@openssh\.com)"
        r" [A-Za-z0-9+/=]+( [^\x00-\x1f\x7f]*)?$",
    ),
]


class KeyRequest(Request):
    """A public SSH key."""

    key: PublicKey


class KeyView(Answer):
    """A public SSH key that every machine gets which the project starts."""

    id: Open[UUID]
    name: Open[str]
    key: Open[str]
    created_at: Open[datetime]


class ProjectView(Answer):
    """A project."""

    id: Open[UUID]
    name: Open[str]
    needs_signed_images: Open[bool] = False  #: it imports and boots nothing else
    pool: str = ""  #: of its disks and images; "": where the site's are
    created_at: Open[datetime]


Most = Annotated[int, Field(ge=0, le=MAX_COUNT, strict=True)]


class QuotaRequest(Request):
    """Limits of a project: null lifts one, what is left out stays as it is."""

    nodes: Most | None = None  #: held at once
    networks: Most | None = None
    attachments: Most | None = None  #: of the nodes it holds, on whosever network
    disks: Most | None = None
    disk_bytes: Most | None = None  #: of disks and snapshots together, as large as they may become
    snapshots: Most | None = None
    images: Most | None = None  #: the project's own
    image_bytes: Most | None = None  #: of these, and of uploads that are not sealed yet
    taken_bytes: Most | None = None  #: of the pool for it alone, as last measured; once there are more, nothing new


class LimitsView(Answer):
    """A project's limits; null: none."""

    nodes: Open[int | None]
    networks: Open[int | None]
    attachments: Open[int | None]
    disks: Open[int | None]
    disk_bytes: Open[int | None]
    snapshots: Open[int | None]
    images: Open[int | None]
    image_bytes: Open[int | None]
    taken_bytes: Open[int | None]


class HoldingsView(Answer):
    """What a project has."""

    nodes: Open[int]
    networks: Open[int]
    attachments: Open[int]
    disks: Open[int]
    disk_bytes: Open[int]
    snapshots: Open[int]
    images: Open[int]
    image_bytes: Open[int]
    taken_bytes: Open[int]  #: as they were measured last


class UsageRecordView(Answer):
    """What a project had of the disk storage at one moment of the hour that begins ``at``.

    ``disk_bytes`` and ``image_bytes`` are as large as its disks, snapshots and images may become.
    ``taken_bytes`` is what the pool kept for it alone: what its things share among them once, and nothing that they
    share with images of others; null when that was not measured.
    """

    id: Open[UUID]
    at: Open[datetime]
    disks: Open[int]
    snapshots: Open[int]
    images: Open[int]
    disk_bytes: Open[int]
    image_bytes: Open[int]
    taken_bytes: Open[int | None]


class QuotaView(Answer):
    """A project's limits, and what it has of each."""

    project_id: Open[UUID]
    project: Open[str]
    limits: Open[LimitsView]
    in_use: Open[HoldingsView]


class MemberRequest(Request):
    """A user's role in a project: member or reader."""

    role: ProjectRole = ProjectRole.MEMBER


class MemberView(Answer):
    """A member of a project."""

    user_id: Open[UUID]
    user: Open[str]
    role: Open[Role]
