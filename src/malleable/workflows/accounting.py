"""What projects have of the disk storage, recorded once an hour."""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

import structlog

from malleable.domain.errors import DriverError
from malleable.domain.ids import ProjectId
from malleable.domain.ports import Disks
from malleable.domain.store import Store
from malleable.workflows.audit import everything

log = structlog.get_logger()


def record_usage(store: Store, disks: Disks, *, now: datetime, before: datetime) -> bool:
    """Record what every project has, unless it was done in this hour; drop what is older than ``before``.

    First what the database knows, so that other processes see it done; then what the pool measures is added. Of two
    processes at one moment both measure, and there is one record all the same. Say whether there was one to make.
    """
    at = now.replace(minute=0, second=0, microsecond=0)
    with store.transaction() as tx:
        if tx.usage_records.count(at=at):
            return False
        tx.usage_records.forget(before)
        records = tx.usage_records.counted(at)
        tx.usage_records.put(records)
    groups = _groups(store)
    try:
        taken = disks.taken_bytes(groups) if groups else {}  # of nothing the pool need not be asked
    except DriverError as e:
        log.warning("the pool was not measured", error=str(e))
        return True
    with store.transaction() as tx:
        tx.usage_records.measure(at, {one.project_id: taken.get(one.project_id, 0) for one in records})
    return True


def _groups(store: Store) -> Mapping[ProjectId, list[UUID]]:
    """List what every project has in the pool."""
    groups: dict[ProjectId, list[UUID]] = {}
    with store.reading() as tx:
        for rows in (tx.images, tx.disks, tx.snapshots):
            for row in everything(rows):
                if row.project_id is not None:
                    groups.setdefault(row.project_id, []).append(row.id)
    return groups
