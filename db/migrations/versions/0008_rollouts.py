"""Rollouts: attempts, steps, events and flags of each; campaigns with a budget."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_ENUM = sa.String(32)  # the value itself: a new member needs no migration
_TIME = sa.DateTime(timezone=True)


def _column(name: str, kind: sa.types.TypeEngine[Any]) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)


def _counts(*names: str) -> list[sa.Column[Any]]:
    return [_column(name, sa.Integer()) for name in names]


def _measures(*names: str) -> list[sa.Column[Any]]:
    return [_column(name, sa.Float()) for name in names]


def upgrade() -> None:
    op.create_table(
        "campaign",
        _column("id", sa.Integer()),
        _column("name", sa.String()),
        sa.Column("max_cost_usd", sa.Float(), nullable=True),
        sa.Column("max_duration_s", sa.Float(), nullable=True),
        *_measures("cost_usd"),
        _column("created_at", _TIME),
        sa.Column("started_at", _TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_campaign"),
        sa.UniqueConstraint("name", name="uq_campaign_name"),
    )
    _extend_rollout()
    _add_table(
        "rollout_attempt",
        ("rollout_id", "number"),
        *_counts("number"),
        _column("way", _ENUM),
        _column("detail", sa.Text()),
        _column("label", sa.String()),
        _column("started_at", _TIME),
        sa.Column("checkpoint_at", _TIME, nullable=True),
        *_counts("n_checkpoint_steps", "n_checkpoint_events"),
        _column("checkpoint_patch", sa.Text()),
        _column("checkpoint_files", sa.LargeBinary()),
    )
    _add_table(
        "rollout_step",
        ("rollout_id", "attempt", "number"),
        *_counts("attempt", "number"),
        _column("response_id", sa.String()),
        *_counts("n_events", "n_prompt_tokens", "n_completion_tokens", "n_cached_tokens", "n_reasoning_tokens"),
        *_measures("cost_usd", "model_s", "tools_s", "overhead_s"),
        _column("tools", sa.JSON()),
        *_counts("n_errors"),
        _column("recorded_at", _TIME),
    )
    _add_table(
        "rollout_event",
        ("rollout_id", "attempt", "number"),
        *_counts("attempt", "number"),
        _column("body", sa.Text()),
    )
    _add_table(
        "rollout_flag",
        ("rollout_id", "kind", "event_number"),
        _column("kind", _ENUM),
        *_counts("event_number"),
        _column("event_id", sa.String()),
        _column("excerpt", sa.Text()),
    )


def _extend_rollout() -> None:
    with op.batch_alter_table("rollout") as table:
        table.add_column(sa.Column("campaign_id", sa.Integer(), nullable=True))
        table.create_foreign_key("fk_rollout_campaign_id", "campaign", ["campaign_id"], ["id"])
        table.create_index("ix_rollout_campaign_id", ["campaign_id"])
        table.add_column(sa.Column("cancel_requested_at", _TIME, nullable=True))
        for name in ("n_reasoning_tokens", "n_truncations"):
            table.add_column(sa.Column(name, sa.Integer(), nullable=False, server_default="0"))
        for name in ("lost_cost_usd", "model_s", "tools_s", "overhead_s"):
            table.add_column(sa.Column(name, sa.Float(), nullable=False, server_default="0"))


def _add_table(name: str, key: tuple[str, ...], *columns: sa.Column[Any]) -> None:
    """A table of what belongs to a rollout."""
    op.create_table(
        name,
        _column("id", sa.Integer()),
        _column("rollout_id", sa.Integer()),
        *columns,
        sa.ForeignKeyConstraint(["rollout_id"], ["rollout.id"], name=f"fk_{name}_rollout_id"),
        sa.PrimaryKeyConstraint("id", name=f"pk_{name}"),
        sa.UniqueConstraint(*key, name=f"uq_{name}_{'_'.join(key)}"),
    )
    op.create_index(f"ix_{name}_rollout_id", name, ["rollout_id"])
