"""Where a network guards addresses: what a node says of itself passes, and what its neighbours are does not.

What may pass is written here by hand, on a real Open vSwitch, by frames.
"""

import os
import select
import struct
from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv6Address

import pytest
from tests.contract.switches.conftest import a_switch
from tests.contract.switches.room import BRIDGE, OvsRoom, ovs_room
from tests.system.isolation import frames
from tests.system.isolation.frames import ALL_NODES, BROADCAST, frame, mark_in

from malleable.domain.switches import SHUT, Binding, Guard, PortConfig
from malleable.drivers.switch.ovs import OvsSwitches
from malleable.drivers.switch.ovs_guard import rules_of

pytestmark = pytest.mark.room

A, B = 101, 102
MAC, OTHER = "52:54:00:00:00:01", "52:54:00:00:00:02"
OWN, OWN6, NEXT, NEXT6 = "10.0.0.20", "fd00:a::20", "10.0.0.21", "fd00:a::21"
ADDRESSES = frozenset({OWN, OWN6})
GUARD = Guard(macs=frozenset({MAC}), gateways=frozenset({frames.GATEWAY, frames.GATEWAY6, frames.LINK_LOCAL}))


def asks6(source: str, target: str) -> bytes:
    """Ask for an IPv6 address; from "::" to learn whether it is free."""
    head = struct.pack("!BBHI", 135, 0, 0, 0) + IPv6Address(target).packed
    return frames.ipv6(source, "ff02::1", head if source == "::" else head + bytes([1, 1]) + frames.address(MAC))


def tells6(target: str, source: str = "fe80::2") -> bytes:
    """Say that one's own MAC has an IPv6 address."""
    head = struct.pack("!BBHI", 136, 0, 0, 0x60000000) + IPv6Address(target).packed
    return frames.ipv6(source, "ff02::1", head + bytes([2, 1]) + frames.address(MAC))


def icmp6(source: str, kind: int) -> bytes:
    return frames.ipv6(source, "ff02::2", struct.pack("!BBHI", kind, 0, 0, 0))


def said(source: str) -> bytes:
    """Say something by UDP, in either family."""
    make = frames.ipv6 if ":" in source else frames.ipv4
    to = "ff02::1" if ":" in source else "10.0.0.255"
    return make(source, to, frames.udp(99, 99), **({"next_header": 17} if ":" in source else {}))


OWN_WORDS: Mapping[str, bytes] = {
    "arp question": frames.arp(MAC, OWN),
    "arp answer": frames.arp(MAC, OWN, is_answer=True),
    "arp probe": frames.arp(MAC, "0.0.0.0", asks=OWN),
    "ipv4": said(OWN),
    "a later piece": frames.ipv4(OWN, "10.0.0.255", bytes(64), flags=0x0010),
    "dhcp question": frames.dhcp_question(),
    "ipv6": said(OWN6),
    "link-local ipv6": said("fe80::2"),
    "neighbour question": asks6(OWN6, NEXT6),
    "neighbour question, link-local": asks6("fe80::2", NEXT6),
    "is my address free": asks6("::", OWN6),
    "is my link-local address free": asks6("::", "fe80::2"),
    "neighbour answer": tells6(OWN6, OWN6),
    "neighbour answer, link-local": tells6("fe80::2"),
    "router question": frames.router_question(),
    "router question without an address": icmp6("::", 133),
    "group report without an address": icmp6("::", 143),
    "no ip": frames.plain(),
}
LIES: Mapping[str, bytes] = {
    "arp question as the next": frames.arp(MAC, NEXT),
    "arp answer as the next": frames.arp(MAC, NEXT, is_answer=True),
    "arp as a stranger": frames.arp(MAC, "10.9.9.9"),
    "ipv4 as the next": said(NEXT),
    "a later piece as the next": frames.ipv4(NEXT, "10.0.0.255", bytes(64), flags=0x0010),
    "ipv4 from nowhere": frames.ipv4("0.0.0.0", "10.0.0.255", frames.udp(99, 99)),
    "ipv6 as the next": said(NEXT6),
    "ipv6 by chance": said("fd00:a::beef"),
    "ipv6 from nowhere": frames.ipv6("::", "ff02::1", frames.udp(99, 99), next_header=17),
    "neighbour question as the next": asks6(NEXT6, OWN6),
    "claims the next's address is in use": tells6(NEXT6),
    "claims it, as itself": tells6(NEXT6, OWN6),
    "tells its own as the next": tells6(OWN6, NEXT6),
    "is the next's address free": asks6("::", NEXT6),
}


class Wire:
    """A node of many addresses, and somebody on each network who hears it."""

    def __init__(self, running: OvsRoom) -> None:
        self.driver, self.switch = OvsSwitches(), a_switch(running.address, bridge=BRIDGE)
        self.taps = {name: running.add_port(name) for name in ("node", "on-a", "on-b", "c1", "c2")}
        self.apply(**{"on-a": PortConfig(native_vid=A), "on-b": PortConfig(native_vid=B)})
        self.apply(c1=PortConfig(native_vid=4000), c2=PortConfig(native_vid=4000))

    def apply(self, **wanted: PortConfig) -> None:
        self.driver.apply(self.switch, wanted)
        assert self.driver.read(self.switch, wanted) == wanted

    def hears(self, hearer: str, words: Mapping[str, bytes], *vids: int) -> set[str]:
        """Have the node say all this; return what somebody hears of it."""
        sent = {}
        for kind, content in words.items():
            told = frame(MAC, ALL_NODES if content[:2] == b"\x86\xdd" else BROADCAST, content, vids=vids)
            sent[mark_in(told)] = kind
            os.write(self.taps["node"].fd, told)
        for number in range(2):  # see test_ovs_packets: the second round trip begins after a full turn
            payload = f"control {hearer} {vids} {number} {next(iter(sent))!r}".encode()
            self.taps["c1"].send(payload)
            self.taps["c2"].wait(payload)
        return {sent[mark] for mark in self._marks(hearer) if mark in sent}

    def _marks(self, hearer: str) -> Iterator[bytes | None]:
        fd = self.taps[hearer].fd
        while select.select([fd], [], [], 0)[0]:
            yield mark_in(os.read(fd, 4096))


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    with ovs_room() as running:
        yield Wire(running)


def guarded(*bindings: Binding, tagged: frozenset[int] = frozenset()) -> PortConfig:
    guard = Guard(macs=GUARD.macs, gateways=GUARD.gateways, bindings=frozenset(bindings))
    return PortConfig(native_vid=A, tagged_vids=tagged, guard=guard)


def bound(*vids: int, addresses: frozenset[str] = ADDRESSES) -> Binding:
    return Binding(vids=frozenset(vids), addresses=addresses)


@pytest.mark.parametrize("vids", [(), (0,)])
def test_a_node_is_itself_and_no_neighbour(wire: Wire, vids: tuple[int, ...]) -> None:
    wire.apply(node=guarded(bound(0, A)))
    assert wire.hears("on-a", OWN_WORDS, *vids) == set(OWN_WORDS)
    assert wire.hears("on-a", LIES, *vids) == set()


def test_without_a_guard_of_addresses_the_same_lies_pass(wire: Wire) -> None:
    """The proof proves something."""
    wire.apply(node=guarded())
    assert wire.hears("on-a", LIES) == set(LIES)


def test_each_network_of_a_trunk_has_its_own_rule(wire: Wire) -> None:
    wire.apply(node=guarded(bound(0, A), tagged=frozenset({B})))
    assert wire.hears("on-a", LIES) == wire.hears("on-a", LIES, A) == set(), "also by its native network's own tag"
    assert wire.hears("on-b", LIES, B) == set(LIES), "the other one guards no addresses"
    wire.apply(node=guarded(bound(B), tagged=frozenset({B})))
    assert wire.hears("on-b", LIES, B) == set()
    assert wire.hears("on-b", OWN_WORDS, B) == set(OWN_WORDS)
    assert wire.hears("on-a", LIES) == set(LIES)


@pytest.mark.parametrize(
    ("has", "hears"),
    [(OWN, lambda kind: "6" not in kind), (OWN6, lambda kind: kind not in ("arp question", "arp answer", "ipv4"))],
)
def test_a_network_of_one_family_has_no_address_of_the_other(
    wire: Wire, has: str, hears: Callable[[str], bool]
) -> None:
    wire.apply(node=guarded(bound(0, A, addresses=frozenset({has}))))
    heard = wire.hears("on-a", {"arp question": OWN_WORDS["arp question"], "ipv4": said(OWN), "ipv6": said(OWN6)})
    assert heard == {kind for kind in ("arp question", "ipv4", "ipv6") if hears(kind)}
    assert wire.hears("on-a", LIES) == set()


def test_rules_are_bounded_and_go_with_the_network(wire: Wire) -> None:
    config = guarded(bound(0, A), bound(B), tagged=frozenset({B}))
    assert config.guard is not None
    plain = rules_of(GUARD, 7)
    assert len(rules_of(config.guard, 7)) - len(plain) <= 3 * 25, "of each way that frames come"
    wire.apply(node=config)
    wire.apply(node=SHUT)
    wire.apply(node=guarded(bound(0, A)))
    assert wire.hears("on-a", LIES) == set()


VIP, VIP6 = "10.0.0.60", "fd00:a::60"


def test_an_address_that_two_nodes_may_use_moves_between_them(wire: Wire) -> None:
    """As keepalived does: the new one says so by ARP and a neighbour advertisement, with its own MAC address."""
    taken = {
        "arp announcement": frames.arp(MAC, VIP),
        "arp answer": frames.arp(MAC, VIP, is_answer=True),
        "arp probe": frames.arp(MAC, "0.0.0.0", asks=VIP),
        "ipv4": said(VIP),
        "neighbour answer": tells6(VIP6, VIP6),
        "is it free": asks6("::", VIP6),
        "ipv6": said(VIP6),
    }
    stolen = {
        "as another's MAC": frames.arp(OTHER, VIP),
        "answers as another's MAC": frames.arp(OTHER, VIP, is_answer=True),
        "as the gateway": frames.arp(MAC, frames.GATEWAY),
    }
    wire.apply(node=guarded(bound(0, A)))
    assert wire.hears("on-a", taken) == {"arp probe"}, "which says nothing of itself"
    wire.apply(node=guarded(bound(0, A, addresses=ADDRESSES | {VIP, VIP6})))
    assert wire.hears("on-a", taken) == set(taken)
    assert wire.hears("on-a", OWN_WORDS) == set(OWN_WORDS), "and its own addresses as before"
    assert wire.hears("on-a", {**LIES, **stolen}) == set()
    wire.apply(node=guarded(bound(0, A)))
    assert wire.hears("on-a", taken) == {"arp probe"}, "taken away, the rules are read back without it"
