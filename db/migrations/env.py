"""Runs migrations on the connection db.engine hands over, inside its transaction: all of them or none."""

from alembic import context
from sqlmodel import SQLModel

import db.models  # noqa: F401 - fills the metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    render_as_batch=True,  # SQLite cannot alter a column; a batch rebuilds the table
)
context.run_migrations()
