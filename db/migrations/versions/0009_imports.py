"""Imported instances: what was published of a task instance that was not mined here."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("task_instance") as table:
        table.add_column(sa.Column("published", sa.JSON(), nullable=False, server_default="{}"))
