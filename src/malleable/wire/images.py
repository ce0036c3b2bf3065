"""Golden images and projects' own."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, StringConstraints

from malleable.domain.boots import parse_cmdline
from malleable.domain.images import BootWay, ImageFormat, ImageState, UpProof
from malleable.domain.manifests import MANIFEST_MAX_CHARS
from malleable.domain.nodes import Firmware
from malleable.wire.shapes import MAX_BYTES, Answer, FileName, Line, Name, Open, Ref, Request, Sha256, Url, checked

#: What `minisign -S` wrote, which has comments of up to 9 KiB.
Signature = Annotated[str, StringConstraints(min_length=1, max_length=16 * 1024, pattern=r"^[^\x00]*$")]
#: Leaves room for what is added where an image boots without a disk.
Cmdline = Annotated[str, StringConstraints(max_length=960), checked(parse_cmdline)]


class ImageRequest(Request):
    """An image about to be uploaded; without a project it is golden."""

    name: Name
    project: Ref | None = None
    format: ImageFormat = ImageFormat.RAW  #: of the upload; the sealed image is raw
    sha256: Sha256  #: of the upload
    size_bytes: Annotated[int, Field(ge=1, le=MAX_BYTES)]
    os: Line = ""
    architecture: Name = "x86_64"
    firmwares: tuple[Firmware, ...] = Field(default=(Firmware.BIOS, Firmware.UEFI), min_length=1, max_length=2)
    boot_ways: tuple[BootWay, ...] = Field(default=(BootWay.SAN,), min_length=1, max_length=2)
    up_proof: UpProof = UpProof.ISCSI_LOGIN
    kernel: FileName | None = None
    initrd: FileName | None = None
    kernel_sha256: Sha256 | None = None
    initrd_sha256: Sha256 | None = None
    cmdline: Cmdline = ""
    default_user: Line = ""
    wants_seed_disk: bool = False  #: its system looks for a NoCloud seed on disks alone
    has_multipath: bool = False  #: its system makes one disk of both portals of a network


class FetchRequest(Request):
    """An image about to be read from the web; without a project it is golden. It boots by way of ``san``."""

    name: Name
    project: Ref | None = None
    url: Url  #: http, https or oci
    username: Line | None = None  #: for a registry; nobody: what everybody may read
    password: Line | None = Field(default=None, repr=False)
    sha256: Sha256 | None = None  #: of the file
    signature: Signature | None = None  #: detached, of the file
    cosign: bool = False  #: of an artifact: its registry must have a signature of cosign by somebody who is trusted
    size_bytes: Annotated[int, Field(ge=1, le=MAX_BYTES)] | None = None  #: needed where the web server does not say it
    os: Line = ""
    architecture: Name = "x86_64"
    firmwares: tuple[Firmware, ...] = Field(default=(Firmware.BIOS, Firmware.UEFI), min_length=1, max_length=2)
    up_proof: UpProof = UpProof.ISCSI_LOGIN
    default_user: Line = ""
    wants_seed_disk: bool = False
    has_multipath: bool = False


class ImageView(Answer):
    """An image."""

    id: Open[UUID]
    name: Open[str]
    project_id: Open[UUID | None]
    project: Open[str | None]
    state: Open[ImageState]
    format: Open[ImageFormat] = ImageFormat.RAW  #: of the upload
    size_bytes: Open[int]
    sha256: Open[str]
    os: Open[str]
    architecture: Open[str]
    firmwares: Open[tuple[Firmware, ...]]
    boot_ways: Open[tuple[BootWay, ...]]
    up_proof: Open[UpProof]
    kernel: Open[str]
    initrd: Open[str]
    kernel_sha256: Open[str] = ""
    initrd_sha256: Open[str] = ""
    cmdline: Open[str]
    default_user: Open[str]
    wants_seed_disk: Open[bool] = False
    has_multipath: Open[bool] = False
    signed_by: Open[str] = ""  #: whose signature was proven when it was sealed; "": nobody's
    signing_key: Open[str] = ""  #: the number of that signer's key
    created_at: Open[datetime]


class SealRequest(Request):
    """An upload about to be sealed."""

    signature: Signature | None = None  #: detached, of the manifest, or without one of the disk that was uploaded
    #: what is signed where a kernel or an initrd lies beside the disk: JSON as ``images/build`` writes it
    manifest: Annotated[str, StringConstraints(max_length=MANIFEST_MAX_CHARS, pattern=r"^[^\x00]*$")] | None = None


class UploadView(Answer):
    """How far the upload of an image's content is."""

    received_bytes: Open[int]  #: all of them when it only needs to be sealed
    size_bytes: Open[int]


class ImageGrantRequest(Request):
    """An image about to be offered to another project."""

    grantee: Ref


class ImageGrantView(Answer):
    """An image that a project shares with another, or offers to it."""

    id: Open[UUID]
    image_id: Open[UUID]
    image: Open[str]
    owner_id: Open[UUID]
    owner: Open[str]
    grantee_id: Open[UUID]
    grantee: Open[str]
    is_accepted: Open[bool]
    created_at: Open[datetime]


class ImageNameRequest(Request):
    """An image's new name."""

    name: Name


class DescribeRequest(Request):
    """What is told of an image; what is left out stays."""

    os: Line = ""
    architecture: Name = ""
    firmwares: tuple[Firmware, ...] = Field(default=(), min_length=1, max_length=2)
    boot_ways: tuple[BootWay, ...] = Field(default=(), min_length=1, max_length=2)
    up_proof: UpProof = UpProof.ISCSI_LOGIN
    cmdline: Cmdline = ""
    default_user: Line = ""
    wants_seed_disk: bool = False
    has_multipath: bool = False
    in_use: bool = False  #: how a golden image boots, also for those who use it


class ImageCopyRequest(Request):
    """A copy of an image about to be made; without a project it is golden."""

    project: Ref | None = None
    name: Name | None = None  #: else the same


class BranchView(Answer):
    """A thing in an image's tree."""

    kind: Open[Literal["image", "disk", "snapshot"]]
    id: Open[UUID]
    parent_id: Open[UUID | None]  #: what it was made of; null at the root
    name: Open[str]
    project: Open[str | None]
    state: Open[str]
    size_bytes: Open[int]
    own_bytes: Open[int | None]  #: that nothing else shares; null: not measured
    shared_bytes: Open[int | None] = None  #: of its content, that others have, too; null: not measured
    node: Open[str | None]  #: who has it


class ImageTreeView(Answer):
    """An image, first, and all that came of it."""

    branches: Open[tuple[BranchView, ...]]
    hidden_count: Open[int]  #: what of other projects keeps the image from being deleted, for whoever may delete it
    is_cut: Open[bool]
