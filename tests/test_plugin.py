"""The pytest plugin on real interpreters and pytests, old and new: the same suite, the same record."""

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from uv import find_uv_bin

from db.enums import Outcome, RunStatus
from swefactory.evaluation import EvaluationSpec, TestRunResult, evaluate
from swefactory.inputs.swefactory_plugin import OUR_ARGUMENTS
from swefactory.protocols import ProjectLayout
from swefactory.sandbox_protocols import EnvironmentSpec
from tests.fake_sandbox import HERE, HostBackend, host_services, pytest_alone, write_tree

SUITE = {
    "calc.py": "def add(a, b):\n    return a + b\n",
    "tests/test_calc.py": """# -*- coding: utf-8 -*-
import unittest

import pytest

from calc import add


@pytest.fixture
def breaks_later():
    yield
    raise ValueError("in teardown")


@pytest.fixture
def breaks_first():
    raise ValueError("in setup")


@pytest.mark.parametrize("x", [u"plain", u"\\u00e9", u"two words", u"a\\nb", u"[x]::y"])
def test_add(x):
    assert add(x, u"") == x


def test_fails():
    assert add(1, 1) == 3


@pytest.mark.xfail
def test_xfailed():
    assert False


@pytest.mark.xfail
def test_xpassed():
    pass


@pytest.mark.xfail(strict=True)
def test_strict_xpass():
    pass


@pytest.mark.xfail(run=False)
def test_xfail_not_run():
    pass


@pytest.mark.skipif(True, reason="not here")
def test_skipped():
    pass


def test_skips_itself():
    pytest.skip("no")


def test_teardown_error(breaks_later):
    pass


def test_setup_error(breaks_first):
    pass


class TestUnittest(unittest.TestCase):
    def test_passes(self):
        self.assertTrue(True)

    @unittest.expectedFailure
    def test_expected_failure(self):
        self.assertTrue(False)
""",
}
EXPECTED = {
    "test_add[plain]": Outcome.PASSED,
    "test_add[\\xe9]": Outcome.PASSED,
    "test_add[two words]": Outcome.PASSED,
    "test_add[a\\nb]": Outcome.PASSED,
    "test_add[[x]::y]": Outcome.PASSED,
    "test_fails": Outcome.FAILED,
    "test_xfailed": Outcome.XFAILED,
    "test_xpassed": Outcome.XPASSED,
    "test_strict_xpass": Outcome.FAILED,
    "test_xfail_not_run": Outcome.XFAILED,
    "test_skipped": Outcome.SKIPPED,
    "test_skips_itself": Outcome.SKIPPED,
    "test_teardown_error": Outcome.ERROR,
    "test_setup_error": Outcome.ERROR,
    "TestUnittest::test_passes": Outcome.PASSED,
    "TestUnittest::test_expected_failure": Outcome.XFAILED,
}


@dataclass(frozen=True)
class Pair:
    """An interpreter, the pytest to install for it, and plugins that would disturb us."""

    python: str
    requirements: tuple[str, ...]


PAIRS = (
    Pair("2.7", ("pytest==4.6.*",)),
    Pair("3.6", ("pytest==3.10.*",)),
    Pair("3.8", ("pytest==5.4.*",)),
    Pair("3.10", ("pytest==6.2.*", "pytest-cov", "pytest-xdist<3")),
    Pair("3.13", ("pytest==8.*", "pytest-cov", "pytest-xdist", "pytest-randomly", "pytest-rerunfailures")),
)


def _interpreter(version: str) -> Path:
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    found = sorted(root.glob(f"{version}.*/bin/python"))
    on_path = shutil.which(f"python{version}")
    if not found and not on_path:
        pytest.skip(f"no Python {version} here: neither python{version} on PATH nor {version}.* in pyenv's versions")
    return found[-1] if found else Path(str(on_path))


def _make(folder: Path, pair: Pair) -> None:
    interpreter, uv = str(_interpreter(pair.python)), find_uv_bin()
    if pair.python == "2.7":
        commands = [
            [uv, "tool", "run", "--from", "virtualenv<20.22", "virtualenv", "-q", "-p", interpreter, str(folder)],
            [str(folder / "bin/python"), "-m", "pip", "install", "-q", *pair.requirements],
        ]
    else:
        python = str(folder / "bin/python")
        commands = [
            [uv, "venv", "-q", "--python", interpreter, str(folder)],
            [uv, "pip", "install", "-q", "--python", python, *pair.requirements],
        ]
    for command in commands:
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=120)
        except (subprocess.SubprocessError, OSError) as error:
            pytest.skip(f"no environment with Python {pair.python} and {pair.requirements[0]} can be made: {error}")


@pytest.fixture(scope="session")
def environment_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Pair], Path]:
    """Virtual environments by pair, made when they are first asked for."""
    made: dict[Pair, Path] = {}

    def make(pair: Pair) -> Path:
        if pair not in made:
            folder = tmp_path_factory.mktemp("environments") / "venv"
            _make(folder, pair)
            made[pair] = folder
        return made[pair]

    return make


def run_in(environment: Path, home: Path, files: dict[str, str], **spec: object) -> TestRunResult:
    """The suite in `files` through the evaluation, in the virtual environment at `environment`."""
    services = host_services(home, HostBackend({HERE.digest: environment}))
    tree = write_tree(home / "tree", files)
    values: dict[str, object] = {
        "environment": EnvironmentSpec(HERE.digest, "", ""), "tree": tree, "layout": ProjectLayout("calc", "1"),
        "patches": (), "timeout_s": 60, "test_files": tuple(f for f in sorted(files) if "/test_" in f), **spec,
    }  # fmt: skip
    return evaluate(services, EvaluationSpec(**values))  # type: ignore[arg-type]


def short(result: TestRunResult) -> dict[str, Outcome]:
    return {found.test_id.removeprefix("tests/test_calc.py::"): found.outcome for found in result.outcomes}


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"python{pair.python}")
def test_every_outcome_is_recorded_alike_on_old_and_new_pytests(
    pair: Pair, environment_of: Callable[[Pair], Path], tmp_path: Path
) -> None:
    options = "-x -n 2 --cov calc --cov-report term-missing --cov-fail-under=100 --reruns 2 --randomly-seed=1"
    files = {**SUITE, "setup.cfg": f"[tool:pytest]\naddopts = {options}\nfilterwarnings = error\n"}
    result = run_in(environment_of(pair), tmp_path, files)
    assert result.status is RunStatus.COMPLETED, result.detail
    assert (result.exit_code, result.n_collected, result.collection_errors) == (1, 16, ())
    assert short(result) == EXPECTED
    assert result.versions["python"].startswith(pair.python + ".")


def test_the_pytest_of_these_tests_records_the_same(tmp_path: Path) -> None:
    result = run_in(pytest_alone(), tmp_path, SUITE)
    assert short(result) == EXPECTED
    messages = {found.test_id.split("::")[-1]: found.message for found in result.outcomes}
    assert "assert 2 == 3" in messages["test_fails"]
    assert "in setup" in messages["test_setup_error"]
    assert messages["test_passes"] == ""


def test_orders_run_the_same_tests_in_another_order(tmp_path: Path) -> None:
    runs = {
        order: [r.test_id for r in run_in(pytest_alone(), tmp_path / order[-2:], SUITE, order=order).outcomes]
        for order in ("default", "reversed", "random:3", "random:4")
    }
    assert runs["reversed"] == runs["default"][::-1]
    assert len({tuple(ids) for ids in runs.values()}) == 4
    assert len({frozenset(ids) for ids in runs.values()}) == 1


def test_a_random_order_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    first, second = (
        [r.test_id for r in run_in(pytest_alone(), tmp_path / name, SUITE, order="random:7").outcomes]
        for name in ("a", "b")
    )
    assert first == second


def test_a_random_order_keeps_classes_together(tmp_path: Path) -> None:
    body = "class Test{0}:\n" + "".join(f"    def test_{n}(self): pass\n" for n in range(4))
    files = {"tests/test_calc.py": "".join(body.replace("{0}", name) for name in "ABC")}
    ids = list(short(run_in(pytest_alone(), tmp_path, files, order="random:3")))
    classes = [test_id.split("::")[0] for test_id in ids]
    assert [c for n, c in enumerate(classes) if n == 0 or classes[n - 1] != c] == list(dict.fromkeys(classes))


def test_ids_that_are_not_escaped_arrive_whole(tmp_path: Path) -> None:
    ini = "[pytest]\ndisable_test_id_escaping_and_forfeit_all_rights_to_community_support = true\n"
    code = "import pytest\n@pytest.mark.parametrize('x', ['é', '漢 字', 'a\\nb', '🎉'])\ndef test_p(x): pass\n"
    result = run_in(pytest_alone(), tmp_path, {"pytest.ini": ini, "tests/test_calc.py": code})
    assert list(short(result)) == ["test_p[é]", "test_p[漢 字]", "test_p[a\nb]", "test_p[🎉]"]


def test_of_tests_with_the_same_id_the_worst_outcome_counts(tmp_path: Path) -> None:
    conftest = """
import pytest
def pytest_pycollect_makeitem(collector, name, obj):
    if name == "test_p":
        return [pytest.Function.from_parent(collector, name=name, callobj=obj) for _ in range(3)]
"""
    code = "calls = []\ndef test_p():\n    calls.append(1)\n    assert len(calls) != 2\n"
    result = run_in(pytest_alone(), tmp_path, {"conftest.py": conftest, "tests/test_calc.py": code})
    assert (result.n_collected, short(result)) == (3, {"test_p": Outcome.FAILED})


def test_canaries_run_although_the_repository_selects_other_names_and_marks(tmp_path: Path) -> None:
    ini = "[pytest]\npython_functions = check_*\npython_files = check_*.py\naddopts = -m chosen\nmarkers = chosen\n"
    code = "import pytest\n@pytest.mark.chosen\ndef check_it(): pass\ndef check_other(): pass\n"
    files = {"pytest.ini": ini, "tests/check_calc.py": code}
    result = run_in(pytest_alone(), tmp_path, files, test_files=("tests/check_calc.py",))
    assert (result.status, result.detail) == (RunStatus.COMPLETED, "")
    assert [found.test_id for found in result.outcomes] == ["tests/check_calc.py::check_it"]


def test_each_folder_has_its_own_canaries(tmp_path: Path) -> None:
    ok = "def test_ok(): pass\n"
    conftest = "import pytest\n@pytest.fixture(autouse=True)\ndef skip(): pytest.skip('never here')\n"
    files = {"tests/a/test_a.py": ok, "tests/b/test_b.py": ok, "tests/b/conftest.py": conftest}
    result = run_in(pytest_alone(), tmp_path, files)
    assert [found.outcome for found in result.outcomes] == [Outcome.PASSED, Outcome.SKIPPED]


def test_a_file_that_cannot_be_collected_hides_no_other(tmp_path: Path) -> None:
    files = {"tests/test_calc.py": "def test_ok(): pass\n", "tests/test_bad.py": "import absent_module\n"}
    result = run_in(pytest_alone(), tmp_path, files)
    assert (result.status, short(result)) == (RunStatus.COMPLETED, {"test_ok": Outcome.PASSED})
    assert [error.test_id for error in result.collection_errors] == ["tests/test_bad.py"]
    assert "absent_module" in result.collection_errors[0].message


@pytest.mark.parametrize("code", ["import absent_module", "import sys; sys.exit(0)", "def pytest_configure(): 1 / 0"])
def test_a_conftest_that_cannot_be_loaded_is_a_collection_error(code: str, tmp_path: Path) -> None:
    files = {"tests/test_calc.py": "def test_ok(): pass\n", "conftest.py": code + "\n"}
    result = run_in(pytest_alone(), tmp_path, files)
    assert (result.status, result.outcomes, len(result.collection_errors)) == (RunStatus.COMPLETED, (), 1)


@pytest.mark.parametrize("how", ["os._exit(0)", "os._exit(1)", "os.kill(os.getpid(), 9)", "os.kill(os.getpid(), 11)"])
def test_a_process_that_ends_early_is_void(how: str, tmp_path: Path) -> None:
    files = {"tests/test_calc.py": f"import os\ndef test_ok(): pass\ndef test_end(): {how}\n"}
    result = run_in(pytest_alone(), tmp_path, files)
    assert (result.status, result.void_cause, result.outcomes) == (RunStatus.VOID, "cut_short", ())
    assert "test_end" in result.detail


def test_a_test_that_stops_pytest_makes_the_run_void(tmp_path: Path) -> None:
    code = "import pytest\ndef test_ok(): pass\ndef test_stop(): pytest.exit('enough')\ndef test_after(): pass\n"
    result = run_in(pytest_alone(), tmp_path, {"tests/test_calc.py": code})
    assert (result.status, result.void_cause) == (RunStatus.VOID, "interrupted")


def test_a_child_that_a_test_forks_and_loses_writes_nothing(tmp_path: Path) -> None:
    code = "import os\ndef test_fork():\n    pid = os.fork()\n    if pid: os.waitpid(pid, 0)\ndef test_ok(): pass\n"
    result = run_in(pytest_alone(), tmp_path, {"tests/test_calc.py": code})
    assert (result.status, short(result)) == (RunStatus.COMPLETED, dict.fromkeys(("test_fork", "test_ok"), "passed"))


def test_tests_that_replace_what_writes_files_do_not_lose_outcomes(tmp_path: Path) -> None:
    code = """
import builtins, json, os, time
import pytest
@pytest.fixture
def nothing_works(monkeypatch):
    def fail(*a, **k): raise OSError("replaced")
    for name in ("open", "write", "close", "getpid"):
        monkeypatch.setattr(os, name, fail)
    monkeypatch.setattr(json, "dumps", fail)
    monkeypatch.setattr(builtins, "open", fail)
    yield
def test_replaced(nothing_works): pass
def test_changes_folder(tmp_path): os.chdir(str(tmp_path))
"""
    result = run_in(pytest_alone(), tmp_path, {"tests/test_calc.py": code})
    assert result.status is RunStatus.COMPLETED, result.detail
    assert short(result)["test_replaced"] is Outcome.PASSED
    assert short(result)["test_changes_folder"] is Outcome.PASSED


def test_a_thread_that_never_ends_does_not_hold_the_run(tmp_path: Path) -> None:
    code = "import threading, time\ndef test_ok(): threading.Thread(target=time.sleep, args=(300,)).start()\n"
    result = run_in(pytest_alone(), tmp_path, {"tests/test_calc.py": code}, timeout_s=30)
    assert (result.status, short(result)) == (RunStatus.COMPLETED, {"test_ok": Outcome.PASSED})


def test_stdin_and_the_command_line_tell_the_tests_nothing(tmp_path: Path) -> None:
    code = """
import os, sys
def test_stdin(): assert os.read(0, 10) == b""
def test_command_line():
    assert "swefactory_" not in " ".join(sys.argv) and sys.argv[0].endswith("__main__.py")
def test_path(): assert sys.path.index(os.getcwd()) < 2 and not any(p.endswith("/inputs") for p in sys.path)
"""
    result = run_in(pytest_alone(), tmp_path, {"tests/test_calc.py": code}, order="default")
    assert set(short(result).values()) == {Outcome.PASSED}, result.outcomes


def test_no_test_file_follows_a_setting_which_pytest_before_3_5_would_take_it_for() -> None:
    ours = OUR_ARGUMENTS
    assert all(ours[n + 2].startswith("-") for n, argument in enumerate(ours) if argument == "-o")
