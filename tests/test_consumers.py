"""What reads our exports reads them: each consumer as it comes from the package registry, in an environment of its own.

`make consumers` runs these; a plain test run does not, as they install up to 500 MB once (see consumer_environments).
Nothing here needs docker or torch: TRL is read through its data functions, without the trainers, which want torch.
"""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from db.engine import session
from swefactory.artifacts import LocalArtifacts
from swefactory.config import Settings
from swefactory.exports import dataset, harbor, preferences, swebench_folder, trajectories
from swefactory.exports.image_sources import Images
from swefactory.exports.instance_images import ImageSource
from swefactory.exports.swebench_folder import Extras
from swefactory.exports.trajectories import Form, Telling, ToolArgs
from swefactory.wiring import make_services
from tests.catalogs import upgraded
from tests.consumer_environments import python_of
from tests.test_exports import UNCERTIFIED, fill
from tests.test_exports_to_train import ALL, EVERY, validated
from tests.told_rollouts import add_told, solved
from tests.trajectory_events import Events

pytestmark = pytest.mark.consumers
HERE = Path(__file__).parent
Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of each export, of an instance with resolved and unresolved rollouts and texts of every kind."""
    home = tmp_path_factory.mktemp("exports")
    settings = Settings(home=home, database_url="", sandbox="namespace")
    catalog = upgraded(settings.catalog_url)
    artifacts, out = LocalArtifacts(settings.artifacts_dir), home / "exports"
    fill(catalog, artifacts)
    with session(catalog) as db:
        instance = validated(db)
        instance.problem_statement = "it breaks ☃ \u2028 after a \x85 line"
        db.add(instance)
        add_told(db, artifacts, instance, Events().runs("ls", "ä\u2028b").finishes(), passed=[], agent="agent 4")
        add_told(db, artifacts, instance, solved(), passed=ALL, agent="agent 5")
    images = Images(ImageSource.REBUILD, make_services(settings, catalog))
    swebench_folder.write(catalog, images, UNCERTIFIED, out / "swebench", Extras(parquet=True))
    dataset.write(catalog, images, UNCERTIFIED, out / "dataset")
    harbor.write(catalog, images, UNCERTIFIED, out / "harbor")
    trajectories.write(catalog, artifacts, out / "trajectories", EVERY, Telling(tool_args=ToolArgs.DICT))
    trajectories.write(catalog, artifacts, out / "atif" / "trajectories", EVERY, Telling(Form.ATIF))
    preferences.write(catalog, artifacts, out / "preferences", EVERY)
    catalog.dispose()
    return out


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a program of a consumer's environment, offline for Hugging Face; what it printed last, as JSON."""

    def one(name: str, *arguments: object, module: bool = False) -> Any:
        python = python_of(name)
        env = {"PATH": f"{python.parent}:{os.environ['PATH']}", "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
        command = [str(python), *(["-m"] if module else []), *map(str, arguments)]
        ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=1800, check=False, cwd=tmp_path)
        assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
        return ran.stdout if module else json.loads(ran.stdout.splitlines()[-1])

    return one


def test_the_swebench_harness_loads_the_rows_and_grades_by_them(exports: Path, run: Run) -> None:
    assert run("swebench", HERE / "consumers" / "read_swebench.py", exports) == {"rows": 1}


def test_datasets_loads_every_configuration(exports: Path, run: Run, tmp_path: Path) -> None:
    found = run("datasets", HERE / "consumers" / "read_datasets.py", exports, tmp_path / "cache")
    assert found == {"dataset/default": 1, "dataset/by_time": 1, "dataset/by_repository": 1, "swebench/default": 1}


def test_harbor_finds_nothing_wrong_with_tasks_and_trajectories(exports: Path, run: Run) -> None:
    python = python_of("harbor")
    env = {"PATH": os.environ["PATH"], "HOME": str(exports)}
    for task in sorted((exports / "harbor" / "tasks").iterdir()):
        command = [str(python.with_name("harbor")), "lint", str(task)]
        ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=1800, check=False)
        assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
    files = sorted((exports / "atif" / "trajectories" / "atif").rglob("*.json"))
    assert len(files) == 4
    for file in files:
        run("harbor", "harbor.utils.trajectory_validator", file, module=True)


def test_trl_reads_sft_preference_kto_and_stepwise_files_through_a_chat_template(exports: Path, run: Run) -> None:
    assert run("trl", HERE / "consumers" / "read_trl.py", HERE / "data" / "chat", exports) == {
        "trajectories/trajectories.jsonl": 4,
        "preferences/pairs.jsonl": 4,
        "preferences/kto.jsonl": 4,
        "preferences/stepwise.jsonl": 4,
    }
