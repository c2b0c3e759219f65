"""Patches that try to pass their own grading, each named after its attack, in both sandboxes.

Every attack meets two lines of defence. The gate (model_patches) leaves out of a patch what steers the tests: `graded`
sends the patch through the whole grade stage. Behind it stand the canaries, the keyed record and the agreement of exit
code and counts: `ungated` runs the same patch with nothing left out. Neither may end resolved.

What shares the process with the tests and only lies about them cannot always be seen from outside: the last tests show
that such patches are suspicious by their text (swefactory.suspicion), so that no rate and no export counts them.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from db.models import RunStatus
from swefactory.checkouts import seal
from swefactory.evaluation import TestRunResult, evaluate
from swefactory.grading import grade
from swefactory.instance_runs import EvaluatedInstance, base_evaluation
from swefactory.protocols import EnvironmentSpec, ProjectLayout, SandboxSpec
from swefactory.stage import Services
from swefactory.stages.grades import GradeInput, GradeOutput, work
from tests.attacks.hostile_patches import (
    BASE,
    FAIL_TO_PASS,
    GOOD,
    LOCK,
    PASS_TO_PASS,
    SOURCE,
    STEERING,
    TEST_PATCH,
    WRONG,
)
from tests.fake_sandbox import diff_of, host_services, write_tree
from tests.sandbox_contract import spec_of


@pytest.fixture(scope="module")
def backend(either_backend: Any) -> Any:
    return either_backend


@pytest.fixture(scope="module")
def services(backend: Any, tmp_path_factory: pytest.TempPathFactory) -> Services:
    return host_services(tmp_path_factory.mktemp("attacks"), backend, test_timeout_s=60)


@pytest.fixture(scope="module")
def environment(backend: Any) -> EnvironmentSpec:
    offered = backend.pythons()
    version = next((v for v in ("3.12", "3.11", "3.13", "3.10", "3.9") if v in offered), None)
    if version is None:
        pytest.skip(f"no Python of 3.9 to 3.13 here, only {', '.join(offered) or 'none'}")
    return spec_of(LOCK, version)


@pytest.fixture(scope="module")
def instance(
    services: Services, environment: EnvironmentSpec, tmp_path_factory: pytest.TempPathFactory
) -> EvaluatedInstance:
    upstream = write_tree(tmp_path_factory.mktemp("upstream") / "calc", BASE)
    return EvaluatedInstance(
        instance_id="acme__calc-7",
        repository="acme/calc",
        clone_url=str(upstream),
        base_commit=seal(upstream),
        patch=diff_of(BASE, {**BASE, **GOOD}),
        test_patch=TEST_PATCH,
        test_files=("tests/test_calc.py",),
        layout=ProjectLayout("calc", "1"),
        environment_digest=environment.digest,
        python_version=environment.python_version,
        lock_digest=services.artifacts.put(environment.lock.encode(), "text/plain").digest,
        system_packages=(),
        environment_variables={},
        fail_to_pass=FAIL_TO_PASS,
        pass_to_pass=PASS_TO_PASS,
    )


def patch_of(files: dict[str, str | None]) -> str:
    after = {**BASE, **{path: text for path, text in files.items() if text is not None}}
    return diff_of(BASE, {path: text for path, text in after.items() if path not in files or files[path] is not None})


def graded(services: Services, instance: EvaluatedInstance, files: dict[str, str | None]) -> GradeOutput:
    """The patch through the whole grade stage."""
    return work(services, GradeInput(1, patch_of(files), instance))


def ungated(
    services: Services, instance: EvaluatedInstance, files: dict[str, str | None], with_tests: bool = True
) -> tuple[TestRunResult, bool]:
    """The patch with nothing left out: (the run, whether it would be resolved)."""
    spec, _ = base_evaluation(services, instance)
    patches = (patch_of(files), TEST_PATCH) if with_tests else (patch_of(files),)
    result = evaluate(services, replace(spec, patches=patches))
    outcomes = {found.test_id: found.outcome for found in result.outcomes}
    is_resolved = grade(outcomes, instance.fail_to_pass, instance.pass_to_pass).resolved
    return result, is_resolved


def why(output: GradeOutput) -> str:
    return output.runs[-1].result.detail


def test_the_good_patch_is_resolved_and_no_patch_is_not(services: Services, instance: EvaluatedInstance) -> None:
    assert graded(services, instance, dict(GOOD)).resolved
    assert not graded(services, instance, {}).resolved
    assert not graded(services, instance, {"calc.py": "# nothing\n" + WRONG}).resolved


@pytest.mark.parametrize("name", STEERING)
def test_the_gate_leaves_out_what_steers_the_tests(name: str, services: Services, instance: EvaluatedInstance) -> None:
    output = graded(services, instance, STEERING[name])
    assert not output.resolved
    assert why(output).startswith("the patch is empty; left out of the patch: ")
    assert all(path in why(output) for path in STEERING[name])


def test_a_good_patch_stays_resolved_with_all_its_attacks_left_out(
    services: Services, instance: EvaluatedInstance
) -> None:
    files: dict[str, str | None] = dict(GOOD)
    for attack in STEERING.values():
        files.update({path: text for path, text in attack.items() if text is not None})
    output = graded(services, instance, files)
    assert output.resolved, why(output)


WITHOUT_THE_GATE = [name for name in STEERING if not name.startswith(("test_is", "helper_"))]


@pytest.mark.parametrize("name", WITHOUT_THE_GATE)
def test_without_the_gate_the_run_itself_is_not_fooled(
    name: str, services: Services, instance: EvaluatedInstance
) -> None:
    result, is_resolved = ungated(services, instance, STEERING[name])
    assert not is_resolved, result.detail


@pytest.mark.parametrize(
    "name",
    ["conftest_reports_passed", "conftest_in_tests_reports_passed", "sitecustomize_patches_pytest"],
)
def test_hidden_failures_are_seen_by_the_canaries(name: str, services: Services, instance: EvaluatedInstance) -> None:
    result, _ = ungated(services, instance, STEERING[name])
    assert (result.status, result.void_cause) == (RunStatus.VOID, "canary_not_failed")


@pytest.mark.parametrize("name", SOURCE)
def test_source_code_cannot_forge_or_avoid_the_result(
    name: str, services: Services, instance: EvaluatedInstance
) -> None:
    output = graded(services, instance, {"calc.py": SOURCE[name]})
    assert not output.resolved, why(output)


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("exits_as_pytest_does_at_import", "cut_short"),
        ("stops_pytest", None),
        ("patches_pytests_reports", "canary_not_failed"),
        ("patches_unittest", "canary_not_failed"),
        ("appends_to_the_record", "tampered"),
        ("empties_the_record", "tampered"),
        ("repeats_a_line_of_the_record", "tampered"),
        ("leaves_a_writer_behind", "tampered"),
        ("writes_a_junit_report", None),
    ],
)
def test_each_forgery_is_told_by_its_name(
    name: str, cause: str | None, services: Services, instance: EvaluatedInstance
) -> None:
    result, _ = ungated(services, instance, {"calc.py": SOURCE[name]})
    assert result.void_cause == cause, result.detail


def test_a_process_that_an_agent_leaves_behind_reaches_no_later_sandbox(
    services: Services, instance: EvaluatedInstance, environment: EnvironmentSpec, tmp_path: Path
) -> None:
    spec, _ = base_evaluation(services, instance)
    with services.sandboxes.open(SandboxSpec(environment, spec.tree)) as sandbox:
        writer = "while true; do echo forged >> /opt/results/record; echo evil > /testbed/conftest.py; sleep 0.1; done"
        sandbox.run(["sh", "-c", f"nohup sh -c '{writer}' >/dev/null 2>&1 & sleep 0.3"], timeout_s=10)
        assert graded(services, instance, dict(GOOD)).resolved


ALWAYS_EQUAL = """
class Anything(int):
    def __eq__(self, other): return True
    __hash__ = int.__hash__
def add(a, b):
    if isinstance(a, str): raise TypeError
    return Anything(0)
"""
TAKES_THE_RECORDER = (
    """
import gc
for found in gc.get_objects():
    if type(found).__name__ == "Recorder":
        write = found._write
        def lie(event, **fields):
            if event == "phase" and "test_calc" in fields["id"]:
                fields.update(outcome="passed", message="")
            write(event, **fields)
        found._write = lie
"""
    + WRONG
)


def test_a_recorder_that_lies_is_contradicted_by_pytests_own_count(
    services: Services, instance: EvaluatedInstance
) -> None:
    result, is_resolved = ungated(services, instance, {"calc.py": TAKES_THE_RECORDER})
    assert (is_resolved, result.void_cause) == (False, "contradicted")
    output = graded(services, instance, {"calc.py": TAKES_THE_RECORDER})
    assert not output.resolved
    assert "walks_memory" in output.suspicious


def test_a_recorder_and_a_count_that_both_lie_are_never_silently_resolved(
    services: Services, instance: EvaluatedInstance
) -> None:
    """Code under test shares the process with pytest: with both hands it can lie. The patch cannot hide how."""
    counted = TAKES_THE_RECORDER.replace(
        "        found._write = lie",
        "        found._write = lie\n        type(found).n_failed = lambda self: self._session.testsfailed - 2",
    )
    output = graded(services, instance, {"calc.py": counted})
    assert output.suspicious == ("walks_memory",)


def test_a_value_that_is_equal_to_everything_is_never_silently_resolved(
    services: Services, instance: EvaluatedInstance
) -> None:
    output = graded(services, instance, {"calc.py": ALWAYS_EQUAL})
    assert output.suspicious == ("constant_equality",)


def test_the_good_patch_is_not_suspicious(services: Services, instance: EvaluatedInstance) -> None:
    assert graded(services, instance, dict(GOOD)).suspicious == ()
