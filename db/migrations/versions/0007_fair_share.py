"""Fair share: each job knows its repository and its turn, and a stage can be held."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_INSTANCE = "SELECT repository_id FROM task_instance WHERE task_instance.id = job.subject_id"
_ROLLOUT = (
    "SELECT task_instance.repository_id FROM rollout "
    "JOIN task_instance ON task_instance.id = rollout.task_instance_id WHERE rollout.id = job.subject_id"
)
_REPOSITORY_OF = {
    "crawl": "SELECT repository_id FROM crawl WHERE crawl.id = job.subject_id",
    "candidate": "SELECT repository_id FROM pull_request WHERE pull_request.id = job.subject_id",
    "environment": _INSTANCE,
    "validation": _INSTANCE,
    "rollout": _ROLLOUT,
    "grade": _ROLLOUT,
}


def upgrade() -> None:
    op.drop_index("ix_job_claim", table_name="job")
    with op.batch_alter_table("job") as table:
        table.add_column(sa.Column("repository_id", sa.Integer(), nullable=True))
        table.add_column(sa.Column("turn", sa.BigInteger(), nullable=False, server_default="0"))
        table.create_foreign_key("fk_job_repository", "repository", ["repository_id"], ["id"])
    for stage, repository in _REPOSITORY_OF.items():
        op.execute(f"UPDATE job SET repository_id = ({repository}) WHERE stage = '{stage}'")
    op.execute(f"UPDATE job SET turn = -priority * {2**40}")
    op.create_index("ix_job_claim", "job", ["stage", "state", "turn", "id"])
    op.create_index("ix_job_turn", "job", ["stage", "state", "repository_id", "turn"])
    op.create_table(
        "stage_hold",
        sa.Column("stage", sa.String(32), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("stage"),
    )
