"""The second adapter: unittest suites without pytest, on real interpreters; ids and outcomes are the plugin's."""

from collections.abc import Callable
from pathlib import Path

import pytest

from db.enums import Outcome, RunStatus
from swefactory.runners import UNITTEST
from tests.django_project import BASE, COMMAND, FAIL_TO_PASS, GOOD, PASS_TO_PASS, TESTS
from tests.fake_sandbox import pytest_alone
from tests.test_plugin import Pair, environment_of, run_in, short

__all__ = ["environment_of"]  # a fixture

SUITE = {
    "calc.py": "def add(a, b):\n    return a + b\n",
    "tests/__init__.py": "",
    "tests/test_calc.py": """# -*- coding: utf-8 -*-
import sys
import unittest

from calc import add


class TestAll(unittest.TestCase):
    def tearDown(self):
        if "teardown" in self.id():
            raise ValueError("in teardown")

    def setUp(self):
        if "setup" in self.id():
            raise ValueError("in setup")

    def test_passes(self):
        self.assertEqual(add(1, 1), 2)

    def test_fails(self):
        self.assertEqual(add(1, 1), 3)

    def test_raises(self):
        raise KeyError("no assertion")

    def test_exits(self):
        sys.exit(0)

    @unittest.skip("not here")
    def test_skipped(self):
        pass

    def test_skips_itself(self):
        self.skipTest("no")

    @unittest.expectedFailure
    def test_expected_failure(self):
        self.assertTrue(False)

    @unittest.expectedFailure
    def test_unexpected_success(self):
        pass

    def test_setup_error(self):
        pass

    def test_teardown_error(self):
        pass


class TestNoClass(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        raise ValueError("in the class")

    def test_one(self):
        pass

    def test_two(self):
        pass


@unittest.skip("all of it")
class TestSkippedClass(unittest.TestCase):
    def test_one(self):
        pass
""",
}
EXPECTED = {
    "TestAll::test_passes": Outcome.PASSED,
    "TestAll::test_fails": Outcome.FAILED,
    "TestAll::test_raises": Outcome.FAILED,
    "TestAll::test_exits": Outcome.FAILED,
    "TestAll::test_skipped": Outcome.SKIPPED,
    "TestAll::test_skips_itself": Outcome.SKIPPED,
    "TestAll::test_expected_failure": Outcome.XFAILED,
    "TestAll::test_unexpected_success": Outcome.FAILED,
    "TestAll::test_setup_error": Outcome.ERROR,
    "TestAll::test_teardown_error": Outcome.ERROR,
    "TestNoClass::test_one": Outcome.ERROR,
    "TestNoClass::test_two": Outcome.ERROR,
    "TestSkippedClass::test_one": Outcome.SKIPPED,
}
PYTHONS = ("2.7", "3.6", "3.8", "3.12", "3.13")


@pytest.mark.parametrize("version", PYTHONS)
def test_every_outcome_of_unittest_is_recorded_on_old_and_new_pythons(
    version: str, environment_of: Callable[[Pair], Path], tmp_path: Path
) -> None:
    home = environment_of(Pair(version, ("six",)))  # no pytest in it
    result = run_in(home, tmp_path, SUITE, test_command=UNITTEST)
    assert result.status is RunStatus.COMPLETED, result.detail
    assert (result.exit_code, result.n_collected, result.collection_errors) == (1, len(EXPECTED), ())
    assert short(result) == EXPECTED
    assert (result.versions["runner"], result.versions["pytest"]) == ("unittest", "")
    assert result.versions["python"].startswith(version + ".")
    messages = {found.test_id.split("::")[-1]: found.message for found in result.outcomes}
    assert "AssertionError: 2 != 3" in messages["test_fails"]
    assert "in setup" in messages["test_setup_error"]
    assert messages["test_passes"] == ""


def test_ids_and_outcomes_are_those_that_pytest_gives_the_same_suite(tmp_path: Path) -> None:
    ours = run_in(pytest_alone(), tmp_path / "a", SUITE, test_command=UNITTEST)
    theirs = run_in(pytest_alone(), tmp_path / "b", SUITE)
    # pytest runs setUp and tearDown within the call, so what breaks there is a failure for it.
    apart = dict.fromkeys(("TestAll::test_setup_error", "TestAll::test_teardown_error"), Outcome.FAILED)
    assert {**short(ours), **apart} == short(theirs)


def test_a_failing_part_fails_its_test_and_is_named(tmp_path: Path) -> None:
    code = """
import unittest
class TestParts(unittest.TestCase):
    def test_parts(self):
        for i in range(3):
            with self.subTest(i=i):
                self.assertNotEqual(i, 1)
    def test_all_good(self):
        with self.subTest(i=0): pass
    def test_skipped_part(self):
        with self.subTest(i=0): self.skipTest("no")
class TestAsync(unittest.IsolatedAsyncioTestCase):
    async def test_passes(self): pass
    async def test_fails(self): self.fail("async")
"""
    result = run_in(pytest_alone(), tmp_path, {"tests/test_calc.py": code}, test_command=UNITTEST)
    assert short(result) == {
        "TestParts::test_parts": Outcome.FAILED,
        "TestParts::test_all_good": Outcome.PASSED,
        "TestParts::test_skipped_part": Outcome.SKIPPED,
        "TestAsync::test_passes": Outcome.PASSED,
        "TestAsync::test_fails": Outcome.FAILED,
    }
    assert "(i=1)" in next(found.message for found in result.outcomes if found.test_id.endswith("test_parts"))


def test_load_tests_is_honoured_and_a_file_that_does_not_load_hides_no_other(tmp_path: Path) -> None:
    code = """
import doctest, unittest
class Sheet(unittest.TestCase):
    def __init__(self, n=0):
        super().__init__("check")
        self.n = n
    def id(self): return "sheet %d" % self.n
    def check(self): self.assertLess(self.n, 2)
def load_tests(loader, tests, pattern):
    return unittest.TestSuite([unittest.TestSuite([Sheet(0), Sheet(1)]), Sheet(2)])
"""
    broken = "def load_tests(loader, tests, pattern): 1 / 0\n"
    files = {
        "tests/test_calc.py": code, "tests/test_bad.py": "import absent_module\n", "tests/test_broken.py": broken,
        "tests/test_skip.py": "import unittest\nraise unittest.SkipTest('all')\n",
        "other/test_calc.py": "import unittest\nclass Test(unittest.TestCase):\n    def test_it(self): pass\n",
    }  # fmt: skip
    result = run_in(pytest_alone(), tmp_path, files, test_command=UNITTEST)
    assert result.status is RunStatus.COMPLETED, result.detail
    assert short(result) == {"Sheet::check": Outcome.FAILED, "other/test_calc.py::Test::test_it": Outcome.PASSED}
    assert result.n_collected == 4  # three sheets are one id: the worst counts
    said = {error.test_id: error.message for error in result.collection_errors}
    assert said.keys() == {"tests/test_bad.py", "tests/test_broken.py"}
    assert "absent_module" in said["tests/test_bad.py"]
    assert "division by zero" in said["tests/test_broken.py"]


def test_orders_run_the_same_tests_and_keep_classes_together(tmp_path: Path) -> None:
    body = "class Test{0}(unittest.TestCase):\n" + "".join(f"    def test_{n}(self): pass\n" for n in range(4))
    files = {"tests/test_calc.py": "import unittest\n" + "".join(body.replace("{0}", name) for name in "ABC")}
    runs = {
        order: list(short(run_in(pytest_alone(), tmp_path / order[-2:], files, order=order, test_command=UNITTEST)))
        for order in ("default", "reversed", "random:3", "random:4")
    }
    assert runs["reversed"] == runs["default"][::-1]
    assert len({tuple(ids) for ids in runs.values()}) == 4
    assert len({frozenset(ids) for ids in runs.values()}) == 1
    classes = [test_id.split("::")[0] for test_id in runs["random:3"]]
    assert [c for n, c in enumerate(classes) if n == 0 or classes[n - 1] != c] == list(dict.fromkeys(classes))


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ("os._exit(0)", "cut_short"),
        ("os._exit(1)", "cut_short"),
        ("os.kill(os.getpid(), 11)", "cut_short"),
        ("raise KeyboardInterrupt", "interrupted"),
    ],
)
def test_a_run_that_ends_early_is_void_and_says_where(how: str, cause: str, tmp_path: Path) -> None:
    code = "import os, unittest\nclass Test(unittest.TestCase):\n    def test_1(self): pass\n"
    code += f"    def test_end(self): {how}\n    def test_z(self): pass\n"
    result = run_in(pytest_alone(), tmp_path, {"tests/test_calc.py": code}, test_command=UNITTEST)
    assert (result.status, result.void_cause, result.outcomes) == (RunStatus.VOID, cause, ())
    assert cause != "cut_short" or "in tests/test_calc.py::Test::test_end" in result.detail


def test_a_thread_and_a_forked_child_do_not_disturb_the_run(tmp_path: Path) -> None:
    code = """
import os, sys, threading, time, unittest
class Test(unittest.TestCase):
    def test_thread(self): threading.Thread(target=time.sleep, args=(300,)).start()
    def test_fork(self):
        pid = os.fork()
        if pid: os.waitpid(pid, 0)
    def test_stdin(self): self.assertEqual(os.read(0, 10), b"")
    def test_command_line(self): self.assertNotIn("swefactory_", " ".join(sys.argv))
"""
    files = {"tests/test_calc.py": code}
    result = run_in(pytest_alone(), tmp_path, files, test_command=UNITTEST, timeout_s=30, order="reversed")
    assert set(short(result).values()) == {Outcome.PASSED}, (result.detail, result.outcomes)


@pytest.mark.parametrize(("python", "django"), [("2.7", "django==1.11.*"), ("3.12", "django==5.2.*")])
def test_old_and_new_djangos_set_up_as_they_always_do(
    python: str, django: str, environment_of: Callable[[Pair], Path], tmp_path: Path
) -> None:
    home = environment_of(Pair(python, (django,)))
    files = {**BASE, **GOOD, "polls/tests.py": TESTS}
    result = run_in(home, tmp_path, files, test_command=COMMAND, test_files=("polls/tests.py",))
    assert result.status is RunStatus.COMPLETED, (result.detail, result.log.decode()[-2000:])
    found = {one.test_id: one.outcome for one in result.outcomes}
    parts = Outcome.PASSED if python != "2.7" else Outcome.FAILED  # unittest has no subTest there
    every = dict.fromkeys((*FAIL_TO_PASS, *PASS_TO_PASS), Outcome.PASSED)
    assert found == {**every, "polls/tests.py::NoRow::test_parts": parts}


RUNTESTS = """
import sys
import django
from django.conf import settings
from django.test.utils import get_runner

settings.configure(
    SECRET_KEY="x", INSTALLED_APPS=["polls"], USE_TZ=True, DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)
django.setup()
failures = get_runner(settings)().run_tests(["polls"])
sys.exit(FAILED)
"""


@pytest.mark.parametrize(("ends_with", "status"), [("bool(failures)", RunStatus.COMPLETED), ("0", RunStatus.VOID)])
def test_a_projects_own_script_runs_the_files_and_must_tell_that_tests_failed(
    ends_with: str, status: RunStatus, environment_of: Callable[[Pair], Path], tmp_path: Path
) -> None:
    home = environment_of(Pair("3.12", ("django==5.2.*",)))
    files = {**BASE, "polls/tests.py": TESTS, "runtests.py": RUNTESTS.replace("FAILED", ends_with)}
    command, test_files = ("runtests.py",), ("polls/tests.py",)
    result = run_in(home, tmp_path, files, test_command=command, test_files=test_files)
    assert result.status is status, (result.detail, result.log.decode()[-2000:])
    failed = {one.test_id for one in result.outcomes if one.outcome is Outcome.FAILED}
    assert failed == (set(FAIL_TO_PASS) if status is RunStatus.COMPLETED else set())
