"""Alembic's entry: runs migrations in the transaction that ``store.migrate`` began."""

from alembic import context

from malleable.store.schema import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    render_as_batch=connection.dialect.name == "sqlite",
    transaction_per_migration=False,
)
context.run_migrations()
