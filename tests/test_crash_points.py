"""The process dies at each step of each stage in turn; what is left is finished, and the catalog is that of a run in
which nobody died. On both databases.

All stages, twice: with short bodies of the test's own, through the pipeline's claims, steps and commits, and the real
ones on a small repository, in namespace sandboxes. Those die at two of the seven steps by default, with all of their
work done and none of it committed, or just committed; `make chaos` (SWEFACTORY_CHAOS=full) has them die at all seven.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from db import jobs
from db.enums import JobState, StageName
from swefactory.pipeline import STEPS
from swefactory.sandbox_protocols import SandboxBackend
from tests.catalog_rows import contents, differences
from tests.catalogs import BOTH, add_jobs, catalog_url, upgraded
from tests.tally_history import VALIDATED, make_history
from tests.test_embedded_equals_cluster import queue_history

type Contents = dict[str, list[str]]
_NURSERY = Path(__file__).with_name("crash_nursery.py")


_IS_FULL = os.environ.get("SWEFACTORY_CHAOS") == "full"
_REAL_STEPS = STEPS if _IS_FULL else ("followed", "committed")


def points(steps: Sequence[str] = STEPS) -> list[str]:
    return [f"{stage}:{step}" for stage in StageName for step in steps]


def ran(folder: Path, url: str, *, synthetic: bool, dies: bool, steps: Sequence[str] = STEPS) -> list[str]:
    """Lets the nursery do what is queued in the catalog; the points at which a process died."""
    settings: dict[str, Any] = {
        "home": str(folder / "home"), "database_url": url, "github_url": "http://127.0.0.1:9", "max_attempts": 100,
        "licenses": "NOASSERTION", "n_validation_runs": 2, "network_probe": False, "sandbox": "namespace",
    }  # fmt: skip
    plan = {
        "settings": settings, "stages": list(StageName), "steps": steps, "synthetic": synthetic, "dies": dies,
    }  # fmt: skip
    (folder / "plan.json").write_text(json.dumps(plan))
    (folder / "tmp").mkdir()
    root = str(_NURSERY.parent.parent)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SWEFACTORY_")}
    done = subprocess.run(
        [sys.executable, str(_NURSERY), str(folder / "plan.json")],
        check=False, capture_output=True, text=True, timeout=1800, cwd=root,
        env={**kept, "PYTHONPATH": root, "TMPDIR": str(folder / "tmp")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def undisturbed(folder: Path) -> str:
    folder.mkdir()
    return f"sqlite:///{folder / 'catalog.db'}"


def ended(engine: Engine) -> dict[tuple[str, int], tuple[str, str | None]]:
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT stage, subject_id, state, reason FROM job"))
        return {(row[0], row[1]): (row[2], row[3]) for row in rows}


def effects(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return sorted(connection.execute(text("SELECT path FROM export")).scalars())


@pytest.mark.parametrize("kind", BOTH)
def test_death_at_any_step_of_any_stage_changes_nothing(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    (tmp_path / "dying").mkdir()
    urls = {"calm": undisturbed(tmp_path / "calm"), "dying": catalog_url(kind, request)}
    engines = {}
    for name, url in urls.items():
        engines[name] = upgraded(url)
        add_jobs(engines[name], 2, 4, max_attempts=100)
    assert ran(tmp_path / "calm", urls["calm"], synthetic=True, dies=False) == []
    assert ran(tmp_path / "dying", urls["dying"], synthetic=True, dies=True) == points()
    assert ended(engines["dying"]) == ended(engines["calm"])
    assert effects(engines["dying"]) == effects(engines["calm"])
    assert len(effects(engines["calm"])) == 2 + 4 * (len(StageName) - 1)
    for engine in engines.values():
        engine.dispose()


@pytest.fixture(scope="module")
def real(namespace_backend: SandboxBackend, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Contents]:
    """A history, and what the real stages make of it when nobody dies."""
    folder = tmp_path_factory.mktemp("real")
    history = make_history(folder / "history")
    found = real_run(folder / "calm", undisturbed(folder / "calm"), history, dies=False)
    validated = [row for row in found["task_instance"] if "VALIDATED" in row]
    assert len(validated) == len(VALIDATED)
    assert len(found["rollout"]) == 2 * len(VALIDATED)
    assert found["rollout_score"]
    return history, found


@pytest.mark.parametrize("kind", BOTH if _IS_FULL else ("postgresql",))
def test_death_at_a_step_of_a_real_stage_leaves_the_catalog_of_a_run_without_any(
    kind: str, real: tuple[Path, Contents], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    history, calm = real
    (tmp_path / "dying").mkdir()
    found = real_run(tmp_path / "dying", catalog_url(kind, request), history, dies=True)
    assert differences(found, calm) == []


def real_run(folder: Path, url: str, history: Path, *, dies: bool) -> Contents:
    """All stages on the history's repository, with as many deaths as there are points, and what is left of the dead."""
    engine = upgraded(url)
    queue_history(engine, history)
    with engine.begin() as connection:
        connection.execute(text("UPDATE job SET max_attempts = 100"))
    assert ran(folder, url, synthetic=False, dies=dies, steps=_REAL_STEPS) == (points(_REAL_STEPS) if dies else [])
    counts = jobs.counts(engine)
    assert not any(state in (*jobs.OPEN, JobState.DEAD) for _, state in counts), counts
    found = contents(engine, after_deaths=True)
    engine.dispose()
    assert left_behind(folder / "home", folder / "tmp") == []
    return found


def left_behind(home: Path, temporary: Path) -> list[Path]:
    """Files and folders that only their process had a use for."""
    cache = home / "cache"
    held = [cache / "temporary", cache / "scratch", cache / "trees" / ".parts", home / "artifacts" / ".parts"]
    found = [path for folder in (temporary, *held) for path in folder.glob("*")]
    return sorted([*found, *(cache / "sandboxes").glob("*~*"), *(home / "mirrors").glob(".*")])
