"""compose.yaml, run: our own images, the demo's GitHub and model as services, sandboxes through the launcher alone.

One cluster for the file, queued from the admin's container. A worker is killed during a validation and one during a
rollout; the catalog must hold what the demo's history was written for, as it does after `swefactory demo`.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from db import queries
from db.engine import make_engine
from swefactory.cli.demo import surprises
from swefactory.config import Settings
from swefactory.demo.history import build_history
from swefactory.sandboxes.bootstrap import bootstrap_images
from swefactory.wiring import make_docker
from tests.conftest import free_port

_ROOT = Path(__file__).parent.parent
_FILES = ("compose.yaml", "compose.airgap.yaml", "compose.demo.yaml")
_TIMEOUT_S = 600
_SOLVED, _FAILED = "lapse-dev__lapse-2", "lapse-dev__lapse-7"
_HELD = "the admin wants to look first"


@dataclass(frozen=True)
class Cluster:
    """One project of compose. `engine` reaches its catalog from outside."""

    name: str
    environment: dict[str, str]
    engine: Engine

    def compose(self, *arguments: str, timeout_s: float = 300) -> str:
        return said(["docker", "compose", *arguments], self.environment, timeout_s)

    def admin(self, script: str, *options: str) -> str:
        """What a shell's script says in the admin's container."""
        return self.compose("run", "--rm", "--no-TTY", *options, "admin", "sh", "-ec", script)

    def outside(self, *arguments: str) -> str:
        """What the same command says on this machine, which knows the catalog's address alone."""
        program = [sys.executable, "-m", "swefactory.cli.main", *arguments]
        url = self.engine.url.render_as_string(hide_password=False)
        return said(program, {**self.environment, "PYTHONPATH": str(_ROOT), "SWEFACTORY_DATABASE_URL": url}, 120)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(query))]

    def wait(self, what: Callable[[], object], why: str) -> object:
        until = time.monotonic() + _TIMEOUT_S
        while not (found := what()):
            logs = self.compose("logs", "--tail", "60") if time.monotonic() > until else ""
            assert not logs, f"{why}: {queries.run(self.engine, 'waiting')}\n{logs}"
            time.sleep(0.2)
        return found

    def wait_until_done(self) -> None:
        waiting = "SELECT 1 FROM job WHERE state IN ('todo', 'queued', 'doing', 'failed')"
        self.wait(lambda: not self.rows(waiting), "it is never done")

    def kill_owner(self, stage: str) -> str:
        """Ends a worker's container, as by kill -9, while it does a job of `stage`; its host's name is the id's
        beginning."""
        doing = f"SELECT lease_owner FROM job WHERE state = 'doing' AND stage = '{stage}'"
        found = self.wait(lambda: self.rows(doing), f"no {stage} begins")
        assert isinstance(found, list)
        container: str = found[0][0].split(":")[0]
        said(["docker", "kill", container], self.environment, 60)
        return container


def said(command: list[str], environment: dict[str, str], timeout_s: float) -> str:
    ran = subprocess.run(
        command, env=environment, cwd=_ROOT, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert ran.returncode == 0, f"{command}\n{ran.stdout[-4000:]}\n{ran.stderr[-4000:]}"
    return ran.stdout


def settings_of(folder: Path) -> dict[str, str]:
    """The variables of compose.yaml, nothing else of ours."""
    said(["sh", "images/make-secrets.sh", str(folder / "secrets")], dict(os.environ), 60)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SWEFACTORY_", "COMPOSE_"))}
    return kept | {
        "COMPOSE_FILE": ":".join(str(_ROOT / name) for name in _FILES),
        "COMPOSE_PROJECT_NAME": f"swefactory-test-{uuid.uuid4().hex[:8]}",
        "DOCKER_GID": str(os.stat("/var/run/docker.sock").st_gid),
        "SWEFACTORY_BUILD_SETTINGS": str(folder / "cluster"),
        "SWEFACTORY_LEASE_S": "10",
        "SWEFACTORY_METRICS_PORT": str(free_port()),
        "SWEFACTORY_POSTGRES_PORT": str(free_port()),
        "SWEFACTORY_SECRETS": str(folder / "secrets"),
    }


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, docker_engine: Any) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("compose")
    backend = make_docker(Settings(home=folder / "home", sandbox="docker", build_timeout_s=900))
    bootstrap_images(backend, versions=["3.12"], cluster=folder / "cluster")
    environment = settings_of(folder)
    name, port = environment["COMPOSE_PROJECT_NAME"], environment["SWEFACTORY_POSTGRES_PORT"]
    password = (folder / "secrets/database_password").read_text()
    engine = make_engine(f"postgresql://swefactory:{password}@127.0.0.1:{port}/swefactory")
    made = Cluster(name, environment, engine)
    try:
        made.compose("up", "--detach", "--scale", "validation=2", "--quiet-pull")
        yield made
    finally:
        engine.dispose()
        made.compose("--profile", "admin", "down", "--volumes", "--timeout", "3")
        for container in of_home(docker_engine, name):
            container.remove(force=True)
        for image in docker_engine.images.list(filters={"label": f"swefactory.home={home_of(name)}"}):
            docker_engine.images.remove(image.id)


def home_of(project: str) -> str:
    return hashlib.sha256(f"/data/{project}/cache".encode()).hexdigest()[:12]


def of_home(docker_engine: Any, project: str) -> list[Any]:
    """The sandboxes of a project."""
    found: list[Any] = docker_engine.containers.list(all=True, filters={"label": f"swefactory.home={home_of(project)}"})
    return found


@pytest.fixture(scope="module")
def validated(cluster: Cluster) -> Cluster:
    """After the crawl, with validations held until the rest is done, and a worker killed in the midst of them."""
    cluster.admin(f"swefactory stage hold validation --reason '{_HELD}'; swefactory repo add lapse-dev/lapse")
    others = "SELECT 1 FROM job WHERE stage <> 'validation' AND state IN ('todo', 'queued', 'doing', 'failed')"
    cluster.wait(lambda: cluster.rows("SELECT 1 FROM job WHERE stage = 'validation'"), "nothing is to be validated")
    cluster.wait(lambda: not cluster.rows(others), "environments are never done")
    assert set(cluster.rows("SELECT state, attempt FROM job WHERE stage = 'validation'")) == {("todo", 0)}
    told = cluster.admin("swefactory stage list --json; swefactory stage resume validation")
    assert _HELD in told
    killed = cluster.kill_owner("validation")
    said(["docker", "start", killed], cluster.environment, 60)
    cluster.wait_until_done()
    return cluster


@pytest.fixture(scope="module")
def rolled_out(validated: Cluster) -> Cluster:
    """Rollouts of all three kinds. Of one more, which may be tried once, the worker is killed: its job is dead, and an
    admin opens it again."""
    add = "swefactory rollout add --agent"
    scripted = f"{add} openhands --model scripted --max-turns 30 -i {_SOLVED} -i {_FAILED}"
    validated.admin(f"{add} oracle; {add} nop; {scripted}")
    validated.wait_until_done()
    validated.admin(f"{add} oracle -i {_SOLVED} -k 2", "--env", "SWEFACTORY_MAX_ATTEMPTS=1")
    killed = validated.kill_owner("rollout")
    dead = "SELECT stage FROM job WHERE state = 'dead'"
    validated.wait(lambda: validated.rows(dead) == [("rollout",)], "the killed rollout is not dead")
    said(["docker", "start", killed], validated.environment, 60)
    assert "1 jobs re-opened" in validated.admin("swefactory query dead; swefactory job retry --dead")
    validated.wait_until_done()
    return validated


def test_one_container_has_dockers_socket(cluster: Cluster) -> None:
    """As the engine says it, not as it is written; sandboxes are asked by the contract of the launcher."""
    ids = cluster.compose("ps", "--all", "--quiet").split()
    inspected = json.loads(said(["docker", "inspect", *ids], cluster.environment, 60))
    sources = {each["Config"]["Labels"]["com.docker.compose.service"]: [m.get("Source") for m in each["Mounts"]]
               for each in inspected}  # fmt: skip
    assert len(sources) == 12
    assert [service for service, found in sources.items() if "/var/run/docker.sock" in found] == ["launcher"]


def test_all_services_say_that_they_are_well(rolled_out: Cluster) -> None:
    def ill() -> list[str]:
        told = [json.loads(line) for line in rolled_out.compose("ps", "--format", "json").splitlines()]
        return [each["Service"] for each in told if each["Health"] != "healthy"]

    assert len(rolled_out.compose("ps", "--quiet").split()) == 12
    rolled_out.wait(lambda: not ill(), "somebody is not well")


def test_no_secret_stands_in_a_containers_configuration(cluster: Cluster) -> None:
    secrets = [path.read_text() for path in Path(cluster.environment["SWEFACTORY_SECRETS"]).iterdir()]
    inspected = said(["docker", "inspect", *cluster.compose("ps", "--all", "--quiet").split()], cluster.environment, 60)
    assert len([secret for secret in secrets if secret]) == 2
    assert not [secret for secret in secrets if secret and secret in inspected]


def test_a_killed_worker_loses_no_job_and_each_pull_request_meets_its_fate(rolled_out: Cluster, tmp_path: Path) -> None:
    assert list(surprises(rolled_out.engine, build_history(tmp_path))) == []
    assert rolled_out.rows("SELECT count(*) FROM pull_request") == [(10,)]
    tried = rolled_out.rows("SELECT state, attempt FROM job WHERE stage = 'validation' AND attempt > 1")
    assert tried
    assert all(attempt == 2 for _, attempt in tried)


def test_the_admin_sees_the_same_inside_and_outside(rolled_out: Cluster) -> None:
    inside = rolled_out.admin("swefactory query instances --json; swefactory query rollouts --json")
    outside = [rolled_out.outside("query", name, "--json") for name in ("instances", "rollouts")]
    assert inside.split() == "".join(outside).split()
    rollouts = json.loads(outside[1])
    assert {row["agent"] for row in rollouts} == {"oracle", "nop", "openhands/scripted"}
    assert len(rollouts) == 4 + 4 + 2 + 1


def test_an_export_of_the_cluster_holds_the_validated_instances(rolled_out: Cluster) -> None:
    out = "/data/exports"
    told = rolled_out.admin(f"swefactory export swebench --out {out} >&2; cat {out}/swebench/swebench.jsonl")
    found = [json.loads(line)["instance_id"] for line in told.splitlines()]
    assert sorted(found) == [f"lapse-dev__lapse-{number}" for number in (10, 18, 2, 7)]


def test_a_worker_is_drained_and_given_more_processes_from_the_admins_container(rolled_out: Cluster) -> None:
    ids = rolled_out.compose("ps", "--quiet", "validation").split()
    host = f"celery@{ids[0][:12]}"
    celery = f"celery -A workers.app {{}} --destination {host}"
    control, inspect = celery.format("control"), f"{celery.format('inspect')} --json"
    told = rolled_out.admin(f"{control} cancel_consumer validation >&2; {control} pool_grow 1; {inspect} active_queues")
    assert json.loads(told.splitlines()[-1]) == {host: []}

    def n_processes() -> int:
        """Told soon after it was ordered, not at once."""
        return len(json.loads(rolled_out.admin(f"{inspect} stats").splitlines()[-1])[host]["pool"]["processes"])

    rolled_out.wait(lambda: n_processes() == 3, "no process is added")


def test_no_sandbox_of_a_killed_worker_is_left(rolled_out: Cluster, docker_engine: Any) -> None:
    """A worker that begins anew removes them before its first job."""
    assert [each.labels["swefactory.job"] for each in of_home(docker_engine, rolled_out.name)] == []
