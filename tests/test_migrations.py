"""Migrations: they lead to exactly the models' tables, on both databases, whole or not at all."""

import threading
from collections.abc import Iterator

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect
from sqlmodel import SQLModel

from db.engine import alembic_config, check, make_engine, upgrade
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
