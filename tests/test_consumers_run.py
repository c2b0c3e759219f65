"""Stock harnesses run our exports on real images: what they resolve is what we resolve.

`make consumers` runs these. Two pull requests of the sample repository go through crawl, environment and validation in
docker; what grades them here are `swebench` and `harbor` as they come from the package registry.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from db.engine import make_engine, session
from swefactory import admin
from swefactory.config import Settings
from swefactory.demo.github_server import github_server
from swefactory.demo.history import build_history
from swefactory.exports import harbor, swebench_folder
from swefactory.exports.harbor import Terms
from swefactory.exports.image_sources import Images
from swefactory.exports.instance_images import ImageSource
from swefactory.exports.subjects import Choice
from swefactory.pipeline import run_embedded
from swefactory.sandboxes.docker_store import HOME_LABEL
from swefactory.wiring import make_docker, make_services
from tests.catalogs import upgraded
from tests.conftest import _absent
from tests.consumer_environments import printed, started

pytestmark = pytest.mark.consumers
NUMBERS = (2, 7)  # the pull requests that are mined
EVAL_S, HARBOR_S = 600, 900  # seconds after which a harness is taken to hang
USELESS = "diff --git a/note.py b/note.py\nnew file mode 100644\n--- /dev/null\n+++ b/note.py\n@@ -0,0 +1 @@\n+x = 1\n"


@dataclass(frozen=True)
class Mined:
    """A catalog with certified instances, and exports of it with images on this engine."""

    home: Path
    settings: Settings
    ids: tuple[str, ...]

    @property
    def swebench(self) -> Path:
        return self.home / "exports" / "swebench" / "swebench.jsonl"


@pytest.fixture(scope="module")
def mined(tmp_path_factory: pytest.TempPathFactory, docker_engine: Any) -> Iterator[Mined]:
    """Crawl, environment and validation in docker of two pull requests; what a chain of two runs a state certifies."""
    home = tmp_path_factory.mktemp("mined")
    history = build_history(home / "sample")
    pull_requests = tuple(each for each in history.pull_requests if each.number in NUMBERS)
    # Under a name of its own, so that no image of theirs can be another catalog's, too: some are removed here.
    chosen = replace(history, name="lapse-dev/graded-outside", pull_requests=pull_requests)
    with github_server(chosen) as url:
        settings = Settings(
            home=home, database_url="", sandbox="docker", github_url=url, github_token="any", n_validation_runs=2
        )
        catalog = upgraded(settings.catalog_url)
        with session(catalog) as db:
            admin.add_repository(db, chosen.name)
        assert run_embedded(settings, catalog, n_processes=2).n_unfinished == 0
    docker = make_docker(settings)
    images = Images(ImageSource.LOCAL, make_services(settings, catalog), docker)
    swebench_folder.write(catalog, images, Choice(), home / "exports" / "swebench")
    harbor.write(catalog, images, Choice(), home / "exports" / "harbor", Terms(network="public"))
    catalog.dispose()
    yield Mined(home, settings, tuple(chosen.instance_id(number) for number in NUMBERS))
    for image in docker_engine.images.list(filters={"label": f"{HOME_LABEL}={docker.home}"}):
        for tag in image.tags:
            docker_engine.images.remove(tag)


def evaluated(rows: Path, folder: Path, patches: dict[str, str] | None = None, *options: str) -> dict[str, Any]:
    """What `swebench eval` reports of these patches, or of the gold ones."""
    asked = ["--gold"]
    if patches is not None:
        lines = [
            json.dumps({"instance_id": name, "model_name_or_path": "model", "model_patch": patch})
            for name, patch in patches.items()
        ]
        (folder / "predictions.jsonl").write_text("".join(f"{line}\n" for line in lines))
        asked = ["-p", "predictions.jsonl"]
    arguments = ["swebench", "eval", rows, *asked, "-j", 2, "-t", 120, "--report-dir", "reports", *options]
    said = printed(started("swebench", arguments, folder), EVAL_S)
    (report,) = (folder / "reports").glob("*.json") if (folder / "reports").exists() else folder.glob("*.run.json")
    found: dict[str, Any] = json.loads(report.read_text())
    assert found["error_ids"] == [], said
    return found


def test_swebench_eval_resolves_every_gold_patch_and_no_other(mined: Mined, tmp_path: Path) -> None:
    """On the images of this engine. Useless is a patch that applies and changes nothing that is tested."""
    folders = {name: tmp_path / name for name in ("gold", "useless", "empty")}
    for folder in folders.values():
        folder.mkdir()
    gold = evaluated(mined.swebench, folders["gold"])
    assert gold["resolved_ids"] == sorted(mined.ids)
    useless = evaluated(mined.swebench, folders["useless"], dict.fromkeys(mined.ids, USELESS))
    assert (useless["resolved_ids"], useless["unresolved_ids"]) == ([], sorted(mined.ids))
    empty = evaluated(mined.swebench, folders["empty"], dict.fromkeys(mined.ids, ""))
    assert (empty["resolved_ids"], empty["empty_patch_ids"]) == ([], sorted(mined.ids))


def rewards(jobs: Path) -> dict[str, Any]:
    """Each task's reward in a job of Harbor's; a trial that broke has none."""
    trials = [json.loads(path.read_text()) for path in jobs.glob("*/*/result.json")]
    assert [trial["exception_info"] for trial in trials if trial["exception_info"]] == []
    return {trial["task_name"].partition("/")[2]: trial["verifier_result"]["rewards"]["reward"] for trial in trials}


def test_harbor_run_rewards_the_oracle_with_1_and_nop_with_0(mined: Mined, tmp_path: Path) -> None:
    """With `--network public`: docker 20.10 on such a kernel cannot close the network the way Harbor wants it closed (a
    side container with nftables), so that tasks with `no-network` are refused before they start."""
    tasks = mined.home / "exports" / "harbor" / "tasks"
    runs = {
        agent: started(
            "harbor", ["harbor", "run", "-p", tasks, "-a", agent, "-o", agent, "-n", 2, "-y", "-q"], tmp_path
        )
        for agent in ("oracle", "nop")
    }
    said = {agent: printed(process, HARBOR_S) for agent, process in runs.items()}
    assert rewards(tmp_path / "oracle") == dict.fromkeys(mined.ids, 1), said["oracle"]
    assert rewards(tmp_path / "nop") == dict.fromkeys(mined.ids, 0), said["nop"]


@pytest.mark.parametrize("source", [ImageSource.REGISTRY, ImageSource.OCI])
def test_an_instance_is_graded_on_its_image_that_came_back(
    source: ImageSource, mined: Mined, docker_engine: Any, registry: str, tmp_path: Path
) -> None:
    """The engine's own copy is removed first. The harness pulls from the registry by itself; of the layout the engine
    gets its image by skopeo. Both times it is the same image, by its id."""
    settings = mined.settings.model_copy(update={"image_registry": f"{registry}/team"})
    catalog = make_engine(settings.catalog_url)
    images = Images(source, make_services(settings, catalog), make_docker(settings), settings.image_registry)
    choice = Choice(where=f"instance_id = '{mined.ids[0]}'")
    exported = swebench_folder.write(catalog, images, choice, tmp_path / "export").target
    catalog.dispose()
    image = json.loads((exported / "images.jsonl").read_text())["image"]
    own = image.removeprefix(f"{registry}/team/")
    made = docker_engine.images.get(own).id
    for name in {own, image}:
        docker_engine.images.remove(name)
    assert docker_engine.images.list(filters={"reference": own}) == []
    if source is ImageSource.OCI:
        arguments = ["copy", "--insecure-policy", f"oci:{exported / 'oci'}:{own}", f"docker-daemon:{own}"]
        subprocess.run([skopeo(), *arguments], check=True, capture_output=True, timeout=EVAL_S)
    assert evaluated(exported / "swebench.jsonl", tmp_path)["resolved_ids"] == [mined.ids[0]]
    assert docker_engine.images.get(image).id == made
    if source is ImageSource.REGISTRY:
        docker_engine.images.get(image).tag(*own.split(":"))  # for the tests that come after


def skopeo() -> str:
    found = shutil.which("skopeo")
    return found or _absent("skopeo", "it is not installed (Debian: apt install skopeo)")
