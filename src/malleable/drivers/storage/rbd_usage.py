"""How much of a pool one thing takes, counted in RBD objects: the unit that is shared, copied and freed."""

import logging
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from malleable.domain.errors import Refused
from malleable.domain.ids import ProjectId
from malleable.domain.ports import Usage
from malleable.drivers.storage.rbd_cluster import RbdPool
from malleable.drivers.storage.rbd_index import Entry
from malleable.drivers.storage.rbd_library import rados, rbd

log = logging.getLogger(__name__)


def measure(pool: RbdPool, entry: Entry) -> Usage:
    """Measure an entry. Takes time for each object; with the object map of every snapshot that is little."""
    with pool.image(entry.rbd, entry.snapshot or None) as image:
        pieces, all_bytes = len(_changed(image, None)), _bytes(_changed(image, None, has_parents=True))
        if entry.snapshot:
            own_bytes = _bytes(_own_of_snapshot(pool, entry, image))
        else:
            snapshots = _snapshots(image)
            own_bytes = _bytes(_changed(image, snapshots[-1] if snapshots else None))
    # Of what was written over since a snapshot both count: the content has it once.
    return Usage(own_bytes=own_bytes, shared_bytes=max(all_bytes - own_bytes, 0), pieces=pieces)


def taken_by(pool: RbdPool, groups: Mapping[ProjectId, Collection[Entry]]) -> Mapping[ProjectId, int]:
    """Measure all that groups of entries keep alive, whatever is read from parents not counted.

    What was deleted meanwhile takes nothing. A group in a pool that does not answer is left out.
    """
    found = dict[ProjectId, int]()
    for owner, entries in groups.items():
        try:
            found[owner] = _taken_by(pool, entries)
        except (Refused, rados().Error, rbd().Error) as e:
            log.warning("What project %s takes is not known: %s", owner, e)
    return found


def _taken_by(pool: RbdPool, entries: Collection[Entry]) -> int:
    total = 0
    for name in {name for entry in entries for name in entry.names()}:
        with suppress(rbd().ImageNotFound):
            total += _taken(pool, name)
    return total


def _taken(pool: RbdPool, name: str) -> int:
    """Sum what was written to an RBD image before its first snapshot, between each two, and since the last."""
    with pool.image(name) as image:
        moments = [*_snapshots(image), None]
    total, since = 0, None
    for moment in moments:
        with pool.image(name, moment) as image:
            total += _bytes(_changed(image, since))
        since = moment
    return total


def _own_of_snapshot(pool: RbdPool, entry: Entry, image: Any) -> dict[int, int]:
    """Find the objects that this snapshot alone keeps: written since the one before, and again before the next."""
    if next(iter(image.list_children2()), None) is not None:
        return {}
    snapshots = _snapshots(image)
    position = snapshots.index(entry.snapshot)
    mine = _changed(image, snapshots[position - 1] if position else None)
    later = snapshots[position + 1] if position + 1 < len(snapshots) else None
    with pool.image(entry.rbd, later) as successor:
        changed = _changed(successor, entry.snapshot)
    return {offset: length for offset, length in mine.items() if offset in changed}


def _snapshots(image: Any) -> list[str]:
    return [snapshot["name"] for snapshot in sorted(image.list_snaps(), key=lambda one: int(one["id"]))]


def _changed(image: Any, since: str | None, *, has_parents: bool = False) -> dict[int, int]:
    """Find the objects written since a snapshot (None: ever), by offset, with or without those of its parents."""
    found: dict[int, int] = {}

    def note(offset: int, length: int, exists: bool) -> None:
        if exists or since is not None:
            found[offset] = length

    image.diff_iterate(0, image.size(), since, note, include_parent=has_parents, whole_object=True)
    return found


def _bytes(objects: dict[int, int]) -> int:
    return sum(objects.values())
