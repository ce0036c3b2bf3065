"""Tunnels: how switches without a trunk between them carry the same networks, by VXLAN (RFC 7348).

A network's VLAN is what the switches of a fabric know it by; its VNI is what travels. Every switch of a fabric that has
VNIs has a tunnel to every other one for each network, and passes nothing from one tunnel to another: no loop.
"""

from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from posixpath import normpath
from typing import Protocol

from malleable.domain.errors import Invalid
from malleable.domain.networks import VLAN_MAX, Network, NetworkState
from malleable.domain.switches import Switch

VNI_MAX = (1 << 24) - 1
#: A VLAN's VNI is this much larger, of all VLANs of a fabric.
VNI_BASE_MAX = VNI_MAX - VLAN_MAX
VTEP, UNDERLAY_MTU = "vtep", "underlay_mtu"  #: settings of a switch
_UNDERLAY_MTU_MIN, _UNDERLAY_MTU_USUAL, _UNDERLAY_MTU_MAX = 1330, 1500, 65535
#: Where nodes have no way to, also those that may reach the world (RFC 1918, RFC 4193).
_PRIVATE = tuple(map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")))
_PORT_DIGITS = 6  #: at most, of what is read as a number
#: What goes around a packet: Ethernet 14, VXLAN 8, UDP 8 and the outer IP header.
_OVERHEAD = {4: 50, 6: 70}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """One network on its way between two switches, as one of them has it."""

    local: str  #: the IP address of its own end (VTEP)
    remote: str  #: of the other's; nobody else is heard
    vni: int
    vid: int  #: the VLAN that its frames have on the switch


class Tunnels(Protocol):
    """What a kind of switch does about tunnels."""

    def can_tunnel(self, switch: Switch) -> bool:
        """Say, without asking the switch, whether it can have tunnels."""

    def weave(self, switch: Switch, wanted: Collection[Tunnel]) -> None:
        """Make exactly these tunnels. Idempotent; those that are as wanted are left alone.

        Errors: Refused with code "no-tunnels", or "foreign-tunnel" where somebody else's is. After Unreachable any
        subset may have been made.
        """

    def stand_by(self, switch: Switch, wait_s: float) -> bool | None:
        """Wait for a switch to start anew, and give it back at once what keeps nodes from its tunnels.

        Return as soon as that was missing, also at the call: True; after ``wait_s`` False, also if the switch is not
        there; at once None for a switch that forgets nothing. No error: whoever reads the tunnels is told.
        """

    def tunnels(self, switch: Switch) -> frozenset[Tunnel]:
        """Read back the tunnels that are in the data path.

        Errors: Malformed if one is in no state that a Tunnel can tell; Refused with code "foreign-tunnel".
        """


def vtep_of(switch: Switch) -> str:
    """Read the address of a switch's own end of tunnels; "" without one. Errors: Invalid."""
    raw = switch.settings.get(VTEP, "")
    if not raw:
        return ""
    try:
        address = ip_address(raw)
    except ValueError as e:
        raise Invalid(f"{raw[:80]!a} is not an IP address.", fix="Write for example vtep=10.9.0.1.") from e
    if not any(address in net for net in _PRIVATE):
        raise Invalid(
            f"The address {raw} cannot be the end of a tunnel.",
            fix="Use a private one that the other switches' hosts reach; nodes could send packets to a public one.",
        )
    return str(address)


def place_of(address: str) -> str:
    """Write a switch's address in the one way that tells places apart: "unix:/var/run//x" is "unix:/run/x".

    One place that is reached by a socket and by TCP, by a link, or by a name and its IP address counts as two.
    """
    kind, _, rest = address.partition(":")
    if kind == "unix":
        path = normpath(f"/{rest.lstrip('/')}")
        return f"unix:{path.removeprefix('/var') if path.startswith('/var/run/') else path}"  # FHS 3.0, 5.13
    host, _, port = rest.rpartition(":")
    if kind != "tcp" or not port.isdecimal() or len(port) > _PORT_DIGITS:
        return address
    host = host.removeprefix("[").removesuffix("]").lower()
    with suppress(ValueError):
        host = ip_address(host).compressed
    return f"tcp:{host}:{int(port)}"


def underlay_mtu(switch: Switch) -> int:
    """Say the largest packet that an operator says fits below a switch's tunnels. Errors: Invalid."""
    raw = switch.settings.get(UNDERLAY_MTU, str(_UNDERLAY_MTU_USUAL))
    is_number = raw.isascii() and raw.isdigit() and len(raw) <= 5
    if not is_number or not _UNDERLAY_MTU_MIN <= int(raw) <= _UNDERLAY_MTU_MAX:
        raise Invalid(
            f"{raw[:80]!a} is not the MTU of an underlay.",
            fix=f"Write for example underlay_mtu=9000; {_UNDERLAY_MTU_USUAL} is taken without.",
        )
    return int(raw)


def inner_mtu(switch: Switch) -> int:
    """Say the largest packet that fits a switch's tunnels: the MTU of what is below less VXLAN's. Errors: Invalid."""
    return underlay_mtu(switch) - _OVERHEAD[ip_address(vtep_of(switch) or "0.0.0.0").version]


def tunnels_of(switch: Switch, switches: Iterable[Switch], networks: Iterable[Network]) -> frozenset[Tunnel]:
    """Say which tunnels a switch shall have: for each network of its fabric one to each of the others."""
    local = vtep_of(switch)
    others = [vtep_of(other) for other in switches if other.fabric == switch.fabric and other.id != switch.id]
    carried = [n for n in networks if n.fabric == switch.fabric and n.state is NetworkState.ACTIVE]
    return frozenset(
        Tunnel(local=local, remote=remote, vni=network.vni, vid=network.vid)
        for network in carried
        for remote in others
        if local and remote and network.vni is not None
    )
