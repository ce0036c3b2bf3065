"""Bring a database to the newest revision: ``m2d migrate``.

Alembic is loaded only when a migration is due: it takes 10 MiB and a tenth of a second of every start.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Column, Connection, MetaData, String, Table, insert
from sqlalchemy.exc import DBAPIError

from malleable.domain.errors import Unavailable
from malleable.store.databases import open_database, place_of
from malleable.store.revisions import HEAD, VERSION_TABLE, check_revision, read_revision
from malleable.store.schema import metadata, site
from malleable.store.session import meaning_of

if TYPE_CHECKING:
    from alembic.config import Config

_SCRIPTS = Path(__file__).with_name("migrations")


def upgrade(url: str) -> None:
    """Create the schema or bring it up to date, in one transaction; do nothing when it is.

    Two programs that upgrade at once wait for each other.
    Errors: Invalid (URL), Unavailable (no server, or the database is newer than this program, or of another commit).
    """
    database = open_database(url, make_file=True)
    try:
        with database.writing() as turn:
            connection = turn.connection
            found = _lock_and_read(connection)
            if found is None:
                create(connection)
            elif found != HEAD:
                run_scripts(connection)
            check_revision(connection)
            turn.commit()
    except DBAPIError as e:
        raise meaning_of(e, place_of(url)) or e from e
    finally:
        database.close()


def create(connection: Connection) -> None:
    """Make in an empty database what all migrations make; a test holds the two equal, schema and rows."""
    metadata.create_all(connection, checkfirst=False)
    connection.execute(insert(site).values(id=1, network_generation=0))
    _VERSION.create(connection)
    connection.execute(insert(_VERSION).values(version_num=HEAD))


#: As Alembic makes it.
_VERSION = Table(
    VERSION_TABLE,
    MetaData(naming_convention={"pk": "%(table_name)s_pkc"}),
    Column("version_num", String(32), primary_key=True),
)


def run_scripts(connection: Connection) -> None:
    """Run the migrations that an open transaction's database lacks; all of them on an empty one."""
    from alembic import command

    command.upgrade(config(connection), HEAD)


def config(connection: Connection) -> "Config":
    """Make Alembic's configuration for an open transaction."""
    from alembic.config import Config

    made = Config()
    made.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    made.attributes["connection"] = connection
    return made


def _lock_and_read(connection: Connection) -> str | None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(4026531840)")
    found = read_revision(connection)
    if found is not None and found > HEAD:
        raise Unavailable(
            f"The database is at revision {found}, newer than this program's {HEAD}.", fix="Use a newer program."
        )
    return found
