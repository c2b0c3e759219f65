"""Environment builds: what each costs on disk, alone and shared, when it was last used, and when it went."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    with op.batch_alter_table("environment_build") as table:
        for name in ("unique_bytes", "shared_bytes"):
            table.add_column(sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
        for name in ("last_used_at", "evicted_at"):
            table.add_column(sa.Column(name, _TIME, nullable=True))
