"""Pools of projects in Ceph: each holds its projects' RBD images, which target daemons open by a user of its name.

The index is the site's. So that two sites never take one pool, each of these has an index of one key, that says whose
it is; whoever else sweeps would throw away what another's index names.
"""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from malleable.domain.errors import Refused
from malleable.drivers.storage import rbd_index
from malleable.drivers.storage.rbd_cluster import NO_POOL, NoKey, RbdCluster, RbdPool, RbdSettings
from malleable.drivers.storage.rbd_index import Entry
from malleable.drivers.storage.rbd_library import mapped, rados, rbd

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


@contextmanager
def claim(pool: RbdPool, name: str) -> Iterator[None]:
    """Take a pool for projects of this site, if what is done with it then raises no error.

    Errors: Refused with code "no-such-pool" or "pool-taken".
    """
    ioctx = pool.ioctx_of(name)
    is_new = name != pool.name and _is_empty(ioctx) and rbd_index.add(ioctx, HOME, _home(pool))
    if not is_ours(pool, name):
        raise _taken(name)
    rbd_index.add(pool.ioctx, f"{POOL}/{name}", Entry(rbd=name))
    try:
        yield
    except BaseException:
        if is_new:
            rbd_index.remove(pool.ioctx, f"{POOL}/{name}")
            rbd_index.remove(ioctx, HOME)
        raise


def _is_empty(ioctx: Any) -> bool:
    library = rbd().RBD()
    return not (rbd_index.read_all(ioctx) or library.list(ioctx) or any(library.trash_list(ioctx)))


def _home(pool: RbdPool) -> Entry:
    return Entry(rbd=pool.name)


def is_ours(pool: RbdPool, name: str) -> bool:
    """Tell whether a pool says that projects of this site have it, and no more. Errors: Refused "no-such-pool"."""
    return rbd_index.read_all(pool.ioctx_of(name)) == {HOME: _home(pool)}


def _taken(name: str) -> Refused:
    return Refused(f"The pool {name} of Ceph has another use.", code="pool-taken", fix="Make one for this alone.")


def claimed(pool: RbdPool) -> Sequence[str]:
    """Name every pool that projects have, by this site's word alone."""
    return [entry.rbd for entry in rbd_index.read_all(pool.ioctx, POOL).values()]


def want_all_apart(settings: RbdSettings, pool: RbdPool) -> None:
    """Prove that no target daemon's user has anything in a pool of projects that is not its own.

    Of a pool that Ceph has no more there is nothing to prove, nor of a project's user whose key is not on this host.
    Errors: as ``want_usable``; Refused naming a pool that says nothing, or that the server itself may not read.
    """
    there = [name for name in claimed(pool) if _is_there(pool, name)]
    for whose in ("", *there) if there else ():
        try:
            _want_apart(settings, [name for name in there if name != whose], whose)
        except NoKey as e:
            if not whose:
                raise
            log.info("As pool %s's user nothing is opened on this host: %s", whose, e)


def _is_there(pool: RbdPool, name: str) -> bool:
    try:
        with mapped(f"read the pool {name}, which projects have"):
            if is_ours(pool, name):
                return True
    except Refused as e:
        if e.code != NO_POOL:
            raise
        log.warning("A pool of projects is lost: %s", e)
        return False
    raise Refused(
        f"The pool {name}, which projects have, is not what it was.",
        code="pool-taken",
        fix="Was it made anew? Then all that was in it is lost: delete what its projects have there.",
    )


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


def _want_apart(settings: RbdSettings, pools: Collection[str], whose: str) -> None:
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
