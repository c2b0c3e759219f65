"""kill -9 and stops at random times: every job is done exactly once, on both databases."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import text

from db import jobs
from db.enums import JobState, StageName
from tests.catalogs import BOTH, add_jobs, catalog_url, upgraded

_NURSERY = Path(__file__).with_name("job_nursery.py")
_N_JOBS = 60


@pytest.mark.parametrize("kind", BOTH)
def test_every_job_is_done_exactly_once_whoever_is_killed(kind: str, request: pytest.FixtureRequest) -> None:
    url = catalog_url(kind, request)
    engine = upgraded(url)
    add_jobs(engine, *range(_N_JOBS), max_attempts=100)
    root = str(_NURSERY.parent.parent)
    ran = subprocess.run(
        [sys.executable, str(_NURSERY), url, "4", "20", "6"],
        check=False, capture_output=True, text=True, timeout=120, cwd=root, env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    happened = Counter(ran.stdout.split())
    assert happened["killed"] >= 5, "nobody was killed: this run proves nothing"
    assert jobs.counts(engine) == {(StageName.CRAWL, JobState.SUCCEEDED): _N_JOBS}
    with engine.connect() as connection:
        paths = connection.execute(text("SELECT path FROM export")).scalars().all()
    engine.dispose()
    assert sorted(int(path.split()[0]) for path in paths) == list(range(_N_JOBS))
