"""A throw-away Ceph of one node: a monitor, a manager and one OSD, all in one directory, without systemd."""

from malleable.sim.ceph.cluster import CephStatus, add_pool, down, status, up
from malleable.sim.ceph.layout import CephLayout, CephSpec, find

__all__ = ["CephLayout", "CephSpec", "CephStatus", "add_pool", "down", "find", "status", "up"]
