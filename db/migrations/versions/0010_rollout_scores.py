"""Scores: what tests and critics say of rollouts, for the choice among several of one instance."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "rollout_score",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("rollout_id", sa.Integer(), nullable=False),
        sa.Column("critic", sa.String(), nullable=False),
        sa.Column("evidence_id", sa.Integer(), nullable=False),
        sa.Column("score", sa.Float(), nullable=True),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.Column("cost_usd", sa.Float(), nullable=False),
        sa.Column("asked_at", _TIME, nullable=False),
        sa.Column("scored_at", _TIME, nullable=True),
        sa.ForeignKeyConstraint(["rollout_id"], ["rollout.id"], name="fk_rollout_score_rollout_id"),
        sa.ForeignKeyConstraint(["evidence_id"], ["rollout.id"], name="fk_rollout_score_evidence_id"),
        sa.PrimaryKeyConstraint("id", name="pk_rollout_score"),
        sa.UniqueConstraint(
            "rollout_id", "critic", "evidence_id", name="uq_rollout_score_rollout_id_critic_evidence_id"
        ),
    )
    for column in ("rollout_id", "evidence_id"):
        op.create_index(f"ix_rollout_score_{column}", "rollout_score", [column])
