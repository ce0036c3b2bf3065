"""Which addresses of a network are whose: the gateway's, those chosen for nodes; and what DHCP tells besides."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import pairwise

from malleable.domain.errors import Invalid

#: The gateway takes the first host address; what is chosen for nodes begins here, so a plan can grow fixed services.
FIRST_LEASE_OFFSET = 10
#: Reserved for private use by ICANN, 2024.
DOMAIN = "internal"
#: What one DHCP answer holds well.
SERVERS_MAX = 4
#: Of each family of a network.
RANGES_MAX = 16
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.ASCII)

_Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Addressing:
    """What nodes of a network are given by DHCP, besides their addresses' subnet."""

    #: "FIRST-LAST", the lowest first and none overlapping: IPv4 addresses chosen for nodes are of these; none: all from
    #: the tenth on
    ranges: tuple[str, ...] = ()
    ranges6: tuple[str, ...] = ()  #: the same of IPv6
    domain: str = DOMAIN  #: the nodes' names end in it
    dns_servers: tuple[str, ...] = ()  #: none: the gateway, which knows the network's nodes and nothing else
    ntp_servers: tuple[str, ...] = ()
    has_router: bool = True  #: whether the gateway is their default router


@lru_cache(maxsize=1024)
def _plan(cidr: str) -> IPv4Network | IPv6Network:
    """Read a plan once: it is asked for seven times a provision, and reading it takes as long as a small query."""
    return ip_network(cidr)


def gateway_address(cidr: str) -> str:
    """Return the address the gateway has in a plan: the first host address; "" without a plan."""
    return str(_plan(cidr).network_address + 1) if cidr else ""


def second_address(cidr: str) -> str:
    """Return the address of a plan that is kept for the network's second portal; "" without one, or of IPv6."""
    net = _plan(cidr) if cidr else None
    return str(net.network_address + 2) if isinstance(net, IPv4Network) else ""


def ranges_of(addressing: Addressing, cidr: str) -> tuple[str, ...]:
    """Return the ranges told for a plan; none where none is."""
    return addressing.ranges6 if isinstance(_plan(cidr), IPv6Network) else addressing.ranges


def addresses_of(cidr: str, addressing: Addressing, *, skip: int = 0) -> Iterator[str]:
    """Yield the addresses that nodes are given, the lowest first, but for the first ``skip`` ones."""
    net = _plan(cidr)
    told = [_ends(span) for span in ranges_of(addressing, cidr)] or [(_lowest(net), net.broadcast_address - 1)]
    own = second_address(cidr)
    for first, last in told:
        count = int(last) - int(first) + 1
        for number in range(min(skip, count), count):
            address = str(first + number)
            if address != own:
                yield address
        skip = max(0, skip - count)


def _ends(span: str) -> tuple[_Address, _Address]:
    first, _, last = span.partition("-")
    return ip_address(first), ip_address(last)


def _lowest(net: IPv4Network | IPv6Network) -> _Address:
    """Return the address from which on nodes are given theirs unless a network says otherwise."""
    return net.network_address + min(FIRST_LEASE_OFFSET, net.num_addresses // 2)


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
    ranges = _parse_ranges(told.ranges, cidr, "IPv4")
    ranges6 = _parse_ranges(told.ranges6, cidr6, "IPv6")
    if len(told.domain) > 200 or not _DOMAIN.fullmatch(told.domain):
        raise Invalid(f"{told.domain[:80]!a} is not a domain.", fix="Write for example lab.example, in lower case.")
    for servers in (told.dns_servers, told.ntp_servers):
        if len(servers) > SERVERS_MAX:
            raise Invalid(f"{len(servers)} servers are too many.", fix=f"Name at most {SERVERS_MAX}.")
    dns, ntp = (tuple(_address(raw) for raw in servers) for servers in (told.dns_servers, told.ntp_servers))
    return replace(told, ranges=ranges, ranges6=ranges6, dns_servers=dns, ntp_servers=ntp)


def _parse_ranges(told: tuple[str, ...], cidr: str, family: str) -> tuple[str, ...]:
    if told and not cidr:
        raise Invalid(f"The network has no {family} subnet to choose {told[0][:80]} from.", fix="Give it one.")
    if len(told) > RANGES_MAX:
        raise Invalid(f"{len(told)} ranges are too many.", fix=f"Name at most {RANGES_MAX}.")
    ranges = sorted((_parse_range(raw, cidr) for raw in told), key=lambda span: int(_ends(span)[0]))
    for one, other in pairwise(ranges):
        if int(_ends(other)[0]) <= int(_ends(one)[1]):
            raise Invalid(f"The ranges {one} and {other} overlap.", fix="Make them one, or name each address once.")
    return tuple(ranges)


def _parse_range(raw: str, cidr: str) -> str:
    """Accept "FIRST-LAST", or one address for just that."""
    first, dash, last = raw.partition("-")
    if dash and not (first and last):
        raise Invalid(f"The range {raw[:80]!a} has one end.", fix="Name its first and its last address: FIRST-LAST.")
    if any(ip_address(_address(end)) not in ip_network(cidr) for end in (first, last or first)):
        # Often one that the network had before its subnet was changed: whoever asks named no address at all.
        fix = "Name ranges inside it (`--addresses`, `--addresses6`), or none."
        raise Invalid(f"The range {raw[:80]} is not in the subnet {cidr}.", fix=fix)
    first = parse_host_address(first, cidr)
    last = parse_host_address(last, cidr) if dash else first
    if int(ip_address(last)) < int(ip_address(first)):
        raise Invalid(f"The range {first}-{last} ends before it begins.", fix=f"Write {last}-{first}.")
    return f"{first}-{last}"


def _address(raw: str) -> str:
    """Accept an address of either family, without a zone. Errors: Invalid."""
    try:
        address = ip_address(raw)
    except ValueError as e:
        raise Invalid(f"{raw[:80]!a} is not an IP address.", fix="Write for example 10.0.0.10 or fd00:a::10.") from e
    if "%" in raw:
        raise Invalid(f"{raw[:80]!a} has a zone.", fix="Leave out what begins with %.")
    return str(address)
