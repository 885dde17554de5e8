"""What Alembic runs: it migrates within the transaction of the caller."""

from __future__ import annotations

from alembic import context

from watchkeeper.runtime.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
