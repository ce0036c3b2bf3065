"""The rules of the way outside: what a network's namespace and its host let through, and whose names are told.

Source: nft(8), dnsmasq(8), and packets sent by tests/system/gateway on Linux 6.18 with nftables 1.0.6 and dnsmasq 2.90.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, collapse_addresses
from pathlib import Path

from malleable.gateway.layout import OUTSIDE_PREFIX

Subnet = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address
#: The pairs' addresses, two for each VLAN of ``WAYS_MAX`` ways to fabrics: link-local ones, which no network of nodes
#: can have, apart from the address of metadata; and of IPv6 unique local ones, which networks are refused.
PAIRS = IPv4Network("169.254.0.0/17")
PAIRS6 = IPv6Network("fd4e:7a31:9c05:6d32::/112")
#: The device's name within every namespace; at the host's end it has the network's.
DEVICE = "outside"
_REFUSE = "reject with icmpx admin-prohibited"  #: so that a node is told, and does not wait
#: What is nobody's on the internet (RFC 6890): other networks, BMCs, the site's own machines, cloud metadata.
NOT_PUBLIC = tuple(
    IPv4Network(one) for one in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4",
    )
)  # fmt: skip
#: All but global unicast (RFC 4291 §2.4), and of that what carries IPv4 addresses within: Teredo, 6to4.
NOT_PUBLIC6 = tuple(IPv6Network(one) for one in ("::/3", "4000::/2", "8000::/1", "2001::/32", "2002::/16"))
#: Connections of one network at once, so that none fills the host's table: Linux keeps 262,144 on 4 GiB and more.
CONNECTIONS_MAX = 16384
#: All networks together have this part of the host's table: the rest is for the host's own connections.
_SHARE = 0.5
_TABLE_SIZE = Path("/proc/sys/net/netfilter/nf_conntrack_max")
_TABLE_SIZE_USUAL = 65536  #: of Linux on 1 to 4 GiB; where the module that would say is not loaded yet
_NEIGHBOURS = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """Where networks with NAT lead, and how far."""

    netns: str = ""  #: the network namespace whose routing leads outside; "": this one
    allow: tuple[Subnet, ...] = ()  #: reached though they are not public
    deny: tuple[Subnet, ...] = ()  #: never reached, whatever else is said
    dns: tuple[Address, ...] = ()  #: who knows the names of the outside; asked by the gateway, never by nodes
    has_ipv6: bool = False  #: IPv6 is led outside, too


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """What of one network leads outside."""

    slot: int  #: the network's VLAN, numbered among those of all fabrics
    cidr: str  #: "": no IPv4
    cidr6: str  #: "": no IPv6
    forwarders: tuple[Address, ...] = ()  #: the gateway asks them for names

    @property
    def pair(self) -> tuple[IPv4Address, IPv4Address]:
        """The addresses of the host's end and of the namespace's."""
        return PAIRS[2 * self.slot], PAIRS[2 * self.slot + 1]

    @property
    def pair6(self) -> tuple[IPv6Address, IPv6Address]:
        """The same of IPv6."""
        return PAIRS6[2 * self.slot], PAIRS6[2 * self.slot + 1]


def hidden(outside: Outside) -> list[Subnet]:
    """List where no node gets to: a name from outside that leads there is none (DNS rebinding)."""
    left: list[Subnet] = [*NOT_PUBLIC, *NOT_PUBLIC6]
    for allowed in outside.allow:
        left = [piece for subnet in left for piece in _without(subnet, allowed)]
    left += [*outside.deny, PAIRS, PAIRS6]
    four = collapse_addresses(subnet for subnet in left if isinstance(subnet, IPv4Network))
    six = collapse_addresses(subnet for subnet in left if isinstance(subnet, IPv6Network))
    return [*four, *six]


def _without(subnet: Subnet, taken: Subnet) -> Iterable[Subnet]:
    if isinstance(subnet, IPv4Network) and isinstance(taken, IPv4Network):
        return [] if subnet.subnet_of(taken) else subnet.address_exclude(taken) if taken.subnet_of(subnet) else [subnet]
    if isinstance(subnet, IPv6Network) and isinstance(taken, IPv6Network):
        return [] if subnet.subnet_of(taken) else subnet.address_exclude(taken) if taken.subnet_of(subnet) else [subnet]
    return [subnet]


def network_rules(outside: Outside, way: Way, inner: str) -> str:
    """Write the rules of a network's namespace, whose nodes are behind the interface ``inner``."""
    out, back = f'iifname "{inner}" oifname "{DEVICE}"', f'iifname "{DEVICE}" oifname "{inner}"'
    sources = [f"{_family(cidr)} saddr {cidr}" for cidr in (way.cidr, way.cidr6) if cidr]
    asked = [(_family(address), address, by) for address in way.forwarders for by in ("udp", "tcp")]
    # IPv6 has no reverse path filter of the kernel's: a source is believed only where an answer to it would go.
    posing = [f'iifname "{inner}" ip6 saddr != {{ {way.cidr6}, fe80::/10, :: }} drop'] if way.cidr6 else []
    return f"""\
  chain leaving {{
{_each(_REFUSE, outside.deny)}    ip daddr {PAIRS} {_REFUSE}
    ip6 daddr {PAIRS6} {_REFUSE}
{_each("accept", outside.allow)}    ip daddr {{ {_listed(NOT_PUBLIC)} }} {_REFUSE}
    ip6 daddr {{ {_listed(NOT_PUBLIC6)} }} {_REFUSE}
    accept
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop
    {back} ct state established,related accept
{_lines(f"{out} {source} ct state established,related accept" for source in sources)}\
    ct state new ct count over {CONNECTIONS_MAX} drop
{_lines(f"{out} {source} jump leaving" for source in sources)}\
  }}
  chain input {{
    type filter hook input priority filter; policy accept
{_lines(posing)}\
{_lines(f'iifname "{DEVICE}" {ip} saddr {one} {by} sport 53 ct state established accept' for ip, one, by in asked)}\
    iifname "{DEVICE}" {_NEIGHBOURS}
    iifname "{DEVICE}" drop
  }}
  chain output {{
    type filter hook output priority filter; policy accept
{_lines(f'oifname "{DEVICE}" {ip} daddr {one} {by} dport 53 accept' for ip, one, by in asked)}\
    oifname "{DEVICE}" {_NEIGHBOURS}
    oifname "{DEVICE}" drop
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat
    oifname "{DEVICE}" masquerade
  }}
"""


def connections_max() -> int:
    """Say how many connections all networks together may have through this host."""
    size = int(_TABLE_SIZE.read_text()) if _TABLE_SIZE.exists() else _TABLE_SIZE_USUAL
    return int(size * _SHARE)


def host_rules() -> str:
    """Write the rules of the host, which keep networks apart and from the host itself."""
    ours = f'iifname "{OUTSIDE_PREFIX}*"'
    return f"""\
  set networks {{
    type ipv4_addr
    size {PAIRS.num_addresses}
    flags dynamic
  }}
  set networks6 {{
    type ipv6_addr
    size {PAIRS.num_addresses}
    flags dynamic
  }}
  chain input {{
    type filter hook input priority filter - 10; policy accept
    {ours} {_NEIGHBOURS}
    {ours} drop
  }}
  chain forward {{
    type filter hook forward priority filter - 10; policy accept
    {ours} oifname "{OUTSIDE_PREFIX}*" drop
    {ours} ip saddr != {PAIRS} drop
    {ours} ip6 saddr != {PAIRS6} drop
    oifname "{OUTSIDE_PREFIX}*" ct state != {{ established, related }} drop
    {ours} ct state new add @networks {{ ip saddr ct count over {CONNECTIONS_MAX} }} drop
    {ours} ct state new add @networks6 {{ ip6 saddr ct count over {CONNECTIONS_MAX} }} drop
    {ours} ct state new ct count over {connections_max()} drop
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat
    ip saddr {PAIRS} masquerade
    ip6 saddr {PAIRS6} masquerade
  }}
"""


def _each(verdict: str, networks: Sequence[Subnet]) -> str:
    """Write one rule for each: sets refuse those that overlap."""
    return _lines(f"{_family(network)} daddr {network} {verdict}" for network in networks)


def _family(network: Subnet | Address | str) -> str:
    return "ip6" if ":" in str(network) else "ip"


def _listed(networks: Iterable[Subnet]) -> str:
    return ", ".join(map(str, networks))


def _lines(rules: Iterable[str]) -> str:
    return "".join(f"    {rule}\n" for rule in rules)
