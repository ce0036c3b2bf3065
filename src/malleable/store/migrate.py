"""Bring a database to the newest revision: ``m2d migrate``."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from malleable.domain.errors import Unavailable
from malleable.store.databases import open_database
from malleable.store.revisions import HEAD, read_revision
from malleable.store.session import meaning_of

_SCRIPTS = Path(__file__).with_name("migrations")


def upgrade(url: str, revision: str = HEAD) -> None:
    """Create the schema or bring it up to date, in one transaction; do nothing when it is.

    Two programs that upgrade at once wait for each other.
    Errors: Invalid (URL), Unavailable (no server, or the database is newer than this program).
    """
    database = open_database(url, make_file=True)
    try:
        with database.writing() as connection:
            _refuse_newer(connection)
            command.upgrade(config(connection), revision)
            connection.commit()
    except DBAPIError as e:
        raise meaning_of(e) or e from e
    finally:
        database.close()


def config(connection: Connection) -> Config:
    """Make Alembic's configuration for an open transaction."""
    made = Config()
    made.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    made.attributes["connection"] = connection
    return made


def _refuse_newer(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(4026531840)")
    found = read_revision(connection)
    if found is not None and found > HEAD:
        raise Unavailable(
            f"The database is at revision {found}, newer than this program's {HEAD}.", fix="Use a newer program."
        )
