"""What belongs to a project by way of something else, or goes from one to another: found by a join."""

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import BindParameter, ColumnElement, Select, Table, and_, bindparam, or_, select

from malleable.domain.ids import ProjectId
from malleable.domain.store import PAGE_MAX, Page
from malleable.store.records import Record, padded
from malleable.store.rows import TableRows
from malleable.store.schema import disks, nodes, projects, targets
from malleable.store.session import Session

T = TypeVar("T")
Sides: TypeAlias = Sequence[BindParameter[Any]]


class SidedTable(TableRows[T]):
    """``domain.store.SidedRows``."""

    __slots__ = ("_is_of",)

    def __init__(self, is_of: Callable[[Sides], ColumnElement[bool]], record: Record[T], session: Session) -> None:
        """``is_of`` says whether a row has to do with one of some projects."""
        super().__init__(record, session)
        self._is_of = is_of

    def of_projects(self, page: Page, project_ids: Collection[ProjectId], **equal: object) -> tuple[T, ...]:
        """Read a page of what has to do with these projects, and has these values, in one query."""
        params: dict[str, Any] = {f"side_{n}": id for n, id in enumerate(padded(sorted(project_ids)))}
        if not params:
            return ()
        names, record = tuple(params), self._record
        narrowed, values = record.filter(equal)

        def build() -> Select[Any]:
            sides = [bindparam(name, type_=projects.c.id.type) for name in names]
            found = (
                select(*record.columns).where(self._is_of(sides), record.where(narrowed)).order_by(record.table.c.id)
            )
            if page.after is not None:
                found = found.where(record.table.c.id > bindparam("after"))
            return found.limit(bindparam("limit"))

        statement = record.cached(("sides", len(names), narrowed, page.after is not None), build)
        params |= {**values, "limit": min(page.limit, PAGE_MAX)}
        if page.after is not None:
            params["after"] = page.after
        return tuple(record.value(row, self._session.seal) for row in self._session.read(statement, params).all())


def _theirs(things: Table, sides: Sides) -> Select[Any]:
    return select(things.c.id).where(things.c.project_id.in_(sides))


def _is_handed(table: Table, thing: str, things: Table, sides: Sides) -> ColumnElement[bool]:
    return or_(table.c.project_id.in_(sides), table.c[thing].in_(_theirs(things, sides)))


def handed(table: Table, thing: str, things: Table) -> Callable[[Sides], ColumnElement[bool]]:
    """Say of offers and grants of a ``thing`` that they are whose it is, and whose it is to be."""
    return partial(_is_handed, table, thing, things)


def presented(sides: Sides) -> ColumnElement[bool]:
    """Say of targets that they are their disk's owner's; or, of an image, the reading node's holder's."""
    of_disk = targets.c.disk_id.in_(_theirs(disks, sides))
    return or_(of_disk, and_(targets.c.disk_id.is_(None), targets.c.node_id.in_(_theirs(nodes, sides))))
