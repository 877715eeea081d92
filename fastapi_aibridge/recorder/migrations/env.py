"""Alembic environment: runs the migrations on the connection of `migrate`, and ignores the app's own tables."""

from alembic import context

from fastapi_aibridge.recorder.migrate import VERSION_TABLE, is_ours
from fastapi_aibridge.recorder.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    include_name=is_ours,
)
with context.begin_transaction():
    context.run_migrations()
