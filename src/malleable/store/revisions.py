"""Which revision of the schema a database has, without loading Alembic: the server starts on this."""

from sqlalchemy import Connection, column, inspect, select, table, text

from malleable.domain.errors import Unavailable
from malleable.store.schema import metadata

#: The newest revision in ``migrations/versions``; revisions are four digits and grow by one.
HEAD = "0001"
#: Alembic's own: one row, the revision.
VERSION_TABLE = "alembic_version"


def check_revision(connection: Connection) -> None:
    """Refuse a database that this program cannot work on. Errors: Unavailable."""
    found = read_revision(connection)
    if found == HEAD:
        _check_made(connection)
        return
    if found is None:
        raise Unavailable("The database is empty.", fix="Run `m2d migrate`.")
    if found < HEAD:
        raise Unavailable(f"The database is at revision {found}, this program needs {HEAD}.", fix="Run `m2d migrate`.")
    raise Unavailable(
        f"The database is at revision {found}, newer than this program's {HEAD}.",
        fix="Start the program that migrated it, or a newer one.",
    )


def _check_made(connection: Connection) -> None:
    """Refuse what another commit made before the first release, when migrations are amended in place.

    What others keep in the database besides our tables, and indexes added to these, are theirs.
    """
    tables = metadata.tables
    found = inspect(connection).get_multi_columns(filter_names=list(tables))
    made = {f"column {name}.{column['name']}" for (_, name), columns in found.items() for column in columns}
    wanted = {f"column {table.name}.{column.name}" for table in tables.values() for column in table.columns}
    indexes = {f"index {index.name}" for table in tables.values() for index in table.indexes}
    lacking = wanted - made or indexes - _index_names(connection)
    for strange, what in ((lacking, "lacks"), (made - wanted, "has an unknown")):
        if strange:
            raise Unavailable(
                f"The database was made by another commit before the first release: it {what} {min(strange)}.",
                fix="Start the commit that made it, or begin with a new database (docs/howto/operate.md).",
            )


def _index_names(connection: Connection) -> set[str]:
    """Read names alone: to reflect the indexes takes as long as all else at a start."""
    is_sqlite = connection.dialect.name == "sqlite"
    names = text(
        "SELECT name FROM sqlite_master WHERE type = 'index'"
        if is_sqlite
        else "SELECT relname FROM pg_class WHERE relkind = 'i' AND pg_table_is_visible(oid)"
    )
    return {f"index {name}" for name in connection.execute(names).scalars()}


def read_revision(connection: Connection) -> str | None:
    """Read the revision; None when nothing was ever migrated."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found: str | None = connection.execute(select(column("version_num")).select_from(table(VERSION_TABLE))).scalar()
    return found
