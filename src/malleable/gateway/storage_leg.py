"""A portal's way to a disk pool on the network: a second interface in its namespace, on the provider's own VLAN.

Nothing crosses it from the tenants' side: a namespace forwards no packets there, and takes none from a node that poses
as a host of the storage network, whose answer would go there.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from malleable.domain.errors import Unavailable
from malleable.domain.ports import Uplink
from malleable.gateway import namespace
from malleable.gateway.layout import NetworkLayout

#: One address for each VLAN of a fabric.
PREFIX_MAX = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageVlan:
    """The VLAN on which the pool answers, and the addresses there that are the portals'."""

    vid: int
    subnet: IPv4Network  #: a /20 or larger; a /18 or /17 for several fabrics

    def address(self, slot: int) -> IPv4Address:
        """Give the portal of a network its address, by its VLAN's number among those of all fabrics."""
        return self.subnet[slot]


def ensure(storage: StorageVlan, layout: NetworkLayout, uplink: Uplink, slot: int, cidr: str) -> None:
    """Give a network's namespace its leg; idempotent.

    Errors: Unavailable for a network whose addresses are also the pool's: its nodes could pose as the pool.
    """
    if storage.subnet.overlaps(IPv4Network(cidr)):
        raise Unavailable(
            f"The network's addresses {cidr} overlap the storage network {storage.subnet}.",
            fix="Give the network other addresses, or move M2D_POOL__CEPH_CIDR.",
        )
    uplink.plug(layout.storage_interface, storage.vid, layout.namespace)
    address = f"{storage.address(slot)}/{storage.subnet.prefixlen}"
    namespace.configure(layout.namespace, layout.storage_interface, [address])
