"""`swefactory images` as a person meets it: on a home with one environment, in the namespace sandbox."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from db.engine import make_engine, session, upgrade
from db.models import Environment
from swefactory.artifacts import LocalArtifacts
from swefactory.config import Settings
from swefactory.sandbox_protocols import EnvironmentSpec
from swefactory.sandboxes.namespace import NamespaceBackend
from tests.sandbox_contract import locked_environment
from tests.test_cli import run


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def standing(home: Path) -> EnvironmentSpec:
    """An environment that stands, is in the catalog and was not used for long."""
    current = Settings(home=home, database_url="", sandbox="namespace")
    backend = NamespaceBackend(current.cache_dir)
    if why := backend.probe():
        pytest.skip(f"no namespace sandbox here: {why}")
    spec = locked_environment(backend)
    made = Path(backend.materialise(spec).locator)
    os.utime(made.with_name(f".{made.name}.use"), (1_700_000_000, 1_700_000_000))
    engine = make_engine(current.catalog_url)
    upgrade(engine)
    lock = LocalArtifacts(current.artifacts_dir).put(spec.lock.encode(), "text/plain")
    with session(engine) as db:
        db.add(
            Environment(
                digest=spec.digest, python_version=spec.python_version, lock_digest=lock.digest,
                resolved_as_of=datetime.now(UTC),
            )
        )  # fmt: skip
    engine.dispose()
    return spec


def test_what_stands_is_listed_rebuilt_and_pruned(home: Path, standing: EnvironmentSpec) -> None:
    rows = {row["kind"]: row for row in json.loads(run(home, "images", "list", "--json").stdout)}
    assert rows["environment"]["digest"] == standing.digest[7:19]
    assert rows["environment"]["in_use"] is False
    parts = rows["environment"]["unique_mb"] + rows["environment"]["shared_mb"] + rows["cache"]["unique_mb"]
    assert rows["total"]["unique_mb"] == pytest.approx(parts, abs=0.3)

    would = run(home, "images", "prune", "--unused-days", "30", "--dry-run", "--json")
    assert json.loads(would.stdout) == [{"digest": standing.digest}]
    rebuilt = run(home, "images", "rebuild", standing.digest[7:19], "--json")
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert [(row["digest"], row["same_packages"]) for row in json.loads(rebuilt.stdout)] == [(standing.digest, True)]

    recent = run(home, "images", "prune", "--unused-days", "0", "--json")
    assert json.loads(recent.stdout) == []  # it was in use a moment ago


def test_what_cannot_be_is_said_with_what_to_do(home: Path) -> None:
    for args, advice in (
        (("prune",), "--budget"),
        (("rebuild",), "--all"),
        (("rebuild", "ffff"), "images list"),
        (("push", "--all"), "SWEFACTORY_IMAGE_REGISTRY"),
    ):
        ran = run(home, "images", *args)
        assert ran.returncode == 2, ran.stdout + ran.stderr
        assert advice in ran.stderr
