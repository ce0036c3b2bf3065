"""What projects had of the disk storage, hour by hour."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Table, bindparam, cast, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from malleable.domain.ids import UsageRecordId, new_id
from malleable.domain.projects import UsageRecord
from malleable.store import schema as s
from malleable.store.rows import TableRows


def _of_each(what: Any, table: Table) -> Any:
    return select(what).where(table.c.project_id == s.projects.c.id).correlate(s.projects).scalar_subquery()


def _bytes(table: Table) -> Any:
    return _of_each(func.coalesce(func.sum(table.c.size_bytes), 0), table)


_COUNTS = {
    "disks": _of_each(func.count(s.disks.c.id), s.disks),
    "snapshots": _of_each(func.count(s.snapshots.c.id), s.snapshots),
    "images": _of_each(func.count(s.images.c.id), s.images),
    "disk_bytes": cast(_bytes(s.disks) + _bytes(s.snapshots), BigInteger),
    "image_bytes": cast(_bytes(s.images), BigInteger),
}
_COUNT = select(s.projects.c.id, *(count.label(name) for name, count in _COUNTS.items())).order_by(s.projects.c.id)
_FORGET = delete(s.usage_records).where(s.usage_records.c.at < bindparam("before", type_=s.usage_records.c.at.type))


def _put(insert: Any) -> Any:
    measured = func.coalesce(insert.excluded.taken_bytes, s.usage_records.c.taken_bytes)
    return insert.on_conflict_do_update(index_elements=["project_id", "at"], set_={"taken_bytes": measured})


_PUT = {
    "sqlite": _put(sqlite.insert(s.usage_records)),
    "postgresql": _put(postgresql.insert(s.usage_records)),
}


class UsageTable(TableRows[UsageRecord]):
    """``domain.store.UsageRows``."""

    __slots__ = ()

    def counted(self, at: datetime) -> tuple[UsageRecord, ...]:
        """Count what every project has, in one query, into records that are not yet put."""
        return tuple(
            UsageRecord(
                id=UsageRecordId(new_id()),
                project_id=row.id,
                at=at,
                **{name: int(getattr(row, name)) for name in _COUNTS},
            )
            for row in self._session.read(_COUNT).all()
        )

    def put(self, records: Sequence[UsageRecord]) -> None:
        """Add records, 32 in a statement; where there is one, only give it what was measured since."""
        if records:
            rows = [self._record.params(record, self._session.seal) for record in records]
            self._session.write(_PUT[self._session.dialect], rows)

    def forget(self, before: datetime) -> None:
        """Drop all records that are older."""
        self._session.write(_FORGET, {"before": before})
