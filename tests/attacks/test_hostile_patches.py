"""Patches that try to pass their own grading, each named after its attack, in both sandboxes.

Every attack meets two lines of defence. The gate (model_patches) leaves out of a patch what steers the tests: `graded`
sends the patch through the whole grade stage. Behind it stand the canaries, the keyed record and the agreement of exit
code and counts: `ungated` runs the same patch with nothing left out. Neither may end resolved.

Code under test shares the interpreter with the assertion about it: it can change what `==` says and what pytest
remembers, and no second process or channel is told anything else. To the tests such a patch is no failure, `resolved`
stays what they said, and what is guaranteed is that it never scores: its text is suspicious (swefactory.suspicion), and
neither a rate nor an export counts it until somebody has looked. The last tests say exactly that.
"""

from pathlib import Path

import pytest

from db.enums import RunStatus
from swefactory.instance_runs import EvaluatedInstance, base_evaluation
from swefactory.sandbox_protocols import EnvironmentSpec, SandboxSpec
from swefactory.stage import Services
from tests.attacks.gradings import graded, scores, ungated, why
from tests.attacks.hostile_patches import (
    GOOD,
    SOURCE,
    STEERING,
    WRONG,
)


def test_the_good_patch_is_resolved_and_no_patch_is_not(services: Services, instance: EvaluatedInstance) -> None:
    assert scores(graded(services, instance, dict(GOOD)))
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
    assert not scores(output)


def test_a_value_that_is_equal_to_everything_is_never_silently_resolved(
    services: Services, instance: EvaluatedInstance
) -> None:
    output = graded(services, instance, {"calc.py": ALWAYS_EQUAL})
    assert (output.resolved, output.suspicious) == (True, ("constant_equality",))  # the tests alone are fooled
    assert not scores(output)


def test_the_good_patch_is_not_suspicious(services: Services, instance: EvaluatedInstance) -> None:
    assert graded(services, instance, dict(GOOD)).suspicious == ()
