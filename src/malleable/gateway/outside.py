"""A network's way outside: a pair of devices from its namespace to the host's routing, with NAT at both ends.

In the namespace stand the rules of what its nodes may reach; at the host's end, that nothing of ours reaches the host
itself or another network. The rules are there before the first packet: a way outside without them is none.
Source: nft(8), and packets sent by tests/system/gateway/test_outside.py on Linux 6.18 with nftables 1.0.6.
"""

import json
import os
from collections.abc import Sequence

from malleable.domain.errors import Unavailable
from malleable.gateway import command, namespace, nftables
from malleable.gateway.layout import NAMESPACES, NetworkLayout
from malleable.gateway.outside_rules import DEVICE, Outside, Way, host_rules, network_rules

#: What the host must have switched on, the second for IPv6.
_FORWARDING = (("IPv4", "net.ipv4.ip_forward"), ("IPv6", "net.ipv6.conf.all.forwarding"))


def ensure(outside: Outside, layout: NetworkLayout, way: Way) -> None:
    """Open a network's way outside, or bring it in line; idempotent. Errors: Unavailable; the way is shut then."""
    try:
        require(outside)
        nftables.apply(_inside(outside.netns), host_rules())
        nftables.apply(namespace.inside(layout.namespace), network_rules(outside, way, layout.interface))
        _connect(outside, layout, way)
        namespace.forward(layout.namespace, ip=bool(way.cidr), ip6=bool(way.cidr6))
    except Unavailable:
        remove(layout)
        raise


def settle(layout: NetworkLayout) -> None:
    """Have a namespace without a way outside forward nothing: a new one does what the host does, and has no rules."""
    if not namespace.has_interface(layout.namespace, DEVICE):
        namespace.forward(layout.namespace)


def remove(layout: NetworkLayout) -> None:
    """Shut a network's way outside; nothing to do if there is none."""
    if namespace.exists(layout.namespace):
        namespace.forward(layout.namespace)
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
    for family, setting in _FORWARDING[: 1 + outside.has_ipv6]:
        told = command.run([*_inside(outside.netns), "cat", f"/proc/sys/{setting.replace('.', '/')}"])
        if told.strip() != "1":
            raise Unavailable(
                f"No network leads outside: this host forwards no {family} packets.",
                fix=f"sysctl -w {setting}=1, and write it to /etc/sysctl.d for the next start.",
            )


def probe(outside: Outside) -> None:
    """Be sure that the kernel takes such rules, too; leaves no trace. Errors: Unavailable."""
    require(outside)
    for address in outside.dns:
        route = json.loads(command.run([*_inside(outside.netns), "ip", "-j", "route", "get", str(address)]))
        if route and route[0].get("type") == "local":
            raise Unavailable(
                f"The name server {address} is this host itself, which no network reaches.",
                fix="Name another one in M2D_OUTSIDE__DNS.",
            )
    nftables.apply(["unshare", "--net", "--"], host_rules())


def _connect(outside: Outside, layout: NetworkLayout, way: Way) -> None:
    pairs = [(*way.pair, "31", "")] + ([(*way.pair6, "127", " nodad")] if way.cidr6 else [])
    if not namespace.has_interface(layout.namespace, DEVICE):
        # By its pid this process's own namespace is named, which has no other name.
        peer = ("netns", outside.netns or str(os.getpid()), "name", layout.outside_interface)
        command.run(["ip", "-n", layout.namespace, "link", "add", DEVICE, "type", "veth", "peer", *peer])
    _ip(
        [],
        outside.netns,
        *(f"addr replace {one}/{bits} dev {layout.outside_interface}{how}" for one, _, bits, how in pairs),
        f"link set {layout.outside_interface} up",
    )
    _ip(
        ["-n", layout.namespace],
        "",
        *(f"addr replace {one}/{bits} dev {DEVICE}{how}" for _, one, bits, how in pairs),
        f"link set {DEVICE} up",
        *(f"route replace default via {one}" for one, *_ in pairs),
    )


def _ip(which: Sequence[str], netns: str, *lines: str) -> None:
    command.run([*_inside(netns), "ip", *which, "-batch", "-"], text="".join(f"{line}\n" for line in lines))


def _inside(netns: str) -> list[str]:
    return namespace.inside(netns) if netns else []
