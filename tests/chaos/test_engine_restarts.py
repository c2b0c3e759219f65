"""A docker engine is killed and started again while sandboxes run in it; what comes of it is what came of the same jobs
when nothing happened. The engine is one of the test's own; the environments come to it through a registry."""

import os
import random
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
from sqlalchemy import Engine, text

from db import jobs, queries
from db.enums import JobState, StageName
from swefactory.config import Settings
from swefactory.pipeline import run_embedded
from swefactory.sandboxes.bootstrap import bootstrap_images
from swefactory.sandboxes.docker import DockerBackend
from tests import second_host
from tests.catalog_rows import contents, differences
from tests.catalogs import let_time_pass, upgraded
from tests.chaos import witness
from tests.chaos.workers import EMBEDDED, ROOT, Workers
from tests.tally_history import VALIDATED, make_history
from tests.test_embedded_equals_cluster import queue_history, queue_rollouts

_N_KILLS = 40 if os.environ.get("SWEFACTORY_CHAOS") == "full" else 4
_TIMEOUT_S = 240 + 20 * _N_KILLS
_LATER = (StageName.VALIDATION, StageName.ROLLOUT, StageName.GRADE)


@dataclass(frozen=True)
class Hosts:
    """The first, where environments are built; what the second one's workers are told, and its engine."""

    first: dict[str, Any]
    second: dict[str, Any]
    engine: second_host.Engine

    @property
    def client(self) -> docker.DockerClient:
        return docker.DockerClient(f"unix://{self.engine.socket}")


@pytest.fixture
def hosts(docker_engine: Any, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    if (backend := DockerBackend(tmp_path / "direct")).probe():
        bootstrap_images(backend, versions=["3.12"])
    with (
        second_host.linked() as link,
        second_host.registry(tmp_path_factory.mktemp("registry")) as port,
        second_host.engine(tmp_path_factory.mktemp("engine"), link, port) as engine,
    ):
        shared = {
            "sandbox": "docker", "artifact_dir": tmp_path / "artifacts", "github_url": "http://127.0.0.1:9",
            "licenses": "NOASSERTION", "n_validation_runs": 2, "network_probe": False, "lease_s": 4.0,
        }  # fmt: skip
        first = {**shared, "image_registry": f"127.0.0.1:{port}/team", "image_push": True}
        there = {"image_registry": f"{link.here}:{port}/team", "docker_host": f"unix://{engine.socket}"}
        yield Hosts(first, {**shared, **there}, engine)


def test_an_engine_that_dies_costs_tries_and_no_result(hosts: Hosts, tmp_path: Path) -> None:
    history, built = make_history(tmp_path / "history"), tmp_path / "built"
    settings = Settings(home=built, **hosts.first)
    catalog = opened(built)
    queue_history(catalog, history)
    run_embedded(settings, catalog, stages=[StageName.CRAWL, StageName.CANDIDATE, StageName.ENVIRONMENT])
    catalog.dispose()
    push = [sys.executable, "-m", "swefactory.cli.main", "images", "push", "--all"]  # also what stood here before
    subprocess.run(push, env=environment_of(built, hosts.first), check=True, timeout=300)

    calm = copied(built, tmp_path / "calm")
    for queue in (lambda: None, lambda: queue_rollouts(calm)):
        queue()
        run_embedded(Settings(home=tmp_path / "calm", **hosts.second), calm)
    wanted = contents(calm, after_deaths=True)
    assert len([row for row in wanted["task_instance"] if "VALIDATED" in row]) == len(VALIDATED)

    with witness.named_connections():
        shaken = copied(built, tmp_path / "shaken")
        witness.install(shaken.url.render_as_string())
        n_kills = disturbed(hosts, shaken, tmp_path / "shaken")
        assert n_kills == _N_KILLS
        assert witness.broken(witness.seen(shaken)) == []
        found = contents(shaken, after_deaths=True)
        run_embedded(Settings(home=tmp_path / "shaken", **hosts.second), shaken)  # sweeps what nobody came to remove
    assert differences(found, wanted) == []
    assert hosts.client.containers.list(all=True) == []
    assert hosts.client.volumes.list() == []
    assert {network.name for network in hosts.client.networks.list()} <= {"none", "host"}
    for engine in (calm, shaken):
        engine.dispose()


def disturbed(hosts: Hosts, catalog: Engine, home: Path) -> int:
    """Lets two workers do what is queued, and rollouts of what validates; how often the engine was killed under them,
    half of the times while validations ran, or more."""
    workers = Workers((EMBEDDED, EMBEDDED), environment_of(home, hosts.second), home / "log", uuid.uuid4().hex)
    chance, n_kills, until = random.Random(7), 0, time.monotonic() + _TIMEOUT_S
    rest = [lambda: queue_rollouts(catalog)]
    try:
        while n_left(catalog) or rest:
            if not n_left(catalog):
                rest.pop()()
            workers.respawn()
            spare(catalog)
            most = _N_KILLS // 2 if rest else _N_KILLS
            if n_kills < most and hosts.client.containers.list():
                time.sleep(chance.uniform(0.0, 2.0))
                hosts.engine.kill()
                hosts.engine.start()
                n_kills += 1
            assert time.monotonic() < until, (queries.run(catalog, "waiting"), (home / "log").read_text()[-3000:])
            time.sleep(0.1)
    finally:
        workers.end()
    return n_kills


def environment_of(home: Path, settings: dict[str, Any]) -> dict[str, str]:
    told = {f"SWEFACTORY_{name.upper()}": str(value) for name, value in {**settings, "home": home}.items()}
    return {**os.environ, **told, "PYTHONPATH": str(ROOT)}


def spare(catalog: Engine) -> None:
    """Whoever is disturbed so often needs more tries than the usual three, and no waiting between them."""
    let_time_pass(catalog, "not_before")
    with catalog.begin() as connection:
        connection.execute(text("UPDATE job SET max_attempts = 1000"))


def n_left(catalog: Engine) -> int:
    counts = jobs.counts(catalog)
    assert not any(state is JobState.DEAD for _, state in counts), queries.run(catalog, "dead")
    return sum(n for (stage, state), n in counts.items() if state in jobs.OPEN and stage in _LATER)


def opened(home: Path) -> Engine:
    home.mkdir(exist_ok=True)
    return upgraded(f"sqlite:///{home / 'catalog.db'}")


def copied(home: Path, to: Path) -> Engine:
    """The catalog alone: what is cached is fetched again."""
    to.mkdir()
    with closing(sqlite3.connect(home / "catalog.db")) as old, closing(sqlite3.connect(to / "catalog.db")) as new:
        old.backup(new)
    return opened(to)
