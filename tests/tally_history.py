"""A small repository with a history of pull requests, made anew with the same commits each time.

#2  closes #1   the total of nothing, with a parametrised test          validated
#4  closes #3   a mean                                                  validated
#5              names no issue                                          no_linked_issue
#7  closes #6   README only                                             docs_only
#9  closes #8   its test passes without the fix                         tests_pass_before
"""

import os
import subprocess
from pathlib import Path

NAME = "acme/tally"
ISSUES = {
    1: ("total([]) fails", "It raises an IndexError for an empty list, where 0 is expected."),
    3: ("There is no mean", "A function tally.mean(values) would be useful to many; of nothing it is 0."),
    6: ("The README is thin", "Say what the package does and how it is to be installed."),
    8: ("Is total slow?", "It may well be, when it is given a list of many numbers."),
}
VALIDATED = ("acme__tally-2", "acme__tally-4")

_PYPROJECT = """[build-system]
requires = ["setuptools>=61"]
build-backend = "setuptools.build_meta"

[project]
name = "tally"
version = "1.0"
requires-python = ">=3.9"

[project.optional-dependencies]
test = ["pytest"]

[tool.setuptools]
packages = ["tally"]
"""
_TOTAL = """def total(values):
    result = values[0]
    for value in values[1:]:
        result += value
    return result
"""
_TOTAL_FIXED = """def total(values):
    result = 0
    for value in values:
        result += value
    return result
"""
_TOTAL_FASTER = """def total(values):
    return sum(values)
"""
_MEAN = """

def mean(values):
    return total(values) / len(values) if values else 0
"""
_TEST = """import pytest
import tally


def test_total():
    assert tally.total([1, 2]) == 3
"""
_TEST_EMPTY = """

@pytest.mark.parametrize("nothing", [[], (), range(0)])
def test_total_of_nothing(nothing):
    assert tally.total(nothing) == 0
"""
_TEST_MEAN = """

def test_mean():
    assert tally.mean([1, 3]) == 2
    assert tally.mean([]) == 0
"""
_TEST_MANY = """

def test_total_of_many():
    assert tally.total(range(1000)) == 499500
"""


def make_history(folder: Path) -> Path:
    """The repository, in `folder`."""
    folder.mkdir()
    _git(folder, 1, "init", "--quiet", "--initial-branch=main", "--template=")
    code, tests, readme = "tally/__init__.py", "tests/test_tally.py", "README.md"
    _commit(folder, 1, "Begin", {"pyproject.toml": _PYPROJECT, code: _TOTAL, tests: _TEST, readme: "tally\n"})
    steps: list[tuple[str, dict[str, str]]] = [
        ("The total of nothing is 0 (#2)\n\nCloses #1\n", {code: _TOTAL_FIXED, tests: _TEST + _TEST_EMPTY}),
        (
            "Add a mean (#4)\n\nFixes #3\n",
            {code: _TOTAL_FIXED + _MEAN, tests: _TEST + _TEST_EMPTY + _TEST_MEAN},
        ),
        ("Sort the imports (#5)\n", {tests: "import tally\n" + _TEST + _TEST_EMPTY + _TEST_MEAN}),
        ("Say what it does (#7)\n\nCloses #6\n", {readme: "tally adds numbers\n"}),
        (
            "Let sum add (#9)\n\nCloses #8\n",
            {code: _TOTAL_FASTER + _MEAN, tests: _TEST + _TEST_EMPTY + _TEST_MEAN + _TEST_MANY},
        ),
    ]
    for day, (message, files) in enumerate(steps, 2):
        _commit(folder, day, message, files)
    return folder


def _commit(folder: Path, day: int, message: str, files: dict[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    _git(folder, day, "add", "--all")
    _git(folder, day, "commit", "--quiet", "--message", message)


def _git(folder: Path, day: int, *arguments: str) -> None:
    at = f"2024-03-{day:02d}T12:00:00Z"
    who = {f"GIT_{role}_{fact}": value for role in ("AUTHOR", "COMMITTER")
           for fact, value in (("NAME", "Ann"), ("EMAIL", "ann@example.org"), ("DATE", at))}  # fmt: skip
    plain = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(["git", *arguments], cwd=folder, check=True, env={**os.environ, **who, **plain}, timeout=60)
