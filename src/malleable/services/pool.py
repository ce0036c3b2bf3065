"""The pool: how full it is, what is in it, and what should not be."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from malleable.domain.images import ImageState
from malleable.domain.operations import Operation
from malleable.domain.pool import Audit
from malleable.domain.ports import Capacity
from malleable.services.authorization import require
from malleable.services.caller import Caller
from malleable.services.finding import find_project, names_of
from malleable.services.parts import Parts, Shown
from malleable.workflows import audit, collect


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolUse:
    """How full the pool is, and how much of everything it and the database have: (in the pool, in the database)."""

    capacity: Capacity
    images: tuple[int, int]
    disks: tuple[int, int]
    snapshots: tuple[int, int]


class Pool:
    """Where images and disks are kept; for operators."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def pool_get(self, caller: Caller, *, project: str | None = None) -> PoolUse:
        """Measure the pool, or the one that a project has, and count what is in all. Errors: NotFound; the driver's."""
        require(caller, "pool_get")
        with self._parts.store.reading() as tx:
            name = find_project(tx, caller, project).pool if project is not None else ""
        disks = self._parts.drivers.disks
        capacity, stored = disks.within(name).capacity(), disks.list()
        with self._parts.store.reading() as tx:
            return PoolUse(
                capacity=capacity,
                # Those that are not sealed, or failed, have nothing in the pool.
                images=(len(stored.images), tx.images.count(state=ImageState.SEALED)),
                disks=(len(stored.disks), tx.disks.count()),
                snapshots=(len(stored.snapshots), tx.snapshots.count()),
            )

    def pool_audit(self, caller: Caller, *, grace_s: float, limit: int) -> Shown[Audit]:
        """Compare pool, target daemons and uploads with the database; of the first ``limit`` differences give names."""
        require(caller, "pool_audit")
        found = self._look(grace_s)
        with self._parts.store.reading() as tx:
            told = found.differences[:limit]
            names: Mapping[UUID, str] = {
                **names_of(tx.projects, (d.project_id for d in told)),
                **names_of(tx.networks, (d.network_id for d in told)),
            }
        return Shown(value=found, names=names)

    def pool_collect(self, caller: Caller, *, grace_s: float) -> Operation:
        """Begin to remove orphans and to restore lost targets. Errors: Conflict when the pool may be another site's."""
        require(caller, "pool_collect")
        found = self._look(grace_s)
        with self._parts.store.transaction() as tx:
            now, spool = self._parts.now(), self._parts.spool_dir
            return collect.request(tx, now, audit=found, spool=spool, actor_id=caller.user_id)

    def _look(self, grace_s: float) -> Audit:
        parts = self._parts
        return audit.look(parts.store, parts.drivers, parts.spool_dir, now=parts.now(), grace_s=grace_s)
