"""What projects have of the disk storage, recorded once an hour; what is limited of it, measured more often."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from uuid import UUID

import structlog

from malleable.domain.errors import DriverError
from malleable.domain.ids import ProjectId
from malleable.domain.ports import Disks
from malleable.domain.projects import UsageRecord
from malleable.domain.store import Store, Transaction
from malleable.workflows.audit import everything

log = structlog.get_logger()
#: Where the bytes taken are limited they are measured so often: what was written or removed is to count soon.
LIMITED_EVERY_MIN = 5


def record_usage(store: Store, disks: Disks, *, now: datetime, before: datetime) -> bool:
    """Record what every project has, unless it was done in this hour; drop what is older than ``before``.

    First what the database knows, so that other processes see it done; then what the pool measures is added. Of two
    processes at one moment both measure, and there is one record all the same. Say whether there was one to make; what
    is limited is measured anew all the same.
    """
    at = now.replace(minute=0, second=0, microsecond=0)
    with store.transaction() as tx:
        is_due = not tx.usage_records.count(at=at)
        if is_due:
            tx.usage_records.forget(before)
        records = tx.usage_records.counted(at) if is_due else _limited(tx, now, at)
        tx.usage_records.put(records)
    if records:
        _measure(store, disks, at, records)
    return is_due


def _limited(tx: Transaction, now: datetime, at: datetime) -> Sequence[UsageRecord]:
    """Count what those have whose bytes taken are limited, at every fifth minute of an hour."""
    if now.minute % LIMITED_EVERY_MIN:
        return ()
    limited = {project.id for project in everything(tx.projects) if project.quota.taken_bytes is not None}
    return [record for record in tx.usage_records.counted(at) if record.project_id in limited] if limited else ()


def _measure(store: Store, disks: Disks, at: datetime, records: Sequence[UsageRecord]) -> None:
    """Have the pool measure what these projects have; where it does not answer, what was measured before stays."""
    owners = {record.project_id for record in records}
    groups = _groups(store, owners)
    try:
        taken = disks.taken_bytes(groups) if groups else {}  # of nothing the pool need not be asked
    except DriverError as e:
        log.warning("the pool was not measured", error=str(e))
        return
    known = owners - (groups.keys() - taken.keys())
    with store.transaction() as tx:
        tx.usage_records.measure(at, {owner: taken.get(owner, 0) for owner in known})


def _groups(store: Store, owners: Collection[ProjectId]) -> Mapping[ProjectId, list[UUID]]:
    """List what projects have in the pool."""
    groups: dict[ProjectId, list[UUID]] = {}
    with store.reading() as tx:
        for rows in (tx.images, tx.disks, tx.snapshots):
            for row in everything(rows):
                if row.project_id in owners:
                    groups.setdefault(row.project_id, []).append(row.id)
    return groups
