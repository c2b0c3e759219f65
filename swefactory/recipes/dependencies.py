"""What must be installed to run a checkout's tests. One property: the checkout itself is never among it.

Run-time and build requirements come always. Test requirements come from every place that is named for tests; places
named for development count only when there is no other, because they bring linters that pin the rest.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from swefactory.recipes.ci_config import nox_lines, tox_tool
from swefactory.recipes.declared import Declared
from swefactory.recipes.files import ini_value, read_ini, read_toml, strings, table, text
from swefactory.recipes.locks_of_projects import locked_pins
from swefactory.recipes.requirements import FileRequirements, name_of, read_lines, read_requirements

_TEST_NAMES = ("tests", "test", "testing", "tests-extra", "unittest", "unit-tests", "pytest", "test-suite", "all-tests")
_DEV_NAMES = ("dev", "develop", "development", "devel", "ci", "all", "pipenv")
_TEST_FILES = (
    "requirements/tests.txt", "requirements/test.txt", "requirements/testing.txt", "requirements/tests.in",
    "requirements-tests.txt", "requirements-test.txt", "requirements_tests.txt", "requirements_test.txt",
    "test-requirements.txt", "tests-requirements.txt", "test_requirements.txt", "requirements.test.txt",
    "tests/requirements.txt", "test/requirements.txt", "tests/requirements-test.txt", "requirements/pytest.txt",
)  # fmt: skip
_DEV_FILES = (
    "requirements/dev.txt", "requirements/development.txt", "requirements-dev.txt", "requirements_dev.txt",
    "dev-requirements.txt", "dev_requirements.txt", "requirements/ci.txt", "requirements-ci.txt",
)  # fmt: skip

# Programs that no test imports; dropped wherever they are named.
_TOOLS = re.compile(
    r"^(tox(-.*)?|nox|pre-commit|twine|codecov|coveralls|bump2version|bumpversion|bumpver|towncrier|check-manifest"
    r"|flake8(-.*)?|pep8-naming|isort|black|ruff|autopep8|yapf|pyupgrade|doc8|zest-releaser|check-wheel-contents"
    r"|python-semantic-release|commitizen|gitlint|codespell|interrogate|prospector|vulture|bandit|safety|pip-tools)$"
)
# Documentation and type tools: kept where tests ask for them, dropped from development lists.
_DOCS = re.compile(
    r"^(sphinx(-.*|contrib-.*)?|sphinxcontrib-.*|furo|pallets-sphinx-themes|mkdocs(-.*)?|myst-parser|.*-theme|alabaster"
    r"|docutils|mypy|pyright|pytype|types-.*|.*-stubs|pylint(-.*)?|jupyter|notebook|ipython|build|wheel|ipdb|gitpython)$"
)
_BUILD_TOOLS = ("pip", "setuptools", "wheel")
_OPTIONS = {
    "--cov": "pytest-cov", "-n": "pytest-xdist", "--numprocesses": "pytest-xdist", "--timeout": "pytest-timeout",
    "--asyncio-mode": "pytest-asyncio", "--reruns": "pytest-rerunfailures", "--benchmark": "pytest-benchmark",
    "--flake8": "pytest-flake8", "--mypy": "pytest-mypy", "--random-order": "pytest-random-order",
    "--disable-socket": "pytest-socket", "--django": "pytest-django", "--isort": "pytest-isort",
}  # fmt: skip
_SETTINGS = {"asyncio_mode": "pytest-asyncio", "timeout": "pytest-timeout", "DJANGO_SETTINGS_MODULE": "pytest-django"}


@dataclass(frozen=True)
class Dependencies:
    """PEP 508 texts, sorted, and which place each group came from."""

    requirements: tuple[str, ...]
    constraints: tuple[str, ...]
    why: Mapping[str, str]


def choose(tree: Path, declared: Declared) -> Dependencies:
    """Everything to install for the tests of the checkout at `tree`."""
    found: dict[str, FileRequirements] = {"run time": FileRequirements(declared.requires)}
    tests = _test_places(tree, declared)
    found |= tests or _dev_places(tree, declared)
    found["pytest's options"] = FileRequirements(_from_pytest_options(tree))
    found["build"] = FileRequirements(declared.build_requires)
    expanded = {place: _expand(part.requirements, declared) for place, part in found.items()}
    kept = {place: _without_tools(lines, strict=not tests) for place, lines in expanded.items()}
    requirements = _unique(line for lines in kept.values() for line in lines)
    requirements = tuple(line for line in requirements if name_of(line) != canonicalize_name(declared.name or "-"))
    why = {"requirements": ", ".join(place for place, lines in kept.items() if lines)}
    if not any(name_of(line) == "pytest" for line in requirements):
        requirements, why["pytest"] = (*requirements, "pytest"), "nothing names it"
    pins, lock = locked_pins(tree)
    pins = tuple(pin for pin in pins if name_of(pin) not in _BUILD_TOOLS)
    why |= {"constraints": lock} if pins else {}
    constraints = _unique((*(line for part in found.values() for line in part.constraints), *pins))
    return Dependencies(tuple(sorted(requirements)), tuple(sorted(constraints)), why)


def _test_places(tree: Path, declared: Declared) -> dict[str, FileRequirements]:
    """The places named for tests, by name; those with nothing in them are left out."""
    tox = tox_tool(tree)
    file = next((path for path in _TEST_FILES if read_requirements(tree, path).requirements), "")
    extras = [n for n in declared.extras if canonicalize_name(n) in _TEST_NAMES]
    groups = [n for n in declared.development if canonicalize_name(n) in _TEST_NAMES]
    places = {
        file: read_requirements(tree, file) if file else FileRequirements(),
        **{f"extra {name}": FileRequirements(declared.extras[name]) for name in extras},
        **{f"group {name}": FileRequirements(declared.development[name]) for name in groups},
        "tests_require": FileRequirements(declared.tests_require),
        "tox deps": read_lines(tree, tox.lines),
        "tox extras": FileRequirements(tuple(f".[{name}]" for name in tox.extras)),
        "tox groups": FileRequirements(tuple(r for name in tox.groups for r in declared.development.get(name, ()))),
        "nox": read_lines(tree, nox_lines(tree)),
    }
    named = {place: part for place, part in places.items() if part.requirements}
    return named if any(_names_a_test_tool(part, declared) for part in named.values()) else {}


def _names_a_test_tool(part: FileRequirements, declared: Declared) -> bool:
    """tox's `deps = -e .` alone says nothing about the tests."""
    return any(not _TOOLS.match(name_of(line)) for line in _expand(part.requirements, declared))


def _dev_places(tree: Path, declared: Declared) -> dict[str, FileRequirements]:
    """The places named for development, and as a last resort the plain requirements.txt."""
    file = next((path for path in _DEV_FILES if read_requirements(tree, path).requirements), "")
    places = {
        **{
            f"group {n}": FileRequirements(r)
            for n, r in declared.development.items()
            if canonicalize_name(n) in _DEV_NAMES
        },
        **{f"extra {n}": FileRequirements(r) for n, r in declared.extras.items() if canonicalize_name(n) in _DEV_NAMES},
        file: read_requirements(tree, file) if file else FileRequirements(),
    }
    named = {place: part for place, part in places.items() if part.requirements}
    if not named and not declared.requires:
        plain = read_requirements(tree, "requirements.txt")
        named = {"requirements.txt": plain} if plain.requirements else {}
    return named


def _expand(lines: Iterable[str], declared: Declared, above: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """Replaces the checkout itself, `.[test]` or `name[test]`, by what the extra holds."""
    own = canonicalize_name(declared.name or "-")
    extras = {canonicalize_name(name): items for name, items in declared.extras.items()}
    found: list[str] = []
    for line in lines:
        itself = line.startswith(".")
        requirement = Requirement(f"self{line[1:]}" if itself else line)
        if not itself and canonicalize_name(requirement.name) != own:
            found.append(line)
            continue
        for extra in sorted(map(canonicalize_name, requirement.extras)):
            if extra not in above:
                found += _expand(extras.get(extra, ()), declared, above | {extra})
    return tuple(found)


def _without_tools(lines: Iterable[str], *, strict: bool) -> tuple[str, ...]:
    return tuple(
        line for line in lines if not _TOOLS.match(name_of(line)) and not (strict and _DOCS.match(name_of(line)))
    )


def is_tool(name: str) -> bool:
    """Whether `name` is a lint, release or documentation tool, which tests can do without."""
    return bool(_TOOLS.match(canonicalize_name(name)) or _DOCS.match(canonicalize_name(name)))


def _unique(lines: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(lines))


def _from_pytest_options(tree: Path) -> tuple[str, ...]:
    """Plugins that pytest's configuration needs and nothing need name: `--cov` fails without pytest-cov."""
    options, settings = _pytest_configuration(tree)
    words = options.split()
    found = [plugin for flag, plugin in _OPTIONS.items() if any(_is_option(word, flag) for word in words)]
    found += [plugin for name, plugin in _SETTINGS.items() if name in settings]
    return tuple(sorted(set(found)))


def _is_option(word: str, flag: str) -> bool:
    return word.startswith(flag) if flag.startswith("--") else bool(re.fullmatch(rf"{flag}(\d+|auto)?", word))


def _pytest_configuration(tree: Path) -> tuple[str, frozenset[str]]:
    """addopts, and the names of the settings, from the first file that holds any."""
    for path, section in (
        ("pytest.ini", "pytest"),
        (".pytest.ini", "pytest"),
        ("tox.ini", "pytest"),
        ("setup.cfg", "tool:pytest"),
    ):
        parser = read_ini(tree, path)
        if parser.has_section(section):
            return ini_value(parser, section, "addopts"), frozenset(parser.options(section))
    pytest = table(read_toml(tree, "pyproject.toml"), "tool", "pytest")
    settings = table(pytest, "ini_options") or pytest
    options = settings.get("addopts")
    return text(options) or " ".join(strings(options)), frozenset(settings)
