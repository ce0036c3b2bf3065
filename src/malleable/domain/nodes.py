"""Nodes, their NICs and their life cycle."""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from ipaddress import ip_address
from urllib.parse import urlsplit

from malleable.domain.errors import Invalid
from malleable.domain.ids import NicId, NodeId, ProjectId, SwitchPortId
from malleable.domain.scrubs import AS_THE_SITE, Scrub, ScrubPolicy
from malleable.domain.secrets import Secret


class NodeState(StrEnum):
    """Where a node is in its life: enrolled → inspected → free → allocated → releasing → free."""

    ENROLLED = "enrolled"  #: known by its BMC only; not inspected yet
    INSPECTED = "inspected"  #: read over its BMC; not yet free because a NIC has no switch port
    FREE = "free"  #: off, every port shut and read back, nobody's
    ALLOCATED = "allocated"  #: held by one project
    RELEASING = "releasing"  #: on its way back; still occupied: nothing else can get it
    MAINTENANCE = "maintenance"  #: held by the operator
    QUARANTINED = "quarantined"  #: something about it could not be proven; an operator must look


class PowerState(StrEnum):
    """What a BMC says about the power; an unknown answer is a value, never an exception."""

    ON = "on"
    OFF = "off"
    UNKNOWN = "unknown"


class Firmware(StrEnum):
    """How the node's firmware boots."""

    BIOS = "bios"
    UEFI = "uefi"


class BootState(StrEnum):
    """How far a node's operating system has come; only proof, never a timer, makes it UP."""

    NONE = "none"
    BOOTING = "booting"
    UP = "up"
    FAILED = "failed"


class BootDevice(StrEnum):
    """What a machine starts from. Nothing that would let its holder change its firmware's settings is among them."""

    NETWORK = "network"  #: what its boot intent says, served by the gateway
    DISK = "disk"  #: a disk of its own, with whatever is on it


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One physical machine."""

    id: NodeId
    name: str
    state: NodeState
    state_reason: str  #: plain words; "" when the state explains itself
    state_since: datetime
    project_id: ProjectId | None  #: the holder; set exactly in states allocated and releasing
    boot: BootState = BootState.NONE
    #: What the next start that is asked for is from, and that one alone; it is kept here, and the BMC told then.
    boot_device: BootDevice = BootDevice.NETWORK
    power: PowerState = PowerState.UNKNOWN  #: as last observed
    power_seen_at: datetime | None = None
    power_driver: str  #: key of a power driver, e.g. "redfish"
    bmc_address: str  #: URL of the BMC
    bmc_username: str
    bmc_password: Secret
    #: What is being made the BMC's password, kept before the BMC is asked: until that is settled either may be the one.
    bmc_password_next: Secret | None = None
    bmc_system: (
        str  #: the driver's handle of this machine inside its BMC (Redfish: the system's path); "" until inspected
    )
    firmware: Firmware | None = None
    system_uuid: str = ""  #: SMBIOS UUID
    vendor: str = ""
    model: str = ""
    serial: str = ""
    cpu_count: int | None = None
    memory_mib: int | None = None
    scrub_policy: ScrubPolicy = AS_THE_SITE
    can_scrub: tuple[Scrub, ...] = ()  #: what its BMC could do when it was inspected last
    drives: tuple[str, ...] = ()  #: the driver's handles of all local disks that were seen: none may hide from a scrub
    is_rotated: bool = False  #: its BMC's password is one that we made: nobody else was ever told it
    is_unscrubbed: bool = False  #: taken from its holder without a release: it is scrubbed before it is free again
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    """One network interface of a node, wired to at most one switch port."""

    id: NicId
    node_id: NodeId
    name: str  #: unique per node, e.g. "nic0"
    mac: str  #: lower case, colons; unique in the site
    switch_port_id: SwitchPortId | None  #: unique: a port serves one NIC
    bond: str = ""  #: two NICs of a node with one name are one by LACP, attached as the first of them; "": it is alone


def dns_name(name: str) -> str:
    """Write a node's name as one that DNS and a system can have; no two nodes of a site come out alike."""
    return name.replace(".", "-").replace("_", "-")


_BOND = re.compile(r"[a-z][a-z0-9]{0,11}", re.ASCII)  #: an interface's name in Linux, with room for a VLAN's number


def parse_bond(raw: str) -> str:
    """Accept a bond's name, which its system's interface has, too. Errors: Invalid."""
    if not _BOND.fullmatch(raw):
        raise Invalid(f"{raw[:80]!a} is no name of a bond.", fix="Use up to 12 small letters and digits, as bond0.")
    return raw


_MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", re.ASCII)


def parse_mac(raw: str) -> str:
    """Normalise a unicast Ethernet address to lower case with colons. Errors: Invalid."""
    mac = raw.strip().lower().replace("-", ":")
    if not _MAC.fullmatch(mac) or int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
        raise Invalid(f"{raw!a} is not the MAC address of a NIC.", fix="Write six hex pairs, e.g. 52:54:00:12:34:56.")
    return mac


_WEB_PORTS = {"http": 80, "https": 443}


def plain_address(raw: str) -> str:
    """Write a BMC's web address in the one way that is compared; leave alone what is none."""
    scheme, place = _web_address(raw)
    return f"{scheme}://{place}" if scheme else raw


def addresses_of_bmc(address: str) -> tuple[str, ...]:
    """Name the addresses at which the same BMC answers: by http and by https, where no port is named."""
    scheme, place = _web_address(address)
    is_bare = scheme and urlsplit(f"//{place}").port is None
    return tuple(f"{each}://{place}" for each in _WEB_PORTS) if is_bare else (plain_address(address),)


def _web_address(raw: str) -> tuple[str, str]:
    """Read scheme, and host with the port if it is not the scheme's own; "" twice for what is no web address."""
    try:
        url = urlsplit(raw)
        host, port = (url.hostname or "").rstrip("."), url.port
        if ":" in host:
            host = f"[{ip_address(host).compressed}]"
    except ValueError:
        return "", ""
    if url.scheme not in _WEB_PORTS or not host or url.path not in ("", "/") or url.query or url.fragment:
        return "", ""
    return url.scheme, host if port in (None, _WEB_PORTS[url.scheme]) else f"{host}:{port}"


#: What the life cycle allows; everything else is a programming error or a stale request.
TRANSITIONS: dict[NodeState, frozenset[NodeState]] = {
    NodeState.ENROLLED: frozenset({NodeState.INSPECTED, NodeState.FREE, NodeState.MAINTENANCE, NodeState.QUARANTINED}),
    NodeState.INSPECTED: frozenset({NodeState.FREE, NodeState.MAINTENANCE, NodeState.QUARANTINED}),
    NodeState.FREE: frozenset({NodeState.ALLOCATED, NodeState.MAINTENANCE, NodeState.QUARANTINED}),
    NodeState.ALLOCATED: frozenset({NodeState.RELEASING, NodeState.QUARANTINED}),
    NodeState.RELEASING: frozenset({NodeState.FREE, NodeState.QUARANTINED}),
    NodeState.MAINTENANCE: frozenset({NodeState.INSPECTED, NodeState.FREE, NodeState.QUARANTINED}),
    NodeState.QUARANTINED: frozenset({NodeState.RELEASING, NodeState.MAINTENANCE}),
}
