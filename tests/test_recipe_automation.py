"""tox, nox, CI and shell steps: which Pythons, what they install, run and set; and what the system must have."""

# ruff: noqa: E501  (tables of file contents read best unwrapped)

from datetime import UTC, datetime
from pathlib import Path

import pytest

from swefactory.protocols import Recipe
from swefactory.recipes.ci_files import read_jobs
from swefactory.recipes.nox_files import nox_pythons, nox_tool
from swefactory.recipes.python import detect
from swefactory.recipes.python_names import expanded, factors
from swefactory.recipes.shell import apt_packages, commands, commands_that_test, installs
from swefactory.recipes.system_packages import from_ci
from swefactory.recipes.tox_files import tox_pythons, tox_tool
from tests.fake_environments import write_tree

HEAD = '[project]\nname = "x"\nversion = "1"\n'


def recipe(folder: Path, files: dict[str, str]) -> Recipe:
    tree = write_tree(folder, {"pyproject.toml": HEAD, **files})
    return detect(tree, as_of=datetime(2023, 6, 1, tzinfo=UTC), pythons=("2.7", "3.8", "3.9", "3.10", "3.11"))


def pythons(folder: Path, path: str, content: str) -> list[tuple[str, tuple[str, ...]]]:
    return [(job.origin, job.pythons) for job in read_jobs(write_tree(folder, {path: content}))]


# ---------------------------------------------------------------- CI


MATRIX = """
on: push
jobs:
  lint:
    steps:
      - uses: actions/setup-python@v4
        with: {python-version: '3.11'}
      - run: pre-commit run
  tests:
    strategy:
      matrix:
        python: ["3.8", "3.9", "3.10", pypy-3.9]
        os: [ubuntu-latest, macos-latest]
        exclude:
          - {python: "3.8"}
        include:
          - {python: "3.7", os: ubuntu-20.04}
          - {os: ubuntu-latest, experimental: true}
    steps:
      - uses: actions/setup-python@v4
        with:
          python-version: ${{ matrix.python }}
      - run: |
          sudo apt-get update && sudo apt-get install -y --no-install-recommends \\
            libxml2-dev graphviz git libmagic1=1:5.*
          pip install -U pip "tox<4"
      - run: tox
"""


def test_a_matrix_is_spread_with_include_and_exclude_and_its_expressions(tmp_path: Path) -> None:
    found = pythons(tmp_path, ".github/workflows/ci.yml", MATRIX)
    assert [origin for origin, _ in found] == [
        ".github/workflows/ci.yml jobs.tests",
        ".github/workflows/ci.yml jobs.lint",
    ]
    assert sorted(found[0][1]) == ["3.10", "3.7", "3.9"]


def test_jobs_that_run_tests_decide_before_those_that_do_not(tmp_path: Path) -> None:
    found = recipe(tmp_path, {".github/workflows/ci.yml": MATRIX})
    assert (found.python_version, found.why["python_version"]) == ("3.10", ".github/workflows/ci.yml jobs.tests")
    verdicts = {(each.version, each.origin.split()[-1]): each.verdict for each in found.considered}
    assert verdicts[("3.10", "jobs.tests")] == "chosen"
    assert verdicts[("3.7", "jobs.tests")] == "no sandbox offers it"
    assert verdicts[("3.9", "jobs.tests")] == "an earlier place or a newer version decides"


@pytest.mark.parametrize(
    ("path", "content", "expected"),
    [
        (".travis.yml", 'python: ["2.7", 3.6, nightly]\nmatrix:\n  include:\n    - {python: "3.7-dev"}\n    - env: TOXENV=py38\nscript: pytest\n', ["2.7", "3.6", "3.8"]),
        (".gitlab-ci.yml", "image: python:3.8-slim\n.base: {script: [pytest]}\na: {extends: .base}\nb: {extends: .base, image: 'python:3.9', parallel: {matrix: [{V: ['3.10', '3.11']}]}}\n", ["3.8", "3.9", "3.10", "3.11"]),
        ("appveyor.yml", 'environment:\n  matrix:\n    - PYTHON: "C:\\\\Python36-x64"\n    - {PYTHON: "C:\\\\Python310", TOXENV: py310}\ntest_script: [pytest]\n', ["3.6", "3.10"]),
        (".circleci/config.yml", "jobs:\n  t:\n    docker: [{image: 'cimg/python:3.8.1'}]\n    steps: [{run: pytest}]\nworkflows:\n  w:\n    jobs:\n      - t: {matrix: {parameters: {python-version: ['3.9', '3.10']}}}\n", ["3.9", "3.10", "3.8"]),
        ("azure-pipelines.yml", "jobs:\n- job: t\n  strategy:\n    matrix:\n      py38: {python.version: '3.8'}\n      py39: {python.version: '3.9'}\n  steps: [{script: pytest}]\n", ["3.8", "3.9"]),
        (".github/workflows/a.yml", "jobs:\n  t:\n    strategy:\n      matrix: ${{ fromJSON('{\"py\":[\"3.8\",\"3.9\"]}') }}\n    steps:\n    - uses: actions/setup-python@v5\n      with: {python-version: \"${{ matrix.py || '3.7' }}\"}\n    - run: pytest\n", ["3.8", "3.9"]),
        (".github/workflows/a.yml", "jobs:\n  t:\n    container: python:3.9\n    steps: [{run: pytest}]\n", ["3.9"]),
    ],
)  # fmt: skip
def test_every_kind_of_ci_names_its_pythons(tmp_path: Path, path: str, content: str, expected: list[str]) -> None:
    found = [version for _, versions in pythons(tmp_path, path, content) for version in versions]
    assert list(dict.fromkeys(found)) == expected


def test_ci_steps_are_a_fallback_that_follows_the_projects_own_scripts(tmp_path: Path) -> None:
    workflow = "jobs:\n  t:\n    steps:\n    - run: scripts/install\n    - run: scripts/test\n"
    script = "#!/bin/sh -e\nvenv/bin/pip install -r requirements-all.txt 'mock>=4'\n"
    files = {
        ".github/workflows/t.yml": workflow,
        "scripts/install": script,
        "requirements-all.txt": "pytest==7.1\n-e .\n",
    }
    found = recipe(tmp_path / "a", files)
    assert found.requirements == ("mock>=4", "pytest==7.1")
    assert found.origins["mock>=4"] == ".github/workflows/t.yml jobs.t"
    assert found.origins["pytest==7.1"] == "requirements-all.txt:1"
    better = recipe(tmp_path / "b", {**files, "requirements-test.txt": "pytest>=7\n"})
    assert better.requirements == ("pytest>=7",)
    assert [(rung.name, rung.is_fallback) for rung in better.rungs] == [("requirements file", False), ("ci", True)]


# ---------------------------------------------------------------- tox


TOX = """
[tox]
envlist = lint, py{38,39}-{django32,django41}, py310
[base]
deps =
    pytest
[testenv]
deps =
    {[base]deps}
    django32: Django>=3.2,<4
    django41: Django>=4.1,<4.2
    py38: mock
    !py38: pretend
    -r{toxinidir}/more.txt
extras = fast, slow
setenv =
    PYTHONWARNINGS = error
    DJANGO_SETTINGS_MODULE = tests.settings
    HERE = {toxinidir}/data
    API_TOKEN = abc
passenv = HOME
commands = coverage run -m pytest -ra {posargs:tests}
[testenv:py310]
deps = pytest>=7
"""


def test_tox_is_read_for_one_python_with_its_factors(tmp_path: Path) -> None:
    tree = write_tree(tmp_path, {"tox.ini": TOX, "more.txt": "idna\n"})
    assert tox_pythons(tree) == (("3.8", "3.9", "3.10"), "tox.ini [tox] envlist")
    tool = tox_tool(tree, "3.9")
    assert tool.lines == ("pytest", "Django>=3.2,<4", "pretend", "-r{toxinidir}/more.txt")
    assert tool.extras == ("fast", "slow")
    assert tox_tool(tree, "3.8").lines[2] == "mock"
    own = tox_tool(tree, "3.10")
    assert (own.lines, own.origin) == (("pytest>=7",), "tox.ini [testenv:py310]")


def test_variables_of_tox_come_without_those_that_steer_the_interpreter_or_are_secret(tmp_path: Path) -> None:
    found = recipe(tmp_path, {"tox.ini": TOX, "more.txt": "idna\n"})
    assert found.environment_variables == {"DJANGO_SETTINGS_MODULE": "tests.settings", "HERE": "/testbed/data"}
    assert found.origins["variable HERE"] == "tox.ini [testenv:py310]"
    assert found.why["test_command"] == "pytest -ra tests (tox.ini [testenv:py310])"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("py{37,38}-{a,b}", ["py37-a", "py37-b", "py38-a", "py38-b"]), ("py3{8,9}", ["py38", "py39"]),
        ("{py38,py39}{,-x}", ["py38", "py38-x", "py39", "py39-x"]), ("py{38", ["py38"]), ("{{{{", [""]),
    ],
)  # fmt: skip
def test_generative_names_are_spread(text: str, expected: list[str]) -> None:
    assert expanded(text) == expected


def test_factors_are_not_found_inside_other_words() -> None:
    assert factors("pypy39, happy38, py39t, py310-x, python3.11") == ["3.10", "3.11"]


# ---------------------------------------------------------------- nox


NOX = """
import nox
PYTHONS = ["3.8", "3.9"]
DEPS = ["pretend"] + ["mock"]
def helper(session):
    session.install("-r", "more.txt")
@nox.session(python=PYTHONS)
@nox.parametrize("x", [1])
def tests(session, x):
    helper(session)
    session.install("-e", ".[fast]", *DEPS, silent=False)
    session.install(*nox.project.dependency_groups(PYPROJECT, "test"))
    session.env["MODE"] = "full"
    session.run("coverage", "run", "-m", "pytest", "tests", env={"OTHER": "1"})
@nox.session(python="3.11")
def docs(session):
    session.install("sphinx")
    session.run("sphinx-build")
"""


def test_nox_sessions_are_followed_into_their_helpers(tmp_path: Path) -> None:
    tree = write_tree(tmp_path, {"noxfile.py": NOX})
    assert nox_pythons(tree)[0] == ("3.8", "3.9")
    tool = nox_tool(tree)
    assert tool.lines == ("-r more.txt", "-e .[fast]", "pretend", "mock")
    assert tool.groups == ("test",)
    assert tool.variables == {"MODE": "full", "OTHER": "1"}
    assert tool.commands == ("pytest tests",)


# ---------------------------------------------------------------- shell


def test_shell_text_is_read_as_commands_without_their_wrappers() -> None:
    script = (
        'A=1 sudo -E apt-get install -y x && python3.9 -m pip install \\\n  ".[test]" # why\nuv run --with a pytest -q'
    )
    assert list(commands(script)) == [
        ("apt-get", "install", "-y", "x"), ("python3.9", "-m", "pip", "install", ".[test]"), ("pytest", "-q"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("script", "lines", "groups"),
    [
        ("pip install -U pip -r a.txt -c c.txt --index-url https://x/ 'b>=1' $OTHER", ("pip", "-r a.txt", "-c c.txt", "b>=1"), ()),
        ("uv pip install --group dev -e .[x]", ("-e .[x]",), ("dev",)),
        ("uv sync --no-dev --group tests --extra a", (".[a]",), ("tests",)),
        ("poetry install --with test,docs -E cli", (".[cli]",), ("dev", "test", "docs")),
        ("pdm install -G test", (".",), ("test",)), ("pipenv install --dev", (), ("pipenv", "dev")),
        ("npm install left-pad; echo pip install z", (), ()),
    ],
)  # fmt: skip
def test_installs_of_every_tool(script: str, lines: tuple[str, ...], groups: tuple[str, ...]) -> None:
    found = installs(script)
    assert (found.lines, found.groups) == (lines, groups)


@pytest.mark.parametrize(
    "script",
    [
        "pytest",
        "python -m pytest x",
        "tox -e py39",
        "make test",
        "python setup.py test",
        "nox",
        "./scripts/test",
        "coverage run -m unittest",
    ],
)
def test_a_step_that_runs_tests_is_known(script: str) -> None:
    assert commands_that_test(script)


@pytest.mark.parametrize(
    "script", ["pytest --version", "tox -e docs", "nox -s lint", "pip install pytest", "make docs", "echo tox"]
)
def test_a_step_that_runs_none_is_known_too(script: str) -> None:
    assert not commands_that_test(script)


# ---------------------------------------------------------------- system packages


def test_apt_lines_in_all_their_forms() -> None:
    folded = "sudo apt-get -qq update; sudo apt-get install -y -t stable libfoo-dev=1.2* libbar1/testing $MORE && apt install zip"
    assert apt_packages(folded) == ("libfoo-dev", "libbar1", "zip")


def test_system_packages_of_the_run_are_told_from_those_of_a_build(tmp_path: Path) -> None:
    tree = write_tree(tmp_path, {".github/workflows/ci.yml": MATRIX})
    found = from_ci(read_jobs(tree))
    origin = ".github/workflows/ci.yml jobs.tests"
    assert found.run == {"graphviz": origin, "libmagic1": origin}
    assert found.build == {"libxml2-dev": origin}


def test_a_requirement_that_loads_a_library_brings_it(tmp_path: Path) -> None:
    found = recipe(tmp_path, {"requirements-test.txt": "pytest\npython-magic\n"})
    assert found.system_packages == ("libmagic1",)
    assert found.origins["libmagic1"] == "loaded by python-magic"


# ---------------------------------------------------------------- which runner


MANAGE = "import os\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'site1.settings')\n"
RUNTESTS = "import django\ndjango.setup()\n"
TESTENV = "[tox]\nenvlist = py310\n[testenv]\ndeps = six\ncommands = {0}\n"


@pytest.mark.parametrize(
    ("files", "command", "why"),
    [
        ({}, "-m pytest", "nothing names a test command"),
        ({"manage.py": MANAGE}, "manage.py test", "with site1.settings, and nothing names pytest"),
        ({"manage.py": MANAGE, "pytest.ini": "[pytest]\n"}, "-m pytest", "pytest.ini configures pytest"),
        ({"manage.py": MANAGE, "requirements-dev.txt": "pytest-django\n"}, "-m pytest", "names pytest"),
        (
            {"web/manage.py": MANAGE, "tox.ini": TESTENV.format("coverage run manage.py test --settings s.test -v2 web")},
            "web/manage.py test --settings=s.test", "tox.ini [testenv]): Django's set-up",
        ),
        (
            {"tests/runtests.py": RUNTESTS, "tox.ini": TESTENV.format("{envpython} runtests.py {posargs:--parallel 1}")},
            "tests/runtests.py", "this script sets Django up",
        ),
        ({"runtests.py": RUNTESTS, "tox.ini": TESTENV.format("python setup.py test")}, "runtests.py", "sets Django up"),
        ({"tox.ini": TESTENV.format("django-admin test --settings=s.test")}, "-m django test --settings=s.test", "Django"),
        ({"tox.ini": TESTENV.format("python -m unittest discover")}, "-m pytest", "pytest runs unittest's suites"),
        ({"manage.py": MANAGE, "tox.ini": TESTENV.format("python -m unittest")}, "-m pytest", "runs unittest's suites"),
        (
            {"tox.ini": TESTENV.format("python -m unittest"), "tests/test_a.py": "def load_tests(a, b, c): pass\n"},
            "-m unittest", "tests/test_a.py defines load_tests",
        ),
        (
            {"tox.ini": TESTENV.format("pytest"), "tests/test_a.py": "def load_tests(a, b, c): pass\n"},
            "-m pytest", "pytest (tox.ini [testenv])",
        ),
    ],
)  # fmt: skip
def test_the_runner_is_pytest_unless_evidence_says_otherwise(
    files: dict[str, str], command: str, why: str, tmp_path: Path
) -> None:
    found = recipe(tmp_path, files)
    assert (" ".join(found.test_command), why in found.why["runner"]) == (command, True), found.why["runner"]
    assert ("pytest" in found.requirements) == (command == "-m pytest")
