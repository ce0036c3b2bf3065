"""What columns of all tables shared."""

from sqlalchemy import JSON, Column, DateTime, ForeignKey, Index, LargeBinary, MetaData, Table, Text, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB

ID = Uuid().with_variant(LargeBinary(16), "sqlite")
INSTANT = DateTime(timezone=True).with_variant(Text(), "sqlite")
OBJECT = JSON().with_variant(JSONB(), "postgresql")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def identity() -> Column[object]:
    """Be the row's id."""
    return Column("id", ID, primary_key=True)


def to(name: str, table: str, *, is_indexed: bool = True, nullable: bool = False) -> Column[object]:
    """Point to a row that cannot be removed as long as this one points to it.

    Indexed but where a unique constraint begins with the column.
    """
    foreign_key = ForeignKey(f"{table}.id", ondelete="RESTRICT")
    return Column(name, ID, foreign_key, index=is_indexed, nullable=nullable)


def words(name: str) -> Column[str]:
    """Hold text, "" when there is none."""
    return Column(name, Text, nullable=False)


def created() -> Column[object]:
    """Say when the row was added."""
    return Column("created_at", INSTANT, nullable=False)


def unique_where(name: str, table: Table, columns: str, where: str) -> None:
    """Make ``columns`` unique among the rows that match ``where``."""
    condition = text(where)
    Index(name, *(table.c[c] for c in columns.split()), unique=True, sqlite_where=condition, postgresql_where=condition)


def pages(table: Table, columns: str) -> None:
    """Index each of ``columns`` together with the id: a page of the matches is read in order, without sorting all."""
    for name in columns.split():
        Index(None, table.c[name], table.c.id)
