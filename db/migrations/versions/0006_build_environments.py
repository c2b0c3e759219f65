"""Build environments: what compiles a project's own extension modules, beside what its tests run in."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Written out, because SQLite adds a column with its foreign key in this form alone, without copying the table.
    op.execute(
        "ALTER TABLE task_instance ADD COLUMN build_environment_id INTEGER "
        "CONSTRAINT fk_task_instance_build_environment_id REFERENCES environment (id)"
    )
    op.create_index("ix_task_instance_build_environment_id", "task_instance", ["build_environment_id"])
