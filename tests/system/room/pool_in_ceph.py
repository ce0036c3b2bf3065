"""A one-node Ceph beside a room, on a VLAN of the room's switch, for a server whose disks are there."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.system.ceph.storage_port import ceph_address, free_storage_vlan, storage_port

from malleable.sim import ceph
from malleable.sim.rack import RackDescription

PROJECT_POOL = "lab-pool"


@contextmanager
def pool_in_ceph(room: RackDescription) -> Iterator[str]:
    """Run a Ceph, and have servers that are started meanwhile keep their disks in it; name a pool for a project."""
    storage, switch = free_storage_vlan(), room.switch
    port = storage_port(storage, switch.netns, f"unix:{switch.ovsdb_socket}", switch.bridge)
    with tempfile.TemporaryDirectory(prefix="m2c-", dir="/tmp") as folder, port:
        layout = ceph.up(ceph.CephSpec(directory=Path(folder) / "c", address=ceph_address(storage)), is_tied=True)
        settings = {
            "DRIVER": "rbd",
            "CEPH_CONF": str(layout.conf),
            "CEPH_USER": layout.USER,
            "CEPH_POOL": layout.spec.pool,
            "CEPH_PORTAL_USER": layout.PORTAL_USER,
            "CEPH_VLAN": str(storage.vid),
            "CEPH_CIDR": str(storage.subnet),
        }
        ceph.add_pool(layout, PROJECT_POOL)
        try:
            with pytest.MonkeyPatch.context() as environment:
                for name, value in settings.items():
                    environment.setenv(f"M2D_POOL__{name}", value)
                yield PROJECT_POOL
        finally:
            ceph.down(layout.spec.directory)
