"""Which disk pool this host uses, and the target driver that opens its disks."""

from collections.abc import Callable
from ipaddress import IPv4Network
from pathlib import Path

from malleable.config import GIB, Settings
from malleable.domain.errors import Invalid
from malleable.domain.ids import NetworkId
from malleable.domain.ports import Disks, Targets
from malleable.gateway.storage_leg import PREFIX_MAX, StorageVlan

#: librbd answers late and one at a time: measured, 16 threads write five times as much as 4 to a new clone
RBD_PORTAL_THREADS = 16
#: a disk read past the page cache answers one at a time per thread: measured, 4 read two to five times as much as 1
DIRECT_PORTAL_THREADS = 4


def make_pool(settings: Settings, socket_of: Callable[[NetworkId], Path]) -> tuple[Disks, Targets]:
    """Make the drivers of the pool and of the target daemons; each touches nothing before its first call."""
    from malleable.drivers.target.tgt import TgtTargets

    if settings.pool.driver == "rbd":
        from malleable.drivers.storage.rbd_cluster import RbdSettings
        from malleable.drivers.storage.rbd_process import apart

        ceph = apart(
            RbdSettings(
                conf=settings.pool.ceph_conf,
                user=settings.pool.ceph_user,
                pool=settings.pool.ceph_pool,
                reserve_bytes=settings.pool.reserve_gib * GIB,
                max_chain=settings.pool.ceph_max_chain,
                cache_dir=settings.state_dir / "pool-files",
            )
        )
        return ceph, TgtTargets(socket_of, shut_out=ceph.shut_out)

    from malleable.drivers.storage.folder import ReflinkSettings
    from malleable.drivers.storage.reflink import ReflinkDisks

    files = ReflinkSettings(
        pool_dir=settings.state_dir / "pool",
        size_bytes=settings.pool.size_gib * GIB,
        reserve_bytes=settings.pool.reserve_gib * GIB,
        shared_cache=settings.pool.cache == "shared",
    )
    return ReflinkDisks(files), TgtTargets(socket_of)


def portal_threads(settings: Settings) -> int:
    """Say how many threads tgtd needs for each disk of the pool."""
    if settings.pool.driver == "rbd":
        return RBD_PORTAL_THREADS
    return DIRECT_PORTAL_THREADS if settings.pool.cache == "shared" else 1


def storage_vlan(settings: Settings) -> StorageVlan | None:
    """Say how a gateway's portals reach the pool; None: it is on their host. Errors: Invalid."""
    pool = settings.pool
    if pool.driver != "rbd" or not pool.ceph_vlan:
        return None
    try:
        subnet = IPv4Network(pool.ceph_cidr)
    except ValueError as e:
        raise Invalid(f"{pool.ceph_cidr!a} is not a network: {e}.", fix="Set M2D_POOL__CEPH_CIDR.") from e
    if subnet.prefixlen > PREFIX_MAX:
        raise Invalid(
            f"{subnet} has too few addresses for a gateway's networks.",
            fix=f"Set M2D_POOL__CEPH_CIDR to a /{PREFIX_MAX} or larger.",
        )
    return StorageVlan(vid=pool.ceph_vlan, subnet=subnet)
