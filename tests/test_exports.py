"""Exports: only what is proven leaves, in the consumers' field names, whole or not at all, the same bytes twice."""

import hashlib
import json
import tomllib
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet
from sqlalchemy import Engine
from sqlmodel import Session, select

from db.engine import session
from db.enums import AgentKind, ExportFormat, InstanceStatus, Tier, ValidationVerdict
from db.models import (
    AgentConfig,
    Environment,
    Export,
    PullRequest,
    Repository,
    TaskInstance,
    Validation,
    utc_now,
)
from swefactory.artifacts import LocalArtifacts
from swefactory.certificates import Certificate, LeakReport, host_facts, subject_digest
from swefactory.cli.exporting import exported
from swefactory.config import Settings
from swefactory.errors import ArtifactError, UsageError
from swefactory.exports import dataset, harbor, swebench, swebench_folder
from swefactory.exports.diffs import differences
from swefactory.exports.folder import SUMS, ExportFolder
from swefactory.exports.image_sources import Images
from swefactory.exports.instance_images import ImageSource
from swefactory.exports.manifest import LeftOut, Manifest, entry_of, read_manifest
from swefactory.exports.subjects import Choice, Subject, subjects
from swefactory.exports.swebench_folder import Extras
from swefactory.instance_runs import load_instance
from swefactory.wiring import make_services
from tests.catalogs import BOTH, catalog_url, upgraded
from tests.told_rollouts import add_told, failed, solved

UNCERTIFIED = Choice(uncertified=True)
TEST_PATCH = "diff --git a/t.py b/t.py\nnew file mode 100644\n--- /dev/null\n+++ b/t.py\n@@ -0,0 +1 @@\n+x = 1\n"
PROJECT = {"name": "tool", "version": "1", "source_roots": ["."], "entry_points": {}, "requires": []}
SWE_BENCH_FIELDS = {
    "instance_id", "repo", "version", "base_commit", "environment_setup_commit", "patch", "test_patch",
    "problem_statement", "hints_text", "created_at", "FAIL_TO_PASS", "PASS_TO_PASS",
}  # fmt: skip


@pytest.fixture
def artifacts(tmp_path: Path) -> LocalArtifacts:
    return LocalArtifacts(tmp_path / "home" / "artifacts")


@pytest.fixture
def filled(catalog: Engine, artifacts: LocalArtifacts) -> Engine:
    fill(catalog, artifacts)
    return catalog


def fill(catalog: Engine, artifacts: LocalArtifacts) -> None:
    """Three instances (validated, candidate, rejected); rollouts on the first: resolved, unresolved, without talk."""
    now = utc_now()
    with session(catalog) as db:
        repository = Repository(name="acme/tool", license="MIT")
        environment = Environment(
            digest="sha256:e", python_version="3.11", lock_digest=artifacts.put(b"lock", "t").digest, resolved_as_of=now
        )
        db.add_all([repository, environment])
        db.flush()
        for number, status in enumerate(InstanceStatus, 1):
            times = {"opened_at": now, "merged_at": now, "updated_at": now}
            pull_request = PullRequest(repository_id=repository.id or 0, number=number, **times)
            db.add(pull_request)
            db.flush()
            db.add(
                TaskInstance(
                    instance_id=f"acme__tool-{number}", repository_id=repository.id or 0,
                    pull_request_id=pull_request.id or 0, environment_id=environment.id, status=status,
                    base_commit="b" * 40, patch=TEST_PATCH.replace("t.py", "tool.py"), test_patch=TEST_PATCH,
                    test_files=["t.py"], project=PROJECT,
                    problem_statement="it breaks ☃",
                    fail_to_pass=["t.py::a[x y]"], pass_to_pass=["t.py::b"], created_at=now,
                )
            )  # fmt: skip
        db.flush()
        instance = db.exec(select(TaskInstance).where(TaskInstance.status == InstanceStatus.VALIDATED)).one()
        db.add(
            Validation(
                task_instance_id=instance.id or 0, environment_id=environment.id or 0, number=1, sandbox="namespace",
                verdict=ValidationVerdict.VALID, n_runs=3, certificate={"gold": "3/3"}, started_at=now, finished_at=now,
            )
        )  # fmt: skip
        tests = [*instance.fail_to_pass, *instance.pass_to_pass]
        add_told(db, artifacts, instance, solved(), passed=tests, agent="agent 1")
        add_told(db, artifacts, instance, failed(), passed=tests[1:], agent="agent 2")
        add_told(db, artifacts, instance, None, passed=tests, agent="agent 3")


def test_only_validated_instances_leave_with_swe_benchs_fields_and_their_certificate(filled: Engine) -> None:
    with session(filled) as db:
        (subject,) = subjects(db, UNCERTIFIED)
        assert isinstance(subject, Subject)
        row = swebench.row(subject, load_instance(db, subject.instance.id or 0))
    assert row["instance_id"] == "acme__tool-2"
    assert row.keys() >= SWE_BENCH_FIELDS
    assert json.loads(str(row["FAIL_TO_PASS"])) == ["t.py::a[x␠y]"]
    assert row["certificate"] == {"gold": "3/3"}


def write(catalog: Engine, settings: Settings, target: Path, choice: Choice = UNCERTIFIED) -> ExportFolder:
    images = Images(ImageSource.REBUILD, make_services(settings, catalog))
    return swebench_folder.write(catalog, images, choice, target, Extras(parquet=True))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_catalog_gives_the_same_bytes_and_every_file_is_in_the_sums(
    filled: Engine, settings: Settings, tmp_path: Path
) -> None:
    first, second = (write(filled, settings, tmp_path / name / "swebench") for name in ("one", "two"))
    assert files(first.target) == files(second.target)
    assert "it breaks ☃" in (first.target / "swebench.jsonl").read_text()
    sums = dict(reversed(line.split("  ")) for line in (first.target / SUMS).read_text().splitlines())
    assert sums == {
        name: hashlib.sha256(data).hexdigest() for name, data in files(first.target).items() if name != SUMS
    }
    assert {"README.md", "GATE.md", "manifest.json", "swebench.jsonl", "images.jsonl"} <= sums.keys()


def test_the_manifest_names_each_row_with_hash_certificate_licence_and_version(
    filled: Engine, settings: Settings, tmp_path: Path
) -> None:
    with session(filled) as db:
        certified(db)
    folder = write(filled, settings, tmp_path / "swebench", Choice())
    (entry,) = read_manifest(folder.target).rows()
    assert (entry.key, entry.license, entry.swefactory) == ("acme__tool-2", "MIT", "0")
    assert entry.certificate.startswith("sha256:")
    assert json.loads((folder.target / "manifest.json").read_text())["n_rows"] == 1


def test_an_export_that_fails_leaves_the_earlier_one_and_no_trace(tmp_path: Path) -> None:
    target = tmp_path / "rows"
    with ExportFolder(target, "rows", {}) as folder:
        folder.write("rows.txt", "1")
    before = files(target)
    with pytest.raises(ArtifactError, match="damaged"), ExportFolder(target, "rows", {}) as folder:
        folder.write("rows.txt", "2")
        raise ArtifactError("the second row's file is damaged")
    assert files(target) == before
    assert list(tmp_path.iterdir()) == [target]
    with ExportFolder(target, "rows", {}) as folder:
        folder.write("rows.txt", "3")
    assert (target / "rows.txt").read_text() == "3"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_is_no_export_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years")
    with pytest.raises(UsageError, match="is no export"), ExportFolder(tmp_path, "rows", {}):
        pass
    assert (tmp_path / "thesis.txt").read_text() == "years"


CONDITIONS = {
    "repo = 'acme/tool' AND n_fail_to_pass = 1": 1,
    "created_at >= '2020-01-01 00:00:00' AND n_resolved = 2": 1,
    "n_pass_to_pass > 1": 0,
    "license LIKE 'M%' OR 1 = 0": 1,
}


@pytest.mark.parametrize("kind", BOTH)
def test_where_chooses_by_the_columns_of_the_query_exportable(
    kind: str, request: pytest.FixtureRequest, artifacts: LocalArtifacts
) -> None:
    catalog = upgraded(catalog_url(kind, request))
    fill(catalog, artifacts)
    with session(catalog, writing=False) as db:
        found = {where: len(list(subjects(db, Choice(where, uncertified=True)))) for where in CONDITIONS}
    catalog.dispose()
    assert found == CONDITIONS


@pytest.mark.parametrize("where", ["nothing = 1", "1; DELETE FROM rollout", "1) --", "'"])
def test_a_condition_that_is_none_is_a_usage_error_that_names_the_columns(filled: Engine, where: str) -> None:
    with session(filled, writing=False) as db, pytest.raises(UsageError, match="n_fail_to_pass"):
        list(subjects(db, Choice(where)))


def test_a_diff_names_each_row_that_came_went_or_changed_and_why(tmp_path: Path) -> None:
    def export(name: str, rows: dict[str, dict[str, object]], left_out: dict[str, str], **options: object) -> Manifest:
        with ExportFolder(tmp_path / name, "rows", options) as folder:
            for key in sorted({*rows, *left_out}):
                if key in rows:
                    folder.row(entry_of(key, rows[key], certificate={"swefactory": "1"}, license_="MIT"))
                else:
                    folder.leave_out(LeftOut(key, left_out[key]))
        return read_manifest(tmp_path / name)

    row = {"n": 1, "patch": "p"}
    old = export("old", {"a": row, "b": row, "c": row, "d": row, "f": row}, {"e": "too old"}, where="")
    new = export("new", {"b": {"n": 2, "patch": "q"}, "d": row, "e": row}, {"a": "leaks"}, where="n = 1")
    found = list(differences(old, new, lambda key: "rejected since" if key == "c" else ""))
    assert [(each.kind, each.key, each.why) for each in found] == [
        ("removed", "a", "leaks"),
        ("changed", "b", "fields: n, patch"),
        ("removed", "c", "rejected since"),
        ("added", "e", "it was left out before: too old"),
        ("removed", "f", "not asked for: where is 'n = 1', was ''"),
    ]
    assert list(differences(old, old)) == []


def test_an_instance_that_an_empty_patch_resolves_does_not_leave_even_uncertified(filled: Engine) -> None:
    with session(filled) as db:
        config = db.exec(select(AgentConfig)).first()
        assert config is not None
        config.kind = AgentKind.NOP
        db.add(config)
        db.flush()
        (found,) = subjects(db, UNCERTIFIED)
    assert isinstance(found, LeftOut)
    assert "an empty patch resolved it in 1/1" in found.why


def test_a_repeated_export_updates_its_row(filled: Engine, settings: Settings, tmp_path: Path) -> None:
    for _ in range(2):
        exported(filled, ExportFormat.SWEBENCH, tmp_path, lambda target: write(filled, settings, target))
    with session(filled) as db:
        assert [(row.n_rows, row.format) for row in db.exec(select(Export))] == [(1, ExportFormat.SWEBENCH)]


def certified(db: Session, **other: object) -> None:
    """Gives the validated instance a certificate of format 2 that holds, but for `other`."""
    instance = db.exec(select(TaskInstance).where(TaskInstance.status == InstanceStatus.VALIDATED)).one()
    validation = db.exec(select(Validation)).one()
    now = utc_now()
    facts: dict[str, Any] = {
        "instance_id": instance.instance_id, "gold": "3/3", "empty": "0/3", "tier": Tier.BRONZE, "n_runs": 3,
        "subject": subject_digest(instance.base_commit, instance.patch, instance.test_patch), "n_void": 0,
        "orders": ("default",), "conditions": {}, "not_run": (), "n_tests": 2, "n_fail_to_pass": 1,
        "n_error_to_pass": 0, "n_flaky": 0, "unstable": {}, "flip_rate_upper": 0.63, "leaks": LeakReport(),
        "environment_digest": "sha256:e", "lock_digest": "sha256:l", "python": "3", "pytest": "9", "plugin": "2",
        "swefactory": "0", "host": host_facts("namespace"), "left_out": (), "started_at": now, "finished_at": now,
    }  # fmt: skip
    validation.certificate = Certificate(**{**facts, **other}).model_dump(mode="json")
    db.add(validation)
    db.flush()


def test_an_instance_with_a_certificate_that_holds_is_not_refused(filled: Engine) -> None:
    with session(filled) as db:
        certified(db)
        (subject,) = subjects(db, Choice(max_age_days=1))
        assert isinstance(subject, Subject)


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"format": 1}, "of format 1"),
        ({"subject": "sha256:another"}, "not those of its certificate"),
        ({"environment_digest": "sha256:another"}, "environment is not that"),
        ({"gold": "2/3"}, "held in 2/3"),
        ({"empty": "1/3"}, "no patch in 1/3"),
        ({"leaks": None}, "not audited"),
        ({"leaks": LeakReport(findings=("x",))}, "leaks the fix"),
        ({"finished_at": datetime(2020, 1, 1, tzinfo=UTC)}, "older than 30 days"),
    ],
)
def test_an_instance_whose_certificate_does_not_hold_is_refused_and_said_why(
    filled: Engine, other: dict[str, object], why: str
) -> None:
    with session(filled) as db:
        certified(db, **other)
        (refused,) = subjects(db, Choice(max_age_days=30))
    assert isinstance(refused, LeftOut)
    assert refused.key == "acme__tool-2"
    assert why in refused.why


def test_a_certificate_of_an_older_version_is_refused(filled: Engine) -> None:
    with session(filled) as db:
        (refused,) = subjects(db, Choice())
    assert isinstance(refused, LeftOut)
    assert "of format None" in refused.why


def test_harbor_tasks_keep_the_fix_and_its_tests_from_the_agent(
    filled: Engine, settings: Settings, tmp_path: Path
) -> None:
    images = Images(ImageSource.REBUILD, make_services(settings, filled))
    folder = harbor.write(filled, images, UNCERTIFIED, tmp_path / "harbor")
    task = folder.target / "tasks" / "acme__tool-2"
    facts = tomllib.loads((task / "task.toml").read_text())
    assert (facts["schema_version"], facts["task"]["name"]) == ("1.4", "swefactory/acme__tool-2")
    assert facts["environment"]["network_mode"] == "no-network"
    assert facts["agent"]["user"] == "sandbox"
    assert facts["verifier"]["environment_mode"] == "separate"
    assert "environment" not in facts["verifier"]
    seen = "".join((task / name).read_text() for name in ("task.toml", "instruction.md", "environment/Dockerfile"))
    assert "x = 1" not in seen
    assert "t.py" not in seen
    assert "it breaks ☃" in seen


def test_a_row_of_the_dataset_is_in_one_split_of_each_partition(
    filled: Engine, settings: Settings, tmp_path: Path
) -> None:
    images = Images(ImageSource.REBUILD, make_services(settings, filled))
    rows = {}
    for name, day in (("late", date(2020, 1, 1)), ("early", date(2100, 1, 1))):
        folder = dataset.write(filled, images, UNCERTIFIED, tmp_path / name, day)
        tables = {path.name: parquet.read_table(path) for path in sorted((folder.target / "data").iterdir())}
        assert len(tables) == 1  # `datasets` reads no empty one
        rows[name] = [(file.split(".")[0], table.to_pylist()) for file, table in tables.items() if table.num_rows]
    ((late, (row,)),) = rows["late"]
    assert (late, rows["early"][0][0]) == ("time_test", "time_train")
    assert row["FAIL_TO_PASS"] == ["t.py::a[x␠y]"]
    assert (row["requirements"], row["license_name"]) == ("lock", "MIT")
    assert json.loads(row["install_config"])["python"] == "3.11"


def test_an_instance_that_pytest_does_not_run_is_left_out_and_said_why(filled: Engine) -> None:
    with session(filled) as db:
        instance = db.exec(select(TaskInstance).where(TaskInstance.status == InstanceStatus.VALIDATED)).one()
        assert swebench.unfit(load_instance(db, instance.id or 0)) == ""
        instance.test_command = ["-m", "unittest"]
        assert "pytest only" in swebench.unfit(load_instance(db, instance.id or 0))
