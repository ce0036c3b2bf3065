"""What projects had of the disk storage, hour by hour."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Table, and_, bindparam, case, cast, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from malleable.domain.ids import ProjectId, UsageRecordId, new_id
from malleable.domain.projects import UsageRecord
from malleable.store import schema as s
from malleable.store.rows import TableRows


def _of_each(what: Any, table: Table) -> Any:
    return select(what).where(table.c.project_id == s.projects.c.id).correlate(s.projects).scalar_subquery()


def _bytes(table: Table, *more: Any) -> Any:
    return _of_each(func.coalesce(func.sum(sum(more, table.c.size_bytes)), 0), table)


_COUNTS = {
    "disks": _of_each(func.count(s.disks.c.id), s.disks),
    "snapshots": _of_each(func.count(s.snapshots.c.id), s.snapshots),
    "images": _of_each(func.count(s.images.c.id), s.images),
    "disk_bytes": cast(_bytes(s.disks) + _bytes(s.snapshots), BigInteger),
    "image_bytes": cast(_bytes(s.images, s.images.c.files_bytes), BigInteger),
}
_COUNT = select(s.projects.c.id, *(count.label(name) for name, count in _COUNTS.items())).order_by(s.projects.c.id)
_FORGET = delete(s.usage_records).where(s.usage_records.c.at < bindparam("before", type_=s.usage_records.c.at.type))


_KEY = ["project_id", "at"]
_PUT = {
    "sqlite": sqlite.insert(s.usage_records).on_conflict_do_nothing(index_elements=_KEY),
    "postgresql": postgresql.insert(s.usage_records).on_conflict_do_nothing(index_elements=_KEY),
}
#: So many projects are measured by one statement.
_SLOTS = 32


def _measure() -> Any:
    """Build the update of some records of one moment: never an insert, for a project may be gone meanwhile."""
    columns = s.usage_records.c
    projects = [bindparam(f"project_{n}", type_=columns.project_id.type) for n in range(_SLOTS)]
    taken = [bindparam(f"taken_{n}", type_=BigInteger) for n in range(_SLOTS)]
    told = case(*((columns.project_id == project, bytes) for project, bytes in zip(projects, taken, strict=True)))
    is_meant = and_(columns.at == bindparam("moment", type_=columns.at.type), columns.project_id.in_(projects))
    return update(s.usage_records).where(is_meant).values(taken_bytes=told)


_MEASURE = _measure()


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
        """Add records, 32 in a statement; where there is one of a project and moment, it stays."""
        if records:
            rows = [self._record.params(record, self._session.seal) for record in records]
            self._session.write(_PUT[self._session.dialect], rows)

    def measure(self, at: datetime, taken_bytes: Mapping[ProjectId, int]) -> None:
        """Write what was measured into the records of a moment; a project that is gone has none."""
        told = sorted(taken_bytes.items())
        for start in range(0, len(told), _SLOTS):
            params: dict[str, Any] = {"moment": at}
            for n in range(_SLOTS):
                project_id, taken = told[min(start + n, len(told) - 1)]
                params |= {f"project_{n}": project_id, f"taken_{n}": taken}
            self._session.write(_MEASURE, params)

    def forget(self, before: datetime) -> None:
        """Drop all records that are older."""
        self._session.write(_FORGET, {"before": before})
