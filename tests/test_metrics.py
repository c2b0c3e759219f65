"""Metrics: what Prometheus would read is what the catalog says, at the moment it asks."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from sqlalchemy import Engine

from db import jobs
from db.engine import make_engine, session
from db.enums import RejectReason, StageName
from swefactory.metrics import CatalogCollector
from tests.catalogs import BOTH, add_jobs, catalog_url, let_time_pass, upgraded
from tests.conftest import free_port


@pytest.fixture(params=BOTH)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    made = upgraded(catalog_url(request.param, request))
    yield made
    made.dispose()


def collected(engine: Engine) -> dict[tuple[str, ...], float]:
    """(name, label, …) → value."""
    return _by_labels(sample for family in CatalogCollector(engine).collect() for sample in family.samples)


def _by_labels(samples: Iterator[Sample]) -> dict[tuple[str, ...], float]:
    return {(sample.name, *sample.labels.values()): sample.value for sample in samples}


def test_jobs_rejections_holds_and_ages_are_what_the_catalog_says(engine: Engine) -> None:
    add_jobs(engine, 1, 2, 3)
    claim = jobs.claim(engine, "worker:1", lease_s=60)
    assert claim is not None
    with session(engine) as db:
        jobs.reject(db, claim, RejectReason.REPOSITORY_NOT_FOUND, "gone")
        jobs.hold(db, StageName.ROLLOUT, "")
    let_time_pass(engine, "not_before")
    found = collected(engine)
    assert found["swefactory_up",] == 1
    assert found["swefactory_jobs", "crawl", "todo"] == 2
    assert found["swefactory_jobs", "crawl", "rejected"] == 1
    assert found["swefactory_rejections", "crawl", "repository_not_found"] == 1
    assert found["swefactory_stage_held", "rollout"] == 1
    assert found["swefactory_job_age_seconds", "crawl", "due"] > 86400


def test_a_catalog_that_cannot_be_reached_is_down_and_nothing_else(tmp_path: Path) -> None:
    assert collected(make_engine(f"sqlite:///{tmp_path / 'missing' / 'catalog.db'}")) == {("swefactory_up",): 0}


def test_prometheus_reads_them_over_http_and_a_taken_port_is_one_sentence(tmp_path: Path) -> None:
    port = free_port()
    env = {key: value for key, value in os.environ.items() if not key.startswith("SWEFACTORY_")}
    env["SWEFACTORY_HOME"] = str(tmp_path / "home")
    command = [sys.executable, "-m", "swefactory.cli.main", "metrics", "--port", str(port)]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as serving:
        try:
            assert serving.stdout is not None
            assert f":{port}/metrics" in serving.stdout.readline()
            with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
                families = list(text_string_to_metric_families(answer.read().decode()))
            second = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
        finally:
            serving.terminate()
    assert {"swefactory_up", "swefactory_jobs"} <= {family.name for family in families}
    assert second.returncode == 3
    assert second.stderr.count("\n") == 1
    assert "choose another --port" in second.stderr
