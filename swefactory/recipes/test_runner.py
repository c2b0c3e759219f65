"""Which runner an instance's tests need: pytest, unittest alone, or Django's own. Decided from files alone.

pytest runs unittest suites as well, and does so wherever it can. Another runner is chosen by evidence only:

    a pytest command, or pytest named among what tests need          pytest
    manage.py test · runtests.py of Django · django-admin test       Django's set-up is needed: that script
    no command; manage.py with a settings module, or a runtests.py   the same
    python -m unittest, and load_tests in test files                 unittest: pytest does not honour that protocol
    python -m unittest otherwise                                     pytest, until it fails (repair unittest_runner)
"""

import re
import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from swefactory.file_kinds import is_test_path
from swefactory.recipes.automation import TestRun
from swefactory.recipes.files import read_text
from swefactory.runners import PYTEST, UNITTEST

_PYTEST = re.compile(r"(^|\s|/)(py\.?test)(\s|$)")
_UNITTEST = re.compile(r"(^|\s)unittest(\s|$)")
_SETTINGS = re.compile(r"""DJANGO_SETTINGS_MODULE['"]?\s*[,:=\]]+\s*=?\s*['"]([\w.]+)['"]""")
_STARTS_DJANGO = re.compile(r"django\.setup\(|get_runner\(|DiscoverRunner|execute_from_command_line|call_command\(")
_LOAD_TESTS = re.compile(r"^def load_tests\(", re.MULTILINE)
_SCRIPTS = ("runtests.py", "tests/runtests.py", "run_tests.py", "tests/run_tests.py", "runtest.py", "quicktest.py")
_CONFIGURATIONS = (
    ("pytest.ini", "[pytest]"), ("tox.ini", "[pytest]"), ("setup.cfg", "[tool:pytest]"),
    ("pyproject.toml", "[tool.pytest"),
)  # fmt: skip


@dataclass(frozen=True)
class Runner:
    """A test command, argv after the interpreter, and why it is this one."""

    command: tuple[str, ...]
    why: str


def choose_runner(tree: Path, run: TestRun, named: Collection[str]) -> Runner:
    """The runner for the checkout at `tree`; `run` is how the project tests itself, `named` are the distributions that
    it names for its tests."""
    said = f"{run.command} ({run.origin})" if run.command else ""
    if _PYTEST.search(run.command):
        return Runner(PYTEST, said)
    if any(name.startswith("pytest") for name in named):
        return Runner(PYTEST, "the project names pytest for its tests")
    if found := next((path for path, section in _CONFIGURATIONS if section in read_text(tree, path)), ""):
        return Runner(PYTEST, f"{found} configures pytest")
    if django := _django(tree, run, said):
        return django
    if _UNITTEST.search(run.command):
        if found := next(_with_load_tests(tree), ""):
            return Runner(UNITTEST, f"{said}; {found} defines load_tests, which pytest does not honour")
        return Runner(PYTEST, f"{said}: pytest runs unittest's suites")
    return Runner(PYTEST, f"{said or 'nothing names a test command'}: pytest runs unittest's suites")


def _django(tree: Path, run: TestRun, said: str) -> Runner | None:
    words = _words(run.command)
    settings = tuple(_settings(words))
    for n, word in enumerate(words):
        name = word.rpartition("/")[2]
        if name == "manage.py" and "test" in words[n + 1 :] and (script := _script(tree, word)):
            return Runner((script, "test", *settings), f"{said}: Django's set-up is needed")
        if name.endswith(".py") and (script := _script(tree, word)) and _STARTS_DJANGO.search(read_text(tree, script)):
            return Runner((script, *settings), f"{said}: this script sets Django up")
        if name.removesuffix(".py") in ("django-admin", "django") and "test" in words[n + 1 :]:
            return Runner(("-m", "django", "test", *settings), f"{said}: Django's set-up is needed")
    return None if _UNITTEST.search(run.command) else _unsaid(tree)


def _unsaid(tree: Path) -> Runner | None:
    """Where nothing says how tests are run, or not by pytest, but Django's own way stands there."""
    found = _SETTINGS.search(read_text(tree, "manage.py"))
    if found:
        return Runner(("manage.py", "test"), f"manage.py sets Django up with {found[1]}, and nothing names pytest")
    for script in _SCRIPTS:
        if _STARTS_DJANGO.search(read_text(tree, script)):
            return Runner((script,), f"{script} sets Django up, and nothing names pytest")
    return None


def _settings(words: Sequence[str]) -> Iterator[str]:
    for n, word in enumerate(words):
        if re.fullmatch(r"--settings=[\w.]+", word):
            yield word
        elif word == "--settings" and re.fullmatch(r"[\w.]+", "".join(words[n + 1 : n + 2])):
            yield f"--settings={words[n + 1]}"


def _script(tree: Path, word: str) -> str:
    """The script's path in the checkout: commands are often run in a folder below it."""
    name = word.removeprefix("./")
    places = (name, f"tests/{name}", *(str(path.relative_to(tree)) for path in sorted(tree.glob(f"*/{name}"))))
    return next((place for place in places if ".." not in place and (tree / place).is_file()), "")


def _with_load_tests(tree: Path) -> Iterator[str]:
    for path in sorted(tree.rglob("*.py")):
        place = path.relative_to(tree).as_posix()
        if is_test_path(place) and _LOAD_TESTS.search(read_text(tree, place)):
            yield place


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:
        return command.split()
