"""Golden images: sealed, immutable, cloned in constant time."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import PurePosixPath

from malleable.domain.errors import Public
from malleable.domain.ids import FetchLoginId, ImageGrantId, ImageId, ProjectId
from malleable.domain.nodes import Firmware
from malleable.domain.secrets import Secret


class ImageState(StrEnum):
    """Only a sealed image can be cloned."""

    IMPORTING = "importing"
    SEALED = "sealed"
    FAILED = "failed"


class ImageFormat(StrEnum):
    """What an upload is; in the pool every image is raw."""

    RAW = "raw"
    QCOW2 = "qcow2"
    VMDK = "vmdk"
    VHD = "vhd"
    VHDX = "vhdx"
    ZSTD = "zstd"  #: a raw disk, compressed


#: How files of each format begin. A VHD of fixed size has no mark there and goes for raw: it is one, and 512 bytes.
MAGIC: Mapping[ImageFormat, bytes] = {
    ImageFormat.QCOW2: b"QFI\xfb",
    ImageFormat.VMDK: b"KDMV",
    ImageFormat.VHD: b"conectix",
    ImageFormat.VHDX: b"vhdxfile",
    ImageFormat.ZSTD: b"\x28\xb5\x2f\xfd",
}


def format_of(begins: bytes) -> ImageFormat:
    """Read a file's format off its first eight bytes."""
    return next((kind for kind, magic in MAGIC.items() if begins.startswith(magic)), ImageFormat.RAW)


#: What pools of files call the disk and what they tell of it: neither a kernel nor an initrd beside it is called so.
RESERVED_FILES = frozenset({"image.raw", "manifest.json"})
#: How files are called that are no raw disks: of one of our formats, or packed in a way we do not read.
_NAMED = frozenset({".qcow2", ".vmdk", ".vhdx", ".zst"})
_PACKED = frozenset({".gz", ".tgz", ".xz", ".bz2", ".lz4", ".7z", ".zip", ".tar", ".ova"})


def misnamed(name: str, found: ImageFormat) -> Public | None:
    """Say what is wrong with a file that would become a disk byte for byte, and boot nothing; None: nothing is."""
    ending = PurePosixPath(name).suffix.lower()
    if found is not ImageFormat.RAW or ending not in _NAMED | _PACKED:
        return None
    if ending in _PACKED:
        return Public(f"Files that end in {ending} are not unpacked here.", "Unpack it first; or pack it by zstd.")
    return Public(
        f"It does not begin as a {ending} file does.",
        "Look what it is and where it came from; if it is a raw disk, call it so: NAME.raw.",
    )


class BootWay(StrEnum):
    """How a node's firmware comes to run the disk's operating system."""

    SAN = "san"  #: iPXE sanboot: the boot loader on the disk, iBFT for the operating system
    KERNEL = "kernel"  #: iPXE loads kernel and initrd over HTTP; root by iBFT from sanhook


class UpProof(StrEnum):
    """What shows that the operating system runs."""

    ISCSI_LOGIN = "iscsi-login"  #: its own iSCSI session, after the firmware's
    PHONE_HOME = "phone-home"  #: it calls the metadata service


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One image. ``project_id`` None: golden, admins alone change it, everybody may boot it."""

    id: ImageId
    name: str
    project_id: ProjectId | None
    state: ImageState
    upload_format: ImageFormat = ImageFormat.RAW
    size_bytes: int  #: of the upload until it is sealed, then of the raw content
    sha256: str  #: of the same, hex
    os: str = ""
    architecture: str = "x86_64"
    firmwares: tuple[Firmware, ...] = (Firmware.BIOS, Firmware.UEFI)
    boot_ways: tuple[BootWay, ...] = (BootWay.SAN,)
    up_proof: UpProof = UpProof.ISCSI_LOGIN
    kernel: str = ""  #: file name beside the image, for boot way "kernel"
    initrd: str = ""
    files_bytes: int = 0  #: of both, as far as they have come
    kernel_sha256: str = ""  #: hex; "": not known before it is sealed
    initrd_sha256: str = ""
    cmdline: str = ""
    default_user: str = ""
    wants_seed_disk: bool = False  #: its system looks for a NoCloud seed on disks alone
    has_multipath: bool = False  #: its system makes one disk of both portals of a network
    signed_by: str = ""  #: the signer's name when the signature was proven; "": nobody
    signing_key: str = ""  #: the same's public key
    parent_id: ImageId | None = None  #: the image whose disk it was promoted from; None also when that is gone
    pool: str = ""  #: of its project; "": the site's
    created_at: datetime

    @property
    def files(self) -> Mapping[str, str]:
        """Name the files beside the image, each with its SHA-256 as far as that is known."""
        named = {self.kernel: self.kernel_sha256, self.initrd: self.initrd_sha256}
        return {name: sha256 for name, sha256 in named.items() if name}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageGrant:
    """An image's owner lets another project see it and clone disks of it, once that has accepted."""

    id: ImageGrantId
    image_id: ImageId
    project_id: ProjectId  #: who is let in
    is_accepted: bool = False
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchLogin:
    """Who a registry is told asks for an image; forgotten as soon as it came, or never will."""

    id: FetchLoginId
    image_id: ImageId
    username: str
    password: Secret
