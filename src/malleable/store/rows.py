"""The generic table: ``domain.store.Rows`` over one Record."""

from collections.abc import Collection, Mapping
from typing import Any, Generic, TypeVar
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from malleable.domain.errors import NotFound
from malleable.domain.store import PAGE_MAX, Page
from malleable.store.conflicts import explain_remove, explain_write
from malleable.store.records import Record
from malleable.store.session import Session

T = TypeVar("T")

_BY_ID = (("id", "equal"),)


class TableRows(Generic[T]):
    """Rows of one table inside one transaction."""

    __slots__ = ("_record", "_session")

    def __init__(self, record: Record[T], session: Session) -> None:
        self._record = record
        self._session = session

    def add(self, value: T) -> None:
        """Insert. Errors: Conflict, naming what is taken."""
        record = self._record
        try:
            self._session.write(record.insert, record.params(value, self._session.seal))
        except IntegrityError as e:
            values = {name: getattr(value, name) for name in record.names}
            raise explain_write(self._session, record, e, values) from e

    def get(self, id: UUID) -> T:
        """Read by id. Errors: NotFound, naming the noun."""
        row = self._session.read(self._record.select(_BY_ID), {"is_id": id}).first()
        if row is None:
            raise NotFound(f"There is no {self._record.noun} {id}.")
        return self._record.value(row, self._session.seal)

    def find(self, **equal: object) -> T | None:
        """Read the only match; None when there is none."""
        shape, params = self._record.filter(equal)
        params["limit"] = 2
        row = self._session.read(self._record.select(shape, limit=True), params).one_or_none()
        return None if row is None else self._record.value(row, self._session.seal)

    def list(self, page: Page | None = None, **equal: object) -> tuple[T, ...]:
        """Read all matches in order of id, or a page of them."""
        record, seal = self._record, self._session.seal
        shape, params = record.filter(equal)
        if page is not None:
            params["limit"] = min(page.limit, PAGE_MAX)
            if page.after is not None:
                params["after"] = page.after
        statement = record.select(shape, after="after" in params, limit="limit" in params)
        return tuple(record.value(row, seal) for row in self._session.read(statement, params).all())

    def names(self, ids: Collection[UUID]) -> Mapping[UUID, str]:
        """Read what is called by these ids, and nothing else of it, in one query."""
        record = self._record
        shape, params = record.filter({"id": tuple(ids)})
        columns = record.table.c
        statement = record.cached(("names", shape), lambda: select(columns.id, columns.name).where(record.where(shape)))
        return {row.id: row.name for row in self._session.read(statement, params).all()}

    def count(self, **equal: object) -> int:
        """Count the matches."""
        shape, params = self._record.filter(equal)
        return int(self._session.read(self._record.count(shape), params).scalar_one())

    def change(self, id: UUID, *, expect: Mapping[str, object] = {}, **changes: object) -> bool:
        """Set fields where the id matches and ``expect`` still holds; say whether it did. Errors: Conflict."""
        record = self._record
        shape, params = record.filter({"id": id, **expect})
        params.update(record.set_params(changes, self._session.seal))
        return self._update(id, record.update(shape, tuple(changes)), params, changes)

    def _update(self, id: UUID, statement: Any, params: dict[str, Any], changes: Mapping[str, object]) -> bool:
        try:
            return self._session.write(statement, params).rowcount == 1
        except IntegrityError as e:
            raise explain_write(self._session, self._record, e, changes, id) from e

    def remove(self, id: UUID, *, expect: Mapping[str, object] = {}) -> bool:
        """Delete where the id matches and ``expect`` still holds; say so. Errors: Conflict when others depend on it."""
        shape, params = self._record.filter({"id": id, **expect})
        try:
            return self._session.write(self._record.delete(shape), params).rowcount == 1
        except IntegrityError as e:
            raise explain_remove(self._session, self._record.table, id) from e
