"""Pools of projects in Ceph: each holds its projects' RBD images, which target daemons open by a user of its name.

The index is the site's. So that two sites never take one pool, each of these has an index of one key, that says whose
it is; whoever else sweeps would throw away what another's index names.
"""

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from malleable.domain.errors import Refused
from malleable.drivers.storage import rbd_index
from malleable.drivers.storage.rbd_cluster import RbdCluster, RbdPool, RbdSettings
from malleable.drivers.storage.rbd_index import Entry
from malleable.drivers.storage.rbd_library import rados

log = logging.getLogger(__name__)
POOL, HOME = "pool", "home"
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


def want_usable(settings: RbdSettings, name: str) -> None:
    """Prove that the user of a project's pool opens ``name`` there, a clone of the site's, and writes none of those.

    Errors: Refused with code "pool-credentials" or "pool-not-apart".
    """
    user = pool_of(name)
    with _as(settings, user) as pool:
        with pool.image(name, is_read_only=False) as image:
            image.write(image.read(0, 512), 0)
        if _may(pool.ioctx, _write):
            raise _not_apart(user, "write", settings.pool)


def want_apart(settings: RbdSettings, pools: Collection[str], whose: str) -> None:
    """Prove that the user of the pool ``whose`` has nothing in projects' pools. Errors: as ``want_usable``."""
    user = user_of(settings, whose)
    with _as(settings, user) as pool:
        for name in pools:
            if _may(pool.ioctx_of(name), _read) or _may(pool.ioctx_of(name), _write):
                raise _not_apart(user, "read or write", name)


@contextmanager
def _as(settings: RbdSettings, user: str) -> Iterator[RbdPool]:
    cluster = RbdCluster(replace(settings, user=user))
    try:
        with cluster.opened(f"open a disk as client.{user}") as pool:
            yield pool
    finally:
        cluster.close()


def _may(ioctx: Any, do: Callable[[Any], object]) -> bool:
    try:
        do(ioctx)
    except (rados().PermissionError, rados().PermissionDeniedError):
        return False
    return True


def _read(ioctx: Any) -> None:
    ioctx.read(rbd_index.OBJECT, 1)


def _write(ioctx: Any) -> None:
    ioctx.write_full(_PROBE, b"")
    ioctx.remove_object(_PROBE)


def _not_apart(user: str, what: str, where: str) -> Refused:
    return Refused(
        f"Target daemons open disks as client.{user}, who may {what} in the pool {where}, too.",
        code="pool-not-apart",
        fix="Let another user do that, with the rights in docs/howto/ceph.md.",
    )
