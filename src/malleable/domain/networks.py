"""Networks, their VLANs and address plans, and the attachments that put a NIC on one."""

import re
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, ip_network

from malleable.domain.errors import Invalid
from malleable.domain.ids import AttachmentId, GrantId, NetworkId, NicId, ProjectId, VlanId

#: IEEE 802.1Q: 0 is "no VLAN", 4095 is reserved (HIL accepted 4095 and 4096: defect D11).
VLAN_MIN, VLAN_MAX = 1, 4094
#: The gateway takes the first host address; reservations begin here, so a plan can grow fixed services.
FIRST_LEASE_OFFSET = 10
#: IPv6 asks for the least; more than the most is beyond what switches of any make forward.
MTU_MIN, MTU_MAX, MTU_USUAL = 1280, 9216, 1500


#: Reserved for private use by ICANN, 2024.
DOMAIN = "internal"
#: What one DHCP answer holds well.
SERVERS_MAX = 4
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.ASCII)


class NetworkState(StrEnum):
    """Whether a network is to be served."""

    ACTIVE = "active"
    REMOVING = "removing"  #: until the gateway says that nothing of it is left


class NetworkKind(StrEnum):
    """What a network is for."""

    TENANT = "tenant"
    AIRLOCK = "airlock"
    QUARANTINE = "quarantine"
    PROVIDER = "provider"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vlan:
    """One VLAN id of a switch fabric's pool, taken by at most one network."""

    id: VlanId
    fabric: str
    vid: int
    network_id: NetworkId | None
    reusable_at: datetime  #: a VLAN given back rests until then


@dataclass(frozen=True, slots=True, kw_only=True)
class Addressing:
    """What nodes of a network are given by DHCP, besides their addresses' subnet."""

    first: str = ""  #: the addresses chosen for nodes begin here; "": at the tenth
    last: str = ""  #: and end here; "": with the subnet
    domain: str = DOMAIN  #: the nodes' names end in it
    dns_servers: tuple[str, ...] = ()  #: none: the gateway, which knows the network's nodes and nothing else
    ntp_servers: tuple[str, ...] = ()
    has_router: bool = True  #: whether the gateway is their default router


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One isolated L2 segment with its own boot service."""

    id: NetworkId
    name: str
    project_id: ProjectId | None  #: the owner; None for the provider's own networks, which only admins see
    kind: NetworkKind
    fabric: str
    vid: int  #: its VLAN on the fabric
    cidr: str  #: IPv4 plan; plans of two networks may overlap
    addressing: Addressing = field(default_factory=Addressing)
    mtu: int = MTU_USUAL  #: bytes of an IP packet
    is_public: bool = False  #: every project may attach its nodes
    has_service: bool = True  #: our gateway serves it; else its addresses are somebody else's, and nothing boots there
    state: NetworkState = NetworkState.ACTIVE
    generation: int = 0  #: site-wide, grows with every change the gateway must see
    served_generation: int = 0  #: what the gateway last reported as in force
    portal_epoch: str = ""  #: names one life of the target daemon; a new one holds no targets yet
    created_at: datetime


class GrantState(StrEnum):
    """How far two projects have come with sharing a network."""

    OFFERED = "offered"
    ACCEPTED = "accepted"
    REVOKING = "revoking"  #: nobody joins by it any more; until the last of its attachments is gone


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A network's owner lets another project attach its nodes, once that has accepted."""

    id: GrantId
    network_id: NetworkId
    project_id: ProjectId  #: who is let in
    state: GrantState = GrantState.OFFERED
    created_at: datetime


class Channel(StrEnum):
    """How a network's frames travel on a NIC."""

    NATIVE = "native"
    TAGGED = "tagged"


class AttachmentState(StrEnum):
    """Whether the switch port carries the network, as proven by reading it back."""

    ATTACHING = "attaching"
    ATTACHED = "attached"
    DETACHING = "detaching"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A NIC on a network through one channel."""

    id: AttachmentId
    nic_id: NicId
    network_id: NetworkId
    channel: Channel
    state: AttachmentState
    address: str  #: the IPv4 address reserved for the NIC in the network
    created_at: datetime


def parse_vid(raw: int) -> int:
    """Accept a VLAN id from 1 to 4094. Errors: Invalid."""
    if not VLAN_MIN <= raw <= VLAN_MAX:
        raise Invalid(f"VLAN {raw} cannot be used.", fix=f"Use a VLAN id from {VLAN_MIN} to {VLAN_MAX}.")
    return raw


def parse_mtu(raw: int) -> int:
    """Accept an MTU from 1280 to 9216. Errors: Invalid."""
    if not MTU_MIN <= raw <= MTU_MAX:
        raise Invalid(f"An MTU of {raw} cannot be used.", fix=f"Use {MTU_MIN} to {MTU_MAX}; {MTU_USUAL} is usual.")
    return raw


def parse_cidr(raw: str) -> str:
    """Accept an IPv4 plan between /16 and /28 in normal form. Errors: Invalid."""
    try:
        net = ip_network(raw, strict=True)
    except ValueError as e:
        raise Invalid(f"{raw!a} is not a subnet: {e}.", fix="Write for example 10.0.0.0/24.") from e
    if not isinstance(net, IPv4Network) or not 16 <= net.prefixlen <= 28:
        raise Invalid(f"The subnet {raw} cannot be used.", fix="Use an IPv4 subnet between /16 and /28.")
    if net.is_loopback or net.is_link_local or net.is_multicast or net.is_reserved or net.is_unspecified:
        raise Invalid(f"The subnet {raw} is reserved.", fix="Use a private subnet, for example 10.0.0.0/24.")
    return str(net)


def gateway_address(cidr: str) -> str:
    """Return the address the gateway has in a network: the first host address."""
    return str(IPv4Network(cidr).network_address + 1)


def first_free_address(cidr: str, addressing: Addressing, taken: frozenset[str]) -> str | None:
    """Return the lowest address of the range that is not in ``taken``; None when all are."""
    net = IPv4Network(cidr)
    lowest = int(net.network_address) + min(FIRST_LEASE_OFFSET, net.num_addresses // 2)
    first = int(IPv4Address(addressing.first)) if addressing.first else lowest
    last = int(IPv4Address(addressing.last)) if addressing.last else int(net.broadcast_address) - 1
    for number in range(first, last + 1):
        address = str(IPv4Address(number))
        if address not in taken:
            return address
    return None


def parse_host_address(raw: str, cidr: str) -> str:
    """Accept an address that a node may have in a network: not the gateway's. Errors: Invalid."""
    net = IPv4Network(cidr)
    address = _ipv4(raw)
    if address not in net or address in (net.network_address, net.broadcast_address):
        raise Invalid(f"The address {address} is not a host's in {cidr}.", fix="Choose one inside the subnet.")
    if str(address) == gateway_address(cidr):
        raise Invalid(f"The address {address} is the gateway's.", fix="Choose another one of the subnet.")
    return str(address)


def parse_addressing(told: Addressing, cidr: str) -> Addressing:
    """Accept what nodes are to be given in a subnet, or say what cannot be. Errors: Invalid."""
    first, last = (parse_host_address(raw, cidr) if raw else "" for raw in (told.first, told.last))
    if first and last and IPv4Address(last) < IPv4Address(first):
        raise Invalid(f"The range {first}-{last} ends before it begins.", fix=f"Write {last}-{first}.")
    if len(told.domain) > 200 or not _DOMAIN.fullmatch(told.domain):
        raise Invalid(f"{told.domain[:80]!a} is not a domain.", fix="Write for example lab.example, in lower case.")
    for servers in (told.dns_servers, told.ntp_servers):
        if len(servers) > SERVERS_MAX:
            raise Invalid(f"{len(servers)} servers are too many.", fix=f"Name at most {SERVERS_MAX}.")
    dns, ntp = (tuple(str(_ipv4(raw)) for raw in servers) for servers in (told.dns_servers, told.ntp_servers))
    return replace(told, first=first, last=last, dns_servers=dns, ntp_servers=ntp)


def _ipv4(raw: str) -> IPv4Address:
    try:
        return IPv4Address(raw)
    except ValueError as e:
        raise Invalid(f"{raw[:80]!a} is not an IPv4 address.", fix="Write for example 10.0.0.10.") from e
