"""What the rules ask of the world: one short Protocol per kind of device, and the clock.

Drivers are stateless towards the caller and safe to call from many threads. Every method may raise the
four driver errors: Unreachable, Busy, Refused, Malformed. No driver retries a change; the engine does.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import BinaryIO, Literal, Protocol, Self
from uuid import UUID

from malleable.domain.drivers import DriverFacts
from malleable.domain.fetching import Fetcher
from malleable.domain.ids import DiskId, ImageId, NetworkId, ProjectId, SnapshotId
from malleable.domain.images import ImageFormat
from malleable.domain.nodes import Firmware, PowerState
from malleable.domain.portals import Redirect
from malleable.domain.progress import OnProgress, unheard
from malleable.domain.scrubs import Scrub
from malleable.domain.secrets import Secret
from malleable.domain.switches import PortConfig, Switch
from malleable.domain.tunnels import Tunnels


class Clock(Protocol):
    """Time, so that tests can own it."""

    def now(self) -> datetime:
        """Return the wall-clock time, always UTC and aware."""

    def monotonic_s(self) -> float:
        """Return seconds that never go back, for measuring."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bmc:
    """How to reach one machine's BMC."""

    address: str
    username: str
    password: Secret
    system: str = ""  #: the driver's handle of the machine; "" = the only one the BMC has
    #: A password that may be the one by now: every call is made with whichever of the two the BMC takes.
    next_password: Secret | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectedNic:
    """A NIC as the BMC tells it."""

    name: str
    mac: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What a BMC says of its machine; empty text or None where it is silent."""

    system: str
    power: PowerState
    firmware: Firmware | None = None
    system_uuid: str = ""
    vendor: str = ""
    model: str = ""
    serial: str = ""
    cpu_count: int | None = None
    memory_mib: int | None = None
    nics: tuple[InspectedNic, ...] = ()
    #: What the BMC says it can do, in the order of Scrub; what it is too busy to tell is among it, to be tried.
    can_scrub: tuple[Scrub, ...] = ()
    drives: tuple[str, ...] = ()  #: its own disks, as in ``LocalDrive.id``


@dataclass(frozen=True, slots=True, kw_only=True)
class BmcAccount:
    """Somebody who can log in to a BMC."""

    username: str
    is_enabled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalDrive:
    """A disk inside a machine, as its BMC tells it."""

    id: str  #: the driver's handle of it
    name: str
    size_bytes: int | None = None
    can_erase: bool  #: by itself, at the BMC's word
    is_busy: bool = False  #: it is being erased, or works on something else that takes long


class Power(Protocol):
    """A kind of BMC."""

    def inspect(self, bmc: Bmc) -> Inspection:
        """Read the machine. Errors: Refused with code "bmc-credentials" for a wrong user or password."""

    def state(self, bmc: Bmc) -> PowerState:
        """Read the power; UNKNOWN for an answer that is neither on nor off."""

    def set(self, bmc: Bmc, want: PowerState) -> None:
        """Ask once for ``want`` (ON or OFF, OFF without asking the operating system); do nothing if it is so already.

        Returns when the BMC accepted; the caller reads ``state`` until it is proven.
        """

    def boot_from_network(self, bmc: Bmc) -> None:
        """Make the next power-on boot from the network, and read it back.

        Errors: Refused if the BMC kept something else.
        """

    def boot_from_disk(self, bmc: Bmc) -> None:
        """Make the next power-on boot from the machine's own disk, and read it back.

        Errors: Refused if the BMC kept something else; with code "no-boot-disk" when it knows of no such choice.
        """

    def reset_boot(self, bmc: Bmc) -> None:
        """Clear the boot override, eject all virtual media, and read both back."""

    def console_tail(self, bmc: Bmc, lines: int) -> str:
        """Return the serial console's last lines since power-on; "" when the BMC does not keep them."""

    def console_write(self, bmc: Bmc, data: bytes, *, within_s: float) -> None:
        """Type at the serial console once; nothing is sent any more after ``within_s``.

        What is typed at a machine that is off is lost. Errors: Refused with code "no-console-input" when the BMC has
        no way to type there that is known.
        """

    # Scrubs, of a machine that is off. Errors of all: Refused with code "cannot-scrub" when the BMC has no such thing.

    def accounts(self, bmc: Bmc) -> Sequence[BmcAccount]:
        """Name everybody who has an account on the BMC, sorted."""

    def set_password(self, bmc: Bmc, password: Secret) -> None:
        """Give the account of ``bmc`` a new password; the next call logs in anew, with what it is given.

        After Unreachable either password may be the one. Errors: Refused when the BMC does not take the new one.
        """

    def reset_bios(self, bmc: Bmc) -> str:
        """Ask once for the maker's firmware settings; say when they are in force."""

    def clear_tpm(self, bmc: Bmc) -> str:
        """Make the firmware clear the TPM before it boots anything, and read that back; say how it was asked.

        Errors: Refused with code "tpm-not-kept" if the BMC kept something else.
        """

    def drives(self, bmc: Bmc) -> Sequence[LocalDrive]:
        """List the machine's own disks, sorted by id."""

    def erase_drive(self, bmc: Bmc, drive: str) -> str:
        """Ask once that a disk erases itself; return the handle of that work.

        "" when the BMC names none: then it is done once the disk is not busy any more.

        Errors: Refused with code "no-such-drive".
        """

    def is_erased(self, bmc: Bmc, work: str) -> bool:
        """Say whether what ``erase_drive`` began has ended well.

        Errors: Refused with code "erase-failed"; with code "no-such-work" when the BMC has forgotten it.
        """


class Switches(Tunnels, Protocol):
    """A kind of switch. All ports in one call: a switch is asked once, not once per port."""

    def check(self, switch: Switch) -> None:
        """Prove that the switch answers and can do VLANs."""

    def ports(self, switch: Switch) -> Sequence[str]:
        """Name every port that can be wired to a node, sorted."""

    def can_guard(self, switch: Switch) -> bool:
        """Say, without asking the switch, whether its ports can keep a Guard."""

    def can_bond(self, switch: Switch) -> bool:
        """Say, without asking the switch, whether two of its ports can be one by LACP."""

    def apply(self, switch: Switch, wanted: Mapping[str, PortConfig]) -> None:
        """Make each named port carry exactly what is wanted; SHUT lets nothing pass. Idempotent.

        Of a bond, all ports are changed though but one is named.
        Errors: Refused with code "no-such-port", "no-guard" for a Guard that cannot be kept, or "no-bond". After
        Unreachable any subset may have been applied.
        """

    def read(self, switch: Switch, ports: Collection[str]) -> Mapping[str, PortConfig]:
        """Read back what the ports carry in the data path (not only in the configuration).

        Errors: Refused with code "no-such-port"; Malformed if a port is in no state that PortConfig can tell.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """A pool's size, in physical bytes."""

    total_bytes: int
    free_bytes: int
    reserve_bytes: int = 0  #: once less is free, nothing new is made: disks in use must be able to grow
    is_read_only: bool = False  #: its file system takes no writes, neither ours nor those of nodes


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredThings:
    """All that a pool holds, for reconciliation."""

    images: frozenset[ImageId] = frozenset()
    disks: frozenset[DiskId] = frozenset()
    snapshots: frozenset[SnapshotId] = frozenset()
    #: of disks and snapshots, what a node could read of each; of those that are left out nothing is known
    sizes: Mapping[UUID, int] = field(default_factory=dict, compare=False)
    #: what lies among them and is none of them: where, in printable characters, and when it last changed
    strays: Mapping[str, datetime] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """What an image turned out to be."""

    size_bytes: int
    sha256: str  #: of the raw content, hex


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one disk, snapshot or image takes of its pool."""

    own_bytes: int  #: physical bytes that nothing else shares: what deleting it frees
    shared_bytes: int  #: physical bytes of its content that others have, too, or that it reads through them
    pieces: int  #: extents or objects; a snapshot takes time for each


class FlattenCall(Enum):
    """Which call of several that flatten a disk this is."""

    FIRST = "first"  #: nobody uses the disk
    NEXT = "next"  #: the call before this one returned, and nobody used the disk since
    IN_USE = "in use"  #: a node may have it, and write to it


@dataclass(frozen=True, slots=True, kw_only=True)
class Flattening:
    """How far a disk is on its way to stand alone."""

    copied_bytes: int  #: by this call
    left_bytes: int  #: still to be copied
    is_done: bool  #: it needs no other disk, snapshot or image any more, and no snapshot of it does


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskHandle:
    """Where a target driver finds a disk's bytes on its own host."""

    path: str  #: a file's path; of a disk in Ceph "pool/image"
    direct: bool = False  #: open it past the page cache: the pool caches below, once for all clones of an image
    store: Literal["file", "rbd"] = "file"
    config: str = ""  #: of a disk in Ceph: the client's ceph.conf, which also names its keyring
    user: str = ""  #: of a disk in Ceph: the cephx user, without "client."


class Disks(Protocol):
    """A pool of golden images and their copy-on-write clones. Every change is idempotent by our id."""

    def within(self, pool: str) -> Self:
        """Return these disks with a pool of projects as the place of all that is new; "": with the site's own.

        There ``check`` and ``capacity`` look, too. What is there already stays where it is, and is found from anywhere.
        What is new is cloned from things of the same pool or of the site's: its reader needs no right to another.
        Does no I/O. Errors: Refused with code "no-such-pool", at once or by the first call that makes something.
        """

    def check(self) -> None:
        """Prove that the pool works: mounted, writable, clones in constant time. Errors: Refused, saying what to do."""

    def capacity(self) -> Capacity:
        """Return the pool's size."""

    def seal(
        self,
        image_id: ImageId,
        source: Path,
        *,
        sha256: str | None,
        files: Mapping[str, Path] = {},
        on_progress: OnProgress = unheard,
    ) -> Sealed:
        """Copy ``source`` (raw) sequentially into the pool, prove its SHA-256 if given, make it immutable.

        ``files`` (kernel, initrd; by plain file name) are kept beside it. Nothing is visible before all is proven.
        ``on_progress`` is told all along, holes included, unless the image is there already.
        Errors: Refused with code "checksum" or "pool-full".
        """

    def promote(
        self,
        snapshot_id: SnapshotId,
        image_id: ImageId,
        *,
        files: Mapping[str, Path] = {},
        on_progress: OnProgress = unheard,
    ) -> Sealed:
        """Seal an image from a snapshot: a full, sequential copy. Errors: as ``seal``, and "no-such-snapshot"."""

    def file(self, image_id: ImageId, name: str) -> Path:
        """Locate a file kept beside an image. Errors: Refused with code "no-such-file"."""

    def open_image(self, image_id: ImageId) -> BinaryIO:
        """Open an image's raw content to be read; the caller closes it. Errors: Refused with code "no-such-image"."""

    def clone(self, image_id: ImageId, disk_id: DiskId, *, size_bytes: int) -> None:
        """Make a disk from an image in constant time, grown to ``size_bytes`` when larger.

        Errors: Refused with code "no-such-image", "image-corrupt" (its size changed) or "pool-full" (past the
        watermark).
        """

    def clone_snapshot(self, snapshot_id: SnapshotId, disk_id: DiskId, *, size_bytes: int) -> None:
        """Make a disk from a snapshot, grown to ``size_bytes`` when larger.

        Errors: Refused with code "no-such-snapshot", "pool-full" or "chain-too-deep" (flatten the snapshot's disk).
        """

    def make_blank(self, disk_id: DiskId, *, size_bytes: int) -> None:
        """Make a disk of zeros. Errors: Refused with code "pool-full"."""

    def snapshot(self, disk_id: DiskId, snapshot_id: SnapshotId) -> None:
        """Keep a disk's content of one moment, also while it is written to: what a power cut would have left.

        Takes time for each piece the disk lies in. Errors: Refused with code "no-such-disk" or "pool-full".
        """

    def roll_back(self, disk_id: DiskId, snapshot_id: SnapshotId) -> None:
        """Give a disk that nobody uses the content and size of a snapshot, all or nothing; both stay.

        Errors: Refused with code "no-such-disk", "no-such-snapshot" or "chain-too-deep".
        """

    def grow(self, disk_id: DiskId, *, size_bytes: int) -> None:
        """Enlarge a disk by zeros at its end. Errors: Refused with code "no-such-disk" or "disk-shrinks"."""

    def flatten(self, disk_id: DiskId, *, seconds: float, call: FlattenCall = FlattenCall.FIRST) -> Flattening:
        """Copy into a disk what it and its snapshots read from others, or share with others; for about ``seconds``.

        Call it again until it is done: what was copied stays so, whatever becomes of the call, and the disk's content
        is what it was, or what a node writes, all the while. Snapshots that only share blocks are left alone.
        Errors: Refused with code "no-such-disk" or "pool-full" (what is left would not fit).
        """

    def delete_disk(self, disk_id: DiskId) -> None:
        """Remove a disk; nothing to do if it is gone. Its snapshots and clones of them stay."""

    def delete_snapshot(self, snapshot_id: SnapshotId) -> None:
        """Remove a snapshot; nothing to do if it is gone. Clones of it stay."""

    def delete_image(self, image_id: ImageId) -> None:
        """Remove an image and its files; nothing to do if it is gone. Clones of it stay."""

    def has_disk(self, disk_id: DiskId) -> bool:
        """Say whether the disk is there."""

    def usage(self, stored_id: ImageId | DiskId | SnapshotId) -> Usage:
        """Measure one thing; takes time for each of its pieces. Errors: Refused with code "no-such-thing"."""

    def taken_bytes(self, groups: Mapping[ProjectId, Collection[UUID]]) -> Mapping[ProjectId, int]:
        """Measure what each group of images, disks and snapshots takes of the pool together; takes time for each piece.

        What they share among them counts once; what they share with images of other groups does not. Things that are
        gone count nothing. A group that cannot be measured now is left out. Errors: the pool's, if none can.
        """

    def handle(self, disk_id: DiskId) -> DiskHandle:
        """Return where the bytes are. Errors: Refused with code "no-such-disk"."""

    def image_handle(self, image_id: ImageId) -> DiskHandle:
        """Return where an image's bytes are, for many nodes to read. Errors: Refused with code "no-such-image"."""

    def list(self) -> StoredThings:
        """Name all that is there."""


class Converter(Protocol):
    """What reads disks of other formats than raw. Uploads are not to be trusted."""

    def convert(
        self,
        source: Path,
        image_format: ImageFormat,
        target: Path,
        *,
        max_bytes: int,
        on_progress: OnProgress = unheard,
    ) -> int:
        """Write the raw content of a file to another (sparse, all or nothing); return its size.

        ``on_progress`` is told at least every second, of bytes of the one file or of the other.
        Errors: Refused with code "image-malformed", "image-not-whole", "image-encrypted", "image-too-large",
        "spool-full" or "no-converter".
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """Everything a target daemon must know to present one disk to one node."""

    network_id: NetworkId  #: its daemon is the portal inside this network
    iqn: str
    lun: int
    serial: str  #: what the node sees as the disk's serial number
    handle: DiskHandle
    chap_username: str
    chap_password: Secret
    initiator_address: str
    daemon: int = 0  #: which of the network's daemons presents it
    redirect: Redirect | None = None  #: another daemon that sends the node there; None: the node asks this one
    size_bytes: int = 0
    is_read_only: bool = False  #: every write is refused: other nodes read the same bytes
    #: a volume presented read only at the LUN after the disk's; b"": none. It stays as it is while the target is there
    seed: bytes = field(default=b"", repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A live login to a target."""

    number: int  #: grows with every login to the daemon
    initiator_iqn: str
    address: str
    alias: str = ""  #: what the initiator calls itself (RFC 7143 §13.7); operating systems do, iPXE does not


class Targets(Protocol):
    """A kind of target daemon; each network has one or several of its own, inside its namespace."""

    def export(self, export: Export) -> None:
        """Present a disk: CHAP, bound to one address, nobody else. Idempotent by IQN.

        Errors: Unreachable with code "portal-down" when the daemon does not run (wait for the gateway).
        """

    def revoke(self, network_id: NetworkId, iqn: str) -> None:
        """Stop new logins, kill every session, prove that none is left, remove the target from each daemon. Idempotent.

        A daemon that does not run holds no session, which is proven by its lock.
        """

    def sessions(self, network_id: NetworkId, iqn: str) -> Sequence[Session]:
        """List live logins, oldest first; empty when the target does not exist."""

    def list(self, network_id: NetworkId, daemons: Collection[int] | None = None) -> frozenset[str]:
        """Name every target (IQN) that a network's daemons present or send on; of ``daemons`` alone, if given."""


class Uplink(Protocol):
    """How the gateway reaches a network's VLAN on the fabric."""

    def plug(self, interface: str, vid: int, namespace: str, fabric: str = "") -> None:
        """Make ``interface`` on VLAN ``vid`` of a fabric and move it into the network namespace.

        Idempotent; heals a wrong VLAN. ``fabric`` "": where fabrics are that have no way of their own.
        """

    def unplug(self, interface: str) -> None:
        """Remove the interface from the fabric; nothing to do if it is gone."""


#: How many calls one device takes at once, by kind of resource; 0: any, and nobody counts.
LIMITS: Mapping[str, int] = {
    "switch": 1,
    "targets": 4,
    "pool": 0,
    "frozen": 0,
    "copy": 1,
    "fetch": 2,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Drivers:
    """All drivers of a worker, by name. Wiring makes it; nothing registers itself."""

    power: Mapping[str, Power]
    switches: Mapping[str, Switches]
    disks: Disks
    targets: Targets
    converter: Converter | None = None
    fetcher: Fetcher | None = None
    facts: tuple[DriverFacts, ...] = ()
    limits: Mapping[str, int] = field(default_factory=lambda: LIMITS)
