"""A DHCPv6 client as far as a test needs one (RFC 8415): four messages, and the address that came of them."""

import socket
import struct
from ipaddress import IPv6Address

from malleable.gateway import namespace

_SOLICIT, _REQUEST = 1, 3
_CLIENT_ID, _SERVER_ID, _IA_NA, _IA_ADDRESS, _ORO, _DNS = 1, 2, 3, 5, 6, 23
_TALK = b"m2t"


def ask(netns: str, mac: str, *, timeout_s: float = 3.0) -> tuple[str, list[str]]:
    """Ask for an address as the machine with ``mac``; return it and the DNS servers; ("", []) without an answer."""
    plug = namespace.within(netns, _plug)
    plug.settimeout(timeout_s)
    client = _option(_CLIENT_ID, struct.pack("!HH", 3, 1) + bytes.fromhex(mac.replace(":", "")))
    wish = _option(_IA_NA, struct.pack("!III", 1, 0, 0)) + _option(_ORO, struct.pack("!H", _DNS))
    with plug:
        try:
            offer = _exchange(plug, _SOLICIT, client + wish)
            answer = _exchange(plug, _REQUEST, client + _option(_SERVER_ID, offer[_SERVER_ID]) + wish)
        except TimeoutError:
            return "", []
    within = _options(answer[_IA_NA][12:])
    servers = answer.get(_DNS, b"")
    address = str(IPv6Address(within[_IA_ADDRESS][:16])) if _IA_ADDRESS in within else ""
    return address, [str(IPv6Address(servers[at : at + 16])) for at in range(0, len(servers), 16)]


def _plug() -> socket.socket:
    plug = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    plug.bind(("::", 546))
    plug.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex("eth0"))
    return plug


def _exchange(plug: socket.socket, kind: int, options: bytes) -> dict[int, bytes]:
    plug.sendto(bytes([kind]) + _TALK + options, ("ff02::1:2", 547))
    answer = plug.recv(2048)
    assert answer[1:4] == _TALK
    return _options(answer[4:])


def _options(raw: bytes) -> dict[int, bytes]:
    found = {}
    while raw:
        code, length = struct.unpack("!HH", raw[:4])
        found[code], raw = raw[4 : 4 + length], raw[4 + length :]
    return found


def _option(code: int, content: bytes) -> bytes:
    return struct.pack("!HH", code, len(content)) + content
