"""Chains of RBD images: a clone reads what it did not write through its parent, that through its own, and so on."""

import errno
import logging
import time
from collections.abc import Collection
from contextlib import suppress
from typing import Any

from malleable.domain.errors import Refused
from malleable.domain.ids import DiskId
from malleable.drivers.storage import rbd_index, refusals
from malleable.drivers.storage.rbd_cluster import RbdPool
from malleable.drivers.storage.rbd_index import BARE, Entry
from malleable.drivers.storage.rbd_library import rbd
from malleable.drivers.storage.rbd_rubbish import alone, kept_snapshots, shut_out

log = logging.getLogger(__name__)
#: object-map and fast-diff
MAPS = 8 | 16


def want_shallow(pool: RbdPool, parent: str, max_chain: int) -> None:
    """Be sure that a clone of an RBD image may be made. Errors: Refused with code "chain-too-deep"."""
    depth = 1 + depth_of(pool, parent)
    if depth > max_chain:
        raise refusals.too_deep(depth, max_chain)


def depth_of(pool: RbdPool, name: str) -> int:
    """Count the RBD images that one is read through, those in the trash too; 6 to 17 ms for each."""
    depth = 0
    with pool.image(name) as image:
        parent = _parent_of(image)
    while parent is not None:
        depth += 1
        in_pool, image_id = parent
        with rbd().Image(pool.ioctx_of(in_pool), image_id=image_id, read_only=True) as image:
            parent = _parent_of(image)
    return depth


def _parent_of(image: Any) -> tuple[str, str] | None:
    """Read the parent's pool, and Ceph's id of it, which it has also in the trash."""
    try:
        return str(image.parent_info()[0]), str(image.parent_id())
    except rbd().ImageNotFound:
        return None


def images_of(pool: RbdPool, disk_id: DiskId, disk: Entry) -> Collection[str]:
    """Name the RBD images that have a parent and hold a disk or snapshots of it."""
    entries = [entry for entry in rbd_index.read_all(pool.ioctx).values() if entry.disk == str(disk_id)]
    return [name for name in sorted({disk.rbd, *(entry.rbd for entry in entries)}) if _has_parent(pool, name)]


def _has_parent(pool: RbdPool, name: str) -> bool:
    with pool.image(name) as image:
        return _parent_of(image) is not None


def want_true_maps(pool: RbdPool, names: Collection[str], *, goes_on: bool) -> None:
    """Let RBD images' object maps tell no more objects than there are, and nobody else have the images open.

    librbd notes an object in the map, then writes it; flattening skips what is noted. So what dies in between, be it a
    target daemon long ago, would have the next flatten lose what the parent holds there (seen, version 16.2.15).
    ``goes_on``: it was so, and whoever has died since has left its lock.
    """
    for name in names:
        # Nobody uses the disk: who has it open died with it in hand.
        had_others = shut_out(pool, name)
        if had_others or not goes_on:
            _remake_maps(pool, name)


def cut_in_use(pool: RbdPool, names: Collection[str], seconds: float) -> bool:
    """Copy into RBD images that a node writes what they read from parents; False when the time was too short.

    Whoever has it open keeps its lock, so librbd would have *that* program flatten it, to the end. Instead each object
    that is not there is written by the call that librbd uses for it: Ceph does nothing if it is there by then, and what
    was read was the parent's if it is not. Only what is left then, to let go of the parent, is the other program's.

    There are no object maps meanwhile: they would not tell what is copied here, and should the other program die, they
    might tell of an object that it never wrote (see ``want_true_maps``).
    """
    until_s = time.monotonic() + seconds
    return all(_cut_in_use(pool, name, until_s) for name in names)


def _cut_in_use(pool: RbdPool, name: str, until_s: float) -> bool:
    _note_bare(pool, name)
    is_cut = False
    try:
        _want_no_maps(pool, name)
        is_cut = _copy_up(pool, name, until_s) and _let_go(pool, name)
    finally:
        if not is_cut:
            _note_bare(pool, name)  # it may have got its map from another meanwhile, which lacks what was copied
    if is_cut:
        rbd_index.remove(pool.ioctx, f"{BARE}/{name}")
    return is_cut


def _copy_up(pool: RbdPool, name: str, until_s: float) -> bool:
    ioctx, _ = pool.place(name)
    with pool.image(name) as image:
        prefix, object_bytes = image.block_name_prefix(), image.stat()["obj_size"]
        for offset, length in _foreign_objects(image).items():
            data = image.read(offset, length)
            ioctx.execute(f"{prefix}.{offset // object_bytes:016x}", "rbd", "copyup", data)
            if time.monotonic() >= until_s:
                return False
    return True


def _let_go(pool: RbdPool, name: str) -> bool:
    """Have an RBD image that needs no parent let go of it, and make its maps anew."""
    with pool.image(name, is_read_only=False) as image:
        try:
            image.flatten()
        except rbd().InvalidArgument:
            if _parent_of(image) is not None:
                raise
            # Another call was faster.
    _remake_maps(pool, name)
    return True


def _note_bare(pool: RbdPool, name: str) -> None:
    rbd_index.add(pool.ioctx, f"{BARE}/{name}", Entry(rbd=name))


def restore_maps(pool: RbdPool) -> None:
    """Give RBD images their object maps again whose flattening beside a node was cancelled, or died.

    One that still goes on loses no more than time: it takes the map away again, and makes it anew at its end. One that
    fails is left for later and holds up nobody. One caller at a time in all the world does it.
    """
    with alone(pool) as is_alone:
        for key, entry in rbd_index.read_all(pool.ioctx, BARE).items() if is_alone else ():
            try:
                with suppress(rbd().ImageNotFound):
                    _remake_maps(pool, entry.rbd)
            except (Refused, rbd().Error) as e:
                log.warning("RBD image %s does not get its object map again: %s", entry.rbd, e)
            else:
                rbd_index.remove(pool.ioctx, key)


def _want_no_maps(pool: RbdPool, name: str) -> None:
    with pool.image(name, is_read_only=False) as image:
        if image.features() & MAPS:
            image.update_features(MAPS, False)


def _remake_maps(pool: RbdPool, name: str) -> None:
    """Make the maps anew of what is there: rebuilding alone takes nothing out of the disk's own (librbd 16.2.15)."""
    _want_no_maps(pool, name)
    with pool.image(name, is_read_only=False) as image:
        image.update_features(MAPS, True)
        image.rebuild_object_map()
        snapshots = kept_snapshots(image)
    for snapshot in snapshots:
        with pool.image(name, snapshot, is_read_only=False) as image:
            image.rebuild_object_map()


def foreign_bytes(pool: RbdPool, names: Collection[str]) -> int:
    """Count what RBD images read from their parents, in whole objects."""
    return sum(_foreign_bytes(pool, name) for name in names)


def _foreign_bytes(pool: RbdPool, name: str) -> int:
    with pool.image(name) as image:
        return sum(_foreign_objects(image).values())


def _foreign_objects(image: Any) -> dict[int, int]:
    """Tell of the objects that are only the parent's where they begin, and their bytes."""
    own = _objects(image, include_parent=False)
    return {at: length for at, length in _objects(image, include_parent=True).items() if at not in own}


def _objects(image: Any, *, include_parent: bool) -> dict[int, int]:
    found: dict[int, int] = {}

    def note(offset: int, length: int, exists: bool) -> None:
        if exists:
            found[offset] = length

    image.diff_iterate(0, image.size(), None, note, include_parent=include_parent, whole_object=True)
    return found


def cut(pool: RbdPool, names: Collection[str], seconds: float) -> bool:
    """Copy into RBD images what they and their snapshots read from parents; False when the time was too short.

    Objects that were copied are not copied again by the next call.
    """
    until_s = time.monotonic() + seconds

    def go_on(_done: int, _all: int) -> int:
        return 0 if time.monotonic() < until_s else -errno.ECANCELED

    for name in names:
        with pool.image(name, is_read_only=False) as image:
            try:
                image.flatten(on_progress=go_on)
            except rbd().OperationCanceled:
                return False
            except rbd().InvalidArgument:
                if _parent_of(image) is not None:
                    raise
                # Another call was faster.
    return True
