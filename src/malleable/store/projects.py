"""Projects, and what they have."""

from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ScalarSelect, Select, Table, bindparam, cast, func, select

from malleable.domain.errors import NotFound
from malleable.domain.ids import ProjectId
from malleable.domain.nodes import NodeState
from malleable.domain.projects import HOLDINGS, Holdings, Project
from malleable.store import schema as s
from malleable.store.records import Record
from malleable.store.rows import TableRows
from malleable.store.session import Session

_BY_ID = (("id", "equal"),)


def _of_project(what: Any, table: Table) -> Select[Any]:
    owner_id = bindparam("owner_id", type_=s.projects.c.id.type)
    return select(what).select_from(table).where(table.c.project_id == owner_id)


def _count(table: Table, *only: Any) -> ScalarSelect[Any]:
    return _of_project(func.count(), table).where(*only).scalar_subquery()


def _bytes(table: Table, *more: Any) -> ScalarSelect[Any]:
    counted = sum(more, table.c.size_bytes)
    return _of_project(func.coalesce(func.sum(counted), 0), table).scalar_subquery()


def _attachments() -> ScalarSelect[Any]:
    held = s.nodes.join(s.nics, s.nics.c.node_id == s.nodes.c.id)
    joined = held.join(s.attachments, s.attachments.c.nic_id == s.nics.c.id)
    owner_id = bindparam("owner_id", type_=s.projects.c.id.type)
    counted = select(func.count()).select_from(joined).where(s.nodes.c.project_id == owner_id)
    return counted.where(s.nodes.c.state != NodeState.QUARANTINED).scalar_subquery()


def _measured() -> ScalarSelect[Any]:
    records = s.usage_records.c
    last = _of_project(records.taken_bytes, s.usage_records).where(records.taken_bytes.is_not(None))
    return last.order_by(records.at.desc()).limit(1).scalar_subquery()


#: How each field of ``Holdings`` is counted; every one of them by an index that begins with the project.
_COUNTS = {
    "nodes": _count(s.nodes, s.nodes.c.state != NodeState.QUARANTINED),
    "networks": _count(s.networks),
    "attachments": _attachments(),
    "disks": _count(s.disks),
    "disk_bytes": cast(_bytes(s.disks) + _bytes(s.snapshots), BigInteger),
    "snapshots": _count(s.snapshots),
    "images": _count(s.images),
    "image_bytes": cast(_bytes(s.images, s.images.c.files_bytes), BigInteger),
    "taken_bytes": func.coalesce(_measured(), 0),
}


class ProjectTable(TableRows[Project]):
    """``domain.store.ProjectRows``.

    A transaction asks for the same project again and again (whose is it, what may it have, what is it called), so what
    it has read by id or name it knows, until it changes something.
    """

    __slots__ = ("_known",)

    def __init__(self, record: Record[Project], session: Session) -> None:
        super().__init__(record, session)
        self._known: dict[UUID, Project] = {}

    def get(self, id: UUID) -> Project:
        """Read by id. Errors: NotFound."""
        known = self._known.get(id)
        return known or self._keep(super().get(id))

    def find(self, **equal: object) -> Project | None:
        """Read the only match; None when there is none."""
        found = super().find(**equal)
        return None if found is None else self._keep(found)

    def change(self, id: UUID, *, expect: Mapping[str, object] = {}, **changes: object) -> bool:
        """Set fields where the id matches and ``expect`` still holds; say whether it did. Errors: Conflict."""
        self._known.clear()
        return super().change(id, expect=expect, **changes)

    def remove(self, id: UUID, *, expect: Mapping[str, object] = {}) -> bool:
        """Delete where the id matches and ``expect`` still holds; say so. Errors: Conflict."""
        self._known.clear()
        return super().remove(id, expect=expect)

    def _keep(self, project: Project) -> Project:
        self._known[project.id] = project
        return project

    def lock(self, id: ProjectId) -> Project:
        """Read a project and keep everybody else who locks it waiting until this transaction ends. Errors: NotFound.

        Who only adds something that belongs to the project need not wait. SQLite has one writer at a time anyway.
        """
        record = self._record
        statement = record.cached(("lock",), lambda: record.select(_BY_ID).with_for_update(key_share=True))
        row = self._session.write(statement, {"is_id": id}).first()
        if row is None:
            raise NotFound(f"There is no {record.noun} {id}.")
        return self._keep(record.value(row, self._session.seal))

    def holdings(self, id: ProjectId, names: Collection[str] = HOLDINGS) -> Holdings:
        """Count what a project has of the fields of ``Holdings`` named, in one query; the others are 0."""
        wanted = tuple(name for name in HOLDINGS if name in names)
        statement = self._record.cached(("holdings", wanted), lambda: select(*(_COUNTS[n].label(n) for n in wanted)))
        row = self._session.read(statement, {"owner_id": id}).one()
        return Holdings(**dict(zip(wanted, map(int, row), strict=True)))

    def pools(self) -> tuple[str, ...]:
        """Name the pools that projects have of their own, in one query."""
        pool = s.projects.c.pool
        statement = self._record.cached(("pools",), lambda: select(pool).where(pool > "").distinct().order_by(pool))
        return tuple(str(name) for (name,) in self._session.read(statement, {}).all())
