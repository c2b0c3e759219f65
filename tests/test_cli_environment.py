"""`swefactory environment`: what is printed of a recipe that the catalog holds."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from db.engine import make_engine, session, upgrade
from db.enums import InstanceStatus, RejectReason, SourceKind
from db.models import Environment, EnvironmentBuild, PullRequest, Repository, TaskInstance
from swefactory.protocols import Attempt
from swefactory.recipes.python import detect
from swefactory.stages.environments import recipe_as_json
from tests.fake_environments import write_tree

DIGEST = "sha256:" + "ab" * 32
NOW = datetime(2024, 5, 1, tzinfo=UTC)


def run(home: Path, *args: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith("SWEFACTORY_")}
    command = [sys.executable, "-m", "swefactory.cli.main", "environment", *args]
    return subprocess.run(
        command, env={**env, "SWEFACTORY_HOME": str(home)}, capture_output=True, text=True, timeout=120, cwd=home.parent
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A catalog with one instance that has an environment, and one that was rejected."""
    tree = write_tree(tmp_path / "tree", {
        "pyproject.toml": (
            '[project]\nname = "x"\nversion = "1"\ndependencies = ["idna"]\n'
            '[project.optional-dependencies]\ntests = ["pytest", "mock"]\n'
        ),
        "tox.ini": "[tox]\nenvlist = py38,py39\n[testenv]\nsetenv = MODE=full\ncommands = pytest -q\n",
    })  # fmt: skip
    found = detect(tree, as_of=NOW, pythons=("3.8",))
    recipe = recipe_as_json(replace(found, attempts=(Attempt("rung", "extras", True, "mock, pytest", 2),)))
    engine = make_engine(f"sqlite:///{tmp_path / 'home' / 'catalog.db'}")
    (tmp_path / "home").mkdir()
    upgrade(engine)
    with session(engine) as db:
        repository = Repository(name="o/r", source=SourceKind.GITHUB)
        environment = Environment(
            digest=DIGEST, python_version="3.8", lock_digest="sha256:1", recipe=recipe, resolved_as_of=NOW, n_packages=7
        )
        db.add_all([repository, environment])
        db.flush()
        db.add(EnvironmentBuild(environment_id=environment.id or 0, sandbox="namespace", locator="e", size_bytes=2**21))
        for number, where in ((1, environment.id), (2, None)):
            pull = PullRequest(
                repository_id=repository.id or 0, number=number, opened_at=NOW, merged_at=NOW, updated_at=NOW
            )
            db.add(pull)
            db.flush()
            db.add(TaskInstance(
                instance_id=f"o__r-{number}", repository_id=repository.id or 0, pull_request_id=pull.id or 0,
                base_commit="c", environment_id=where, created_at=NOW,
                recipe=recipe if where else {**recipe, "step": "collect", "log_digest": "sha256:2"},
                status=InstanceStatus.CANDIDATE if where else InstanceStatus.REJECTED,
                reject_reason=None if where else RejectReason.COLLECTION_ERROR,
                reject_detail="" if where else "step collect: no",
            ))  # fmt: skip
    engine.dispose()
    return tmp_path / "home"


def test_explain_prints_each_fact_with_its_place(home: Path) -> None:
    for subject in ("o__r-1", "1", DIGEST, "abab"):
        ran = run(home, "explain", subject)
        assert ran.returncode == 0, ran.stderr
        for line in (
            "python: 3.8: nearest to 3.9 (tox.ini [tox] envlist)", "3.9  tox.ini [tox] envlist: no sandbox offers it",
            "idna  pyproject.toml:4 dependencies", "mock  pyproject.toml:6 tests", "MODE=full  tox.ini [testenv]",
            "rung extras: served, 2 new  mock, pytest", "test command: pytest -q (tox.ini [testenv])",
        ):  # fmt: skip
            assert line in ran.stdout


def test_a_rejected_instance_is_explained_with_the_step_and_its_log(home: Path) -> None:
    ran = run(home, "explain", "o__r-2")
    assert "failed at: collect" in ran.stdout
    assert "its log: sha256:2" in ran.stdout
    assert json.loads(run(home, "explain", "o__r-2", "--json").stdout)["step"] == "collect"


def test_environments_are_listed_and_shown(home: Path) -> None:
    [row] = json.loads(run(home, "list", "--json").stdout)
    assert (row["environment"], row["python"], row["n_instances"], row["size_mb"]) == (1, "3.8", 1, 2.0)
    shown = json.loads(run(home, "show", "o__r-1", "--json").stdout)
    assert (shown["digest"], shown["instances"]) == (DIGEST, ["o__r-1"])


def test_what_is_not_there_is_one_sentence_and_a_usage_error(home: Path) -> None:
    for subject in ("nonsense", "ffff"):
        ran = run(home, "explain", subject)
        assert (ran.returncode, ran.stdout) == (2, "")
        assert "environment list" in ran.stderr
    assert run(home, "show", "o__r-2").returncode == 2
