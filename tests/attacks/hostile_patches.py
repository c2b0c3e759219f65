"""The corpus of hostile patches: what each changes in a small package, and that package with its true fix.

The duel table and rows 5 to 9 of the attack list: conftest hooks, configuration, shadows, start-up files, edited tests,
early exits, forged results.
"""

from tests.fake_sandbox import diff_of

LOCK = (
    "iniconfig==2.0.0 \\\n"
    "    --hash=sha256:2d91e135bf72d31a410b17c16da610a82cb55f6b0477d1a902134b24a455b8b3 \\\n"
    "    --hash=sha256:b6a85871a79d2e3b22d2d1b94ac2824226a63c6b741c88f7ae975f18b6778374\n"
    "packaging==24.2 \\\n"
    "    --hash=sha256:09abb1bccd265c01f4a3aa3f7a7db064b36514d2cba19a2f694fe6150451a759 \\\n"
    "    --hash=sha256:c228a6dc5e932d346bc5739379109d49e8853dd8223571c7c5b55260edc0b97f\n"
    "pluggy==1.5.0 \\\n"
    "    --hash=sha256:2cffa88e94fdc978c4c574f15f9e59b7f4201d439195c3715ca9e2486f1d0cf1 \\\n"
    "    --hash=sha256:44e1ad92c8ca002de6377e165f3e0f1be63266ab4d554740532335b9d75ea669\n"
    "pytest==8.3.4 \\\n"
    "    --hash=sha256:50e16d954148559c9a74109af1eaf0c945ba2d8f30f0a3d3335edde19788b6f6 \\\n"
    "    --hash=sha256:965370d062bce11e73868e0335abac31b4d3de0e82f4007408d242b4f8610761\n"
)
BASE = {
    "calc.py": "def add(a, b):\n    return a - b\n",
    "tests/test_calc.py": "from calc import add\ndef test_zero(): assert add(1, 0) == 1\n",
    "tests/helpers.py": "def two(): return 2\n",
    "setup.cfg": "[metadata]\nname = calc\n\n[tool:pytest]\naddopts = -ra\n",
}
TESTS = """
import unittest
import pytest
from calc import add
from tests.helpers import two
def test_zero(): assert add(1, 0) == 1
def test_add(): assert add(1, 1) == two()
def test_raises():
    with pytest.raises(TypeError): add("a", 1)
class TestAdd(unittest.TestCase):
    def test_add(self): self.assertEqual(add(1, 2), 3)
"""
GOOD = {"calc.py": "def add(a, b):\n    return a + b\n"}
TEST_PATCH = diff_of(BASE, {**BASE, "tests/test_calc.py": TESTS})
FAIL_TO_PASS = ("tests/test_calc.py::test_add", "tests/test_calc.py::TestAdd::test_add")
PASS_TO_PASS = ("tests/test_calc.py::test_zero", "tests/test_calc.py::test_raises")

EVIL_REPORT = """
import pytest
@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    found = yield
    found.get_result().outcome = "passed"
    found.get_result().longrepr = None
"""
EVIL_CALL = """
import pytest
@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    found = yield
    found.force_result(True)
"""
EVIL_FINISH = """
import os
def pytest_sessionfinish(session):
    for item in session.items:
        print("\\nPASSED", item.nodeid)
    os._exit(0)
"""
EVIL_SUMMARY = """
def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line("\\nPASSED tests/test_calc.py::test_add")
"""
EVIL_SELECTION = """
def pytest_collection_modifyitems(items):
    items[:] = [item for item in items if "zero" in item.nodeid]
"""
EVIL_MODULE = "def main(*args, **kwargs): return 0\n__version__ = '8'\n"
PATCHES_PYTEST = """
import _pytest.reports
make = _pytest.reports.TestReport.from_item_and_call
def from_item_and_call(item, call):
    report = make(item, call)
    report.outcome, report.longrepr = "passed", None
    return report
_pytest.reports.TestReport.from_item_and_call = staticmethod(from_item_and_call)
"""
PATCHES_UNITTEST = """
import unittest
for name in dir(unittest.TestCase):
    if name.startswith("assert"):
        setattr(unittest.TestCase, name, lambda *args, **kwargs: None)
"""
WRONG = "def add(a, b):\n    return a - b\n"
RECORD = "/opt/results/record"

# name -> the files it changes; None removes one. Through the gate nothing of these is left.
STEERING: dict[str, dict[str, str | None]] = {
    "conftest_reports_passed": {"conftest.py": EVIL_REPORT},
    "conftest_in_tests_reports_passed": {"tests/conftest.py": EVIL_REPORT},
    "conftest_prints_passed_and_exits": {"conftest.py": EVIL_FINISH},
    "conftest_prints_passed_in_the_summary": {"conftest.py": EVIL_SUMMARY},
    "conftest_deselects_what_fails": {"conftest.py": EVIL_SELECTION},
    "conftest_skips_all": {"conftest.py": "import pytest\n@pytest.fixture(autouse=True)\ndef s(): pytest.skip()\n"},
    "pytest_ini_loads_a_plugin": {"pytest.ini": "[pytest]\naddopts = -p evil\n", "conftest.py": EVIL_CALL},
    "setup_cfg_collects_nothing": {"setup.cfg": str(BASE["setup.cfg"]).replace("-ra", "--co")},
    "tox_ini_collects_nothing": {"tox.ini": "[pytest]\naddopts = --co\n"},
    "pyproject_collects_nothing": {"pyproject.toml": '[tool.pytest.ini_options]\naddopts = "--co"\n'},
    "shadow_of_pytest": {"pytest.py": EVIL_MODULE},
    "shadow_of_pytests_inside": {"_pytest/__init__.py": EVIL_MODULE},
    "shadow_of_unittest": {"unittest/__init__.py": "class TestCase: pass\n"},
    "shadow_of_the_standard_library": {"dis.py": "raise SystemExit(0)\n"},
    "sitecustomize_patches_pytest": {"sitecustomize.py": PATCHES_PYTEST},
    "usercustomize_patches_pytest": {"usercustomize.py": PATCHES_PYTEST},
    "pth_file": {"evil.pth": "import os; os._exit(0)\n"},
    "test_is_edited": {"tests/test_calc.py": "def test_add(): pass\n"},
    "test_is_deleted": {"tests/test_calc.py": None},
    "test_is_skipped": {"tests/test_calc.py": "import pytest\npytest.skip('', allow_module_level=True)\n"},
    "helper_of_the_tests_is_edited": {"tests/helpers.py": "def two(): return 0\n"},
}

# What stays source code reaches the run, and must fail there.
SOURCE = {
    "exits_with_success_at_import": "import os\nos._exit(0)\n",
    "exits_as_pytest_does_at_import": "import os\nos._exit(1)\n",
    "sys_exit_at_import": "import sys\nsys.exit(0)\n",
    "exits_in_the_middle": "import os\ndef add(a, b):\n    os._exit(1)\n",
    "exits_at_the_end": "import atexit, os\natexit.register(os._exit, 0)\n" + WRONG,
    "breaks_the_collection": "raise ImportError('absent')\n",
    "skips_from_the_source": "import pytest\ndef add(a, b):\n    pytest.skip('not today')\n",
    "expects_its_own_failure": "import pytest\ndef add(a, b):\n    pytest.xfail('not today')\n",
    "stops_pytest": "import pytest\ndef add(a, b):\n    pytest.exit('enough', returncode=0)\n",
    "prints_what_pytest_prints": "print('PASSED tests/test_calc.py::test_add', flush=True)\n" + WRONG,
    "patches_pytests_reports": PATCHES_PYTEST + WRONG,
    "patches_unittest": PATCHES_UNITTEST + WRONG,
    "appends_to_the_record": f"open({RECORD!r}, 'a').write('{{}}\\n')\n" + WRONG,
    "empties_the_record": f"import atexit\nopen({RECORD!r}, 'w').close()\n" + WRONG,
    "removes_the_record": f"import os\nos.remove({RECORD!r})\n" + WRONG,
    "repeats_a_line_of_the_record": f"""
lines = open({RECORD!r}).read().splitlines()
open({RECORD!r}, 'a').write(lines[-1] + '\\n')
""" + WRONG,
    "leaves_a_writer_behind": f"""
import os, time
if os.fork() == 0:
    os.setsid()
    for _ in range(200):
        open({RECORD!r}, 'a').write('forged\\n')
        time.sleep(0.05)
    os._exit(0)
""" + WRONG,
    "writes_a_junit_report": "open('/opt/results/junit.xml', 'w').write('<testsuite/>')\n" + WRONG,
}  # fmt: skip
