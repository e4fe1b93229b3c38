"""Run by Alembic for each command: migrate over the connection that `migrations.upgrade` was given."""

from alembic import context

from creditgate.ledger.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
