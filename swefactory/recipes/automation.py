"""How a project's own automation tests it: what tox, nox and CI install, run and set. One property: nothing is run.

The command and the variables are those of tox, else nox, else the CI job that runs the tests. We run the tests of an
instance ourselves, file by file; the project's command decides only by which runner, see `test_runner`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from swefactory.recipes.ci_files import CiJob
from swefactory.recipes.files import read_text
from swefactory.recipes.nox_files import nox_tool
from swefactory.recipes.shell import Installs, commands, commands_that_test, installs
from swefactory.recipes.tox_files import TestTool, tox_tool
from swefactory.sandbox_protocols import CHECKOUT_DIR

# Variables that steer the interpreter, the loader or our own run are never taken over; nor is what may be a secret.
_REFUSED = re.compile(
    r"^(PYTHON(?!UTF8$|IOENCODING$|ASYNCIODEBUG$)|LD_|DYLD_|PYTEST_|COV|TOX|NOX|GITHUB_|GITLAB_|CI$|CI_|TRAVIS|APPVEYOR"
    r"|CIRCLE|SETUPTOOLS_|DIFF_AGAINST|RUNNER_|ACTIONS_|PIP_|UV_|HATCH_|POETRY_|VIRTUALENV|PRE_COMMIT|CIBW_|SWEFACTORY|(PATH|HOME|TMPDIR|TMP|TEMP"
    r"|SHELL|USER|PWD|IFS|ENV|BASH_ENV|DISPLAY|CC|CXX|CFLAGS|LDFLAGS|FORCE_COLOR|NO_COLOR|TERM|COLUMNS|PY_COLORS"
    r"|MYPY_FORCE_COLOR|DEFAULT_PYTHON|VERSION|RELEASE)$)"
    r"|TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|PROXY|COVERAGE|CODECOV|COVERALLS"
)
_PLAIN = re.compile(r"^[^${}`\n\\]*$")


_ITS_OWN = re.compile(r"^(pip|setuptools|wheel|virtualenv|poetry|pdm|hatch|uv|pipenv|awscli)\b(?!\s*\[)", re.IGNORECASE)


@dataclass(frozen=True)
class TestRun:
    """The project's own test command and its variables, each with its origin."""

    __test__ = False
    command: str = ""
    origin: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)


def test_tools(tree: Path, jobs: Sequence[CiJob], python_version: str) -> tuple[tuple[str, TestTool], ...]:
    """tox, nox and CI, as they test on this Python; each may be empty."""
    return (
        ("tox", tox_tool(tree, python_version)),
        ("nox", nox_tool(tree)),
        ("ci", _ci_tool(tree, jobs, python_version)),
    )


def _ci_tool(tree: Path, jobs: Sequence[CiJob], python_version: str) -> TestTool:
    """What the jobs that run tests install: the first that runs on this Python, and else the first at all."""
    testing = [job for job in jobs if job.runs_tests]
    fitting = [job for job in testing if python_version in job.pythons] or testing
    for job in fitting:
        scripts = [text for script in job.scripts for text in (script, *_called(tree, script))]
        found = Installs(
            tuple(line for script in scripts for line in installs(script).lines if not _ITS_OWN.match(line)),
            tuple(name for script in scripts for name in installs(script).groups),
        )
        tests = tuple(" ".join(words) for script in scripts for words in commands_that_test(script))
        if found.lines or found.groups or tests:
            return TestTool(job.origin, found.lines, (), found.groups, tests, job.variables)
    return TestTool()


def _called(tree: Path, script: str) -> list[str]:
    """The texts of the checkout's own shell scripts that a script starts, such as scripts/install."""
    named = (word for words in commands(script) for word in words[:2])
    paths = [name.removeprefix("./") for name in named if re.fullmatch(r"(\./)?[\w-]+(/[\w.-]+)*", name)]
    texts = [read_text(tree, path) for path in dict.fromkeys(paths) if not path.endswith(".py")]
    return [text for text in texts if re.match(r"#!.*\b(sh|bash|zsh|dash)\b", text)]


def test_run(tools: Sequence[tuple[str, TestTool]]) -> TestRun:
    """The first command that runs tests, and the variables of all tools, those of the first winning."""
    command, origin = "", ""
    variables: dict[str, str] = {}
    origins: dict[str, str] = {}
    for _, tool in tools:
        runs = [words for line in tool.commands for words in commands_that_test(_without_braces(line))]
        direct = [words for words in runs if words[0] not in ("tox", "nox", "make", "hatch")] or runs
        if direct and not command:
            command, origin = " ".join(direct[0]), tool.origin
        for name, spelled in tool.variables.items():
            value = spelled.replace("{toxinidir}", CHECKOUT_DIR)
            if name not in variables and not _REFUSED.search(name.upper()) and _PLAIN.match(value):
                variables[name], origins[f"variable {name}"] = value, tool.origin
    return TestRun(command, origin, dict(sorted(variables.items())), origins)


def _without_braces(line: str) -> str:
    plain = re.sub(r"\{posargs:?([^{}]*)\}", r"\1", line).replace("{envpython}", "python")
    return plain.replace("{toxinidir}/", "").replace("{toxinidir}", ".")
