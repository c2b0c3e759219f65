"""Task instances as a Hugging Face data set: `datasets.load_dataset("OUT/dataset", "by_time")`.

    data/time_train.repo_test-00000-of-00001.parquet      each row once; its name tells its place in both partitions

Configurations `default` (all, as split train), `by_time` (test: created at or after a day) and `by_repository` (test:
one repository in ten, told by the hash of its name). Columns of SWE-Gym and SWE-rebench stand beside ours. One
property: a row is in exactly one split of each configuration, and a repository never changes sides.
"""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

from sqlalchemy import Engine, func
from sqlmodel import Session, col, select

from db.engine import session
from db.enums import Change, ExportFormat, InstanceStatus, ValidationVerdict
from db.models import TaskInstance, TestVerdict, Validation
from swefactory.certificates import subject_digest
from swefactory.exports import swebench
from swefactory.exports.folder import ExportFolder
from swefactory.exports.frame import Frame, Loadable, card_text
from swefactory.exports.image_sources import Images
from swefactory.exports.parquet import Columns, features, shards
from swefactory.exports.subjects import Choice, Subject
from swefactory.exports.test_names import printable
from swefactory.instance_runs import EvaluatedInstance
from swefactory.model_patches import changes

_LISTS = ("FAIL_TO_PASS", "PASS_TO_PASS", "FAIL_TO_FAIL", "PASS_TO_FAIL")
COLUMNS: Columns = {
    **swebench.COLUMNS,
    **dict.fromkeys(_LISTS, "texts"),
    # SWE-rebench's and SWE-Gym's
    "install_config": "json", "requirements": "text", "license_name": "text", "image_name": "text",
    "docker_image": "text", "meta": "json", "language": "text",
    # ours
    "content_hash": "text", "pipeline_version": "text", "validated_at": "text", "stability": "json",
}  # fmt: skip
SIDES = ("train", "test")
_LATE_SHARE = 10  # one part in so many is late, where no day is given
_TEXT = """\
Task instances with what proves them, for `datasets.load_dataset`. Configurations: `default` holds all rows, `by_time`
and `by_repository` the same rows split in train and test. `images.jsonl` says where each row's image is.
"""


def write(engine: Engine, images: Images, choice: Choice, target: Path, test_after: date | None = None) -> ExportFolder:
    """Writes the folder `target`. Raises UsageError, ArtifactError, and what images raise."""
    with session(engine, writing=False) as db:
        cut = _midnight(test_after) if test_after else late_from(db)
    options = {**choice.options(), "images": images.source.value, "registry": images.prefix, "test_from": str(cut)}
    with ExportFolder(target, ExportFormat.DATASET.value, options) as folder:
        with session(engine, writing=False) as db, Frame(db, folder, choice) as frame, ExitStack() as stack:
            parts = {
                part: stack.enter_context(shards(folder, f"time_{part[0]}.repo_{part[1]}", COLUMNS))
                for part in ((one, other) for one in SIDES for other in SIDES)
            }
            ids = []
            for subject, instance in frame.fit(swebench.unfit):
                found = row(db, subject, instance, images)
                parts[_side(subject.instance.created_at >= cut), repository_side(instance.repository)].write(found)
                frame.row(subject, found)
                ids.append(subject.instance.id or 0)
        images.write(engine, folder, ids)
        configs = _configs([part for part, written in parts.items() if written.n_rows])
        info = [{"config_name": config["config_name"], "features": features(COLUMNS)} for config in configs]
        loadable = Loadable(configs, info) if configs else None
        folder.write("README.md", card_text(frame.card("Software-engineering tasks", _TEXT, loadable), engine))
    return folder


def _configs(parts: Sequence[tuple[str, str]]) -> list[Mapping[str, object]]:
    """The card's configurations over the parts that hold rows; a split without any is not named."""

    def config(name: str, splits: Mapping[str, str]) -> Mapping[str, object]:
        files = [{"split": side, "path": f"data/{pattern}-*.parquet"} for side, pattern in splits.items()]
        return {"config_name": name, "data_files": files}

    by_time = {side: f"time_{side}.repo_*" for side in SIDES if any(part[0] == side for part in parts)}
    by_repository = {side: f"time_*.repo_{side}" for side in SIDES if any(part[1] == side for part in parts)}
    found = {"default": {"train": "time_*"}, "by_time": by_time, "by_repository": by_repository}
    return [config(name, splits) for name, splits in found.items()] if parts else []


def late_from(db: Session) -> datetime:
    """The day from which on the latest tenth of all validated instances were created."""
    validated = TaskInstance.status == InstanceStatus.VALIDATED
    n = db.exec(select(func.count()).select_from(TaskInstance).where(validated)).one()
    newest_first = select(TaskInstance.created_at).where(validated).order_by(col(TaskInstance.created_at).desc())
    found = db.exec(newest_first.offset(n // _LATE_SHARE).limit(1)).first()
    return _midnight(found.date() + timedelta(days=1)) if found else _midnight(date(1970, 1, 1))


def repository_side(name: str) -> str:
    """Which side of by_repository a repository is on, for ever."""
    return _side(hashlib.sha256(name.lower().encode()).digest()[0] % 10 == 0)


def _side(is_test: bool) -> str:
    return SIDES[is_test]


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


# ---------------------------------------------------------------- the row


def row(db: Session, subject: Subject, instance: EvaluatedInstance, images: Images) -> Mapping[str, object]:
    """SWE-bench's row with lists for lists, and the columns of the others."""
    told = subject.certificate
    base = swebench.row(subject, instance, images.source, images.prefix)
    others = _others(db, subject.instance.id or 0)
    lists = {"FAIL_TO_PASS": instance.fail_to_pass, "PASS_TO_PASS": instance.pass_to_pass, **others}
    return {
        **base,
        **{name: [printable(test_id) for test_id in lists.get(name, ())] for name in _LISTS},
        "install_config": _install_config(instance),
        "requirements": images.services.artifacts.get(instance.lock_digest).decode(),
        "license_name": subject.license,
        "image_name": base["image"],
        "docker_image": base["image"],
        "meta": _meta(subject),
        "language": "python",
        "content_hash": subject_digest(instance.base_commit, instance.patch, instance.test_patch),
        "pipeline_version": str(told.get("swefactory", "")),
        "validated_at": str(told.get("finished_at", "")),
        "stability": {name: told.get(name) for name in ("gold", "empty", "n_flaky", "flip_rate_upper", "tier")},
    }


def _install_config(instance: EvaluatedInstance) -> Mapping[str, object]:
    """SWE-rebench's: how the environment is made and its tests are run."""
    return {
        "python": instance.python_version,
        "install": "uv pip install --require-hashes --no-deps -r requirements.txt",
        "pre_install": [f"apt-get install -y {name}" for name in instance.system_packages],
        "env_vars": dict(instance.environment_variables),
        "test_cmd": f"python -m pytest {' '.join(instance.test_files)}",
        "log_parser": swebench.LOG_PARSER,
    }


def _meta(subject: Subject) -> Mapping[str, object]:
    files = {path for change in changes(subject.instance.patch) for path in change.paths}
    return {
        "num_modified_files": len(files),
        "pr_url": subject.pull_request.url,
        "pr_author": subject.pull_request.author,
        "pull_number": subject.pull_request.number,
        "issue_numbers": [issue.number for issue in subject.issues],
    }


def _others(db: Session, task_instance_id: int) -> Mapping[str, list[str]]:
    """Tests that the fix does not help, as the newest validation that held says."""
    newest = (
        select(Validation.id)
        .where(Validation.task_instance_id == task_instance_id, Validation.verdict == ValidationVerdict.VALID)
        .order_by(col(Validation.number).desc())
        .limit(1)
        .scalar_subquery()
    )
    names = {Change.FAIL_TO_FAIL: "FAIL_TO_FAIL", Change.PASS_TO_FAIL: "PASS_TO_FAIL"}
    found: dict[str, list[str]] = {name: [] for name in names.values()}
    statement = select(TestVerdict.change, TestVerdict.test_id).where(
        TestVerdict.validation_id == newest, col(TestVerdict.change).in_(names)
    )
    for change, test_id in db.exec(statement):
        found[names[Change(change)]].append(test_id)
    return {name: sorted(ids) for name, ids in found.items()}
