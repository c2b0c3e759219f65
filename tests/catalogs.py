"""Catalogs for tests: the same tests run on an SQLite file and on a PostgreSQL server."""

from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from db import jobs
from db.engine import make_engine, session, upgrade
from db.enums import StageName

BOTH = ("sqlite", "postgresql")


def catalog_url(kind: str, request: pytest.FixtureRequest) -> str:
    """The URL of an empty database of this kind."""
    if kind == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    folder: Path = request.getfixturevalue("tmp_path")
    return f"sqlite:///{folder / 'catalog.db'}"


def upgraded(url: str) -> Engine:
    """An engine on a catalog at the present schema."""
    engine = make_engine(url)
    upgrade(engine)
    return engine


def add_jobs(engine: Engine, *subject_ids: int, stage: StageName = StageName.CRAWL, max_attempts: int = 3) -> None:
    with session(engine) as db:
        for subject_id in subject_ids:
            jobs.enqueue(db, stage, subject_id, max_attempts=max_attempts)


def job_rows(engine: Engine) -> dict[int, dict[str, object]]:
    """Every job's columns, by its subject."""
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT * FROM job")).mappings()
        return {row["subject_id"]: dict(row) for row in rows}


def let_time_pass(engine: Engine, column: str) -> None:
    """Puts a time of every job into the past: what waiting for it would do, without the waiting."""
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE job SET {column} = '2001-01-01 00:00:00.000000' WHERE {column} IS NOT NULL"))
