"""What nodes say to each other, as frames: honest, and not."""

import itertools
import struct
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

BROADCAST = "ff:ff:ff:ff:ff:ff"
ALL_NODES, ALL_ROUTERS = "33:33:00:00:00:01", "33:33:00:00:00:02"
GATEWAY = "10.0.0.1"
PLAN6, GATEWAY6 = "fd00:a::/64", "fd00:a::1"
LINK_LOCAL = "fe80::1"
_MARK = b"m2-isolation-"
_TAG_TYPES = (b"\x81\x00", b"\x88\xa8", b"\x91\x00")
_numbers = itertools.count()


def mark() -> bytes:
    """Return bytes that no other frame has."""
    return _MARK + f"{next(_numbers):08d}".encode()


def mark_in(frame: bytes) -> bytes | None:
    """Find the mark of a frame of ours."""
    at = frame.find(_MARK)
    return None if at < 0 else frame[at : at + len(_MARK) + 8]


def tags_of(frame: bytes) -> tuple[int, ...]:
    """Read a frame's VLAN ids, outermost first."""
    at, vids = 12, []
    while frame[at : at + 2] in _TAG_TYPES:
        vids.append(struct.unpack("!H", frame[at + 2 : at + 4])[0] & 0xFFF)
        at += 4
    return tuple(vids)


def address(mac: str) -> bytes:
    """Write a MAC address as bytes."""
    return bytes.fromhex(mac.replace(":", ""))


def frame(source: str, target: str, content: bytes, *, vids: Sequence[int] = ()) -> bytes:
    """Put content (its EtherType first) behind two addresses and these tags; ends with a mark of its own."""
    tags = b"".join(struct.pack("!HH", 0x8100, vid) for vid in vids)
    return address(target) + address(source) + tags + content.ljust(46, b"\0") + mark()


def plain() -> bytes:
    """Say something that no protocol knows (EtherType of IEEE 802 local experiments)."""
    return b"\x88\xb5"


def arp(mac: str, ip: str, *, asks: str = "10.0.0.99", is_answer: bool = False) -> bytes:
    """Ask who has an address, or answer that ``mac`` has ``ip``."""
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2 if is_answer else 1)
    return b"\x08\x06" + head + address(mac) + IPv4Address(ip).packed + bytes(6) + IPv4Address(asks).packed


def ipv4(source: str, target: str, content: bytes, *, protocol: int = 17, flags: int = 0) -> bytes:
    """Write an IPv4 packet; ``flags`` with the fragment's offset, as in the header."""
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(content), 1, flags, 64, protocol, 0)
    return b"\x08\x00" + head + IPv4Address(source).packed + IPv4Address(target).packed + content


def ipv6(source: str, target: str, content: bytes, *, next_header: int = 58) -> bytes:
    """Write an IPv6 packet."""
    head = struct.pack("!IHBB", 6 << 28, len(content), next_header, 255)
    return b"\x86\xdd" + head + IPv6Address(source).packed + IPv6Address(target).packed + content


def udp(source: int, target: int) -> bytes:
    """Write a UDP datagram of zeros."""
    return struct.pack("!HHHH", source, target, 8 + 240, 0) + bytes(240)


def dhcp_question() -> bytes:
    """Ask for an address, as a client does."""
    return ipv4("0.0.0.0", "255.255.255.255", udp(68, 67))


def dhcp_answer(*, flags: int = 0) -> bytes:
    """Offer an address, as a server does."""
    return ipv4("10.0.0.66", "255.255.255.255", udp(67, 68), flags=flags)


def dhcpv6_answer() -> bytes:
    """Offer an IPv6 address, as a server does."""
    return ipv6("fe80::66", "ff02::1", udp(547, 546), next_header=17)


def router_question() -> bytes:
    """Ask for a router."""
    return ipv6("fe80::2", "ff02::2", struct.pack("!BBHI", 133, 0, 0, 0))


def router_answer(*, is_hidden: bool = False) -> bytes:
    """Say that one is a router; hidden behind an extension header (RFC 7113) it is the same."""
    told = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
    if is_hidden:
        return ipv6("fe80::66", "ff02::1", bytes([58, 0, 1, 4, 0, 0, 0, 0]) + told, next_header=60)
    return ipv6("fe80::66", "ff02::1", told)


def neighbour_question() -> bytes:
    """Ask for the MAC address of an IPv6 address."""
    return ipv6("fe80::2", "ff02::1", struct.pack("!BBHI", 135, 0, 0, 0) + IPv6Address(LINK_LOCAL).packed)


def neighbour_answer(mac: str, address6: str = "fe80::2") -> bytes:
    """Say that ``mac`` has an IPv6 address."""
    head = struct.pack("!BBHI", 136, 0, 0, 0x60000000) + IPv6Address(address6).packed
    return ipv6("fe80::2", "ff02::1", head + bytes([2, 1]) + address(mac))
