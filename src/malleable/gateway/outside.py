"""A network's way outside: a pair of devices from its namespace to the host's routing, with NAT at both ends.

In the namespace stand the rules of what its nodes may reach; at the host's end, that nothing of ours reaches the host
itself or another network. The rules are there before the first packet: a way outside without them is none.
Source: nft(8), and packets sent by tests/system/gateway/test_outside.py on Linux 6.18 with nftables 1.0.6.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from malleable.domain.errors import Unavailable
from malleable.gateway import command, namespace, nftables
from malleable.gateway.layout import NAMESPACES, OUTSIDE_PREFIX, NetworkLayout

#: The pairs' addresses, two for each VLAN id: link-local, which no network of nodes can have, and far from the
#: address of metadata.
PAIRS = IPv4Network("169.254.192.0/19")
#: The device's name within every namespace; at the host's end it has the network's.
DEVICE = "outside"
_REFUSE = "reject with icmpx admin-prohibited"  #: so that a node is told, and does not wait
#: What is nobody's on the internet (RFC 6890): other networks, BMCs, the site's own machines, cloud metadata.
NOT_PUBLIC = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4",
)  # fmt: skip
#: Connections of one network at once, so that none fills the host's table: Linux keeps 262,144 on 4 GiB and more.
CONNECTIONS_MAX = 16384
#: All networks together have this part of the host's table: the rest is for the host's own connections.
_SHARE = 0.5
_TABLE_SIZE = Path("/proc/sys/net/netfilter/nf_conntrack_max")
_TABLE_SIZE_USUAL = 65536  #: of Linux on 1 to 4 GiB; where the module that would say is not loaded yet


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """Where networks with NAT lead, and how far."""

    netns: str = ""  #: the network namespace whose routing leads outside; "": this one
    allow: tuple[IPv4Network, ...] = ()  #: reached though they are not public
    deny: tuple[IPv4Network, ...] = ()  #: never reached, whatever else is said


def pair(vid: int) -> tuple[IPv4Address, IPv4Address]:
    """Return the addresses of the host's end and of the namespace's, of the network on VLAN ``vid``."""
    return PAIRS[2 * vid], PAIRS[2 * vid + 1]


def ensure(outside: Outside, layout: NetworkLayout, vid: int, cidr: str) -> None:
    """Open a network's way outside, or bring it in line; idempotent. Errors: Unavailable; the way is shut then."""
    try:
        require(outside)
        nftables.apply(_inside(outside.netns), _host_rules())
        nftables.apply(namespace.inside(layout.namespace), _network_rules(outside, layout, cidr))
        _connect(outside, layout, vid)
        namespace.forward(layout.namespace, is_wanted=True)
    except Unavailable:
        remove(layout)
        raise


def settle(layout: NetworkLayout) -> None:
    """Have a namespace without a way outside forward nothing: a new one does what the host does, and has no rules."""
    if not namespace.has_interface(layout.namespace, DEVICE):
        namespace.forward(layout.namespace, is_wanted=False)


def remove(layout: NetworkLayout) -> None:
    """Shut a network's way outside; nothing to do if there is none."""
    if namespace.exists(layout.namespace):
        namespace.forward(layout.namespace, is_wanted=False)
        if namespace.has_interface(layout.namespace, DEVICE):
            namespace.remove_interface(layout.namespace, DEVICE)  # its other end goes with it
            nftables.drop(namespace.inside(layout.namespace))


def forget(outside: Outside) -> None:
    """Take our rules from the host; for when no network is left. Errors: Unavailable."""
    if command.find("nft") is not None and (not outside.netns or (NAMESPACES / outside.netns).exists()):
        nftables.drop(_inside(outside.netns))


def require(outside: Outside) -> None:
    """Be sure that this host can lead outside. Errors: Unavailable, saying what it lacks."""
    if command.find("nft") is None:
        raise Unavailable("No network leads outside: nft is not installed.", fix="apt-get install nftables")
    if outside.netns and not (NAMESPACES / outside.netns).exists():
        raise Unavailable(
            f"No network leads outside: there is no network namespace {outside.netns}.",
            fix="Correct M2D_OUTSIDE__NETNS.",
        )
    told = command.run([*_inside(outside.netns), "cat", "/proc/sys/net/ipv4/ip_forward"])
    if told.strip() != "1":
        raise Unavailable(
            "No network leads outside: this host forwards no IPv4 packets.",
            fix="sysctl -w net.ipv4.ip_forward=1, and write it to /etc/sysctl.d for the next start.",
        )


def probe(outside: Outside) -> None:
    """Be sure that the kernel takes such rules, too; leaves no trace. Errors: Unavailable."""
    require(outside)
    nftables.apply(["unshare", "--net", "--"], _host_rules())


def _connect(outside: Outside, layout: NetworkLayout, vid: int) -> None:
    host_end, own_end = pair(vid)
    if not namespace.has_interface(layout.namespace, DEVICE):
        # By its pid this process's own namespace is named, which has no other name.
        peer = ("netns", outside.netns or str(os.getpid()), "name", layout.outside_interface)
        command.run(["ip", "-n", layout.namespace, "link", "add", DEVICE, "type", "veth", "peer", *peer])
    _ip(
        [],
        outside.netns,
        f"addr replace {host_end}/31 dev {layout.outside_interface}",
        f"link set {layout.outside_interface} up",
    )
    _ip(
        ["-n", layout.namespace],
        "",
        f"addr replace {own_end}/31 dev {DEVICE}",
        f"link set {DEVICE} up",
        f"route replace default via {host_end}",
    )


def _ip(which: Sequence[str], netns: str, *lines: str) -> None:
    command.run([*_inside(netns), "ip", *which, "-batch", "-"], text="".join(f"{line}\n" for line in lines))


def _inside(netns: str) -> list[str]:
    return namespace.inside(netns) if netns else []


def _network_rules(outside: Outside, layout: NetworkLayout, cidr: str) -> str:
    inner = layout.interface
    allowed = _each("accept", outside.allow)
    return f"""\
  chain leaving {{
{_each(_REFUSE, outside.deny)}    ip daddr {PAIRS} {_REFUSE}
{allowed}    ip daddr {{ {", ".join(NOT_PUBLIC)} }} {_REFUSE}
    accept
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop
    iifname "{DEVICE}" oifname "{inner}" ct state established,related accept
    iifname "{inner}" oifname "{DEVICE}" ip saddr {cidr} ct state established,related accept
    ct state new ct count over {CONNECTIONS_MAX} drop
    iifname "{inner}" oifname "{DEVICE}" ip saddr {cidr} jump leaving
  }}
  chain input {{
    type filter hook input priority filter; policy accept
    iifname "{DEVICE}" drop
  }}
  chain output {{
    type filter hook output priority filter; policy accept
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


def _host_rules() -> str:
    return f"""\
  set networks {{
    type ipv4_addr
    size {PAIRS.num_addresses}
    flags dynamic
  }}
  chain input {{
    type filter hook input priority filter - 10; policy accept
    iifname "{OUTSIDE_PREFIX}*" drop
  }}
  chain forward {{
    type filter hook forward priority filter - 10; policy accept
    iifname "{OUTSIDE_PREFIX}*" oifname "{OUTSIDE_PREFIX}*" drop
    iifname "{OUTSIDE_PREFIX}*" ip saddr != {PAIRS} drop
    iifname "{OUTSIDE_PREFIX}*" meta nfproto ipv6 drop
    oifname "{OUTSIDE_PREFIX}*" ct state != {{ established, related }} drop
    iifname "{OUTSIDE_PREFIX}*" ct state new add @networks {{ ip saddr ct count over {CONNECTIONS_MAX} }} drop
    iifname "{OUTSIDE_PREFIX}*" ct state new ct count over {connections_max()} drop
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat
    ip saddr {PAIRS} masquerade
  }}
"""


def _each(verdict: str, networks: Sequence[IPv4Network]) -> str:
    """Write one rule for each: sets refuse those that overlap."""
    return "".join(f"    ip daddr {network} {verdict}\n" for network in networks)
