"""Which files of a change are the tests', by path, content and surroundings."""

from collections.abc import Mapping

import pytest

from swefactory.changed_tests import ChangedTests, Surroundings, changed_tests
from swefactory.patches import FileChange
from swefactory.python_tests import TestNames

TEST = "def test_x():\n    assert 1\n"
FIXTURE = "import pytest\n@pytest.fixture\ndef app(): pass\n"
PRODUCT = "def f():\n    return 1\n"
PACKAGE = frozenset(("pkg/__init__.py", "pkg/a.py", "pkg/test/__init__.py", "tests/test_a.py"))


def change(path: str, *, old: str | None = "", added: str = "") -> FileChange:
    lines = "".join(f"+{line}\n" for line in added.split("\n"))
    return FileChange(path if old == "" else old, path, False, f"diff --git a/{path} b/{path}\n+++ b/{path}\n{lines}")


def judge(texts: Mapping[str, str], paths: frozenset[str] = PACKAGE, names: TestNames | None = None) -> ChangedTests:
    return changed_tests([change(path) for path in texts], texts, Surroundings(paths, names or TestNames()))


@pytest.mark.parametrize(
    ("path", "text", "is_test"),
    [
        ("checks/login.py", TEST, True),
        ("checks/login.py", PRODUCT, False),
        ("pkg/selftest.py", TEST, True),
        ("checks/fixtures.py", FIXTURE, True),
        ("pkg/plugin.py", FIXTURE, False),
        ("tests/helpers.py", PRODUCT, True),
        ("conftest.py", "", True),
        ("pkg/conftest.py", "", True),
        ("pkg/test.py", PRODUCT, False),
        ("pkg/test.py", TEST, True),
        ("pkg/test.py", FIXTURE, True),
        ("test.py", PRODUCT, True),
        ("pkg/test.py", "class TestResponse(Response): pass\n", False),
        ("pkg/tests.py", "def test_odd(value):\n    return value % 2 == 1\n", False),  # as jinja2 has it
        ("pkg/run_tests.py", PRODUCT, False),
        ("pkg/test_utils.py", PRODUCT, True),  # a solution may not touch a file of that name, so it is no part of one
        ("pkg/test/client.py", PRODUCT, False),
        ("pkg/test/client.py", TEST, True),
        ("pkg/test/page.html", "", False),
        ("other/test/client.py", PRODUCT, True),
        ("pkg/testing/tools.py", PRODUCT, False),
        ("pkg/testing/suite.py", TEST, True),
    ],
)
def test_a_file_is_judged_by_what_it_holds_where_its_path_leaves_it_open(path: str, text: str, is_test: bool) -> None:
    assert judge({path: text}).paths == ({path} if is_test else set())


def test_a_package_named_test_with_test_modules_is_no_product() -> None:
    paths = PACKAGE | {"pkg/test/test_a.py"}
    assert judge({"pkg/test/client.py": PRODUCT}, paths).paths == {"pkg/test/client.py"}


def test_a_file_that_cannot_be_read_is_judged_by_its_name() -> None:
    found = changed_tests([change("pkg/test.py"), change("pkg/a.py")], {}, Surroundings(PACKAGE))
    assert found == ChangedTests(frozenset(("pkg/test.py",)), ("pkg/test.py",))


@pytest.mark.parametrize(
    ("path", "text", "runs"),
    [
        ("tests/test_x.py", TEST, True),
        ("tests/test_x.py", "def test_smoke(): main()\n", True),
        ("tests/test_x.py", "class TestX(Contract): pass\n", True),
        ("tests/typed/test_x.py", "from pkg import f\nf(1)\n", False),
        ("tests/x_spec.py", "def test_smoke(): main()\n", True),
        ("tests/y_spec.txt.py", "def test_smoke(): main()\n", False),
        ("tests/helpers.py", PRODUCT, False),
        ("tests/contract.py", TEST, True),
        ("tests/conftest.py", TEST, False),
        ("checks/login.py", TEST, True),
    ],
)
def test_modules_are_those_in_which_pytest_could_find_tests(path: str, text: str, runs: bool) -> None:
    names = TestNames(files=("*_spec.py",))
    assert judge({path: text}, names=names).modules == ((path,) if runs else ())


def test_a_deleted_test_is_among_the_tests_but_not_among_those_to_run() -> None:
    deleted = FileChange("checks/login.py", None, False, "")
    assert changed_tests([deleted], {"checks/login.py": TEST}, Surroundings()) == ChangedTests(
        frozenset(("checks/login.py",)), ()
    )


@pytest.mark.parametrize(
    ("path", "by_tests", "by_source", "is_test"),
    [
        ("examples/broken.json", 'load("broken.json")', "", True),
        ("examples/broken.json", 'load("broken.json")', 'DEFAULT = "broken.json"', False),
        ("examples/broken.json", 'load("other.json")', "", False),
        ("pkg/templates/broken.html", 'render("broken.html")', "", False),
        ("broken.json", 'load("broken.json")', "", False),
        ("docs/broken.rst", 'load("broken.rst")', "", False),
        (".github/broken.yaml", 'load("broken.yaml")', "", False),
        ("examples/broken.py", 'run("broken.py")', "", False),
        ("examples/a.py2", 'run("a.py2")', "", True),
        ("examples/a.b", 'run("a.b")', "", False),
    ],
)
def test_new_data_that_only_tests_name_goes_with_them(path: str, by_tests: str, by_source: str, is_test: bool) -> None:
    changes = [
        change(path, old=None, added="data"),
        change("tests/test_a.py", added=by_tests),
        change("pkg/a.py", added=by_source),
        change("docs/index.rst", added=f"see {path}"),
    ]
    found = changed_tests(changes, {"tests/test_a.py": TEST, "pkg/a.py": PRODUCT}, Surroundings(PACKAGE))
    assert found.paths - {"tests/test_a.py"} == ({path} if is_test else set())


def test_data_that_was_there_before_stays_where_it_is() -> None:
    changes = [change("examples/broken.json", added="x"), change("tests/test_a.py", added='load("broken.json")')]
    assert changed_tests(changes, {}, Surroundings(PACKAGE)).paths == {"tests/test_a.py"}
