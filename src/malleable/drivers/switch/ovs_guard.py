"""A port's Guard on Open vSwitch: OpenFlow rules before the VLANs do their work.

A claim of what is guarded lies beside the port's VLANs in the database, and the rules are what it says or the port is
told as drifted: ovs-vswitchd forgets all rules when it starts anew. Rules are written by ovs-ofctl, all or nothing,
and read back over ovs-vswitchd's control socket.
Source: ovs-fields(7), and frames sent through Open vSwitch 3.1 by tests/system/isolation.
"""

import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from malleable.domain.errors import Malformed, Refused, Unreachable
from malleable.domain.switches import Binding, Guard
from malleable.drivers.ovsdb import ask_vswitchd

CLAIM = "malleable-guard"  #: in external_ids of the guarded ports
_COOKIE = "0x6d32"
#: Above are ovs-vswitchd's own: its last table, and what it lets itself reach a controller by.
_TABLE_MAX, _PRIORITY_MAX = 253, 65535
#: Nothing of these may come from a node. A tag behind the first one is a way to be taken for another network, and
#: for a port on VLAN 0 to say anything: Linux reads it as no tag at all.
_NEVER = (
    "dl_type=0x8100",
    "dl_type=0x88a8",
    "udp,tp_src=67",
    "udp,tp_dst=68",
    "udp6,tp_src=547",
    "udp6,tp_dst=546",
    "icmp6,icmp_type=134",
    "icmp6,icmp_type=137",
    "icmp,icmp_type=5",
)
_NO_TAG = "vlan_tci=0x0000/0x0fff"  #: none, or one of VLAN 0
_NOBODY = "0.0.0.0"  #: who asks whether an address is free (RFC 5227), or for one by DHCP
_LINK_LOCAL = "fe80::/10"  #: systems make themselves these by chance (RFC 7217); nobody is given any
_ASKS, _TELLS = "icmp_type=135,icmp_code=0", "icmp_type=136,icmp_code=0"
#: What else comes before there is an address: the search for a router, and reports of groups (RFC 4861, 2710, 3810).
_BEFORE = (133, 131, 143)
_BINDING = frozenset({2, 3})  #: the tables of rules that bind addresses
_NO_MAC = "00:00:00:00:00:00"  #: an advertisement without the option
_TOLD = re.compile(r"(?:table_id=(\d+), )?duration=\S+ n_packets=\d+, n_bytes=\d+, (.*actions=.*)", re.ASCII)
_PRIORITY = re.compile(r"priority=(\d+)", re.ASCII)  #: left out when it is OpenFlow's default
_PROTOCOLS = ("arp", "ip", "ipv6", "udp", "udp6", "icmp", "icmp6")
#: What a rule of a guard may do: nothing that sends a frame where its VLAN does not.
_TAME = frozenset({"drop", "resubmit(,1)", "resubmit(,2)", "resubmit(,3)", "NORMAL"})

#: Before a port's rules. Where ovs-vswitchd itself forwards (datapath_type netdev) it opens every tunnel packet that is
#: to leave a bridge for an address of the host's own, also one that a node wrote.
_FENCE = re.compile(r"priority=900,(?:ip,nw_dst|ipv6,ipv6_dst)=([0-9a-f.:]+),actions=drop", re.ASCII)

_OPTIONS = ("-O", "OpenFlow14", "--bundle")  #: all or nothing

Rule = tuple[int, str]  #: table, and priority, match and actions as ovs-vswitchd writes them


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """All rules of a bridge."""

    by_port: Mapping[int, frozenset[Rule]] = field(default_factory=dict)
    fences: frozenset[str] = frozenset()  #: addresses that nobody on the bridge reaches
    foreign: tuple[str, ...] = ()  #: which could pass what a VLAN would not


def rules_of(guard: Guard | None, ofport: int) -> frozenset[Rule]:
    """Write a guard as the rules of one port; none for None."""
    if guard is None:
        return frozenset()
    rules = [*_denied(guard), *_own_addresses(guard)]
    rules.append((0, 500, "", "resubmit(,1)"))
    rules += [(1, 500, f"dl_src={mac}", "resubmit(,2)") for mac in guard.macs]
    rules += [(1, 1, "", "drop"), (2, 1, "", "NORMAL")]
    for binding in guard.bindings:
        for vid in binding.vids:
            rules += _bound(f"dl_vlan={vid}" if vid else _NO_TAG, binding.addresses)
    return frozenset((table, _text(priority, ofport, match, action)) for table, priority, match, action in rules)


def _denied(guard: Guard) -> Iterable[tuple[int, int, str, str]]:
    for match in _NEVER:
        yield 0, 800, match, "drop"
    for address in guard.gateways:
        if ":" in address:
            yield 0, 800, f"ipv6,ipv6_src={address}", "drop"
            yield 0, 800, f"icmp6,icmp_type=136,icmp_code=0,nd_target={address}", "drop"
        else:
            yield 0, 800, f"arp,arp_spa={address}", "drop"
            yield 0, 800, f"ip,nw_src={address}", "drop"


def _own_addresses(guard: Guard) -> Iterable[tuple[int, int, str, str]]:
    """Let a machine tell no MAC address but its own, in ARP and in IPv6's neighbour discovery."""
    for mac in guard.macs:
        yield 0, 700, f"arp,arp_sha={mac}", "resubmit(,1)"
    for kind, option in (("135", "nd_sll"), ("136", "nd_tll")):
        for mac in (*guard.macs, _NO_MAC):
            yield 0, 700, f"icmp6,icmp_type={kind},icmp_code=0,{option}={mac}", "resubmit(,1)"
        yield 0, 600, f"icmp6,icmp_type={kind}", "drop"
    yield 0, 600, "arp", "drop"


def _bound(vlan: str, addresses: frozenset[str]) -> Iterable[tuple[int, int, str, str]]:
    """Let a machine have these addresses alone in a VLAN, and link-local ones of IPv6; what it asks first has none."""
    four, six = [a for a in addresses if ":" not in a], [*(a for a in addresses if ":" in a), _LINK_LOCAL]
    yield from ((2, 700, f"arp,{vlan},arp_spa={address}", "NORMAL") for address in (*four, _NOBODY))
    yield from ((2, 700, f"ip,{vlan},nw_src={address}", "NORMAL") for address in four)
    yield 2, 700, f"udp,{vlan},nw_src={_NOBODY},tp_src=68,tp_dst=67", "NORMAL"
    yield from ((2, 700, f"icmp6,{vlan},{_TELLS},nd_target={address}", "resubmit(,3)") for address in six)
    yield 2, 600, f"icmp6,{vlan},icmp_type=136", "drop"
    yield from ((2, 500, f"{protocol},{vlan}", "drop") for protocol in ("arp", "ip"))
    yield 2, 500, f"ipv6,{vlan}", "resubmit(,3)"
    yield from ((3, 700, f"ipv6,{vlan},ipv6_src={address}", "NORMAL") for address in six)
    yield from ((3, 700, f"icmp6,{vlan},ipv6_src=::,{_ASKS},nd_target={address}", "NORMAL") for address in six)
    yield from ((3, 700, f"icmp6,{vlan},ipv6_src=::,icmp_type={kind}", "NORMAL") for kind in _BEFORE)
    yield 3, 500, f"ipv6,{vlan}", "drop"


def passing(new: frozenset[Rule], old: frozenset[Rule]) -> frozenset[Rule]:
    """Add to rules that are to come those that bind addresses so far: a VLAN that goes is bound until it is gone."""
    return new | {(table, text) for table, text in old if table in _BINDING} if new else new


def _text(priority: int, ofport: int, match: str, action: str) -> str:
    """Write a rule in the order of ovs-vswitchd: the protocol, the port, the rest."""
    first, _, rest = match.partition(",")
    words = (first, f"in_port={ofport}", rest) if first in _PROTOCOLS else (f"in_port={ofport}", match)
    return ",".join((f"priority={priority}", *(word for word in words if word), f"actions={action}"))


def claim_of(guard: Guard) -> str:
    """Write a guard for the database."""
    claim = f"{' '.join(sorted(guard.macs))} | {' '.join(sorted(guard.gateways))}"
    bound = sorted(f"{','.join(map(str, sorted(b.vids)))}={','.join(sorted(b.addresses))}" for b in guard.bindings)
    return f"{claim} | {' '.join(bound)}" if bound else claim


def guard_claimed(claim: str | None) -> Guard | None:
    """Read a guard from the database; None without one."""
    if claim is None:
        return None
    macs, gateways, bound, *_ = [*claim.split("|"), "", ""]
    bindings = frozenset(_binding(word) for word in bound.split())
    return Guard(macs=frozenset(macs.split()), gateways=frozenset(gateways.split()), bindings=bindings)


def _binding(word: str) -> Binding:
    vids, _, addresses = word.partition("=")
    numbers = frozenset(int(vid) for vid in vids.split(",") if vid.isdecimal())
    return Binding(vids=numbers, addresses=frozenset(addresses.split(",")) - {""})


def read_rules(database: str, bridge: str, *, timeout_s: float) -> Rules:
    """Ask ovs-vswitchd for the rules of a bridge. Errors: Unreachable, Malformed."""
    by_port: dict[int, set[Rule]] = {}
    fences, foreign = set(), []
    for line in ask_vswitchd(database, "bridge/dump-flows", bridge, timeout_s=timeout_s).splitlines():
        told = _TOLD.fullmatch(line.strip())
        if told is None:
            raise Malformed(f"Open vSwitch tells a rule of bridge {bridge} that cannot be read: {line!a}.")
        table, text = int(told[1] or 0), told[2]
        priority = _PRIORITY.match(text)
        is_hidden = table > _TABLE_MAX or (priority is not None and int(priority[1]) > _PRIORITY_MAX)
        if is_hidden or text == "priority=0,actions=NORMAL":
            continue
        port, fence = re.search(r"\bin_port=(\d+)\b", text), _FENCE.fullmatch(text)
        if fence and table == 0:
            fences.add(fence[1])
        elif port and text.partition("actions=")[2] in _TAME:
            by_port.setdefault(int(port[1]), set()).add((table, text))
        else:
            foreign.append(text)
    ports = {port: frozenset(rules) for port, rules in by_port.items()}
    return Rules(by_port=ports, fences=frozenset(fences), foreign=tuple(foreign))


def write_rules(database: str, bridge: str, wanted: Mapping[int, frozenset[Rule]], *, timeout_s: float) -> None:
    """Replace the rules of ports by these, all at once. Errors: Unreachable (nothing is known), Refused."""
    lines = []
    for ofport, rules in sorted(wanted.items()):
        lines.append(f"delete in_port={ofport}")
        lines += [f"add table={table},cookie={_COOKIE},{text}" for table, text in sorted(rules)]
    # Fragments keep the ports of their first one: else a DHCP answer in two pieces passes as no DHCP at all.
    _ofctl(_management(database, bridge), "set-frags", "nx-match", timeout_s=timeout_s)
    _ofctl(_management(database, bridge), "add-flows", "-", told="\n".join(lines) + "\n", timeout_s=timeout_s)


def write_fence(database: str, bridge: str, had: Iterable[str], wanted: Iterable[str], *, timeout_s: float) -> None:
    """Let nobody on a bridge reach ``wanted`` addresses, instead of those it had. Errors: as ``write_rules``."""
    lines = [f"delete_strict {_fence(address)}" for address in had]
    lines += [f"add cookie={_COOKIE},{_fence(address)},actions=drop" for address in wanted]
    _ofctl(_management(database, bridge), "add-flows", "-", told="\n".join(lines) + "\n", timeout_s=timeout_s)


def _fence(address: str) -> str:
    return f"priority=900,{f'ipv6,ipv6_dst={address}' if ':' in address else f'ip,nw_dst={address}'}"


def _management(database: str, bridge: str) -> Path:
    return Path(database.partition(":")[2]).parent / f"{bridge}.mgmt"


def _ofctl(management: Path, command: str, *words: str, told: str = "", timeout_s: float) -> None:
    bridge, options = management.stem, _OPTIONS if told else ()
    place = f"unix:{management}"
    try:
        done = subprocess.run(
            ["ovs-ofctl", *options, command, place, *words],
            input=told,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError as e:
        raise Refused(
            "The program ovs-ofctl is not installed.",
            fix="Install openvswitch-common, or give the switch the setting guard=off.",
            code="no-guard",
        ) from e
    except subprocess.TimeoutExpired as e:
        raise Unreachable(f"Bridge {bridge} did not take its rules within {timeout_s} s.") from e
    if done.returncode == 0:
        return
    said = done.stderr.strip().splitlines()
    if not management.exists() or "connect" in done.stderr:
        raise Unreachable(f"Bridge {bridge} does not answer at {management}.", fix="Start ovs-vswitchd.")
    raise Refused(f"Bridge {bridge} refused its rules: {said[0] if said else 'no reason'}.", code="no-guard")
