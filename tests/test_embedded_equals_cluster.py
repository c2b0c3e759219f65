"""One code path: the same history through an embedded run on SQLite and through Celery's workers on PostgreSQL
leaves the same catalog, row by row, ids, times and what depends on them aside."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from sqlalchemy import Engine, select

from db import jobs, queries
from db.engine import session
from db.enums import AgentKind, JobState, SourceKind
from db.models import Issue, Repository
from swefactory import admin
from swefactory.config import Settings
from swefactory.pipeline import run_embedded
from swefactory.protocols import AgentSpec
from swefactory.sandbox_protocols import SandboxBackend
from tests.catalog_rows import contents
from tests.catalogs import upgraded
from tests.tally_history import ISSUES, NAME, VALIDATED, make_history

_ROOT = Path(__file__).parent.parent
_TIMEOUT_S = 300


def queue_history(engine: Engine, history: Path) -> None:
    """The repository to be mined from git; its issues' texts are known from GitHub, as after a crawl there."""
    with session(engine) as db:
        admin.add_repository(db, NAME, source=SourceKind.GIT_HISTORY, clone_url=str(history))
        repository = db.exec(select(Repository)).scalar_one()
        for number, (title, body) in ISSUES.items():
            db.add(Issue(repository_id=repository.id, number=number, title=title, body=body))


def queue_rollouts(engine: Engine) -> None:
    with session(engine) as db:
        for kind in (AgentKind.ORACLE, AgentKind.NOP):
            admin.add_rollouts(db, AgentSpec(kind=kind, name=kind.value))


def settings_of(home: Path, database_url: str = "") -> Settings:
    return Settings(
        home=home,
        database_url=database_url,
        sandbox="namespace",
        n_validation_runs=2,
        github_url="http://127.0.0.1:9",
        licenses="NOASSERTION",
    )


@contextmanager
def workers(settings: Settings, redis_url: str) -> Iterator[None]:
    """Two processes for all queues, and beat."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(_ROOT),
        "SWEFACTORY_DATABASE_URL": settings.database_url,
        "SWEFACTORY_REDIS_URL": redis_url,
        "SWEFACTORY_HOME": str(settings.home),
        "SWEFACTORY_SANDBOX": settings.sandbox,
        "SWEFACTORY_GITHUB_URL": settings.github_url,
        "SWEFACTORY_LICENSES": settings.licenses,
        "SWEFACTORY_N_VALIDATION_RUNS": str(settings.n_validation_runs),
        "SWEFACTORY_DISPATCH_INTERVAL_S": "0.5",
    }
    celery = [sys.executable, "-m", "celery", "-A", "workers.app"]
    worker = [*celery, "worker", "-c", "2", "-n", "all@test", "--without-gossip", "--without-mingle"]
    with (
        subprocess.Popen([*worker, "--loglevel", "INFO"], env=environment, cwd=_ROOT) as working,
        subprocess.Popen([*celery, "beat", "--loglevel", "WARNING"], env=environment, cwd=_ROOT) as beating,
    ):
        try:
            yield
        finally:
            beating.kill()
            working.kill()


def wait_until_done(engine: Engine) -> None:
    until = time.monotonic() + _TIMEOUT_S
    while jobs.unfinished(engine):
        assert time.monotonic() < until, queries.run(engine, "waiting")
        time.sleep(0.2)


def run_both_ways(engines: tuple[Engine, Engine], embedded: Settings, cluster: Settings, redis_url: str) -> None:
    run_embedded(embedded, engines[0])
    queue_rollouts(engines[0])
    run_embedded(embedded, engines[0])
    with workers(cluster, redis_url):
        wait_until_done(engines[1])
        queue_rollouts(engines[1])
        wait_until_done(engines[1])


def test_both_ways_leave_the_same_catalog(
    namespace_backend: SandboxBackend, postgres_url: str, redis_url: str, tmp_path: Path
) -> None:
    history = make_history(tmp_path / "history")
    embedded, cluster = settings_of(tmp_path / "one"), settings_of(tmp_path / "two", postgres_url)
    broker_url = f"{redis_url.rsplit('/', 1)[0]}/{1 + (os.getpid() + 7) % 15}"
    with redis.Redis.from_url(broker_url) as broker:
        broker.flushdb()
    engines = upgraded(embedded.catalog_url), upgraded(cluster.catalog_url)
    for engine in engines:
        queue_history(engine, history)
    run_both_ways(engines, embedded, cluster, broker_url)
    for engine in engines:
        assert not any(state is JobState.DEAD for _, state in jobs.counts(engine)), queries.run(engine, "dead")
    one, two = (contents(engine) for engine in engines)
    for table in one:
        differing = sorted(set(one[table]) ^ set(two[table]))
        assert one[table] == two[table], "\n".join([table, *differing])
    validated = [row[0] for row in queries.run(engines[0], "instances")[1] if row[1] == "validated"]
    assert tuple(validated) == VALIDATED, queries.run(engines[0], "rejections")
    agents = [(row[0], row[3], row[4]) for row in queries.run(engines[0], "agents")[1]]
    assert agents == [("nop", 2, 0), ("oracle", 2, 2)]
    for name in ("funnel", "rejections", "jobs"):
        assert queries.run(engines[0], name) == queries.run(engines[1], name)
    for engine in engines:
        engine.dispose()


def test_the_comparison_sees_a_difference(catalog: Engine, tmp_path: Path) -> None:
    queue_history(catalog, tmp_path)
    before = contents(catalog)
    claim = jobs.claim(catalog, "worker:1", lease_s=60)
    assert claim is not None
    jobs.postpone(catalog, claim, "later", 60)
    after = contents(catalog)
    assert {table for table in before if before[table] != after[table]} == {"job"}
    assert before["issue"] == after["issue"]
    assert len(before["issue"]) == len(ISSUES)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("SWEFACTORY_") and not name.startswith("SWEFACTORY_TEST"):
            monkeypatch.delenv(name)
