"""Which revision of the schema a database has, without loading Alembic: the server starts on this."""

from sqlalchemy import Connection, column, inspect, select, table

from malleable.domain.errors import Unavailable

#: The newest revision in ``migrations/versions``; revisions are four digits and grow by one.
HEAD = "0001"
#: Alembic's own: one row, the revision.
VERSION_TABLE = "alembic_version"


def check_revision(connection: Connection) -> None:
    """Refuse a database that this program cannot work on. Errors: Unavailable."""
    found = read_revision(connection)
    if found == HEAD:
        return
    if found is None:
        raise Unavailable("The database is empty.", fix="Run `m2d migrate`.")
    if found < HEAD:
        raise Unavailable(f"The database is at revision {found}, this program needs {HEAD}.", fix="Run `m2d migrate`.")
    raise Unavailable(
        f"The database is at revision {found}, newer than this program's {HEAD}.",
        fix="Start the program that migrated it, or a newer one.",
    )


def read_revision(connection: Connection) -> str | None:
    """Read the revision; None when nothing was ever migrated."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found: str | None = connection.execute(select(column("version_num")).select_from(table(VERSION_TABLE))).scalar()
    return found
