"""What must be installed to run a checkout's tests. One property: the checkout itself is never among it.

Run-time and build requirements come always. What the tests need comes in rungs, best first:

    extras, groups, tests_require, tox, nox, requirements file            named for tests: all hold together
    ci, development groups, extras and file, requirements.txt             fallbacks, when those name no test tool

Pipfile and poetry, pdm, hatch and uv lists are groups. The ladder (see `ladder`) decides which rungs hold together.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from swefactory.file_kinds import is_test_path
from swefactory.protocols import Rung
from swefactory.recipes.conda_files import conda_dependencies
from swefactory.recipes.declared import Declared
from swefactory.recipes.files import ini_value, read_ini, read_text, read_toml, strings, table, text
from swefactory.recipes.imports import MODULES
from swefactory.recipes.locks_of_projects import locked_pins
from swefactory.recipes.provenance import located
from swefactory.recipes.requirements import FileRequirements, cleaned, name_of, read_lines, read_requirements
from swefactory.recipes.tox_files import TestTool

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
    r"|python-semantic-release|commitizen|gitlint|codespell|interrogate|prospector|vulture|bandit|safety|pip-tools"
    r"|autoflake|seed-isort-config)$"
)
# Documentation tools: kept where tests ask for them, dropped from development lists.
_DOCS = re.compile(
    r"^(sphinx(-.*|contrib-.*)?|sphinxcontrib-.*|furo|pallets-sphinx-themes|mkdocs(-.*)?|myst-parser|.*-theme|alabaster"
    r"|docutils|mkautodoc|jupyter|notebook|ipython|build|wheel|ipdb|gitpython)$"
)
# Type checkers, what brings one along, and stubs that only those read: mypy was 7 of the 25 MB a candidate of 62 real
# ones. Dropped from the tests' own lists, too, unless a test runs one.
_CHECKERS = re.compile(r"^(mypy|pyright|pytype|pylint(-.*)?|trio-typing|types-.*|.*-stubs)$")
_RUNS_CHECKER = re.compile(
    r"""["'](mypy|pyright|pytype|pylint)\b|^\s*(import|from) (mypy|pytype|pylint|trio_typing)\b""", re.MULTILINE
)
_BUILD_TOOLS = ("pip", "setuptools", "wheel")
_SETUP_KEYS = {"dependencies": "install_requires", "requires": "setup_requires"}
_TESTERS = re.compile(
    r"^(py-?test(-.*)?|nose.*|unittest2|testtools|testfixtures|zope-test.*|twisted|ward|stestr|green|behave|avocado.*"
    r"|hypothesis|mock|freezegun|responses|parameterized|ddt|pretend|django)$"
)
_KNOWN = frozenset(MODULES.values())
_OPTIONS = {
    "--cov": "pytest-cov", "-n": "pytest-xdist", "--numprocesses": "pytest-xdist", "--timeout": "pytest-timeout",
    "--asyncio-mode": "pytest-asyncio", "--reruns": "pytest-rerunfailures", "--benchmark": "pytest-benchmark",
    "--flake8": "pytest-flake8", "--mypy": "pytest-mypy", "--random-order": "pytest-random-order",
    "--disable-socket": "pytest-socket", "--django": "pytest-django", "--isort": "pytest-isort",
}  # fmt: skip
_SETTINGS = {"asyncio_mode": "pytest-asyncio", "timeout": "pytest-timeout", "DJANGO_SETTINGS_MODULE": "pytest-django"}


@dataclass(frozen=True)
class Dependencies:
    """PEP 508 texts, sorted, and where each is from; `rungs` says what each kind of place adds to what always comes."""

    requirements: tuple[str, ...]
    constraints: tuple[str, ...]
    origins: Mapping[str, str]
    rungs: tuple[Rung, ...]
    always: tuple[str, ...]
    why: Mapping[str, str]


def choose(
    tree: Path, declared: Declared, tools: Iterable[tuple[str, TestTool]] = (), above: Path | None = None
) -> Dependencies:
    """Everything to install for the tests of the project at `tree`; `tools` are tox, nox and CI for its Python. A
    project in a subfolder shares the requirements files of the root `above` it."""
    always = _always(tree, declared)
    rungs = _rungs(tree, declared, dict(tools))
    if above is not None:
        shared = _rungs(above, Declared(name=declared.name, local=declared.local), {})
        rungs += [replace(rung, name=f"{rung.name} of the root") for rung in shared]
    if _name_a_checker(rungs) and not _tests_run_a_checker(tree):
        rungs = [_without(rung, _CHECKERS) for rung in rungs]
    rungs = list(_in_use(rungs))
    used = [rung for rung in rungs if not rung.is_fallback]
    origins = {line: origin for part in (*reversed(used), always) for line, origin in part.origins.items()}
    requirements = _unique(line for part in (always, *used) for line in part.requirements)
    why = {"requirements": ", ".join(part.name for part in (always, *used) if part.requirements)}
    if not any(name_of(line) == "pytest" for line in requirements):
        requirements, why["pytest"] = (*requirements, "pytest"), "nothing names it"
        origins = {**origins, "pytest": "nothing names it"}
    pins, lock = locked_pins(tree)
    pins = tuple(pin for pin in pins if name_of(pin) not in _BUILD_TOOLS)
    why |= {"constraints": lock} if pins else {}
    constraints = _unique((*(line for part in used for line in part.constraints), *pins))
    return Dependencies(
        tuple(sorted(requirements)), tuple(sorted(constraints)), origins, tuple(rungs), always.requirements, why
    )


def _always(tree: Path, declared: Declared) -> Rung:
    """What the project runs and is built with, and the plugins that pytest's configuration asks for."""
    parts = (
        (declared.requires, declared.why.get("requires", ""), "dependencies"),
        (_from_pytest_options(tree), "pytest's options", ""),
        (declared.build_requires, declared.why.get("build_requires", ""), "requires"),
    )
    origins: dict[str, str] = {}
    for lines, file, key in parts:
        listed = _SETUP_KEYS.get(key, key) if file.startswith("setup.") else key
        for line in _kept(lines, declared, strict=False):
            origins.setdefault(line, located(tree, file, listed, line))
    return Rung("run time", tuple(origins), (), origins)


def _rungs(tree: Path, declared: Declared, tools: Mapping[str, TestTool]) -> list[Rung]:
    """Every kind of place that says what tests need, best first; those that say nothing are left out later."""
    extras = [n for n in declared.extras if canonicalize_name(n) in _TEST_NAMES]
    groups = [n for n in declared.development if canonicalize_name(n) in _TEST_NAMES]
    file = next((path for path in _TEST_FILES if read_requirements(tree, path).requirements), "")
    tox, nox, ci = (tools.get(name, TestTool()) for name in ("tox", "nox", "ci"))
    return [
        _named_lists(tree, "extras", declared, declared.extras, extras),
        _named_lists(tree, "groups", declared, declared.development, groups),
        _single(tree, "tests_require", declared),
        _tool(tree, "tox", declared, tox),
        _tool(tree, "nox", declared, nox),
        _file(tree, "requirements file", declared, file),
        *_fallbacks(tree, declared, ci),
    ]


def _fallbacks(tree: Path, declared: Declared, ci: TestTool) -> list[Rung]:
    """Places that are not named for tests: they bring linters that pin the rest, and count only alone."""
    extras = [n for n in declared.extras if canonicalize_name(n) in _DEV_NAMES]
    groups = [n for n in declared.development if canonicalize_name(n) in _DEV_NAMES]
    file = next((path for path in _DEV_FILES if read_requirements(tree, path).requirements), "")
    root = read_requirements(tree, "requirements.txt").requirements
    plain = "requirements.txt" if not declared.requires or any(name_of(r) == "pytest" for r in root) else ""
    found = [
        _tool(tree, "ci", declared, ci, strict=True),
        _conda(tree, declared),
        _named_lists(tree, "development groups", declared, declared.development, groups, strict=True),
        _named_lists(tree, "development extras", declared, declared.extras, extras, strict=True),
        _file(tree, "development file", declared, file, strict=True),
        _file(tree, "requirements.txt", declared, plain, strict=True),
    ]
    return [replace(rung, is_fallback=True) for rung in found]


def _in_use(rungs: Iterable[Rung]) -> tuple[Rung, ...]:
    """Those with anything in them. Where no place named for tests names a test tool, the first fallback that does
    counts in its place, and the ones behind it with it when they are development lists."""
    named = [rung for rung in rungs if rung.requirements]
    primary = [rung for rung in named if not rung.is_fallback]
    if any(_names_a_test_tool(rung) for rung in primary):
        return tuple(named)
    fallbacks = [rung for rung in named if rung.is_fallback]
    something = None if primary else next(iter(fallbacks), None)
    best = next((rung for rung in fallbacks if _names_a_test_tool(rung)), something)
    lists = [rung for rung in fallbacks if rung is best or (best and best.name != "ci" and _is_list(rung))]
    return tuple(replace(rung, is_fallback=False) if rung in lists else rung for rung in named)


def _is_list(rung: Rung) -> bool:
    return rung.name.startswith("development")


def _names_a_test_tool(rung: Rung) -> bool:
    """tox's `deps = -e .` alone says nothing about the tests, nor does what only builds or measures."""
    return any(_TESTERS.match(name_of(line)) for line in rung.requirements)


def _named_lists(
    tree: Path, name: str, declared: Declared, lists: Mapping[str, tuple[str, ...]], chosen: Iterable[str],
    *, strict: bool = False,
) -> Rung:  # fmt: skip
    """Extras or groups by their names."""
    field_name = "extras" if lists is declared.extras else "development"
    origins: dict[str, str] = {}
    for each in chosen:
        file = declared.why.get(f"{field_name} {each}", "")
        for line in _kept(lists[each], declared, strict=strict):
            origins.setdefault(line, located(tree, file, each, line))
    return Rung(name, tuple(origins), (), origins)


def _single(tree: Path, name: str, declared: Declared) -> Rung:
    file = declared.why.get(name, "")
    lines = _kept(declared.tests_require, declared, strict=False)
    return Rung(name, lines, (), {line: located(tree, file, name, line) for line in lines})


def _file(tree: Path, name: str, declared: Declared, path: str, *, strict: bool = False) -> Rung:
    found = read_requirements(tree, path) if path else FileRequirements()
    lines = _kept(found.requirements, declared, strict=strict)
    return Rung(name, lines, found.constraints, {line: found.origins.get(line, path) for line in lines})


def _tool(tree: Path, name: str, declared: Declared, tool: TestTool, *, strict: bool = False) -> Rung:
    """What tox, nox or CI install: lines with their includes, the project's extras, and groups."""
    found = read_lines(tree, tool.lines, tool.origin)
    own = tuple(f".[{extra}]" for extra in tool.extras)
    groups = [n for n in declared.development if canonicalize_name(n) in set(map(canonicalize_name, tool.groups))]
    origins: dict[str, str] = {}
    for line in _kept((*found.requirements, *own), declared, strict=strict):
        origins.setdefault(line, found.origins.get(line, tool.origin))
    for group in groups:
        for line in _kept(
            declared.development[group], declared, strict=strict or canonicalize_name(group) in _DEV_NAMES
        ):
            origins.setdefault(line, f"{tool.origin}, group {group}")
    return Rung(name, tuple(origins), found.constraints, origins)


def _conda(tree: Path, declared: Declared) -> Rung:
    """What a conda environment installs with pip, and those of its own packages whose name the table of imports knows:
    conda's names are not the registry's."""
    origins: dict[str, str] = {}
    for path, items in conda_dependencies(tree):
        pipped = [line for item in items for line in strings(table(item).get("pip"))]
        known = [name for item in items if (name := _conda_name(text(item))) in _KNOWN or name.startswith("pytest")]
        for line in _kept(cleaned([*pipped, *known]), declared, strict=True):
            origins.setdefault(line, located(tree, path, "dependencies", line))
    return Rung("conda", tuple(origins), (), origins)


def _conda_name(spec: str) -> str:
    """The name in `conda-forge::numpy=1.21`, in lower case."""
    return re.split(r"[\s=<>!\[]", spec.rpartition("::")[2].strip())[0].lower()


def _kept(lines: Iterable[str], declared: Declared, *, strict: bool) -> tuple[str, ...]:
    """The lines with the project's own extras spread, without tools and without the project."""
    own = canonicalize_name(declared.name or "-")
    spread = _unique(_expand(lines, declared))
    local = {own, *map(canonicalize_name, declared.local)}
    return tuple(line for line in _without_tools(spread, strict=strict) if name_of(line) not in local)


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
    dropped = (_TOOLS, _DOCS, _CHECKERS) if strict else (_TOOLS,)
    return tuple(line for line in lines if not any(each.match(name_of(line)) for each in dropped))


def _name_a_checker(rungs: Iterable[Rung]) -> bool:
    return any(_CHECKERS.match(name_of(line)) for rung in rungs for line in rung.requirements)


def _tests_run_a_checker(tree: Path) -> bool:
    places = (path.relative_to(tree).as_posix() for path in sorted(tree.rglob("*.py")))
    return any(_RUNS_CHECKER.search(read_text(tree, place)) for place in places if is_test_path(place))


def _without(rung: Rung, dropped: re.Pattern[str]) -> Rung:
    kept = tuple(line for line in rung.requirements if not dropped.match(name_of(line)))
    return replace(rung, requirements=kept, origins={line: rung.origins[line] for line in kept})


def is_tool(name: str) -> bool:
    """Whether `name` is a lint, release or documentation tool, which tests can do without."""
    return any(each.match(canonicalize_name(name)) for each in (_TOOLS, _DOCS, _CHECKERS))


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
