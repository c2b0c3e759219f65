"""Validation: what the runs say of each test, the conditions each run had, tiers, suspicious patches."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_ENUM = sa.String(32)  # the value itself: a new member needs no migration
_LIST, _OBJECT = sa.text("'[]'"), sa.text("'{}'")


def upgrade() -> None:
    op.add_column("task_instance", sa.Column("tier", _ENUM, nullable=True))
    op.add_column("validation", sa.Column("tier", _ENUM, nullable=True))
    op.add_column("rollout", sa.Column("suspicious", sa.JSON(), nullable=False, server_default=_LIST))
    op.add_column("test_run", sa.Column("conditions", sa.JSON(), nullable=False, server_default=_OBJECT))
    op.create_table(
        "test_verdict",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("validation_id", sa.Integer(), nullable=False),
        sa.Column("test_id", sa.Text(), nullable=False),
        sa.Column("test_digest", sa.String(), nullable=False),
        sa.Column("change", _ENUM, nullable=False),
        sa.Column("before", _ENUM, nullable=False),
        sa.Column("after", _ENUM, nullable=False),
        sa.Column("n_runs", sa.Integer(), nullable=False),
        sa.Column("n_flips", sa.Integer(), nullable=False),
        sa.Column("flip_rate_upper", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["validation_id"], ["validation.id"], name="fk_test_verdict_validation_id"),
        sa.PrimaryKeyConstraint("id", name="pk_test_verdict"),
        sa.UniqueConstraint("validation_id", "test_digest", name="uq_test_verdict_validation_id_test_digest"),
    )
    op.create_index("ix_test_verdict_validation_id", "test_verdict", ["validation_id"])
