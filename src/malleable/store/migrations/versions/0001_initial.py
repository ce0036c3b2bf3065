"""Make the first schema."""

from alembic import op
from sqlalchemy import insert

from malleable.store.migrations.initial import metadata
from malleable.store.migrations.initial.people import site

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create all tables, and the one row of the site."""
    connection = op.get_bind()
    metadata.create_all(connection, checkfirst=False)
    connection.execute(insert(site).values(id=1, network_generation=0))
