"""kill -9 and stops at random times: every job is done exactly once, on both databases. And a run that is killed leaves
no process behind."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from db import jobs
from db.enums import JobState, StageName
from tests.catalogs import BOTH, add_jobs, catalog_url, upgraded
from tests.chaos import witness

_NURSERY = Path(__file__).with_name("job_nursery.py")
_N_JOBS = 60


@pytest.mark.parametrize("kind", BOTH)
def test_every_job_is_done_exactly_once_whoever_is_killed(kind: str, request: pytest.FixtureRequest) -> None:
    url = catalog_url(kind, request)
    with witness.named_connections():
        engine = upgraded(url)
        witness.install(url)
        add_jobs(engine, *range(_N_JOBS), max_attempts=100)
    root = str(_NURSERY.parent.parent)
    ran = subprocess.run(
        [sys.executable, str(_NURSERY), url, "4", "20", "6"],
        check=False, capture_output=True, text=True, timeout=120, cwd=root, env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    happened = Counter(ran.stdout.split())
    assert happened["killed"] >= 5, "nobody was killed: this run proves nothing"
    assert witness.broken(witness.seen(engine)) == []
    assert jobs.counts(engine) == {(StageName.CRAWL, JobState.SUCCEEDED): _N_JOBS}
    with engine.connect() as connection:
        paths = connection.execute(text("SELECT path FROM export")).scalars().all()
    engine.dispose()
    assert sorted(int(path.split()[0]) for path in paths) == list(range(_N_JOBS))


def test_processes_of_a_run_end_when_the_run_itself_is_killed(catalog: Engine, tmp_path: Path) -> None:
    root = str(_NURSERY.parent.parent)
    command = [sys.executable, "-m", "swefactory.cli.main", "run", "--watch", "-j", "2"]
    environment = {**os.environ, "PYTHONPATH": root, "SWEFACTORY_HOME": str(tmp_path / "home")}
    run = subprocess.Popen(command, cwd=root, env=environment, start_new_session=True)
    held = tmp_path / "home" / "cache" / "temporary"  # a folder and its lock for each process
    children: list[str] = []
    try:
        wait_until(lambda: len(list(held.glob("*.lock"))) == 2, "it did not start its processes")
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        run.kill()
        run.wait(30)
        wait_until(lambda: not any(is_running(pid) for pid in children), "they run on")
        assert list(held.iterdir()) == []  # they ended, and were not ended
    finally:
        if run.poll() is None or any(is_running(pid) for pid in children):
            os.killpg(run.pid, signal.SIGKILL)


def is_running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(true: Callable[[], bool], otherwise: str) -> None:
    until = time.monotonic() + 120
    while not true():
        assert time.monotonic() < until, otherwise
        time.sleep(0.1)
