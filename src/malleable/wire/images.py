"""Golden images and projects' own."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field

from malleable.domain.images import BootWay, ImageState, UpProof
from malleable.domain.nodes import Firmware
from malleable.wire.shapes import MAX_BYTES, Answer, FileName, Line, Name, Ref, Request, Sha256


class ImageRequest(Request):
    """An image about to be uploaded; without a project it is golden."""

    name: Name
    project: Ref | None = None
    sha256: Sha256
    size_bytes: Annotated[int, Field(ge=1, le=MAX_BYTES)]
    os: Line = ""
    architecture: Name = "x86_64"
    firmwares: tuple[Firmware, ...] = Field(default=(Firmware.BIOS, Firmware.UEFI), min_length=1, max_length=2)
    boot_ways: tuple[BootWay, ...] = Field(default=(BootWay.SAN,), min_length=1, max_length=2)
    up_proof: UpProof = UpProof.ISCSI_LOGIN
    kernel: FileName | None = None
    initrd: FileName | None = None
    cmdline: Line = ""
    default_user: Line = ""


class ImageView(Answer):
    """An image."""

    id: UUID
    name: str
    project_id: UUID | None
    project: str | None
    state: ImageState
    size_bytes: int
    sha256: str
    os: str
    architecture: str
    firmwares: tuple[Firmware, ...]
    boot_ways: tuple[BootWay, ...]
    up_proof: UpProof
    kernel: str
    initrd: str
    cmdline: str
    default_user: str
    created_at: datetime
