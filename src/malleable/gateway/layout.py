"""Names and paths of everything a gateway makes for a network: derived here and nowhere else."""

import base64
import hashlib
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path
from uuid import UUID

from malleable.domain.errors import Invalid
from malleable.domain.ids import NetworkId, parse_id
from malleable.domain.portals import DAEMONS_MAX, daemon_name
from malleable.gateway import process
from malleable.gateway.process import ProcessId

#: iproute2 keeps named namespaces here.
NAMESPACES = Path("/run/netns")
#: Where EC2's clients ask; nodes reach it by their default route.
EC2_ADDRESS = "169.254.169.254/32"
#: What the host's end of a network's way outside begins with.
OUTSIDE_PREFIX = "o2-"
SOCKET_PATH_LIMIT = 107  #: bytes of sun_path without its final zero, unix(7)


def short_name(network_id: NetworkId) -> str:
    """Name a network's namespace and interface: 15 characters, all that an interface name may have (IFNAMSIZ).

    Hashed, because the first characters of a UUIDv7 are its time: networks made together would share them.
    60 bits: two of a million networks collide once in two million sites.
    """
    digest = base64.b32encode(hashlib.sha256(network_id.bytes).digest()).decode().lower()
    return f"m2-{digest[:12]}"


def portal_socket(run_dir: Path, network_id: NetworkId) -> Path:
    """Return the control socket of a network's first tgtd; its lock is the same name with ``.lock`` behind it."""
    return NetworkLayout(run_dir=run_dir, network_id=network_id).portal_socket(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkLayout:
    """One network's names and files."""

    run_dir: Path  #: the gateway's, not yet the network's
    network_id: NetworkId

    def __post_init__(self) -> None:
        excess = len(bytes(self.portal_socket(DAEMONS_MAX))) + len(".lock") - SOCKET_PATH_LIMIT
        if excess > 0:
            raise Invalid(
                f"The run directory {self.run_dir} is too long for the names of sockets in it.",
                fix=f"Set M2D_RUN_DIR to one that is at least {excess} bytes shorter.",
            )

    @property
    def namespace(self) -> str:
        return short_name(self.network_id)

    @property
    def interface(self) -> str:
        return short_name(self.network_id)

    @property
    def storage_interface(self) -> str:
        """Name the interface on the provider's storage VLAN, where there is one."""
        return f"s2-{short_name(self.network_id).removeprefix('m2-')}"

    @property
    def second_interface(self) -> str:
        """Name the interface of the second portal, where there is one."""
        return f"p2-{short_name(self.network_id).removeprefix('m2-')}"

    @property
    def outside_interface(self) -> str:
        """Name the host's end of the way outside, where there is one."""
        return f"{OUTSIDE_PREFIX}{short_name(self.network_id).removeprefix('m2-')}"

    @property
    def ula(self) -> IPv6Address:
        """The gateway's address in a unique local /64 of the network (RFC 4193), for router advertisements alone."""
        global_id = hashlib.sha256(b"ula" + self.network_id.bytes).digest()[:5]
        return IPv6Address(b"\xfd" + global_id + b"\0\0" + b"\0" * 7 + b"\1")

    @property
    def directory(self) -> Path:
        return self.run_dir / "networks" / str(self.network_id)

    @property
    def dnsmasq_conf(self) -> Path:
        return self.directory / "dnsmasq.conf"

    @property
    def dnsmasq_hosts(self) -> Path:
        return self.directory / "dnsmasq.hosts"

    @property
    def dnsmasq_names(self) -> Path:
        return self.directory / "dnsmasq.names"

    @property
    def portal_base(self) -> Path:
        """What every tgtd is told; each appends its number."""
        return self.directory / "tgt"

    def portal_socket(self, daemon: int) -> Path:
        """Name the control socket that a tgtd makes."""
        return self.portal_base.with_suffix(f".{daemon}")

    def running_portals(self) -> dict[int, ProcessId]:
        """Find the target daemons that run, by whichever gateway they were started."""
        written = {path.stem for path in self.directory.glob(f"{daemon_name(0)}*.pid")}
        numbers = [number for number in range(DAEMONS_MAX) if daemon_name(number) in written]
        found = {number: process.recorded(self.pid_file(daemon_name(number))) for number in numbers}
        return {number: running for number, running in found.items() if running is not None}

    def pid_file(self, daemon: str) -> Path:
        return self.directory / f"{daemon}.pid"

    def log_file(self, daemon: str) -> Path:
        return self.directory / f"{daemon}.log"


def check_length(run_dir: Path) -> None:
    """Be sure that a gateway's run directory has room for any network's sockets. Errors: Invalid."""
    NetworkLayout(run_dir=run_dir, network_id=NetworkId(UUID(int=0)))


def firmware_root(run_dir: Path) -> Path:
    """Return the directory that TFTP serves."""
    return run_dir / "firmware"


def passable(directory: Path) -> None:
    """Make a directory that dnsmasq, which is not root, can pass; whatever our umask is."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o755)


def known_networks(run_dir: Path) -> list[NetworkLayout]:
    """Find the networks of which this gateway, or one before it, made anything."""
    found = []
    root = run_dir / "networks"
    for directory in sorted(root.iterdir()) if root.is_dir() else []:
        network_id = parse_id(directory.name)
        if network_id is not None:
            found.append(NetworkLayout(run_dir=run_dir, network_id=NetworkId(network_id)))
    return found
