"""The grade stage: only a completed run in which everything holds resolves, and a broken grading ends in a verdict."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlmodel import col, select

from db.engine import session
from db.enums import RejectReason, RunState, RunStatus
from db.models import Rollout, TaskInstance, TestRun
from swefactory.errors import InfrastructureError, Rejected
from swefactory.stage import Saved, Services
from swefactory.stages.grades import STAGE
from tests.fake_sandbox import diff_of, host_services
from tests.instance_rows import add_instance, add_rollout

BASE = {
    "calc.py": "def add(a, b):\n    return a - b\n",
    "tests/test_calc.py": "from calc import add\ndef test_zero(): assert add(1, 0) == 1\n",
    "conftest.py": "# base\n",
}
FIXED = {"calc.py": "def add(a, b):\n    return a + b\n"}
TESTS = {"tests/test_calc.py": BASE["tests/test_calc.py"] + "def test_add(): assert add(1, 1) == 2\n"}
GOLD = diff_of(BASE, {**BASE, **FIXED})


@dataclass(frozen=True)
class Graded:
    resolved: bool | None
    runs: tuple[tuple[RunState, RunStatus, str], ...]

    @property
    def why(self) -> str:
        return next(detail for state, _, detail in reversed(self.runs) if state is RunState.MODEL)


Grade = Callable[[str | None], Graded]


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return host_services(tmp_path / "home", test_timeout_s=10)


@pytest.fixture
def instance_id(catalog: Engine, services: Services, tmp_path: Path) -> int:
    return add_instance(
        catalog, services, tmp_path, BASE, fixed=FIXED, tests=TESTS,
        fail_to_pass=("tests/test_calc.py::test_add",), pass_to_pass=("tests/test_calc.py::test_zero",),
    )  # fmt: skip


@pytest.fixture
def grade(catalog: Engine, services: Services, instance_id: int) -> Grade:
    """Grades a rollout with this patch."""

    def run(model_patch: str | None) -> Graded:
        return grade_once(catalog, services, add_rollout(catalog, instance_id, model_patch))

    return run


def grade_once(catalog: Engine, services: Services, rollout_id: int) -> Graded:
    with session(catalog) as db:
        subject = STAGE.load(db, rollout_id)
    output = STAGE.work(services, subject)
    with session(catalog) as db:
        assert STAGE.save(db, rollout_id, output) == Saved()
    with session(catalog) as db:
        runs = db.exec(select(TestRun).where(TestRun.rollout_id == rollout_id).order_by(col(TestRun.id)))
        found = tuple((run.state, run.status, run.detail) for run in runs)
        return Graded(db.get_one(Rollout, rollout_id).resolved, found)


def patch(**files: str) -> str:
    """A model's patch; names stand for paths: a__b is a/b.py."""
    changed = {f"{name.replace('__', '/')}.py": text for name, text in files.items()}
    return diff_of(BASE, {**BASE, **changed})


def test_the_gold_patch_is_resolved(grade: Grade) -> None:
    graded = grade(GOLD)
    assert (graded.resolved, graded.runs) == (True, ((RunState.MODEL, RunStatus.COMPLETED, "resolved"),))


def test_another_right_solution_is_resolved_with_its_test_edits_left_out(grade: Grade) -> None:
    graded = grade(patch(calc="def add(a, b):\n    return sum((a, b))\n", tests__test_calc="def test_mine(): pass\n"))
    assert (graded.resolved, graded.why) == (True, "resolved; left out of the patch: tests/test_calc.py")


@pytest.mark.parametrize("model_patch", [None, "", "\n", "  \n"])
def test_an_empty_patch_is_unresolved_and_runs_nothing(model_patch: str | None, grade: Grade) -> None:
    graded = grade(model_patch)
    assert graded == Graded(False, ((RunState.MODEL, RunStatus.VOID, "the patch is empty"),))


def test_a_patch_of_which_nothing_may_be_graded_is_empty(grade: Grade) -> None:
    graded = grade(patch(conftest="# evil\n"))
    assert (graded.resolved, graded.why) == (False, "the patch is empty; left out of the patch: conftest.py")


def test_a_wrong_patch_is_unresolved_and_says_what_it_missed(grade: Grade) -> None:
    graded = grade(patch(calc="def add(a, b):\n    return 2\n"))
    assert graded.resolved is False
    assert graded.why == ("1 of 1 FAIL_TO_PASS and 0 of 1 PASS_TO_PASS hold; not tests/test_calc.py::test_zero")


def test_a_patch_that_breaks_the_import_is_unresolved(grade: Grade) -> None:
    assert grade(patch(calc="import not_there\n")).resolved is False


@pytest.mark.parametrize("model_patch", ["no diff at all", GOLD.replace("return a - b", "return a * b")])
def test_a_patch_that_cannot_be_applied_is_unresolved(model_patch: str, grade: Grade) -> None:
    graded = grade(model_patch)
    assert graded.resolved is False
    assert graded.runs[0][1] is RunStatus.VOID
    assert graded.why


def test_a_patch_that_ends_the_process_is_unresolved_after_a_control_run(grade: Grade) -> None:
    graded = grade(patch(calc="import os\ndef add(a, b):\n    os._exit(0)\n"))
    assert graded.resolved is False
    assert [run[:2] for run in graded.runs] == [
        (RunState.MODEL, RunStatus.VOID),
        (RunState.MODEL, RunStatus.VOID),
        (RunState.AFTER, RunStatus.COMPLETED),
    ]
    assert "the patch is at fault" in graded.why


def test_a_patch_that_never_ends_is_unresolved_after_one_run_and_a_control_run(grade: Grade) -> None:
    graded = grade(patch(calc="import time\ndef add(a, b):\n    time.sleep(99)\n"))
    assert graded.resolved is False
    assert [run[:2] for run in graded.runs] == [
        (RunState.MODEL, RunStatus.TIMED_OUT),
        (RunState.AFTER, RunStatus.COMPLETED),
    ]


def test_where_the_gold_patch_fails_too_there_is_no_verdict(grade: Grade, catalog: Engine, instance_id: int) -> None:
    with session(catalog) as db:
        row = db.get_one(TaskInstance, instance_id)
        row.pass_to_pass = [*row.pass_to_pass, "tests/test_calc.py::test_gone"]
        db.add(row)
    with pytest.raises(InfrastructureError, match=r"acme__calc-7 is not resolved by its own gold patch here"):
        grade(patch(calc="import os\nos._exit(0)\n"))


def test_a_second_grading_adds_its_runs_and_replaces_the_verdict(
    catalog: Engine, services: Services, instance_id: int
) -> None:
    rollout_id = add_rollout(catalog, instance_id, GOLD)
    grade_once(catalog, services, rollout_id)
    assert len(grade_once(catalog, services, rollout_id).runs) == 2


def test_a_rollout_of_an_instance_that_is_not_validated_is_not_graded(
    catalog: Engine, services: Services, tmp_path: Path
) -> None:
    instance_id = add_instance(catalog, services, tmp_path, BASE, fixed=FIXED, tests=TESTS)
    rollout_id = add_rollout(catalog, instance_id, GOLD)
    with session(catalog) as db, pytest.raises(InfrastructureError, match="acme__calc-7 is not validated"):
        STAGE.load(db, rollout_id)


def test_without_a_base_commit_resolved_stays_unknown(catalog: Engine, services: Services, instance_id: int) -> None:
    with session(catalog) as db:
        row = db.get_one(TaskInstance, instance_id)
        row.base_commit = "1" * 40
        db.add(row)
    rollout_id = add_rollout(catalog, instance_id, GOLD)
    with session(catalog) as db:
        subject = STAGE.load(db, rollout_id)
    with pytest.raises(Rejected) as verdict:
        STAGE.work(services, subject)
    with session(catalog) as db:
        assert STAGE.save(db, rollout_id, verdict.value) == Saved(rejected=verdict.value)
    assert verdict.value.reason is RejectReason.BASE_COMMIT_MISSING
    with session(catalog) as db:
        assert db.get_one(Rollout, rollout_id).resolved is None
