"""Writes the swebench export, see swefactory.exports.swebench. One property: rows, images and task folders are of the
same instances, in the same order."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from db.engine import session
from db.enums import ExportFormat
from swefactory.errors import UsageError
from swefactory.exports import swebench, task_repositories
from swefactory.exports.folder import ExportFolder
from swefactory.exports.frame import Card, Frame, Loadable, card_text
from swefactory.exports.image_sources import Images
from swefactory.exports.instance_images import ImageSource
from swefactory.exports.parquet import Shards, features, shards
from swefactory.exports.subjects import Choice

TASK_REPOSITORY, DATASET = "task-repository", "swefactory/tasks"
_TEXT = """\
Task instances for the stock SWE-bench harness (v5): `swebench eval swebench.jsonl --gold` or `-p PREDICTIONS`.
`images.jsonl` says of each row where its image is: pushed to a registry, on the engine it was made on, in `oci/`, or to
be rebuilt from its lock in `locks/`. In FAIL_TO_PASS and PASS_TO_PASS white space inside an id is written ␠, as the
evaluation script prints it.
"""


@dataclass(frozen=True)
class Extras:
    """What is written beside the JSON lines."""

    parquet: bool = False
    task_repo: bool = False


_NONE = Extras()


def write(engine: Engine, images: Images, choice: Choice, target: Path, extras: Extras = _NONE) -> ExportFolder:
    """Writes the folder `target`. Raises UsageError, ArtifactError, and what images raise."""
    if extras.task_repo and images.source in (ImageSource.REBUILD, ImageSource.OCI):
        raise UsageError("a task repository's Dockerfiles start from images: give --images local or registry")
    options = {**choice.options(), "images": images.source.value, "registry": images.prefix, **vars(extras)}
    with ExportFolder(target, ExportFormat.SWEBENCH.value, options) as folder:
        with session(engine, writing=False) as db, Frame(db, folder, choice) as frame, ExitStack() as stack:
            table = stack.enter_context(shards(folder, "test", swebench.COLUMNS)) if extras.parquet else None
            ids = _write_rows(frame, images, extras, table)
        images.write(engine, folder, ids)
        folder.write("README.md", card_text(_card(frame, extras), engine))
    return folder


def _write_rows(frame: Frame, images: Images, extras: Extras, table: Shards | None) -> list[int]:
    """The ids of the task instances that left."""
    folder, ids = frame.folder, []
    if extras.task_repo:
        task_repositories.write_config(folder, TASK_REPOSITORY, DATASET)
    with folder.lines("swebench.jsonl") as rows:
        for subject, instance in frame.fit(swebench.unfit):
            row = swebench.row(subject, instance, images.source, images.prefix)
            rows.write(row)
            if table is not None:
                table.write(row)
            if extras.task_repo:
                task_repositories.write_task(folder, TASK_REPOSITORY, DATASET, row)
            frame.row(subject, row)
            ids.append(subject.instance.id or 0)
    return ids


def _card(frame: Frame, extras: Extras) -> Card:
    configs = [{"config_name": "default", "data_files": [{"split": "test", "path": "data/test-*.parquet"}]}]
    loadable = (
        Loadable(configs, {"features": features(swebench.COLUMNS)}) if extras.parquet and frame.folder.n_rows else None
    )
    return frame.card("SWE-bench tasks by swefactory", _TEXT, loadable)
