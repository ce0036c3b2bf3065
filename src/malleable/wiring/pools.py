"""Which disk pool this host uses, and the target driver that opens its disks."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING

from malleable.config import GIB, Settings
from malleable.domain.errors import Invalid
from malleable.domain.ids import NetworkId
from malleable.domain.ports import LIMITS, Disks, Targets
from malleable.drivers.storage import blocks
from malleable.drivers.storage.folder import LAYERS, MARKER, POOL_FILE, ReflinkSettings
from malleable.gateway.storage_leg import PREFIX_MAX, StorageVlan

if TYPE_CHECKING:
    from malleable.drivers.storage.qcow2 import Qcow2Disks
    from malleable.drivers.storage.reflink import ReflinkDisks

#: librbd answers late and one at a time: measured, 16 threads write five times as much as 4 to a new clone
RBD_PORTAL_THREADS = 16
#: a disk read past the page cache answers one at a time per thread: measured, 4 read two to five times as much as 1
DIRECT_PORTAL_THREADS = 4
#: calls of the whole site that a pool takes at once which may hang: half of a worker's threads, and no more than
REMOTE_POOL_CALLS = 16
#: the same for systems that stand still meanwhile, and those about to: they wait for no other call. A quarter, so that
#: a quarter of a worker's threads stays with what else there is to do; half of these are for one project's systems.
FROZEN_CALLS = 8
#: what an XFS in a sparse file takes: devices, programs, a filesystem
XFS_NEEDS = ("/dev/loop-control", "mkfs.xfs", "mount", "xfs")
QCOW2_NEEDS = ("/dev/fuse", "qemu-storage-daemon")
#: drivers whose pool is on this host, so that its gateway opens it and looks after it
LOCAL = ("reflink", "qcow2")


def make_pool(settings: Settings, socket_of: Callable[[NetworkId], Path]) -> tuple[Disks, Targets]:
    """Make the drivers of the pool and of the target daemons; each touches nothing before its first call."""
    from malleable.drivers.target.tgt import TgtTargets

    if (local := local_pool(settings)) is not None:
        return local, TgtTargets(socket_of)
    from malleable.drivers.storage.rbd_cluster import RbdSettings
    from malleable.drivers.storage.rbd_process import apart

    ceph = apart(
        RbdSettings(
            conf=settings.pool.ceph_conf,
            user=settings.pool.ceph_user,
            pool=settings.pool.ceph_pool,
            portal_user=settings.pool.ceph_portal_user,
            reserve_bytes=settings.pool.reserve_gib * GIB,
            max_chain=settings.pool.ceph_max_chain,
            cache_dir=settings.state_dir / "pool-files",
        )
    )
    return ceph, TgtTargets(socket_of, shut_out=ceph.shut_out)


def local_pool(settings: Settings) -> "ReflinkDisks | Qcow2Disks | None":
    """Make the driver of a pool on this host; None: it is elsewhere. Touches no more than it takes to choose."""
    driver = chosen(settings).driver
    if driver not in LOCAL:
        return None
    from malleable.drivers.storage.reflink import ReflinkDisks

    pool, pool_dir = settings.pool, settings.state_dir / "pool"
    reserve_bytes = pool.reserve_gib * GIB
    if driver == "qcow2":
        from malleable.drivers.storage.qcow2 import Qcow2Disks, Qcow2Settings

        layers = Qcow2Settings(pool_dir=pool_dir, run_dir=settings.run_dir / "pool", reserve_bytes=reserve_bytes)
        return Qcow2Disks(layers)
    return ReflinkDisks(
        ReflinkSettings(
            pool_dir=pool_dir,
            size_bytes=pool.size_gib * GIB,
            reserve_bytes=reserve_bytes,
            shared_cache=pool.cache == "shared",
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A pool's driver, and why it is that one."""

    driver: str
    why: str


def chosen(settings: Settings) -> Choice:
    """Choose the pool's driver: as the settings say, else what the pool was begun with, else what this host can do.

    Errors: Invalid where the settings say another than the pool was begun with.
    """
    told, begun = settings.pool.driver, _begun(settings.state_dir / "pool")
    if begun and told in LOCAL and told != begun:
        raise Invalid(
            f"The pool {settings.state_dir / 'pool'} was begun with {begun}, not with {told}.",
            fix=f"Set M2D_POOL__DRIVER to {begun} or auto; or move that folder away: its disks are not there then.",
        )
    if told != "auto":
        return Choice(driver=told, why="as the settings say")
    if begun:
        return Choice(driver=begun, why="the pool was begun with it")
    if _shares_blocks(settings.state_dir):
        return Choice(driver="reflink", why="the filesystem shares blocks")
    lacks_xfs, lacks_qcow2 = _lacking(XFS_NEEDS), _lacking(QCOW2_NEEDS)
    if not lacks_xfs:
        return Choice(driver="reflink", why="on an XFS of its own")
    if lacks_qcow2:
        return Choice(driver="reflink", why=f"an XFS of its own lacks {lacks_xfs}; qcow2 would lack {lacks_qcow2}")
    return Choice(driver="qcow2", why=f"the filesystem shares no blocks, and an XFS of its own lacks {lacks_xfs}")


def _begun(pool_dir: Path) -> str:
    """Name the driver that a pool on this host is of; "" when there is none yet."""
    if (pool_dir / LAYERS).is_dir():
        return "qcow2"
    return "reflink" if (pool_dir / POOL_FILE).exists() or (pool_dir / MARKER).exists() else ""


def _shares_blocks(folder: Path) -> bool:
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        return blocks.can_clone(there)
    except OSError:  # read-only, or not ours to write: the pool's own check says so
        return False


def _lacking(needs: Sequence[str]) -> str:
    """Name what of devices, programs and filesystems this host lacks; "" when nothing."""
    return ", ".join(need for need in needs if not _has(need))


def _has(need: str) -> bool:
    if need.startswith("/"):
        return Path(need).exists()
    if need != "xfs":
        return shutil.which(need) is not None
    known = Path("/proc/filesystems").read_text().split()
    return need in known or any(Path("/lib/modules", os.uname().release).glob("kernel/fs/xfs/xfs.ko*"))


def portal_threads(settings: Settings) -> int:
    """Say how many threads tgtd needs for each disk of the pool."""
    driver = chosen(settings).driver
    if driver == "rbd":
        return RBD_PORTAL_THREADS
    if driver == "qcow2":
        return DIRECT_PORTAL_THREADS
    return DIRECT_PORTAL_THREADS if settings.pool.cache == "shared" else 1


def pool_limits(settings: Settings) -> Mapping[str, int]:
    """Say how many calls each device takes at once: a pool that may hang must leave threads to others."""
    return LIMITS if chosen(settings).driver == "reflink" else {**LIMITS, **remote_limits(settings.worker.threads)}


def remote_limits(threads: int) -> Mapping[str, int]:
    """Say how many calls a pool that may hang takes at once, for a worker of so many threads.

    From three threads on, some are left. Workers that differ each keep to their own. One project has half of them at
    most: where its own pool hangs, the others' do not wait behind it.
    """
    frozen = max(min(FROZEN_CALLS, threads // 4), 1)
    pool = max(min(REMOTE_POOL_CALLS, threads // 2), 1)
    limits = {"pool": pool, "frozen": frozen}
    return {**limits, **{f"{kind}-project": max(limit // 2, 1) for kind, limit in limits.items()}}


def storage_vlan(settings: Settings) -> StorageVlan | None:
    """Say how a gateway's portals reach the pool; None: it is on their host. Errors: Invalid."""
    pool = settings.pool
    if pool.driver != "rbd" or not pool.ceph_vlan:
        return None
    try:
        subnet = IPv4Network(pool.ceph_cidr)
    except ValueError as e:
        raise Invalid(f"{pool.ceph_cidr!a} is not a network: {e}.", fix="Set M2D_POOL__CEPH_CIDR.") from e
    # With bridges half of it stays the pool's own: whoever adds one may have Ceph's addresses in the upper half.
    bridges = settings.uplink.bridges
    longest = PREFIX_MAX - (len(bridges).bit_length() + 1 if bridges else 0)
    if subnet.prefixlen > longest:
        raise Invalid(
            f"{subnet} has too few addresses for a gateway's networks.",
            fix=f"Set M2D_POOL__CEPH_CIDR to a /{longest} or larger.",
        )
    return StorageVlan(vid=pool.ceph_vlan, subnet=subnet)
