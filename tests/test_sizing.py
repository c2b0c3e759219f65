"""Sizing computes from what the catalog measured, on both databases, and leaves open what it has not."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from db import jobs
from db.engine import session
from db.enums import InstanceStatus, RejectReason, SourceKind, StageName
from db.models import Artifact, Crawl, Repository
from swefactory.sizing import Funnel, disk_needs, measure, stage_needs
from tests.catalogs import BOTH, add_jobs, catalog_url, upgraded
from tests.test_queries import added, instance, pull_request

FUNNEL = Funnel(repositories=1000, candidates=600, instances=70, trajectories=50)


@pytest.fixture(params=BOTH)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """One repository of 50 pull requests, two candidates and three candidate jobs of 7.5 s, one of them the second
    attempt of two."""
    made = upgraded(catalog_url(request.param, request))
    with session(made) as db:
        repository_id = added(db, Repository(name="acme/one"))
        db.add(Crawl(repository_id=repository_id, source=SourceKind.GITHUB, n_examined=50))
        for number in (1, 2):
            of = pull_request(db, repository_id, number)
            instance(db, repository_id, of, number, None, InstanceStatus.CANDIDATE)
        db.add_all(Artifact(digest=f"sha256:{n}", media_type="text/plain", size_bytes=3000) for n in range(4))
    add_jobs(made, 1, 2, 3, stage=StageName.CANDIDATE)
    for verdict in range(3):
        claim = jobs.claim(made, "worker:1", lease_s=60)
        assert claim is not None
        with session(made) as db:
            if verdict:
                jobs.succeed(db, claim)
            else:
                jobs.reject(db, claim, RejectReason.DOCS_ONLY, "")
    with made.begin() as connection:
        connection.execute(text("UPDATE job SET started_at = '2026-01-02 03:04:05.250000', attempt = subject_id"))
        connection.execute(text("UPDATE job SET finished_at = '2026-01-02 03:04:12.750000'"))
    yield made
    made.dispose()


def test_workers_follow_from_measured_jobs(engine: Engine) -> None:
    measured = measure(engine)
    cost = measured.costs[StageName.CANDIDATE]
    assert (cost.n, pytest.approx(cost.seconds, abs=0.01), pytest.approx(cost.attempts)) == (3, 7.5, 2.0)
    needs = {need.stage: need for need in stage_needs(measured, FUNNEL)}
    candidate = needs[StageName.CANDIDATE]
    assert candidate.n_jobs == 900  # three jobs gave two candidates, so 900 give 600
    assert candidate.worker_hours == pytest.approx(900 * 15 / 3600, rel=0.01)
    assert candidate.n_workers(days=1) == pytest.approx(900 * 15 / 86_400 / 0.8, rel=0.01)
    tenfold = {need.stage: need for need in stage_needs(measured, FUNNEL.times(10))}
    assert tenfold[StageName.CANDIDATE].n_jobs == 9000


def test_what_was_not_measured_is_left_open(engine: Engine) -> None:
    needs = {need.stage: need for need in stage_needs(measure(engine), FUNNEL)}
    for stage in set(StageName) - {StageName.CANDIDATE}:
        assert (needs[stage].n_jobs, needs[stage].worker_hours, needs[stage].n_workers(1)) == (None, None, None)
    disk = {need.what: need.n_bytes for need in disk_needs(measure(engine), FUNNEL, None)}
    assert disk == {"mirrors": None, "environments": None, "artifacts": 600 * 2 * 3000}
