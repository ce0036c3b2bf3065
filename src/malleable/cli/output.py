"""Tables and details for people, the same objects as JSON for programs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from malleable.cli.formats import printable
from malleable.cli.session import Session

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.text import Text

T = TypeVar("T")
View = TypeVar("View", bound="BaseModel")

GAP_COLUMNS = 2
#: The least room that long text is given before minor columns have to go.
WRAPPED_COLUMNS = 30

#: How a state looks at a glance: green needs nobody, yellow is on its way, red needs somebody.
STYLES: Mapping[str, str] = {
    **dict.fromkeys(("free", "up", "on", "succeeded", "ready", "exported", "attached", "active", "sealed"), "green"),
    **dict.fromkeys(("settled", "good"), "green"),
    **dict.fromkeys(("allocated", "running"), "cyan"),
    **dict.fromkeys(("enrolled", "inspected", "releasing", "booting", "pending", "waiting", "undoing"), "yellow"),
    **dict.fromkeys(("creating", "deleting", "exporting", "revoking", "attaching", "detaching"), "yellow"),
    **dict.fromkeys(("importing", "removing", "changing", "orphan"), "yellow"),
    **dict.fromkeys(("quarantined", "failed", "needs-operator", "unknown", "lost"), "red"),
    **dict.fromkeys(("maintenance", "cancelled"), "magenta"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column(Generic[T]):
    """One column of a table."""

    title: str
    cell: Callable[[T], str]
    is_number: bool = False
    is_wrapped: bool = False  #: long text; takes the room that is left, none when no row has any
    is_minor: bool = False  #: left out, the last of these first, where the terminal is too narrow for all


def styled(text: str) -> "Text":
    """Colour a word that names a state; anything else stays as it is."""
    from rich.text import Text

    return Text(printable(text), style=STYLES.get(text, ""))


def show_list(session: Session, found: Iterable[View], columns: Sequence[Column[View]], *, nothing: str) -> None:
    """Write a table, or a JSON array of the objects as the API has them."""
    values = list(found)
    if session.is_json:
        session.write_json([value.model_dump(mode="json") for value in values])
    elif values:
        show_table(session, values, columns)
    else:
        session.hint(nothing)


def show_table(session: Session, values: Sequence[T], columns: Sequence[Column[T]]) -> None:
    """Write a table, for people."""
    from rich.table import Table

    cells = {id(column): [printable(column.cell(value)) for value in values] for column in columns}
    filled = [column for column in columns if not column.is_wrapped or any(cells[id(column)])]
    shown = fitting(filled, [_width(column, cells[id(column)]) for column in filled], session.out.width)
    table = Table(box=None, pad_edge=False, padding=(0, GAP_COLUMNS, 0, 0), header_style="bold")
    for column in shown:
        table.add_column(
            column.title.upper(),
            justify="right" if column.is_number else "left",
            no_wrap=not column.is_wrapped,
            overflow="fold" if column.is_wrapped else "ellipsis",
        )
    for row in zip(*(cells[id(column)] for column in shown), strict=True):
        table.add_row(*(styled(cell) for cell in row))
    session.out.print(table)


def _width(column: Column[T], cells: Sequence[str]) -> int:
    from rich.cells import cell_len

    widest = max(map(cell_len, (column.title, *cells)))
    return min(widest, WRAPPED_COLUMNS) if column.is_wrapped else widest


def fitting(columns: Sequence[Column[T]], widths: Sequence[int], room: int) -> list[Column[T]]:
    """Choose the columns that fit, given each one's width: minor ones go, from the right."""
    shown = list(zip(columns, widths, strict=True))
    for pair in reversed(list(shown)):
        if sum(width + GAP_COLUMNS for _, width in shown) - GAP_COLUMNS <= room:
            break
        if pair[0].is_minor:
            shown.remove(pair)
    return [column for column, _ in shown]


def show_one(session: Session, value: "BaseModel", facts: Mapping[str, str]) -> None:
    """Write an object's facts one per line (empty ones are left out), or the object as JSON."""
    if session.is_json:
        session.write_json(value.model_dump(mode="json"))
        return
    show_facts(session, facts)


def show_facts(session: Session, facts: Mapping[str, str]) -> None:
    """Write facts one per line; empty ones are left out."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, fact in facts.items():
        if fact:
            table.add_row(name, styled(fact))
    session.out.print(table)


def done(session: Session, value: "BaseModel | None", text: str) -> None:
    """Say that a quick change is made; programs get the object, or an empty one when there is none left."""
    if session.is_json:
        session.write_json({} if value is None else value.model_dump(mode="json"))
    else:
        session.say(text)
