"""Which files of a change are the tests'. One property: paths and texts alone decide, and each path has one answer.

    tests/anything, conftest.py, test_x.py, x_test.py, snapshots     yes, whatever they hold
    pkg/test.py, pkg/test/… of a package without test modules        by content: werkzeug.test, jinja2.tests
    checks/login.py                                                  by content: it defines tests
    checks/fixtures.py                                               by content, unless in a package: a pytest plugin
    data/new.json, named in added lines of tests and nowhere else    yes, when new and outside packages

A file is judged as it is after the change, a deleted one as it was before. The last rule is a guess that errs to the
safe side: data which the tests need, left in the patch, would make the problem unsolvable (no other solution adds
it), so it goes with them; but what ships in a package, configures the project or explains it never does. Pure.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from swefactory.file_kinds import (
    is_conftest,
    is_docs,
    is_named_as_test,
    is_python,
    is_test_data,
    is_test_module,
    test_folder,
)
from swefactory.patches import FileChange
from swefactory.python_tests import PythonTests, TestNames, python_tests

_MIN_NAME = 5  # characters of a file's name that a mention of it must have: `a.py` stands in many texts


@dataclass(frozen=True)
class Surroundings:
    """What is known of the repository: its files before and after, and what its pytest configuration calls tests."""

    paths: Collection[str] = frozenset()
    names: TestNames = field(default_factory=TestNames)

    def is_package(self, folder: str) -> bool:
        return folder not in ("", ".") and f"{folder}/__init__.py" in self.paths


@dataclass(frozen=True)
class ChangedTests:
    """`paths` are all that belong to the tests; `modules` those that pytest would run after the change, sorted."""

    paths: frozenset[str]
    modules: tuple[str, ...]


def changed_tests(changes: Sequence[FileChange], texts: Mapping[str, str], around: Surroundings) -> ChangedTests:
    """Judges every path of `changes`. `texts` has the changed Python files, after the change or else before it; a
    path that it lacks is judged by its name."""
    contents = {path: python_tests(text, around.names) for path, text in texts.items() if path.endswith(".py")}
    every = {path for change in changes for path in change.paths}
    paths = {path for path in every if _is_test(path, contents.get(path), around)}
    paths |= _data_of_tests(changes, paths, around)
    left = {change.new_path for change in changes if change.new_path}
    modules = sorted(path for path in paths & left if _is_module(path, contents.get(path), around.names))
    return ChangedTests(frozenset(paths), tuple(modules))


def _is_test(path: str, content: PythonTests | None, around: Surroundings) -> bool:
    folder = test_folder(path)
    if folder and not _is_product(folder, around):
        return True
    if is_conftest(path) or is_test_data(path) or _is_steering(path):
        return True
    in_package = around.is_package(str(PurePosixPath(path).parent))
    if content is None:
        return is_named_as_test(path) and not folder
    if content.tests or (content.helpers and not in_package):
        return True
    return is_named_as_test(path) and (content.imports_library or not in_package)


def _is_product(folder: str, around: Surroundings) -> bool:
    """A package `test` inside a package, in which nothing is named as pytest wants it: django/test, for one."""
    parent, _, name = folder.rpartition("/")
    if name != "test" or not (around.is_package(parent) and around.is_package(folder)):
        return False
    return not any(path.startswith(f"{folder}/") and is_test_module(path) for path in around.paths)


def _is_steering(path: str) -> bool:
    """Named as pytest looks for tests; a solution may not touch such a file, whatever it holds."""
    name = PurePosixPath(path).name.lower()
    return name.endswith(".py") and (name.startswith("test_") or name.endswith("_test.py"))


def _is_module(path: str, content: PythonTests | None, names: TestNames) -> bool:
    """Whether pytest could find tests in it. Some are named like tests and hold none: input of a type checker."""
    if not path.endswith(".py") or is_conftest(path):
        return False
    is_named = is_test_module(path) or names.is_file(PurePosixPath(path).name)
    if content is None:
        return is_named
    return bool(content.tests) or (is_named and content.could_run)


def _data_of_tests(changes: Sequence[FileChange], tests: Collection[str], around: Surroundings) -> set[str]:
    """New data files that only the tests' added lines name."""
    new = [c.new_path for c in changes if c.old_path is None and c.new_path and _could_be_data(c.new_path, around)]
    if not (new := [path for path in new if path not in tests]):
        return set()
    ours = "\n".join(_added(change) for change in changes if change.path in tests)
    others = "\n".join(_added(change) for change in changes if change.path not in tests and not is_docs(change.path))
    names = {path: PurePosixPath(path).name for path in new}
    return {path for path, name in names.items() if name in ours and name not in others}


def _could_be_data(path: str, around: Surroundings) -> bool:
    file = PurePosixPath(path)
    if is_python(path) or is_docs(path) or len(file.parts) < 2 or len(file.name) < _MIN_NAME:
        return False
    return not file.parts[0].startswith(".") and not any(around.is_package(str(folder)) for folder in file.parents)


def _added(change: FileChange) -> str:
    return "\n".join(line for line in change.text.split("\n") if line.startswith("+") and not line.startswith("+++ "))
