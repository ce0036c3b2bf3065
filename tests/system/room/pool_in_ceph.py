"""A one-node Ceph beside a room, on a VLAN of the room's switch, for a server whose disks are there."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.ceph import ip
from tests.system.ceph.serve import CEPH_ADDRESS, STORAGE
from tests.system.gateway.host import run

from malleable.sim import ceph
from malleable.sim.rack import RackDescription

PROJECT_POOL = "lab-pool"


@contextmanager
def pool_in_ceph(room: RackDescription) -> Iterator[str]:
    """Run a Ceph, and have servers that are started meanwhile keep their disks in it; name a pool for a project."""
    with tempfile.TemporaryDirectory(prefix="m2c-", dir="/tmp") as folder, _storage_port(room):
        layout = ceph.up(ceph.CephSpec(directory=Path(folder) / "c", address=CEPH_ADDRESS), is_tied=True)
        settings = {
            "DRIVER": "rbd",
            "CEPH_CONF": str(layout.conf),
            "CEPH_USER": layout.USER,
            "CEPH_POOL": layout.spec.pool,
            "CEPH_PORTAL_USER": layout.PORTAL_USER,
            "CEPH_VLAN": str(STORAGE.vid),
            "CEPH_CIDR": str(STORAGE.subnet),
        }
        ceph.add_pool(layout, PROJECT_POOL)
        try:
            with pytest.MonkeyPatch.context() as environment:
                for name, value in settings.items():
                    environment.setenv(f"M2D_POOL__{name}", value)
                yield PROJECT_POOL
        finally:
            ceph.down(layout.spec.directory)


@contextmanager
def _storage_port(room: RackDescription) -> Iterator[None]:
    """Put this host, as the Ceph's, on the storage VLAN."""
    port, far = f"m2r{os.getpid()}", "ceph"
    ip("link", "add", port, "type", "veth", "peer", "name", far, "netns", room.switch.netns)
    try:
        # Open vSwitch in user space takes no half-made checksums.
        run("ethtool", "-K", port, "tx", "off")
        ip("address", "add", f"{CEPH_ADDRESS}/{STORAGE.subnet.prefixlen}", "dev", port)
        ip("link", "set", port, "up")
        ip("-n", room.switch.netns, "link", "set", far, "up")
        database = f"--db=unix:{room.switch.ovsdb_socket}"
        run("ovs-vsctl", database, "--timeout=10", "add-port", room.switch.bridge, far, f"tag={STORAGE.vid}")
        yield
    finally:
        # The room may be gone, and the port with it.
        if Path("/sys/class/net", port).exists():
            ip("link", "delete", port)
