"""The process dies at each step of each stage in turn; what is left is finished, and the catalog is that of a run in
which nobody died. On both databases.

All stages, with short bodies of the test's own, through the pipeline's claims, steps and commits.
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

from db.enums import StageName
from swefactory.pipeline import STEPS
from tests.catalogs import BOTH, add_jobs, catalog_url, upgraded

_NURSERY = Path(__file__).with_name("crash_nursery.py")


def points(stages: Sequence[StageName]) -> list[str]:
    return [f"{stage}:{step}" for stage in stages for step in STEPS]


def ran(folder: Path, url: str, stages: Sequence[StageName], *, synthetic: bool, dies: bool) -> list[str]:
    """Lets the nursery do what is queued in the catalog; the points at which a process died."""
    settings: dict[str, Any] = {
        "home": str(folder / "home"), "database_url": url, "github_url": "http://127.0.0.1:9", "max_attempts": 100,
        "licenses": "NOASSERTION", "n_validation_runs": 2, "network_probe": False,
    }  # fmt: skip
    plan = {"settings": settings, "stages": list(stages), "synthetic": synthetic, "dies": dies}
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
    assert ran(tmp_path / "calm", urls["calm"], list(StageName), synthetic=True, dies=False) == []
    assert ran(tmp_path / "dying", urls["dying"], list(StageName), synthetic=True, dies=True) == points(list(StageName))
    assert ended(engines["dying"]) == ended(engines["calm"])
    assert effects(engines["dying"]) == effects(engines["calm"])
    assert len(effects(engines["calm"])) == 2 + 4 * (len(StageName) - 1)
    for engine in engines.values():
        engine.dispose()
