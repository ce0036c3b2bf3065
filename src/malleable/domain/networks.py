"""Networks, their VLANs and address plans, and the attachments that put a NIC on one."""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from malleable.domain.errors import Invalid
from malleable.domain.ids import AttachmentId, GrantId, NetworkId, NicId, ProjectId, VlanId

#: IEEE 802.1Q: 0 is "no VLAN", 4095 is reserved (HIL accepted 4095 and 4096: defect D11).
VLAN_MIN, VLAN_MAX = 1, 4094
#: The gateway takes the first host address; reservations begin here, so a plan can grow fixed services.
FIRST_LEASE_OFFSET = 10
#: RFC 4862 §5.5.3: a system makes itself an address in a prefix of this length alone.
SLAAC_PREFIX = 64
#: Global and unique local unicast (RFC 4291 §2.4, RFC 4193): all that a network of nodes can have.
_UNICAST6 = (IPv6Network("2000::/3"), IPv6Network("fc00::/7"))
#: The gateway's in every IPv6 network: what nodes are told as their router is known before it is there.
GATEWAY_LINK_LOCAL = "fe80::1"
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
    vni: int | None = None  #: by which it travels between switches without a trunk; None: it does not


@dataclass(frozen=True, slots=True, kw_only=True)
class Addressing:
    """What nodes of a network are given by DHCP, besides their addresses' subnet."""

    first: str = ""  #: the IPv4 addresses chosen for nodes begin here; "": at the tenth
    last: str = ""  #: and end here; "": with the subnet
    first6: str = ""  #: the same of IPv6
    last6: str = ""
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
    vni: int | None = None  #: by which it travels between the fabric's switches; None: by their trunks
    cidr: str  #: IPv4 plan, "" without; plans of two networks may overlap
    cidr6: str = ""  #: IPv6 plan, a /64; "" without. One of the two is there
    addressing: Addressing = field(default_factory=Addressing)
    mtu: int = MTU_USUAL  #: bytes of an IP packet
    has_nat: bool = False  #: its nodes reach what is outside, by the gateway's host
    has_outside_dns: bool = True  #: and its gateway tells them names from there, where the site says whom to ask
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


def gateway_address(cidr: str) -> str:
    """Return the address the gateway has in a plan: the first host address; "" without a plan."""
    return str(ip_network(cidr).network_address + 1) if cidr else ""


def second_address(cidr: str) -> str:
    """Return the address of a plan that is kept for the network's second portal; "" without one, or of IPv6."""
    net = ip_network(cidr) if cidr else None
    return str(net.network_address + 2) if isinstance(net, IPv4Network) else ""


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


def range_of(addressing: Addressing, cidr: str) -> tuple[str, str]:
    """Return the first and the last address told for a plan; "" where none is."""
    is_six = isinstance(ip_network(cidr), IPv6Network)
    return (addressing.first6, addressing.last6) if is_six else (addressing.first, addressing.last)


def addresses_of(cidr: str, addressing: Addressing, *, skip: int = 0) -> Iterator[str]:
    """Yield the addresses that nodes are given, the lowest first, but for the first ``skip`` ones."""
    net = ip_network(cidr)
    told_first, told_last = range_of(addressing, cidr)
    first = int(ip_address(told_first)) if told_first else _lowest(net)
    last = int(ip_address(told_last)) if told_last else int(net.broadcast_address) - 1
    own = second_address(cidr)
    for number in range(first + skip, last + 1):
        address = str(net.network_address + (number - int(net.network_address)))
        if address != own:
            yield address


def _lowest(net: IPv4Network | IPv6Network) -> int:
    """Return the address from which on nodes are given theirs unless a network says otherwise."""
    return int(net.network_address) + min(FIRST_LEASE_OFFSET, net.num_addresses // 2)


def parse_host_address(raw: str, cidr: str) -> str:
    """Accept an address that a node may have in a network: not the gateway's. Errors: Invalid."""
    net = ip_network(cidr)
    address = ip_address(_address(raw))
    if address.version != net.version or address not in net or address in (net.network_address, net.broadcast_address):
        raise Invalid(f"The address {address} is not a host's in {cidr}.", fix="Choose one inside the subnet.")
    if str(address) == gateway_address(cidr):
        raise Invalid(f"The address {address} is the gateway's.", fix="Choose another one of the subnet.")
    return str(address)


def parse_node_address(raw: str, cidr: str) -> str:
    """Accept an address that is to be a node's: as ``parse_host_address``, and not the second portal's."""
    address = parse_host_address(raw, cidr)
    if address == second_address(cidr):
        raise Invalid(
            f"The address {address} is kept for the network's second portal.", fix="Choose another one of the subnet."
        )
    return address


def parse_addressing(told: Addressing, cidr: str, cidr6: str = "") -> Addressing:
    """Accept what nodes are to be given in a network's plans, or say what cannot be. Errors: Invalid."""
    first, last = _parse_range(told.first, told.last, cidr, "IPv4")
    first6, last6 = _parse_range(told.first6, told.last6, cidr6, "IPv6")
    if len(told.domain) > 200 or not _DOMAIN.fullmatch(told.domain):
        raise Invalid(f"{told.domain[:80]!a} is not a domain.", fix="Write for example lab.example, in lower case.")
    for servers in (told.dns_servers, told.ntp_servers):
        if len(servers) > SERVERS_MAX:
            raise Invalid(f"{len(servers)} servers are too many.", fix=f"Name at most {SERVERS_MAX}.")
    dns, ntp = (tuple(_address(raw) for raw in servers) for servers in (told.dns_servers, told.ntp_servers))
    return replace(told, first=first, last=last, first6=first6, last6=last6, dns_servers=dns, ntp_servers=ntp)


def _parse_range(first: str, last: str, cidr: str, family: str) -> tuple[str, str]:
    if not cidr and (first or last):
        raise Invalid(f"The network has no {family} subnet to choose {first}-{last} from.", fix="Give it one.")
    first, last = (parse_host_address(raw, cidr) if raw else "" for raw in (first, last))
    if first and last and int(ip_address(last)) < int(ip_address(first)):
        raise Invalid(f"The range {first}-{last} ends before it begins.", fix=f"Write {last}-{first}.")
    if last and not first and int(ip_address(last)) < _lowest(ip_network(cidr)):
        begin = ip_network(cidr).network_address + (_lowest(ip_network(cidr)) - int(ip_network(cidr).network_address))
        raise Invalid(
            f"The range ends at {last}, before it begins: without a first address that is {begin}.",
            fix="Name its first address, too.",
        )
    return first, last


def _address(raw: str) -> str:
    """Accept an address of either family, without a zone. Errors: Invalid."""
    try:
        address = ip_address(raw)
    except ValueError as e:
        raise Invalid(f"{raw[:80]!a} is not an IP address.", fix="Write for example 10.0.0.10 or fd00:a::10.") from e
    if "%" in raw:
        raise Invalid(f"{raw[:80]!a} has a zone.", fix="Leave out what begins with %.")
    return str(address)
