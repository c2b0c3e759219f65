"""The validation stage: a pull request's fate is decided by its runs, and every run is in the catalog."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlmodel import Session, col, select

from db.engine import session
from db.enums import InstanceStatus, Outcome, RejectReason, RunState, RunStatus, ValidationVerdict
from db.models import Artifact, TaskInstance, TestOutcome, TestRun, TestVerdict, Validation
from swefactory.errors import InfrastructureError, Rejected
from swefactory.stability import LAST_TELLING_RUN, conditions_of
from swefactory.stage import Saved, Services
from swefactory.stages.validation import STAGE, ValidationOutput
from tests.fake_sandbox import HostBackend, host_services, pytest_alone
from tests.instance_rows import add_instance

BASE = {
    "calc.py": "def add(a, b):\n    return a - b\n",
    "tests/test_calc.py": "from calc import add\ndef test_zero(): assert add(1, 0) == 1\n",
}
FIXED = {"calc.py": "def add(a, b):\n    return a + b\n"}
NEW_TEST = BASE["tests/test_calc.py"] + "def test_add(): assert add(1, 1) == 2\n"

Validate = Callable[..., tuple[TaskInstance, Saved]]


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return host_services(tmp_path / "home", test_timeout_s=30)


@pytest.fixture
def validate(catalog: Engine, services: Services, tmp_path: Path) -> Validate:
    """Adds an instance whose tests, fix and base are these, and takes it through the stage."""

    def run(
        test_code: str = NEW_TEST, fixed: dict[str, str] = FIXED, base: dict[str, str] = BASE
    ) -> tuple[TaskInstance, Saved]:
        tests = {"tests/test_calc.py": test_code}
        instance_id = add_instance(catalog, services, tmp_path, base, fixed=fixed, tests=tests)
        return validate_once(catalog, services, instance_id)

    return run


def validate_once(catalog: Engine, services: Services, instance_id: int) -> tuple[TaskInstance, Saved]:
    with session(catalog) as db:
        subject = STAGE.load(db, instance_id)
    output: ValidationOutput | Rejected
    try:
        output = STAGE.work(services, subject)
    except Rejected as verdict:
        output = verdict
    with session(catalog) as db:
        saved = STAGE.save(db, instance_id, output)
    with session(catalog) as db:
        return db.get_one(TaskInstance, instance_id), saved


def runs_of(db: Session) -> list[TestRun]:
    return list(db.exec(select(TestRun).order_by(col(TestRun.id))))


def test_a_true_fix_is_validated_with_every_run_on_record(validate: Validate, catalog: Engine) -> None:
    instance, saved = validate()
    assert saved == Saved()
    assert (instance.status, instance.reject_reason) == (InstanceStatus.VALIDATED, None)
    assert instance.fail_to_pass == ["tests/test_calc.py::test_add"]
    assert instance.pass_to_pass == ["tests/test_calc.py::test_zero"]
    with session(catalog) as db:
        found = [(run.state, run.number, run.order, run.status, run.exit_code, run.n_collected) for run in runs_of(db)]
        assert found == [
            (state, n, conditions_of(n).order, RunStatus.COMPLETED, 1, 2)
            for n in (1, 2, 3)
            for state in (RunState.BEFORE, RunState.AFTER)
        ]
        outcomes = db.exec(select(TestOutcome.outcome, TestRun.state).join(TestRun)).all()
        assert len(outcomes) == 12
        assert {state for outcome, state in outcomes if outcome is Outcome.FAILED} == {RunState.BEFORE}


def test_the_certificate_says_what_was_proved_and_how(validate: Validate, catalog: Engine) -> None:
    instance, _ = validate()
    with session(catalog) as db:
        row = db.exec(select(Validation)).one()
    certificate = row.certificate
    assert (row.verdict, row.n_runs, row.n_flaky, row.sandbox, row.number) == (ValidationVerdict.VALID, 3, 0, "host", 1)
    assert (certificate["gold"], certificate["empty"], certificate["n_runs"]) == ("3/3", "0/3", 3)
    assert certificate["orders"] == ["default", "random:3", "reversed"]
    assert certificate["environment_digest"] == "sha256:here"
    assert certificate["lock_digest"].startswith("sha256:")
    assert certificate["offline"] is True
    assert certificate["plugin"] == "2"
    assert (row.tier, certificate["tier"], certificate["format"]) == ("bronze", "bronze", 2)
    assert certificate["host"]["sandbox"] == "host"
    assert certificate["host"]["n_cpus"] > 0
    assert certificate["conditions"]["shifted_zone"] == 2
    assert certificate["conditions"]["hash_seeds"] == 3
    assert any("network" in text for text in certificate["not_run"])
    assert certificate["flip_rate_upper"] == pytest.approx(0.631597)
    assert certificate["finished_at"] >= certificate["started_at"]
    assert instance.validated_at == row.finished_at


def test_logs_are_kept_as_artifacts(validate: Validate, services: Services, catalog: Engine) -> None:
    validate()
    with session(catalog) as db:
        digests = {run.log_digest for run in runs_of(db)}
        assert digests == set(db.exec(select(Artifact.digest)))
    assert all(b"test session starts" in services.artifacts.get(str(digest)) for digest in digests)


def test_the_environments_variables_reach_the_tests(validate: Validate) -> None:
    code = NEW_TEST + "import os\ndef test_colour(): assert os.environ['COLOUR'] == 'red'\n"
    assert "tests/test_calc.py::test_colour" in validate(code)[0].pass_to_pass


@pytest.mark.parametrize(
    ("code", "fixed", "reason", "n_runs"),
    [
        (BASE["tests/test_calc.py"] + "def test_more(): pass\n", FIXED, RejectReason.TESTS_PASS_BEFORE, 2),
        ("def test_never(): assert 0\n", FIXED, RejectReason.NO_FAIL_TO_PASS, 6),
        ("import not_there\n", FIXED, RejectReason.COLLECTION_ERROR, 2),
        ("x = 1\n", FIXED, RejectReason.NO_TESTS_COLLECTED, 2),
        ("import time\ndef test_it(): time.sleep(99)\n", FIXED, RejectReason.TESTS_TIME_OUT, 2),
        ("import os\ndef test_it(): os._exit(0)\n", FIXED, RejectReason.TEST_RUN_VOID, 2),
        ("import os\ndef test_it(): os.kill(os.getpid(), 9)\n", FIXED, RejectReason.TEST_RUN_VOID, 3),
    ],
)  # fmt: skip
def test_an_unfit_instance_is_rejected_for_its_reason_and_what_ran_is_kept(
    code: str,
    fixed: dict[str, str],
    reason: RejectReason,
    n_runs: int,
    validate: Validate,
    catalog: Engine,
    services: Services,
) -> None:
    if reason is RejectReason.TESTS_TIME_OUT:
        object.__setattr__(services, "settings", services.settings.model_copy(update={"test_timeout_s": 3.0}))
    instance, saved = validate(code, fixed)
    assert saved.rejected is not None
    assert (saved.rejected.reason, instance.reject_reason, instance.status) == (reason, reason, InstanceStatus.REJECTED)
    assert instance.reject_detail == saved.rejected.detail != ""
    assert (instance.fail_to_pass, instance.pass_to_pass, instance.validated_at) == ([], [], None)
    with session(catalog) as db:
        assert len(runs_of(db)) == n_runs
        row = db.exec(select(Validation)).one()
        assert (row.verdict, row.reason) == (ValidationVerdict.REJECTED, reason)


def test_a_test_that_depends_on_the_order_makes_its_fix_flaky(validate: Validate, catalog: Engine) -> None:
    code = (
        "from calc import add\nseen = []\ndef test_first(): seen.append(1)\n"
        "def test_add(): assert seen and add(1, 1) == 2\n"
    )
    instance, _ = validate(code)
    assert instance.reject_reason is RejectReason.FLAKY_FAIL_TO_PASS
    assert "test_add" in instance.reject_detail
    with session(catalog) as db:
        found = runs_of(db)
        assert [run.number for run in found if run.state is RunState.BEFORE] == [1, 2, 3]  # stable: it always fails
        assert [run.number for run in found if run.state is RunState.AFTER] == list(range(1, LAST_TELLING_RUN + 1))
        assert db.exec(select(Validation)).one().n_flaky == 1
        row = db.exec(select(TestVerdict).where(col(TestVerdict.test_id).endswith("test_add"))).one()
        assert (row.before, row.after, row.change) == ("stable_fail", "order_dependent", "unstable")


def test_a_test_that_depends_on_the_hash_seed_is_dropped_from_pass_to_pass(validate: Validate) -> None:
    code = NEW_TEST + "import os\ndef test_seed(): assert os.environ['PYTHONHASHSEED'] != '2'\n"
    instance, _ = validate(code)
    assert instance.status is InstanceStatus.VALIDATED
    assert instance.pass_to_pass == ["tests/test_calc.py::test_zero"]


def test_a_patch_that_breaks_a_test_is_rejected_for_that(validate: Validate) -> None:
    code = NEW_TEST + "def test_minus(): assert add(3, 1) == 2\n"
    instance, _ = validate(code)
    assert instance.reject_reason is RejectReason.PASS_TO_FAIL
    assert "test_minus" in instance.reject_detail


def test_a_test_that_could_not_start_before_is_told_from_one_that_failed(validate: Validate, catalog: Engine) -> None:
    code = (
        "from calc import add, twice\ndef test_twice(): assert twice(2) == 4\ndef test_add(): assert add(1, 1) == 2\n"
    )
    fixed = {"calc.py": FIXED["calc.py"] + "def twice(a):\n    return 2 * a\n"}
    instance, _ = validate(code, fixed)
    assert instance.status is InstanceStatus.VALIDATED
    with session(catalog) as db:
        certificate = db.exec(select(Validation)).one().certificate
        changes = dict(db.exec(select(TestVerdict.test_id, TestVerdict.change)).all())
    assert (certificate["n_fail_to_pass"], certificate["n_error_to_pass"]) == (2, 2)
    assert set(changes.values()) == {"error_to_pass"}


def test_a_run_with_little_cpu_that_does_not_end_in_time_is_repeated_and_no_evidence(
    validate: Validate, catalog: Engine, services: Services
) -> None:
    """Where the time is short, only the run that is asked to have little CPU takes too long: it says so by its seed."""
    object.__setattr__(services, "settings", services.settings.model_copy(update={"test_timeout_s": 8.0}))
    code = NEW_TEST + (
        "import os, time\ndef test_slow():\n    mark = os.path.join(os.environ['MARKS'], 'slow')\n"
        "    if os.environ['PYTHONHASHSEED'] == '2' and not os.path.exists(mark):\n"
        "        open(mark, 'w').close()\n        time.sleep(99)\n"
    )
    code = code.replace("os.environ['MARKS']", repr(str(services.settings.home)))
    instance, _ = validate(code)
    assert instance.status is InstanceStatus.VALIDATED
    assert "tests/test_calc.py::test_slow" in instance.pass_to_pass
    with session(catalog) as db:
        statuses = [run.status for run in runs_of(db) if run.state is RunState.BEFORE]
        assert statuses.count(RunStatus.TIMED_OUT) == 1
        assert db.exec(select(Validation)).one().n_runs == 3


def test_a_patch_that_does_not_apply_is_a_verdict(catalog: Engine, services: Services, tmp_path: Path) -> None:
    tests = {"tests/test_calc.py": NEW_TEST}
    instance_id = add_instance(catalog, services, tmp_path, BASE, fixed=FIXED, tests=tests)
    with session(catalog) as db:
        row = db.get_one(TaskInstance, instance_id)
        row.test_patch = row.test_patch.replace("from calc", "from abacus")
        db.add(row)
    instance, saved = validate_once(catalog, services, instance_id)
    assert instance.reject_reason is RejectReason.PATCH_DOES_NOT_APPLY
    assert saved.rejected is not None
    with session(catalog) as db:
        assert db.exec(select(Validation)).one().n_runs == 0


def test_the_gold_patch_passes_the_gate_of_a_models_patch(validate: Validate, catalog: Engine) -> None:
    base = {**BASE, "conftest.py": "FACTOR = 0\n"}
    code = "import conftest\nfrom calc import add\ndef test_add(): assert add(conftest.FACTOR, 1) == 2\n"
    instance, _ = validate(code, {**FIXED, "conftest.py": "FACTOR = 1\n"}, base)
    assert instance.reject_reason is RejectReason.NO_FAIL_TO_PASS
    with session(catalog) as db:
        assert db.exec(select(Validation)).one().certificate["left_out"] == ["conftest.py"]


def test_a_second_validation_is_counted_on_and_replaces_the_verdict(
    validate: Validate, catalog: Engine, services: Services
) -> None:
    first, _ = validate()
    assert first.id is not None
    second, _ = validate_once(catalog, services, first.id)
    assert second.fail_to_pass == first.fail_to_pass
    with session(catalog) as db:
        assert [row.number for row in db.exec(select(Validation).order_by(col(Validation.number)))] == [1, 2]
        assert len(runs_of(db)) == 12


def test_a_run_that_is_void_once_is_repeated_and_both_are_on_record(
    validate: Validate, catalog: Engine, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    crash = f"import os\nif not os.path.exists({str(mark)!r}):\n    open({str(mark)!r}, 'w').close()\n    os._exit(5)\n"
    instance, _ = validate(crash + NEW_TEST)
    assert instance.status is InstanceStatus.VALIDATED
    with session(catalog) as db:
        rows = [(run.state, run.number, run.status) for run in runs_of(db)][:3]
        assert rows == [("before", 1, "void"), ("before", 2, "completed"), ("after", 1, "completed")]
        assert db.exec(select(Validation)).one().certificate["n_void"] == 1


def test_void_runs_with_different_causes_are_a_fault_of_ours(validate: Validate, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    code = (
        "import os, pytest\ndef test_zero(): pass\ndef test_it():\n"
        f"    if os.path.exists({str(mark)!r}): pytest.exit('enough')\n"
        f"    open({str(mark)!r}, 'w').close()\n    os._exit(5)\n"
    )
    with pytest.raises(InfrastructureError, match=r"acme__calc-7.*cut_short.*interrupted.*retry"):
        validate(code)


def test_an_environment_in_which_nothing_starts_is_a_fault_of_ours(
    catalog: Engine, tmp_path: Path, services: Services
) -> None:
    broken = tmp_path / "venv"
    (broken / "bin").mkdir(parents=True)
    (broken / "bin/python").symlink_to("/bin/false")
    ours = host_services(tmp_path / "home", HostBackend({"sha256:here": broken}))
    instance_id = add_instance(catalog, services, tmp_path, BASE, fixed=FIXED, tests={"tests/test_calc.py": NEW_TEST})
    with pytest.raises(InfrastructureError, match="no_record"):
        validate_once(catalog, ours, instance_id)


def test_an_instance_without_an_environment_is_not_loaded(catalog: Engine, services: Services, tmp_path: Path) -> None:
    instance_id = add_instance(catalog, services, tmp_path, BASE, fixed=FIXED, tests={"tests/test_calc.py": NEW_TEST})
    with session(catalog) as db:
        row = db.get_one(TaskInstance, instance_id)
        row.environment_id = None
        db.add(row)
    with session(catalog) as db, pytest.raises(InfrastructureError, match="acme__calc-7 has no environment"):
        STAGE.load(db, instance_id)


def test_an_environment_that_holds_another_copy_of_the_project_is_rejected_and_the_report_kept(
    catalog: Engine, tmp_path: Path
) -> None:
    leaking = tmp_path / "environment"
    shutil.copytree(pytest_alone(), leaking, symlinks=True)
    (leaking / "lib/calc-2.0.dist-info").mkdir()
    services = host_services(tmp_path / "home", HostBackend({"sha256:here": leaking}), n_validation_runs=2)
    tests = {"tests/test_calc.py": NEW_TEST}
    instance_id = add_instance(catalog, services, tmp_path, BASE, fixed=FIXED, tests=tests)
    instance, _ = validate_once(catalog, services, instance_id)
    assert instance.reject_reason is RejectReason.CHECKOUT_LEAKS_FIX
    assert "calc-2.0.dist-info is another copy of the project" in instance.reject_detail
    with session(catalog) as db:
        certificate = db.exec(select(Validation)).one().certificate
    assert (certificate["gold"], len(certificate["leaks"]["findings"])) == ("2/2", 1)
