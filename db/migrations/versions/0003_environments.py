"""Environments: each task instance keeps its own recipe, with the rungs and repairs that were tried for it."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("task_instance", sa.Column("recipe", sa.JSON(), nullable=False, server_default=sa.text("'{}'")))
