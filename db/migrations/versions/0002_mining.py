"""Mining: one row a repository and one a source's crawl of it, GitHub's answers and quotas, clean instances.

A crawl takes the id of the repository row it comes from, so that the crawl jobs of an older catalog, which name that
id, still name their subject.
"""

import sqlalchemy as sa
from alembic import op

from db.engine import CatalogError

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)
_ENUM = sa.String(32)  # the value itself: a new member needs no migration
_LIST, _OBJECT, _EMPTY, _ZERO = sa.text("'[]'"), sa.text("'{}'"), sa.text("''"), sa.text("0")


def upgrade() -> None:
    _refuse_twins()
    _make_crawls()
    _move_crawls()
    _change_repositories()
    _add("pull_request", sa.Column("sources", sa.JSON(), nullable=False, server_default=_LIST))
    op.execute(
        "UPDATE pull_request SET sources = "
        + _cast("(SELECT '[\"' || source || '\"]' FROM crawl WHERE crawl.repository_id = pull_request.repository_id)")
    )
    _add(
        "task_instance",
        sa.Column("statement_strips", sa.JSON(), nullable=False, server_default=_LIST),
        sa.Column("license", sa.String(), nullable=False, server_default=_EMPTY),
        sa.Column("decontamination", sa.JSON(), nullable=False, server_default=_OBJECT),
        sa.Column("patch_digest", sa.String(), nullable=False, server_default=_EMPTY),
        sa.Column("issue_signature", sa.Text(), nullable=False, server_default=_EMPTY),
    )
    op.create_index("ix_task_instance_patch_digest", "task_instance", ["patch_digest"])
    _make_tables()


def _refuse_twins() -> None:
    twins = sa.text("SELECT name FROM repository GROUP BY name HAVING count(*) > 1 ORDER BY name")
    if names := [str(name) for (name,) in op.get_bind().execute(twins)]:
        raise CatalogError(
            f"{', '.join(names)} stand in this catalog once for each source; this swefactory keeps one row for both "
            "and cannot merge them: start a new catalog (another SWEFACTORY_HOME or database)"
        )


def _make_crawls() -> None:
    op.create_table(
        "crawl",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("repository_id", sa.Integer(), nullable=False),
        sa.Column("source", _ENUM, nullable=False),
        sa.Column("numbers", sa.JSON(), nullable=False),
        sa.Column("pull_request_limit", sa.Integer(), nullable=True),
        sa.Column("watermark_at", _TIME, nullable=True),
        sa.Column("position", sa.Text(), nullable=True),
        sa.Column("n_examined", sa.Integer(), nullable=False),
        sa.Column("n_rest", sa.Integer(), nullable=False),
        sa.Column("n_rest_free", sa.Integer(), nullable=False),
        sa.Column("n_graphql", sa.Integer(), nullable=False),
        sa.Column("n_graphql_points", sa.Integer(), nullable=False),
        sa.Column("crawled_at", _TIME, nullable=True),
        sa.Column("created_at", _TIME, nullable=False),
        sa.ForeignKeyConstraint(["repository_id"], ["repository.id"], name="fk_crawl_repository_id"),
        sa.PrimaryKeyConstraint("id", name="pk_crawl"),
        sa.UniqueConstraint("repository_id", "source", name="uq_crawl_repository_id_source"),
    )


def _move_crawls() -> None:
    """A crawl that was under way starts over: its position has another form, and upserts make that cheap."""
    op.execute(
        f"""
        INSERT INTO crawl (
            id, repository_id, source, numbers, pull_request_limit, watermark_at, n_examined, n_rest, n_rest_free,
            n_graphql, n_graphql_points, crawled_at, created_at
        )
        SELECT
            id, id, source, {_cast("'[]'")}, pull_request_limit, watermark_at, 0, 0, 0, 0, 0, crawled_at, created_at
        FROM repository
        """
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "SELECT setval(pg_get_serial_sequence('crawl', 'id'), coalesce(max(id), 1), max(id) IS NOT NULL) FROM crawl"
        )


def _change_repositories() -> None:
    with op.batch_alter_table("repository") as table:
        table.drop_constraint("uq_repository_source_name", type_="unique")
        for column in ("source", "pull_request_limit", "watermark_at", "crawl_cursor", "crawled_at"):
            table.drop_column(column)
        table.add_column(sa.Column("language", sa.String(), nullable=False, server_default=_EMPTY))
        table.add_column(sa.Column("topics", sa.JSON(), nullable=False, server_default=_LIST))
        table.add_column(sa.Column("size_bytes", sa.BigInteger(), nullable=False, server_default=_ZERO))
        table.add_column(sa.Column("fork_root", sa.String(), nullable=False, server_default=_EMPTY))
        table.add_column(sa.Column("pushed_at", _TIME, nullable=True))
        table.add_column(sa.Column("facts_at", _TIME, nullable=True))
        table.create_unique_constraint("uq_repository_name", ["name"])
        table.create_index("ix_repository_fork_root", ["fork_root"])


def _make_tables() -> None:
    op.create_table(
        "api_answer",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("credential", sa.String(), nullable=False),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("etag", sa.String(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("stored_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_api_answer"),
        sa.UniqueConstraint("credential", "url", name="uq_api_answer_credential_url"),
    )
    op.create_table(
        "api_quota",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("credential", sa.String(), nullable=False),
        sa.Column("resource", sa.String(), nullable=False),
        sa.Column("n_left", sa.Integer(), nullable=True),
        sa.Column("n_limit", sa.Integer(), nullable=True),
        sa.Column("resets_at", _TIME, nullable=True),
        sa.Column("not_before", _TIME, nullable=True),
        sa.Column("n_asked", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_api_quota"),
        sa.UniqueConstraint("credential", "resource", name="uq_api_quota_credential_resource"),
    )
    op.create_table(
        "issue_text_band",
        sa.Column("task_instance_id", sa.Integer(), nullable=False),
        sa.Column("band", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["task_instance_id"], ["task_instance.id"], name="fk_issue_text_band_task_instance_id"),
        sa.PrimaryKeyConstraint("task_instance_id", "band", name="pk_issue_text_band"),
    )
    op.create_index("ix_issue_text_band_digest", "issue_text_band", ["band", "digest"])


def _add(table: str, *columns: sa.Column[object]) -> None:
    for column in columns:
        op.add_column(table, column)


def _cast(expression: str) -> str:
    """JSON from text: PostgreSQL wants to be told."""
    return f"CAST({expression} AS JSON)" if op.get_bind().dialect.name == "postgresql" else expression
