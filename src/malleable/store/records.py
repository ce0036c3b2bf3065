"""Rows <-> domain values, and the statements on one table, each built once and then reused."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, make_dataclass
from operator import attrgetter
from typing import Any, Generic, TypeVar

from sqlalchemy import (
    ColumnElement,
    Delete,
    Insert,
    Select,
    Table,
    Update,
    and_,
    bindparam,
    delete,
    false,
    func,
    insert,
    or_,
    select,
    true,
    update,
)

from malleable.domain.secrets import Secret
from malleable.store.sealing import Seal
from malleable.store.types import Sealed

T = TypeVar("T")
S = TypeVar("S")

#: The shape of a filter: (field, kind) per field. One compiled statement serves all filters of one shape.
Shape = tuple[tuple[str, str], ...]


class Record(Generic[T]):
    """How one dataclass is kept in one table, whose columns are named as its fields."""

    def __init__(self, kind: type[T], table: Table) -> None:
        self.kind = kind
        self.table = table
        self.noun: str = table.info["noun"]
        self.names = tuple(field.name for field in fields(kind))  # type: ignore[arg-type]
        self.columns = [table.c[name] for name in self.names]
        self._read = attrgetter(*self.names)
        sealed = [(at, name) for at, name in enumerate(self.names) if isinstance(table.c[name].type, Sealed)]
        self._sealed = {name: f"{table.name}.{name}".encode() for _, name in sealed}
        self._sealed_at = [(at, self._sealed[name]) for at, name in sealed]
        self._thawed = make_dataclass(kind.__name__, self.names, slots=True)
        self._statements: dict[tuple[object, ...], Any] = {}
        self.insert: Insert = insert(table)

    def value(self, row: Sequence[Any], seal: Seal) -> T:
        """Make the value of a row that was selected as ``columns``."""
        values = list(row)
        for at, place in self._sealed_at:
            if values[at] is not None:
                values[at] = seal.open(values[at], place)
        # The constructor of a frozen dataclass sets field by field past its own guard: 4.1 µs for a node, this 0.5.
        value: Any = self._thawed(*values)
        object.__setattr__(value, "__class__", self.kind)
        made: T = value
        return made

    def params(self, value: T, seal: Seal) -> dict[str, Any]:
        """Make the parameters of ``insert``."""
        values = dict(zip(self.names, self._read(value), strict=True))
        for name, place in self._sealed.items():
            values[name] = _closed(seal, values[name], place)
        return values

    def set_params(self, changes: Mapping[str, object], seal: Seal) -> dict[str, Any]:
        """Make the parameters "set_<field>" of ``update``."""
        values: dict[str, Any] = {f"set_{name}": value for name, value in changes.items()}
        for name in self._sealed.keys() & changes.keys():
            values[f"set_{name}"] = _closed(seal, values[f"set_{name}"], self._sealed[name])
        return values

    def filter(self, equal: Mapping[str, object]) -> tuple[Shape, dict[str, Any]]:
        """Split a filter into its shape and its parameters "is_<field>"."""
        shape: list[tuple[str, str]] = []
        params: dict[str, Any] = {}
        for name, value in equal.items():
            if name not in self.names or name in self._sealed:
                raise TypeError(f"a {self.noun} cannot be found by {name!r}")
            if value is None:
                shape.append((name, "null"))
            elif isinstance(value, list | tuple | set | frozenset):
                known = [item for item in value if item is not None]
                places = padded(known)
                params |= {f"is_{name}_{place}": item for place, item in enumerate(places)}
                is_null_too = len(known) < len(value) and self.table.c[name].nullable
                shape.append((name, f"in {len(places)}{' or null' if is_null_too else ''}"))
            else:
                params[f"is_{name}"] = value
                shape.append((name, "equal"))
        return tuple(shape), params

    def cached(self, key: tuple[object, ...], build: Callable[[], S]) -> S:
        """Build a statement once: building one takes longer than running it."""
        statement: S | None = self._statements.get(key)
        if statement is None:
            statement = self._statements[key] = build()
        return statement

    def select(self, shape: Shape, *, after: bool = False, limit: bool = False) -> Select[Any]:
        """Build "read what matches, in order of id"; parameters "after" and "limit" when asked for."""

        def build() -> Select[Any]:
            statement = select(*self.columns).where(self.where(shape)).order_by(self.table.c.id)
            if after:
                statement = statement.where(self.table.c.id > bindparam("after"))
            return statement.limit(bindparam("limit")) if limit else statement

        return self.cached(("select", shape, after, limit), build)

    def count(self, shape: Shape) -> Select[Any]:
        """Build "count what matches"."""

        def build() -> Select[Any]:
            return select(func.count()).select_from(self.table).where(self.where(shape))

        return self.cached(("count", shape), build)

    def update(self, shape: Shape, changes: tuple[str, ...]) -> Update:
        """Build "set these fields where the filter matches"; without a field it only locks what matches."""

        def build() -> Update:
            unknown = set(changes) - set(self.names) | set(changes) & {"id"}
            if unknown:
                raise TypeError(f"a {self.noun} has no {', '.join(sorted(unknown))} to change")
            new: dict[str, Any] = {name: bindparam(f"set_{name}", type_=self.table.c[name].type) for name in changes}
            return update(self.table).where(self.where(shape)).values(new or {"id": self.table.c.id})

        return self.cached(("update", shape, changes), build)

    def delete(self, shape: Shape) -> Delete:
        """Build "remove what matches"."""
        return self.cached(("delete", shape), lambda: delete(self.table).where(self.where(shape)))

    def where(self, shape: Shape) -> ColumnElement[bool]:
        """Build the condition of a filter's shape."""
        return and_(true(), *(self._condition(name, kind) for name, kind in shape))

    def _condition(self, name: str, kind: str) -> ColumnElement[bool]:
        column = self.table.c[name]
        if kind == "null":
            return column.is_(None)
        if kind == "equal":
            return column == bindparam(f"is_{name}", type_=column.type)
        _, size, *or_null = kind.split()
        places = [bindparam(f"is_{name}_{place}", type_=column.type) for place in range(int(size))]
        return or_(column.in_(places) if places else false(), column.is_(None) if or_null else false())


def padded(values: list[Any]) -> list[Any]:
    """Repeat the last value up to a power of two: lists of nearly the same length share a statement."""
    return values + values[-1:] * ((1 << (len(values) - 1).bit_length()) - len(values)) if values else []


def _closed(seal: Seal, secret: Secret | None, place: bytes) -> bytes | None:
    return None if secret is None else seal.close(secret, place)
