"""What a file is for, by its path."""

import pytest

from swefactory.file_kinds import FileKind, is_test_module, kind_of, touches_tests
from swefactory.file_kinds import test_folder as folder_of_tests


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("src/x.py", FileKind.SOURCE),
        ("setup.cfg", FileKind.SOURCE),
        ("src/latest.py", FileKind.SOURCE),
        ("src/contest/attestation.py", FileKind.SOURCE),
        ("src/_pytest/python.py", FileKind.SOURCE),
        ("src/click/testing.py", FileKind.SOURCE),
        ("numpy/testing/utils.py", FileKind.SOURCE),
        ("docs_builder/main.py", FileKind.SOURCE),
        ("requirements.txt", FileKind.SOURCE),
        ("news.py", FileKind.SOURCE),
        ("tests/test_x.py", FileKind.TEST),
        ("tests/data/x.json", FileKind.TEST),
        ("tests/README.md", FileKind.TEST),
        ("testing/data/x.txt", FileKind.TEST),
        ("src/x/test/helpers.py", FileKind.TEST),
        ("src/x/test_y.py", FileKind.TEST),
        ("src/x/y_test.py", FileKind.TEST),
        ("integration_tests/run.py", FileKind.TEST),
        ("e2e/login.py", FileKind.TEST),
        ("unit-tests/a.py", FileKind.TEST),
        ("src/FooTests.cs", FileKind.TEST),
        ("src/x/__snapshots__/page.ambr", FileKind.TEST),
        ("src/x/page.snap", FileKind.TEST),
        ("checks/golden/out.txt", FileKind.TEST),
        ("checks/cassettes/login.yaml", FileKind.TEST),
        ("checks/page.approved.html", FileKind.TEST),
        ("src/x/snapshots/store.py", FileKind.SOURCE),
        ("conftest.py", FileKind.TEST),
        ("src/x/conftest.py", FileKind.TEST),
        ("docs/conf.py", FileKind.DOCS),
        ("docs/index.rst", FileKind.DOCS),
        ("README.md", FileKind.DOCS),
        ("CHANGES", FileKind.DOCS),
        ("AUTHORS.txt", FileKind.DOCS),
        ("changelog.d/12.change.txt", FileKind.DOCS),
    ],
)
def test_every_file_has_a_kind(path: str, kind: FileKind) -> None:
    assert kind_of(path) is kind


@pytest.mark.parametrize(
    "path", ["tests/test_x.py", "a/x_test.py", "a/tests.py", "test.py", "tests/testThing.py", "tests/test1.py"]
)
def test_pytest_would_run_these(path: str) -> None:
    assert is_test_module(path)


@pytest.mark.parametrize(
    "path", ["tests/conftest.py", "tests/__init__.py", "tests/helpers.py", "tests/test_x.txt", "tests/testing.py"]
)
def test_pytest_would_not_run_these(path: str) -> None:
    assert not is_test_module(path)


def test_paths_alone_tell_whether_tests_are_touched() -> None:
    assert touches_tests(["a.py", "tests/x.json"])
    assert not touches_tests(["a.py", "src/testing.py"])


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("tests/unit/test_x.py", "tests"),
        ("src/x/test/data/a.json", "src/x/test"),
        ("testing/a.py", "testing"),
        ("src/testing/a.py", None),
        ("test_x.py", None),
    ],
)
def test_the_outermost_folder_of_tests_is_told(path: str, folder: str | None) -> None:
    assert folder_of_tests(path) == folder
