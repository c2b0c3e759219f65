"""The environment stage on real repositories, locks and virtual environments; only the isolation is left out."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlmodel import Session, select

from db.engine import session
from db.enums import InstanceStatus, RejectReason, StageName
from db.models import Artifact, Environment, EnvironmentBuild, PullRequest, Repository, TaskInstance
from swefactory.artifacts import LocalArtifacts
from swefactory.checkouts import Checkouts, run_git
from swefactory.config import Settings
from swefactory.errors import Rejected
from swefactory.instance_runs import layout_from
from swefactory.protocols import Agent, AgentSpec
from swefactory.sandbox_protocols import CommandResult, SandboxSpec
from swefactory.stage import NextJob, Services
from swefactory.stages.environments import STAGE, EnvironmentInput
from swefactory.standing import EnvironmentRejected
from tests.fake_environments import HERE, VenvBackend, VenvSandbox, need_registry, write_tree

AT = "2024-05-01T12:00:00Z"
MAIN = {
    "pyproject.toml": (
        '[project]\nname = "Small-Pkg"\ndynamic = ["version"]\ndependencies = ["idna"]\n'
        f'classifiers = ["Programming Language :: Python :: {HERE}"]\n'
    ),
    "small_pkg/__init__.py": "import idna\n",
    "tests/conftest.py": "import pytest\n",
}
TEST_PATCH = """--- a/tests/test_a.py
+++ b/tests/test_a.py
@@ -0,0 +1,2 @@
+import iniconfig, pretend
+def test_a(): pass
"""


def origin(folder: Path, files: dict[str, str]) -> tuple[Path, str]:
    """A repository of one tagged commit made at AT; its path and the commit."""
    write_tree(folder, files)
    run_git(folder, "init", "--quiet", "--initial-branch=main", "--template=")
    run_git(folder, "add", "--all")
    tree = run_git(folder, "write-tree").decode().strip()
    raw = f"tree {tree}\nauthor a <a@b> {_epoch()} +0000\ncommitter a <a@b> {_epoch()} +0000\n\none\n"
    commit = run_git(folder, "hash-object", "-t", "commit", "-w", "--stdin", stdin=raw.encode()).decode().strip()
    run_git(folder, "update-ref", "refs/heads/main", commit)
    run_git(folder, "tag", "v2.3.0", commit)
    return folder, commit


def _epoch() -> int:
    return int(datetime.fromisoformat(AT).timestamp())


def no_agent(spec: AgentSpec) -> Agent:
    raise AssertionError(f"the environment stage asks for no agent, not even {spec.name}")


@pytest.fixture(scope="session")
def backend(tmp_path_factory: pytest.TempPathFactory) -> VenvBackend:
    folder = tmp_path_factory.mktemp("environments")
    need_registry(folder / "uv-cache")
    return VenvBackend(folder)


def services(settings: Settings, sandboxes: VenvBackend) -> Services:
    checkouts = Checkouts(settings.mirrors, settings.cache_dir)
    return Services(settings, {}, checkouts, sandboxes, LocalArtifacts(settings.artifacts_dir), no_agent, "7.1")


def subject(place: tuple[Path, str], **changes: object) -> EnvironmentInput:
    values: dict[str, object] = {
        "instance_id": "o__r-1", "repository": "o/r", "clone_url": str(place[0]), "base_commit": place[1],
        "test_patch": TEST_PATCH, "test_files": ("tests/test_a.py",), **changes,
    }  # fmt: skip
    return EnvironmentInput(**values)  # type: ignore[arg-type]


def instance_in(db: Session, place: tuple[Path, str], number: int) -> int:
    now = datetime.now(UTC)
    repository = db.exec(select(Repository)).first() or Repository(name="o/r", clone_url=str(place[0]))
    db.add(repository)
    db.flush()
    assert repository.id is not None
    pull = PullRequest(repository_id=repository.id, number=number, opened_at=now, merged_at=now, updated_at=now)
    db.add(pull)
    db.flush()
    assert pull.id is not None
    row = TaskInstance(
        instance_id=f"o__r-{number}", repository_id=repository.id, pull_request_id=pull.id, base_commit=place[1],
        test_patch=TEST_PATCH, test_files=["tests/test_a.py"], created_at=now,
    )  # fmt: skip
    db.add(row)
    db.flush()
    assert row.id is not None
    return row.id


def test_a_candidate_gets_an_environment_that_its_neighbour_shares(
    tmp_path: Path, settings: Settings, catalog: Engine, backend: VenvBackend
) -> None:
    place = origin(tmp_path / "origin", MAIN)
    services_ = services(settings, backend)
    for number in (1, 2):
        with session(catalog) as db:
            subject_id = instance_in(db, place, number)
        with session(catalog) as db:
            asked = STAGE.load(db, subject_id)
        output = STAGE.work(services_, asked)
        with session(catalog) as db:
            saved = STAGE.save(db, subject_id, output)
            assert saved.next_jobs == (NextJob(StageName.VALIDATION, subject_id),)
            assert saved.rejected is None
    with session(catalog) as db:
        environment = db.exec(select(Environment)).one()
        build = db.exec(select(EnvironmentBuild)).one()
        artifact = db.exec(select(Artifact)).one()
        rows = db.exec(select(TaskInstance)).all()
    assert {row.environment_id for row in rows} == {environment.id}
    assert {row.version for row in rows} == {"2.3.0"}
    assert rows[0].environment_setup_commit == place[1]
    assert rows[0].test_command == ["-m", "pytest"]
    assert layout_from(rows[0].project) == output.recipe.layout
    assert (build.environment_id, build.sandbox) == (environment.id, "venv")
    assert build.locator
    assert artifact.digest == environment.lock_digest == output.lock.digest
    lock = services_.artifacts.get(environment.lock_digest).decode()
    assert "idna==3.7" in lock
    assert "small-pkg" not in lock
    assert environment.recipe["python_version"] == HERE
    assert backend.opened[-1].label == "7.1"


def test_what_only_the_instances_tests_import_is_added_by_name(
    tmp_path: Path, settings: Settings, backend: VenvBackend
) -> None:
    output = STAGE.work(services(settings, backend), subject(origin(tmp_path / "origin", MAIN)))
    [attempt] = [attempt for attempt in output.recipe.attempts if attempt.name == "test imports"]
    assert (attempt.worked, attempt.detail) == (True, "pretend")
    assert output.recipe.origins["pretend"] == "imported by the tests"
    assert "pretend" in output.recipe.requirements


def test_a_module_the_package_forgot_to_declare_is_added_by_name(
    tmp_path: Path, settings: Settings, backend: VenvBackend
) -> None:
    files = {**MAIN, "small_pkg/__init__.py": "import idna, six\n"}
    output = STAGE.work(services(settings, backend), subject(origin(tmp_path / "origin", files)))
    assert output.recipe.repairs[-1] == "missing_module"
    assert "six" in output.recipe.requirements


def test_a_package_that_does_not_import_is_rejected_with_its_words(
    tmp_path: Path, settings: Settings, backend: VenvBackend
) -> None:
    files = {**MAIN, "small_pkg/__init__.py": "import module_nobody_has\n"}
    with pytest.raises(Rejected, match="No module named 'module_nobody_has'") as caught:
        STAGE.work(services(settings, backend), subject(origin(tmp_path / "origin", files)))
    assert caught.value.reason is RejectReason.BUILD_FAILED


COLLECT_PATCH = """--- a/tests/test_a.py
+++ b/tests/test_a.py
@@ -0,0 +1,2 @@
+from small_pkg.new import thing
+def test_a(): assert thing
"""
FIX = """--- a/small_pkg/new.py
+++ b/small_pkg/new.py
@@ -0,0 +1,1 @@
+thing = 1
"""


def test_a_test_file_that_only_the_fix_lets_collect_speaks_for_no_rejection(
    tmp_path: Path, settings: Settings, backend: VenvBackend
) -> None:
    place = origin(tmp_path / "origin", MAIN)
    output = STAGE.work(services(settings, backend), subject(place, test_patch=COLLECT_PATCH, patch=FIX))
    assert output.recipe.python_version == HERE


def test_a_test_file_that_never_collects_is_rejected_with_its_step_and_its_whole_log(
    tmp_path: Path, settings: Settings, backend: VenvBackend, catalog: Engine
) -> None:
    place = origin(tmp_path / "origin", MAIN)
    services_ = services(settings, backend)
    with pytest.raises(EnvironmentRejected, match="step collect") as caught:
        STAGE.work(services_, subject(place, test_patch=COLLECT_PATCH))
    verdict = caught.value
    assert (verdict.reason, verdict.step) == (RejectReason.COLLECTION_ERROR, "collect")
    assert "No module named 'small_pkg.new'" in verdict.detail
    assert "No module named 'small_pkg.new'" in services_.artifacts.get(verdict.log.digest).decode()
    with session(catalog) as db:
        subject_id = instance_in(db, place, 1)
        STAGE.save(db, subject_id, verdict)
    with session(catalog) as db:
        row = db.get_one(TaskInstance, subject_id)
        assert (row.recipe["step"], row.recipe["log_digest"]) == ("collect", verdict.log.digest)
        assert row.recipe["attempts"] == [asdict(attempt) for attempt in verdict.recipe.attempts]
        assert db.exec(select(Artifact)).one().digest == verdict.log.digest


def test_a_version_module_that_a_build_would_write_is_there(
    tmp_path: Path, settings: Settings, backend: VenvBackend
) -> None:
    scm = '[build-system]\nrequires = ["setuptools"]\n[tool.setuptools_scm]\nwrite_to = "small_pkg/_version.py"\n'
    files = {**MAIN, "small_pkg/__init__.py": "from small_pkg._version import version\nassert version == '2.3.0'\n"}
    files["pyproject.toml"] += scm
    output = STAGE.work(services(settings, backend), subject(origin(tmp_path / "origin", files)))
    assert output.recipe.layout.generated_files.keys() == {"small_pkg/_version.py"}


def test_what_a_left_out_place_declares_is_taken_before_any_table(
    tmp_path: Path, settings: Settings, backend: VenvBackend
) -> None:
    files = {**MAIN, "small_pkg/__init__.py": "import idna, six\n", "requirements-test.txt": "pytest\n"}
    files["requirements-dev.txt"] = "six<1.16\n"
    output = STAGE.work(services(settings, backend), subject(origin(tmp_path / "origin", files)))
    assert [(each.kind, each.name, each.worked) for each in output.recipe.attempts] == [
        ("rung", "test imports", True), ("repair", "declared_elsewhere", True), ("rung", "requirements file", True),
    ]  # fmt: skip
    assert output.recipe.origins["six<1.16"] == "requirements-dev.txt:1 (development file)"


def test_a_fix_that_changes_what_the_tests_need_is_tried_with_its_own_requirements(
    tmp_path: Path, settings: Settings, backend: VenvBackend
) -> None:
    files = {**MAIN, "requirements-test.txt": "pytest\ncachetools<4\n"}
    patch = (
        "--- a/requirements-test.txt\n+++ b/requirements-test.txt\n"
        "@@ -1,2 +1,2 @@\n pytest\n-cachetools<4\n+cachetools>=5\n"
    )
    tests = TEST_PATCH.replace("import iniconfig, pretend", "from cachetools import TLRUCache")
    place = origin(tmp_path / "origin", files)
    output = STAGE.work(services(settings, backend), subject(place, test_patch=tests, patch=patch))
    assert [(each.name, each.detail) for each in output.recipe.attempts if each.kind == "repair"] == [
        ("fix_requirements", "cachetools>=5")
    ]


class _BrokenPytest(VenvBackend):
    """Everything works but pytest, which is killed for time."""

    @contextmanager
    def open(self, spec: SandboxSpec) -> Iterator[VenvSandbox]:
        yield _Killed(Path("/nowhere"), Path("/nowhere"))


class _Killed(VenvSandbox):
    def run(self, argv: Sequence[str], **_: object) -> CommandResult:
        is_pytest = "pytest" in argv or any("swefactory_collect" in word for word in argv)
        return CommandResult(None if is_pytest else 0, b"", 1.0, timed_out=is_pytest)


def test_a_pytest_that_does_not_start_is_rejected(tmp_path: Path, settings: Settings, backend: VenvBackend) -> None:
    broken = _BrokenPytest(tmp_path / "environments", {HERE: sys.executable})
    with pytest.raises(Rejected, match="-m pytest --version timed out"):
        STAGE.work(services(settings, broken), subject(origin(tmp_path / "origin", MAIN)))


def test_a_test_patch_that_does_not_apply_is_a_verdict(
    tmp_path: Path, settings: Settings, backend: VenvBackend
) -> None:
    patch = TEST_PATCH.replace("@@ -0,0 +1,2 @@", "@@ -1,1 +1,3 @@\n absent")
    with pytest.raises(Rejected) as caught:
        STAGE.work(services(settings, backend), subject(origin(tmp_path / "origin", MAIN), test_patch=patch))
    assert caught.value.reason is RejectReason.PATCH_DOES_NOT_APPLY


def test_a_missing_base_commit_is_a_verdict(tmp_path: Path, settings: Settings) -> None:
    place, _ = origin(tmp_path / "origin", MAIN)
    with pytest.raises(Rejected) as caught:
        STAGE.work(services(settings, VenvBackend(tmp_path / "e")), subject((place, "0" * 40)))
    assert caught.value.reason is RejectReason.BASE_COMMIT_MISSING


def test_a_verdict_is_written_on_the_instance(tmp_path: Path, catalog: Engine) -> None:
    verdict = Rejected(RejectReason.NO_INTERPRETER, "it wants Python 2.7")
    with session(catalog) as db:
        subject_id = instance_in(db, (tmp_path, "c" * 40), 1)
        saved = STAGE.save(db, subject_id, verdict)
    assert saved.rejected is verdict
    assert saved.next_jobs == ()
    with session(catalog) as db:
        row = db.get_one(TaskInstance, subject_id)
    assert (row.status, row.reject_reason) == (InstanceStatus.REJECTED, RejectReason.NO_INTERPRETER)
    assert row.reject_detail == "it wants Python 2.7"


def test_what_pytest_cannot_collect_is_run_by_unittest_where_the_project_does_so(
    tmp_path: Path, settings: Settings, backend: VenvBackend
) -> None:
    files = {**MAIN, "tests/conftest.py": "raise RuntimeError('pytest is not how we test')\n"}
    place = origin(tmp_path / "origin", {**files, "tox.ini": "[testenv]\ncommands = python -m unittest\n"})
    output = STAGE.work(services(settings, backend), subject(place))
    assert output.recipe.test_command == ("-m", "unittest")
    assert [a.name for a in output.recipe.attempts if a.kind == "repair" and a.worked] == ["unittest_runner"]
    assert output.recipe.why["runner"].startswith("python -m unittest (tox.ini [testenv]); pytest cannot: ")
    without = origin(tmp_path / "other", files)
    with pytest.raises(EnvironmentRejected):
        STAGE.work(services(settings, backend), subject(without))
