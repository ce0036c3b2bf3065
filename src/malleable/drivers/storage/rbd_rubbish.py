"""Names for new RBD images, and the end of those that nobody needs."""

import logging
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from malleable.domain.errors import Refused
from malleable.drivers.storage import rbd_index, rbd_projects
from malleable.drivers.storage.rbd_cluster import NO_POOL, RbdPool
from malleable.drivers.storage.rbd_library import rados, rbd

log = logging.getLogger(__name__)
_OURS = re.compile(r"(?:image|file|disk)-[0-9a-f-]{36}-([0-9a-f]{8})[0-9a-f]{4}")
#: What no key names is kept in Ceph's trash for so long: were the index lost, all would be rubbish at once.
TRASH_S = 7 * 24 * 3600
LOCK = "sweep"
LOCK_S = 600


def new_name(kind: str, thing_id: UUID, pool: str = "") -> str:
    """Make a name in a pool that was never used, so that a second attempt never meets what the first one left.

    It tells when it was made: what is killed while it makes an RBD image may leave nothing else of it.
    """
    name = f"{kind}-{thing_id}-{int(datetime.now(UTC).timestamp()):08x}{secrets.token_hex(2)}"
    return f"{pool}/{name}" if pool else name


def discard(pool: RbdPool, name: str) -> None:
    """Remove an RBD image that no key names as a whole; nothing happens while a snapshot of it is kept.

    It goes to Ceph's trash while clones or a dead client hold it, and is gone with its pool.
    """
    library = rbd()
    try:
        shut_out(pool, name)
        library.RBD().remove(*pool.place(name))
    except library.ImageNotFound:
        return
    except Refused as e:
        if e.code != NO_POOL:
            raise
    except (library.ImageHasSnapshots, library.ImageBusy):
        with suppress(library.ImageNotFound, library.ImageBusy):
            with pool.image(name) as image:
                is_kept = any(kept_snapshots(image))
            if not is_kept:
                library.RBD().trash_move(*pool.place(name), 0)


def shut_out(pool: RbdPool, name: str) -> bool:
    """Take an RBD image from whoever else has it open to write: Ceph takes nothing from those clients any more.

    Say whether there was anybody.

    A daemon that was killed has its images open for 30 s more as far as Ceph knows, and whatever is done to one
    meanwhile waits for its answer. Errors: rbd.ImageNotFound.
    """
    me = int(pool.client.get_instance_id())
    with pool.image(name) as image:
        others = {watcher["addr"] for watcher in image.watchers_list() if watcher["id"] != me}
        found = image.list_lockers()
        locks = [lock for lock in found["lockers"] if lock[0] != f"client.{me}"] if found else []
        for address in others.union(address for _, _, address in locks):
            pool.client.blocklist_add(address)
        if others or locks:
            pool.client.wait_for_latest_osdmap()
        for client, cookie, _ in locks:
            # So librbd says that there is no such lock: who snapshots the disk at this moment broke it first.
            with suppress(rbd().ImageNotFound):
                image.break_lock(client, cookie)
        return bool(others or locks)


def kept_snapshots(image: Any) -> list[str]:
    """Name the snapshots of an RBD image, without those that are kept for clones only."""
    user = rbd().RBD_SNAP_NAMESPACE_TYPE_USER
    return [snapshot["name"] for snapshot in image.list_snaps() if snapshot["namespace"] == user]


def drop_snapshot(pool: RbdPool, name: str, snapshot: str) -> None:
    """Remove a snapshot of an RBD image; while clones of it live Ceph keeps it out of sight."""
    with suppress(rbd().ImageNotFound), pool.image(name, is_read_only=False) as image:
        image.remove_snap(snapshot)


def discard_sealed(pool: RbdPool, entry: rbd_index.Entry) -> None:
    """Remove an image and the files beside it."""
    drop_snapshot(pool, entry.rbd, entry.snapshot)
    for name in entry.names():
        discard(pool, name)


def sweep(pool: RbdPool, leftover_age_s: float) -> None:
    """Remove what crashes left, and what was in the trash until its last clone went. One at a time in all the world."""
    with alone(pool) as is_alone:
        if is_alone:
            _sweep(pool, "", leftover_age_s)
            for name in rbd_projects.claimed(pool):
                try:
                    if rbd_projects.is_ours(pool, name):
                        _sweep(pool, name, leftover_age_s)
                except (Refused, rados().Error, rbd().Error) as e:  # the others are not its projects'
                    log.warning("Pool %s of projects is not swept: %s", name, e)


def _sweep(pool: RbdPool, name: str, leftover_age_s: float) -> None:
    _empty_trash(pool.ioctx_of(name))
    _find_leftovers(pool, name, leftover_age_s)


def _empty_trash(ioctx: Any) -> None:
    library = rbd()
    now = datetime.now(UTC).replace(tzinfo=None)
    for item in library.RBD().trash_list(ioctx):
        if _OURS.fullmatch(item["name"]) and item["deferment_end_time"] <= now:
            with suppress(library.ImageNotFound, library.ImageHasSnapshots, library.ImageBusy, library.PermissionError):
                with library.Image(ioctx, image_id=item["id"]) as image:
                    for snapshot in kept_snapshots(image):
                        image.remove_snap(snapshot)
                library.RBD().trash_remove(ioctx, item["id"])


def _find_leftovers(pool: RbdPool, pool_name: str, leftover_age_s: float) -> None:
    library, ioctx = rbd(), pool.ioctx_of(pool_name)
    # The names first: what is made and entered in between is then no leftover.
    found = (name for name in library.RBD().list(ioctx) if _OURS.fullmatch(name))
    names = {f"{pool_name}/{name}" if pool_name else name for name in found}
    for entry in rbd_index.read_all(pool.ioctx).values():
        names.difference_update(entry.names())
    for name in names:
        try:
            if _is_left_over(pool, name, leftover_age_s):
                library.RBD().trash_move(*pool.place(name), TRASH_S)
        except library.ImageBusy:
            continue
        except library.ImageNotFound:
            # Removed meanwhile, or only a name: its maker was killed before there was more of it.
            if _age_of_name_s(name) >= leftover_age_s:
                with suppress(library.ImageNotFound):
                    library.RBD().remove(*pool.place(name))


def _is_left_over(pool: RbdPool, name: str, leftover_age_s: float) -> bool:
    """Tell whether an RBD image that no key names is old enough and nobody's. Errors: rbd.ImageNotFound, ImageBusy."""
    with pool.image(name) as image:
        age = datetime.now(UTC).replace(tzinfo=None) - image.create_timestamp()
        return age.total_seconds() >= leftover_age_s and next(iter(image.watchers_list()), None) is None


def _age_of_name_s(name: str) -> float:
    made = _OURS.fullmatch(name.rpartition("/")[2])
    return datetime.now(UTC).timestamp() - int(made[1], 16) if made else 0.0


@contextmanager
def alone(pool: RbdPool) -> Iterator[bool]:
    """Hold the pool's lock, unless somebody has it; one that a crash left ends by itself."""
    cookie = secrets.token_hex(8)
    try:
        pool.ioctx.lock_exclusive(rbd_index.OBJECT, LOCK, cookie, desc="malleable", duration=LOCK_S)
    except (rados().ObjectBusy, rados().ObjectExists):
        yield False
        return
    try:
        yield True
    finally:
        with suppress(rados().ObjectNotFound):
            pool.ioctx.unlock(rbd_index.OBJECT, LOCK, cookie)
