"""Django's tests through the second adapter, in both sandboxes: graded as they are, and fooled by no patch.

The attacks that apply where no pytest is: ends of the process, forged records, canaries taken away, unittest's own
result and cases patched, Django's runner replaced by a setting, the script that starts it edited.
"""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from db.enums import Outcome, RunStatus
from swefactory.checkouts import copy_tree
from swefactory.evaluation import TestRunResult, evaluate, restricted
from swefactory.grading import grade
from swefactory.instance_runs import EvaluatedInstance, base_evaluation
from swefactory.recipes.python import detect
from swefactory.sandbox_protocols import EnvironmentSpec
from swefactory.smoke import smoke
from swefactory.stage import Services
from swefactory.stages.grades import GradeInput, work
from tests.attacks.gradings import attacked
from tests.django_project import BASE, COMMAND, FAIL_TO_PASS, GOOD, PASS_TO_PASS, TEST_PATCH
from tests.fake_sandbox import diff_of, write_tree
from tests.sandbox_contract import resolved

RECORD = "/opt/results/record"
MODELS = BASE["polls/models.py"]
ATTACKS = {
    "exits_with_success_at_import": "import os\nos._exit(0)\n",
    "exits_as_unittest_does_at_import": "import os\nos._exit(1)\n",
    "exits_politely_at_import": "import sys\nsys.exit(0)\n",
    "exits_at_the_end": "import atexit, os\natexit.register(os._exit, 0)\n",
    "appends_to_the_record": f"open({RECORD!r}, 'a').write('{{}}\\n')\n",
    "empties_the_record": f"open({RECORD!r}, 'w').close()\n",
    "repeats_a_line_of_the_record": f"line = open({RECORD!r}).readlines()[-1]\nopen({RECORD!r}, 'a').write(line)\n",
    "removes_the_canaries_from_the_suite": """
import unittest
run = unittest.TestSuite.run
def without(self, result, debug=False):
    self._tests[:] = [test for test in self if "polls.tests" in test.id()]
    return run(self, result, debug)
unittest.TestSuite.run = without
""",
    "empties_the_canaries": """
import builtins
real = builtins.open
def kept(path, *rest, **more):
    return real("/dev/null" if "test_" in str(path) and "w" in rest else path, *rest, **more)
builtins.open = kept
""",
    "patches_unittests_result": """
import unittest
for name in ("addFailure", "addError"):
    setattr(unittest.TestResult, name, lambda self, test, err: None)
unittest.TestResult.addSubTest = lambda self, test, subtest, err: None
""",
    "patches_our_result": """
import sys
main = next(m for m in list(sys.modules.values()) if hasattr(m, "Recorder") and hasattr(m, "Result"))
for name in ("addFailure", "addError"):
    setattr(main.Result, name, lambda self, test, err: self.addSuccess(test))
main.Result.addSubTest = lambda self, test, subtest, err: None
""",
    "patches_unittests_case": """
import unittest
def run(self, result=None):
    result.startTest(self)
    result.addSuccess(self)
    result.stopTest(self)
unittest.TestCase.run = run
""",
    "patches_djangos_cases": """
from django import test
for case in (test.SimpleTestCase, test.TransactionTestCase, test.TestCase):
    case.__call__ = lambda self, result=None: (result.startTest(self), result.addSuccess(self), result.stopTest(self))
""",
    "patches_assertions": """
import unittest
for name in dir(unittest.TestCase):
    if name.startswith("assert"):
        setattr(unittest.TestCase, name, lambda *args, **kwargs: None)
""",
    "skips_from_the_source": "import unittest\nraise unittest.SkipTest('not today')\n",
}
CAUSES = {
    "exits_as_unittest_does_at_import": "cut_short",
    "appends_to_the_record": "tampered",
    "empties_the_record": "tampered",
    "removes_the_canaries_from_the_suite": "interrupted",
    "empties_the_canaries": "canary_not_failed",
    "patches_unittests_result": "contradicted",
    "patches_unittests_case": "canary_not_failed",
    "patches_djangos_cases": "canary_not_failed",
}
STEERING = {
    "script_is_edited": {"manage.py": "print('OK')\n"},
    "test_is_edited": {"polls/tests.py": "from django.test import TestCase\nclass PollTests(TestCase): pass\n"},
    "shadow_of_unittest": {"unittest/__init__.py": "class TestCase: pass\n"},
    "shadow_of_django": {"django/__init__.py": "VERSION = (4, 2)\n"},
}
WHOLE = {"test_runner_by_a_setting": {
    "site1/settings.py": BASE["site1/settings.py"] + "TEST_RUNNER = 'polls.evil.Runner'\n",
    "polls/evil.py": "class Runner:\n    def __init__(self, **k): pass\n    def run_tests(self, *a, **k): return 0\n",
}}  # fmt: skip
IN_BOTH = ("exits_with_success_at_import", "appends_to_the_record", "patches_unittests_result", "empties_the_canaries")


@pytest.fixture(scope="module")
def environment(backend: Any) -> EnvironmentSpec:
    """Django alone, resolved as of a day; no pytest."""
    version = next((v for v in ("3.12", "3.11", "3.10") if v in backend.pythons()), "3.12")
    return resolved(backend, version, "django==4.2.11", as_of="2024-03-15T00:00:00Z")


@pytest.fixture(scope="module")
def instance(
    services: Services, environment: EnvironmentSpec, tmp_path_factory: pytest.TempPathFactory
) -> EvaluatedInstance:
    upstream = write_tree(tmp_path_factory.mktemp("upstream") / "polls", BASE)
    return attacked(
        services, environment, upstream,
        patch=diff_of(BASE, {**BASE, **GOOD}), test_patch=TEST_PATCH, test_files=("polls/tests.py",),
        fail_to_pass=FAIL_TO_PASS, pass_to_pass=PASS_TO_PASS, test_command=COMMAND,
    )  # fmt: skip


def tried(
    services: Services, instance: EvaluatedInstance, files: dict[str, str], order: str = "default"
) -> tuple[bool, TestRunResult]:
    """One run of a patch with nothing left out: (whether it would be resolved, the run)."""
    spec, _ = base_evaluation(services, instance)
    result = evaluate(services, replace(spec, patches=(diff_of(BASE, {**BASE, **files}), TEST_PATCH), order=order))
    outcomes = {found.test_id: found.outcome for found in result.outcomes}
    return grade(outcomes, instance.fail_to_pass, instance.pass_to_pass).resolved, result


def test_djangos_set_up_and_its_kinds_of_tests_are_recorded(
    services: Services, instance: EvaluatedInstance, environment: EnvironmentSpec, tmp_path: Path
) -> None:
    spec, _ = base_evaluation(services, instance)
    recipe = detect(spec.tree, as_of=datetime(2024, 3, 15, tzinfo=UTC), pythons=(environment.python_version,))
    assert (recipe.test_command, "pytest" in recipe.requirements) == (COMMAND, False)
    assert recipe.why["runner"] == "manage.py sets Django up with site1.settings, and nothing names pytest"
    copy_tree(spec.tree, tmp_path)
    assert smoke(services, environment, recipe, (spec.tree, tmp_path), instance.test_files).complaint is None
    write_tree(tmp_path, {"polls/tests.py": "import absent_module\n"})
    complaint = smoke(services, environment, recipe, (spec.tree, tmp_path), instance.test_files).complaint
    assert complaint is not None
    assert (complaint.step, "absent_module" in complaint.text) == ("collect", True)
    before = evaluate(services, replace(spec, patches=(TEST_PATCH,)))
    assert {r.test_id for r in before.outcomes if r.outcome is Outcome.FAILED} == set(FAIL_TO_PASS)
    for order in ("default", "random:3"):
        after = evaluate(services, replace(spec, patches=(instance.patch, TEST_PATCH), order=order))
        every = (*FAIL_TO_PASS, *PASS_TO_PASS)
        assert {r.test_id: r.outcome for r in after.outcomes} == dict.fromkeys(every, Outcome.PASSED)
        assert (after.status, after.exit_code, after.n_collected) == (RunStatus.COMPLETED, 1, 6)
        assert after.versions["runner"].startswith("Django 4.2")
        kinds = [r.test_id.split("::")[1] for r in after.outcomes]
        assert kinds[:2] == ["PollTests"] * 2, "what leaves the database as it was runs first, in every order"


def test_the_good_patch_is_resolved_and_no_patch_is_not(services: Services, instance: EvaluatedInstance) -> None:
    for files, wanted in ((GOOD, True), ({"polls/models.py": "# nothing\n" + MODELS}, False)):
        assert work(services, GradeInput(1, diff_of(BASE, {**BASE, **files}), instance)).resolved is wanted


CASES = [("namespace", name) for name in (*ATTACKS, *WHOLE)] + [("docker", name) for name in IN_BOTH]


@pytest.mark.parametrize(("either_backend", "name"), CASES, indirect=["either_backend"])
def test_no_patch_forges_or_avoids_the_result(name: str, services: Services, instance: EvaluatedInstance) -> None:
    is_resolved, result = tried(services, instance, WHOLE.get(name) or {"polls/models.py": ATTACKS[name] + MODELS})
    assert not is_resolved, result.detail
    assert name not in CAUSES or result.void_cause == CAUSES[name], (result.detail, result.log.decode()[-2000:])


@pytest.mark.parametrize("name", STEERING)
def test_the_gate_leaves_out_what_steers_the_tests(name: str, tmp_path: Path) -> None:
    patch = diff_of(BASE, {**BASE, **STEERING[name]})
    found = restricted(patch, TEST_PATCH, write_tree(tmp_path, BASE), "django==4.2.11 \\\n", COMMAND)
    assert (found.patch, found.dropped) == ("", tuple(STEERING[name]))
