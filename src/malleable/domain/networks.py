"""Networks, their VLANs and subnets, and the attachments that put a NIC on one."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network

from malleable.domain.addressing import Addressing, gateway_address, second_address
from malleable.domain.errors import Invalid
from malleable.domain.ids import AttachmentId, GrantId, NetworkId, NicId, ProjectId, VlanId

#: IEEE 802.1Q: 0 is "no VLAN", 4095 is reserved (HIL accepted 4095 and 4096: defect D11).
VLAN_MIN, VLAN_MAX = 1, 4094
#: RFC 4862 §5.5.3: a system makes itself an address in a prefix of this length alone.
SLAAC_PREFIX = 64
#: Global and unique local unicast (RFC 4291 §2.4, RFC 4193): all that a network of nodes can have.
_UNICAST6 = (IPv6Network("2000::/3"), IPv6Network("fc00::/7"))
#: The gateway's in every IPv6 network: what nodes are told as their router is known before it is there.
GATEWAY_LINK_LOCAL = "fe80::1"
#: IPv6 asks for the least; more than the most is beyond what switches of any make forward.
MTU_MIN, MTU_MAX, MTU_USUAL = 1280, 9216, 1500


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


class AddressGuard(StrEnum):
    """Whether nodes use no other addresses in a network than they were given, where their switches can see to it."""

    AUTO = "auto"  #: not until the network is offered to another project
    ON = "on"
    OFF = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vlan:
    """One VLAN id of a switch fabric's pool, taken by at most one network."""

    id: VlanId
    fabric: str
    vid: int
    network_id: NetworkId | None
    reusable_at: datetime  #: a VLAN given back rests until then
    vni: int | None = None  #: by which it travels between switches without a trunk; None: it does not


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One isolated L2 segment with its own boot service."""

    id: NetworkId
    name: str
    project_id: ProjectId | None  #: the owner; None for the provider's own networks, which only admins see
    kind: NetworkKind
    fabric: str
    vid: int  #: its VLAN on the fabric
    vni: int | None = None  #: by which it travels between the fabric's switches; None: by their trunks
    cidr: str  #: IPv4 plan, "" without; plans of two networks may overlap
    cidr6: str = ""  #: IPv6 plan, a /64; "" without. One of the two is there
    addressing: Addressing = field(default_factory=Addressing)
    mtu: int = MTU_USUAL  #: bytes of an IP packet
    has_nat: bool = False  #: its nodes reach what is outside, by the gateway's host
    has_outside_dns: bool = True  #: and its gateway tells them names from there, where the site says whom to ask
    is_public: bool = False  #: every project may attach its nodes
    has_service: bool = True  #: our gateway serves it; else its addresses are somebody else's, and nothing boots there
    address_guard: AddressGuard = AddressGuard.AUTO
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
    address: str  #: the IPv4 address reserved for the NIC in the network; "" in one without IPv4
    address6: str = ""  #: the IPv6 address; "" in one without IPv6
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


def parse_cidr6(raw: str) -> str:
    """Accept an IPv6 plan in normal form: a /64 of global or unique local addresses. Errors: Invalid."""
    try:
        net = ip_network(raw, strict=True)
    except ValueError as e:
        raise Invalid(f"{raw[:80]!a} is not a subnet: {e}.", fix="Write for example fd00:a::/64.") from e
    if not isinstance(net, IPv6Network) or net.prefixlen != SLAAC_PREFIX or "%" in raw:
        raise Invalid(
            f"The subnet {raw} cannot be used.",
            fix="Use an IPv6 subnet of /64: systems make themselves addresses (SLAAC) in no other.",
        )
    if not any(net.subnet_of(unicast) for unicast in _UNICAST6):
        raise Invalid(f"The subnet {raw} is reserved.", fix="Use one of fd00::/8, for example fd00:a::/64.")
    return str(net)


def parse_plans(cidr: str, cidr6: str) -> tuple[str, str]:
    """Accept a network's plans, "" for one it does not have. Errors: Invalid, also without any."""
    if not cidr and not cidr6:
        raise Invalid(
            "A network needs a subnet.", code="no-subnet", fix="Give it an IPv4 subnet, an IPv6 one, or both."
        )
    return cidr and parse_cidr(cidr), cidr6 and parse_cidr6(cidr6)


def gateway_addresses(network: Network) -> frozenset[str]:
    """Return every address in a network that is the gateway's alone."""
    own = {gateway_address(network.cidr), second_address(network.cidr), gateway_address(network.cidr6)} - {""}
    return frozenset(own | ({GATEWAY_LINK_LOCAL} if network.cidr6 else set()))


def gateways_of(networks: Iterable[Network], attachments: Collection[Attachment]) -> frozenset[str]:
    """Return what is the gateway's in any of these networks, so that a NIC with these attachments may not use it.

    A node that had the second portal's address before the network was served keeps it, as far as that network goes.
    """
    on = {attachment.network_id: attachment.address for attachment in attachments}
    found: set[str] = set()
    for network in networks:
        kept = {second_address(network.cidr)} & {on.get(network.id)}
        found |= gateway_addresses(network) - kept if network.has_service else set()
    return frozenset(found)
