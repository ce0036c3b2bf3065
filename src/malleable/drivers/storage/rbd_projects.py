"""Pools of projects in Ceph: each holds its projects' RBD images, which target daemons open by a user of its name.

The index is the site's. So that two sites never take one pool, each of these has an index of one key, that says whose
it is; whoever else sweeps would throw away what another's index names.
"""

import logging
from collections.abc import Iterator
from dataclasses import replace

from malleable.domain.errors import Refused
from malleable.drivers.storage import rbd_index
from malleable.drivers.storage.rbd_cluster import RbdCluster, RbdPool, RbdSettings
from malleable.drivers.storage.rbd_index import Entry
from malleable.drivers.storage.rbd_library import rados

log = logging.getLogger(__name__)
POOL, HOME = "pool", "home"
_GUIDE = "docs/howto/ceph.md says which rights it needs."
_PROBE = "malleable.probe"


def pool_of(name: str) -> str:
    """Name the pool that an RBD image is in; "" is the site's."""
    return name.rpartition("/")[0]


def user_of(settings: RbdSettings, pool: str) -> str:
    """Say as whom target daemons open what is in a pool, without "client."."""
    return pool or settings.portal_user or settings.user


def want_unclaimed(pool: RbdPool) -> None:
    """Be sure that the site's pool is none that projects of another have. Errors: Refused with code "pool-taken"."""
    if rbd_index.read(pool.ioctx, [HOME]):
        raise _taken(pool.name)


def claim(pool: RbdPool, name: str) -> None:
    """Take a pool for projects of this site. Errors: Refused with code "no-such-pool" or "pool-taken"."""
    ioctx, ours = pool.ioctx_of(name), {HOME: Entry(rbd=pool.name)}
    if name != pool.name and not rbd_index.read_all(ioctx):
        rbd_index.add(ioctx, HOME, ours[HOME])
    if rbd_index.read_all(ioctx) != ours:
        raise _taken(name)
    rbd_index.add(pool.ioctx, f"{POOL}/{name}", Entry(rbd=name))


def _taken(name: str) -> Refused:
    return Refused(f"The pool {name} of Ceph has another use.", code="pool-taken", fix="Make one for this alone.")


def claimed(pool: RbdPool) -> Iterator[str]:
    """Name every pool that projects have. One that is not there to be read is left out, and logged."""
    for entry in rbd_index.read_all(pool.ioctx, POOL).values():
        try:
            is_ours = rbd_index.read(pool.ioctx_of(entry.rbd), [HOME]) == {HOME: Entry(rbd=pool.name)}
        except (Refused, rados().Error) as e:
            log.warning("Pool %s of a project is passed over: %s", entry.rbd, e)
            continue
        if is_ours:
            yield entry.rbd


def want_apart(settings: RbdSettings, name: str) -> None:
    """Prove that a pool's user opens ``name`` there, a clone of what is in the site's pool, and can do no more.

    Errors: Refused with code "pool-credentials" or "pool-not-apart".
    """
    pool_name = pool_of(name)
    user, others = pool_name, user_of(settings, "")
    theirs = RbdCluster(replace(settings, user=user))
    try:
        with theirs.opened(f"open a disk as client.{user}") as pool:
            with pool.image(name, is_read_only=False) as image:
                image.write(image.read(0, 512), 0)
            _want_forbidden(pool, "", user, settings.pool)
    finally:
        theirs.close()
    sites = RbdCluster(replace(settings, user=others))
    try:
        with sites.opened(f"look what client.{others} may do") as pool:
            _want_forbidden(pool, pool_name, others, pool_name)
    finally:
        sites.close()


def _want_forbidden(pool: RbdPool, name: str, user: str, where: str) -> None:
    """Be sure that a user may write nothing in a pool. Errors: Refused."""
    ioctx = pool.ioctx_of(name)
    try:
        ioctx.write_full(_PROBE, b"")
    except (rados().PermissionError, rados().PermissionDeniedError):
        return
    ioctx.remove_object(_PROBE)
    raise Refused(
        f"Target daemons open disks as client.{user}, which may write in the pool {where}, too.",
        code="pool-not-apart",
        fix=f"Let another user do that: {_GUIDE}",
    )
