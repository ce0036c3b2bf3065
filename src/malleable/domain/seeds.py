"""Seeds: what a project gives a node's system for its first start, and the network-config that follows."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Interface, IPv6Interface, ip_interface

from malleable.domain.ids import NodeId, SeedId, new_id
from malleable.domain.secrets import Secret

#: Of a default route by another card than the one that the disk comes through: that one is asked first.
_OTHER_METRIC = 1000
#: An interface's name holds 15 characters (IFNAMSIZ): "nic63.4094" has room.
_BOOT_NAME = "boot"


class Document(StrEnum):
    """A document of a seed, by the name that NoCloud has for it."""

    USER_DATA = "user-data"
    NETWORK_CONFIG = "network-config"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """The documents a project gave for one node; one per node, gone with its boot intent.

    Apart from the boot intent, which is read whenever a gateway asks what to serve: these may be large.
    """

    id: SeedId
    node_id: NodeId  #: unique
    user_data: Secret  #: Base64 of its bytes; "" when there is none
    network_config: Secret  #: "" when it is ours to write

    @property
    def documents(self) -> tuple[Document, ...]:
        """Name what is in it."""
        return tuple(document for document in Document if self._kept(document).reveal())

    def content(self, document: Document) -> bytes:
        """Return a document, byte for byte as it was given."""
        kept = self._kept(document).reveal()
        return base64.b64decode(kept) if document is Document.USER_DATA else kept.encode()

    def _kept(self, document: Document) -> Secret:
        return {Document.USER_DATA: self.user_data, Document.NETWORK_CONFIG: self.network_config}[document]


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a project gives for a system's first start."""

    user_data: bytes = field(default=b"", repr=False)
    network_config: str = field(default="", repr=False)
    has_hook: bool = False  #: the user-data is a first-boot script of ours, which reports its end
    has_disk: bool = False  #: on a small disk too, for systems that do not look for it in the network


def seed_of(node_id: NodeId, given: Given) -> Seed | None:
    """Make a node's seed; None when nothing was given."""
    if not given.user_data and not given.network_config:
        return None
    return Seed(
        id=SeedId(new_id()),
        node_id=node_id,
        user_data=Secret(base64.b64encode(given.user_data).decode()),
        network_config=Secret(given.network_config),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One of the ways that a node has into a network, as its system has to set it up."""

    mac: str
    vid: int | None = None  #: of a network that comes tagged
    addresses: tuple[str, ...]  #: IPv4 and IPv6, each with the length of its prefix: 10.0.0.10/24
    has_dhcp: bool = True  #: else the addresses are fixed
    mtu: int
    dns_servers: tuple[str, ...] = ()
    domain: str = ""
    is_boot: bool = False  #: the disk comes through it
    bond: str = ""  #: the name of the bond that it is, of NICs with the MACs ``bonded``; "": a NIC alone
    bonded: tuple[str, ...] = ()

    def has(self, kind: type[IPv4Interface] | type[IPv6Interface]) -> bool:
        """Say whether there is an address of a kind."""
        return any(isinstance(ip_interface(address), kind) for address in self.addresses)


def network_config(links: Sequence[Link]) -> str:
    """Write a network-config of version 2 for a node's links, the one it boots by among them.

    Cards are found by their MAC; "critical": the root disk comes through this one. A value is JSON, which is YAML too.
    The card of the root disk stays as the firmware has it, though it is of a bond: joining one would cut the disk off.
    Source: https://cloudinit.readthedocs.io/en/22.4.2/reference/network-config-format-v2.html
    """
    macs = [next(link.mac for link in links if link.is_boot)]
    macs += sorted({link.mac for link in links} - set(macs))
    names = {mac: f"nic{number}" if number else _BOOT_NAME for number, mac in enumerate(macs)}
    native = {link.mac: link for link in links if link.vid is None}
    bonds = {link.mac: link for link in links if link.bond and link.mac != macs[0]}
    names |= {mac: link.bond for mac, link in bonds.items()}
    tagged = sorted((link for link in links if link.vid is not None), key=lambda link: (names[link.mac], link.vid))
    mtus = {mac: native[mac].mtu if mac in native else max(t.mtu for t in tagged if t.mac == mac) for mac in macs}
    cards = {names[mac]: _card(mac, native.get(mac), mtus[mac]) for mac in macs if mac not in bonds}
    made = {}
    for link in bonds.values():
        members = {f"{link.bond}port{number}": mac for number, mac in enumerate(link.bonded)}
        cards |= {name: _card(mac, None, mtus[link.mac]) for name, mac in members.items()}
        made[link.bond] = _bond(link.mac, list(members), native.get(link.mac), mtus[link.mac])
    vlans = {
        # A frame leaves by its card: none of a VLAN can be larger than the card's.
        f"{names[link.mac]}.{link.vid}": {"id": link.vid, "link": names[link.mac]} | _way(link, mtus[link.mac])
        for link in tagged
    }
    sections = (("ethernets", cards), ("bonds", made), ("vlans", vlans))
    return "version: 2\n" + "".join(_section(name, told) for name, told in sections if told)


def _card(mac: str, link: Link | None, mtu: int) -> dict[str, object]:
    match: dict[str, object] = {"match": {"macaddress": mac}}
    return match | (_way(link, mtu) if link is not None else {"dhcp4": False, "mtu": mtu, "optional": True})


def _bond(mac: str, members: Sequence[str], link: Link | None, mtu: int) -> dict[str, object]:
    parameters = {"mode": "802.3ad", "lacp-rate": "fast", "mii-monitor-interval": 100}
    told: dict[str, object] = {"interfaces": list(members), "macaddress": mac, "parameters": parameters}
    return told | (_way(link, mtu) if link is not None else {"dhcp4": False, "mtu": mtu, "optional": True})


def _way(link: Link, most_mtu: int) -> dict[str, object]:
    """Say how an interface gets its address; what the disk does not come through is not waited for."""
    told: dict[str, object] = {"mtu": min(link.mtu, most_mtu), "dhcp4": link.has_dhcp and link.has(IPv4Interface)}
    if link.has(IPv6Interface):
        told["dhcp6"] = link.has_dhcp
    if not link.has_dhcp:
        told["addresses"] = list(link.addresses)
    if link.dns_servers:
        told["nameservers"] = {"addresses": list(link.dns_servers), "search": [link.domain] if link.domain else []}
    if link.is_boot:
        return {**told, "critical": True}
    return {**told, "optional": True} | ({"dhcp4-overrides": {"route-metric": _OTHER_METRIC}} if told["dhcp4"] else {})


def _section(name: str, interfaces: Mapping[str, object]) -> str:
    return f"{name}:\n" + "".join(f"  {key}: {json.dumps(told)}\n" for key, told in interfaces.items())
