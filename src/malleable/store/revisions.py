"""Which revision of the schema a database has, without loading Alembic: the server starts on this."""

from sqlalchemy import Connection, column, inspect, select, table

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
        _check_columns(connection)
        return
    if found is None:
        raise Unavailable("The database is empty.", fix="Run `m2d migrate`.")
    if found < HEAD:
        raise Unavailable(f"The database is at revision {found}, this program needs {HEAD}.", fix="Run `m2d migrate`.")
    raise Unavailable(
        f"The database is at revision {found}, newer than this program's {HEAD}.",
        fix="Start the program that migrated it, or a newer one.",
    )


def _check_columns(connection: Connection) -> None:
    """Refuse what another commit made before the first release, when migrations are amended in place."""
    found = inspect(connection).get_multi_columns()
    made = {(name, column["name"]) for (_, name), columns in found.items() for column in columns}
    wanted = {(table.name, column.name) for table in metadata.tables.values() for column in table.columns}
    other = {(name, column) for name, column in made - wanted if name in metadata.tables}
    for strange, what in ((wanted - made, "lacks"), (other, "has an unknown")):
        if strange:
            name = ".".join(min(strange))
            raise Unavailable(
                f"The database was made by another commit before the first release: it {what} column {name}.",
                fix="Start the commit that made it, or begin with a new database (docs/howto/operate.md).",
            )


def read_revision(connection: Connection) -> str | None:
    """Read the revision; None when nothing was ever migrated."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found: str | None = connection.execute(select(column("version_num")).select_from(table(VERSION_TABLE))).scalar()
    return found
