"""Migrations: they lead to exactly the models' tables, on both databases, whole or not at all."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect, text
from sqlmodel import Session, SQLModel, select

from db.engine import CatalogError, alembic_config, check, make_engine, upgrade
from db.enums import SourceKind
from db.models import Crawl, PullRequest, Repository
from tests.catalogs import BOTH, catalog_url


@pytest.fixture(params=BOTH)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    made = make_engine(catalog_url(request.param, request))
    yield made
    made.dispose()


def head(engine: Engine) -> str:
    with engine.connect() as connection:
        (only,) = ScriptDirectory.from_config(alembic_config(connection)).get_heads()
    return only


def test_upgrade_from_empty_reaches_the_head_and_a_second_one_changes_nothing(engine: Engine) -> None:
    assert upgrade(engine) == (None, head(engine))
    assert upgrade(engine) == (head(engine), head(engine))
    check(engine)


def test_the_migrations_make_exactly_what_the_models_say(engine: Engine) -> None:
    upgrade(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, SQLModel.metadata) == []
    assert set(inspect(engine).get_table_names()) == {*SQLModel.metadata.tables, "alembic_version"}


def test_the_comparison_would_see_a_missing_index_and_a_missing_column(engine: Engine) -> None:
    upgrade(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP INDEX ix_job_claim")
        connection.exec_driver_sql("ALTER TABLE artifact DROP COLUMN media_type")
    with engine.connect() as connection:
        found = compare_metadata(MigrationContext.configure(connection), SQLModel.metadata)
    assert {change[0] for change in found} == {"add_index", "add_column"}


def test_two_upgrades_at_once_take_turns(request: pytest.FixtureRequest) -> None:
    url = catalog_url("postgresql", request)
    results: list[tuple[str | None, str]] = []

    def run() -> None:
        engine = make_engine(url)
        results.append(upgrade(engine))
        engine.dispose()

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(old or "" for old, _ in results) == ["", results[0][1], results[0][1]]


def test_a_catalog_of_the_first_schema_keeps_its_rows_and_its_crawl_jobs(engine: Engine) -> None:
    """0002 gives each repository a crawl of the same id."""
    at = "2024-01-01 00:00:00.000000+00:00"
    rows = (
        "INSERT INTO repository (id, name, source, clone_url, web_url, default_branch, description, license, n_stars,"
        " is_archived, is_fork, watermark_at, created_at) VALUES (7, 'acme/tool', 'git_history', '/x', '', 'main', '',"
        f" 'MIT', 3, false, false, '{at}', '{at}')",
        "INSERT INTO pull_request (id, repository_id, number, title, body, author, url, base_commit, head_commit,"
        " merge_commit, commit_messages, files, opened_at, merged_at, updated_at) VALUES (1, 7, 5, '', '', '', '', '',"
        f" '', '', '[]', '[]', '{at}', '{at}', '{at}')",
    )
    with engine.begin() as connection:
        command.upgrade(alembic_config(connection), "0001")
        for row in rows:
            connection.execute(text(row))
    upgrade(engine)
    with Session(engine) as db:
        repository, crawl = db.exec(select(Repository)).one(), db.exec(select(Crawl)).one()
        assert (repository.name, repository.license, repository.topics) == ("acme/tool", "MIT", [])
        assert (crawl.id, crawl.repository_id, crawl.source) == (7, 7, SourceKind.GIT_HISTORY)
        assert crawl.watermark_at == datetime(2024, 1, 1, tzinfo=UTC)
        assert db.exec(select(PullRequest)).one().sources == ["git_history"]
        db.add(Crawl(repository_id=7, source=SourceKind.GITHUB))
        db.commit()


def test_two_rows_of_one_repository_are_refused_by_name(engine: Engine) -> None:
    at = "2024-01-01 00:00:00.000000+00:00"
    with engine.begin() as connection:
        command.upgrade(alembic_config(connection), "0001")
        for source in ("github", "git_history"):
            connection.execute(
                text(
                    "INSERT INTO repository (name, source, clone_url, web_url, default_branch, description, license,"
                    f" n_stars, is_archived, is_fork, created_at) VALUES ('acme/tool', '{source}', '', '', '', '', '',"
                    f" 0, false, false, '{at}')"
                )
            )
    with pytest.raises(CatalogError, match="acme/tool"):
        upgrade(engine)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == "0001"
