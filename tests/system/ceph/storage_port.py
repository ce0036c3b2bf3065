"""This host on a storage VLAN, as the Ceph that portals reach there."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network

from tests.ceph import ip
from tests.system.gateway.host import run

from malleable.gateway.storage_leg import StorageVlan

VID = 200


def free_storage_vlan() -> StorageVlan:
    """Choose addresses that this host has none of: tests beside these, and killed ones, have networks of their own."""
    taken = {
        IPv4Address(address["local"])
        for interface in json.loads(run("ip", "-4", "-json", "address"))
        for address in interface["addr_info"]
    }
    subnets = list(IPv4Network("100.64.0.0/10").subnets(new_prefix=19))
    first = os.getpid() % len(subnets)
    for subnet in subnets[first:] + subnets[:first]:
        if not any(address in subnet for address in taken):
            return StorageVlan(vid=VID, subnet=subnet)
    raise AssertionError("100.64.0.0/10 is full")


def ceph_address(storage: StorageVlan) -> str:
    """Name the Ceph's address; it is no portal's: those are numbered by VLAN."""
    return str(storage.subnet[-2])


@contextmanager
def storage_port(storage: StorageVlan, room: str, switch: str, bridge: str) -> Iterator[None]:
    """Put this host, as the Ceph's, on a VLAN of the ``switch`` (its OVSDB) in the namespace ``room``."""
    port, far = f"m2c{os.getpid()}", "ceph"
    ip("link", "add", port, "type", "veth", "peer", "name", far, "netns", room)
    try:
        # Open vSwitch in user space takes no half-made checksums.
        run("ethtool", "-K", port, "tx", "off")
        ip("address", "add", f"{ceph_address(storage)}/{storage.subnet.prefixlen}", "dev", port)
        ip("link", "set", port, "up")
        ip("-n", room, "link", "set", far, "up")
        run("ovs-vsctl", f"--db={switch}", "--timeout=10", "add-port", bridge, far, f"tag={storage.vid}")
        yield
    finally:
        # The room may be gone, and the port with it.
        run("ip", "link", "delete", port, check=False)
