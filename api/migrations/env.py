"""How Alembic reaches the database: over the connection that `api.store` gives it, and never by itself."""

from alembic import context
from sqlalchemy import Connection

from api.tables import metadata


def upgrade(connection: Connection) -> None:
    """Run the migrations on a connection that is open, inside the transaction that its owner commits."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        context.run_migrations()


upgrade(context.config.attributes["connection"])
