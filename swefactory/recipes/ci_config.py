"""Which Pythons a project's own automation tests on, and what it installs for that. One property: files only.

Read: .github/workflows, .travis.yml, .gitlab-ci.yml, azure pipelines, tox (INI or TOML), noxfile.py, .python-version.
YAML is loaded with every scalar as text: `on:` must not become True, nor 3.10 become 3.1.
"""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from configparser import RawConfigParser
from dataclasses import dataclass
from pathlib import Path

import yaml

from swefactory.recipes.files import ini_lines, ini_value, read_ini, read_syntax, read_text, read_toml, strings, table
from swefactory.recipes.setup_py import module_values

_VERSION = re.compile(r"^(?:py(?:thon)?)?[-_:]?(2\.7|3\.\d{1,2})(?:\.\d+|\.x)?$")
_FACTOR = re.compile(r"\bpy(?:27|3\d{1,2}|3\.\d{1,2}|2\.7)\b")
_YAML_KEYS = re.compile(r"python|tox|session|image", re.IGNORECASE)
_YAML_FILES = (".travis.yml", ".gitlab-ci.yml", "azure-pipelines.yml", ".azure-pipelines.yml", ".circleci/config.yml")
_TEST_SESSION = re.compile(r"^(unit_?)?(tests?|pytest|testing|py)", re.IGNORECASE)


@dataclass(frozen=True)
class TestTool:
    """What tox or nox installs before it runs the tests; lines as requirements files spell them."""

    lines: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


def python_versions(tree: Path) -> dict[str, tuple[str, ...]]:
    """The versions each kind of file names, "3.9" and the like, by origin: CI files, tox, .python-version."""
    found = {
        "CI files": _from_yaml(tree),
        "tox envlist": _from_tox(tree),
        ".python-version": tuple(_versions(read_text(tree, ".python-version").split())),
    }
    return {origin: versions for origin, versions in found.items() if versions}


def minor_key(version: str) -> tuple[int, ...]:
    """Sorts "3.9" below "3.10"."""
    return tuple(int(part) for part in version.split("."))


def _versions(texts: Iterable[str]) -> list[str]:
    matches = (_VERSION.match(text.strip()) for text in texts)
    return sorted({match.group(1) for match in matches if match}, key=minor_key)


def _factors(text: str) -> list[str]:
    """`py39`, `py310`, `py3.11` and `py3{8,9}` as versions."""
    spread = re.sub(
        r"py(\d?)\.?\{([^{}]*)\}",
        lambda found: ",".join(f"py{found.group(1)}{part.strip()}" for part in found.group(2).split(",")),
        text,
    )
    digits = (factor[2:].replace(".", "") for factor in _FACTOR.findall(spread))
    return sorted({f"{digit[0]}.{digit[1:]}" for digit in digits}, key=minor_key)


# ---------------------------------------------------------------- YAML


def _from_yaml(tree: Path) -> tuple[str, ...]:
    folder = tree / ".github" / "workflows"
    names = sorted(path.name for path in folder.glob("*.y*ml")) if folder.is_dir() else []
    found: list[str] = []
    for path in (*(f".github/workflows/{name}" for name in names), *_YAML_FILES):
        for text in _scalars(_load(read_text(tree, path))):
            found += [*_versions([text]), *_factors(text)]
    return tuple(sorted(set(found), key=minor_key))


def _load(text: str) -> object:
    try:
        document: object = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506  builds strings, lists and dicts only
    except (yaml.YAMLError, RecursionError):
        return None
    return document


def _scalars(node: object, named: bool = False, depth: int = 0) -> Iterator[str]:
    """The texts below a key that speaks of Python, tox or an image. Depth is bounded: YAML may refer to itself."""
    if depth > 20:
        return
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _scalars(value, named or bool(_YAML_KEYS.search(str(key))), depth + 1)
    elif isinstance(node, list):
        for item in node:
            yield from _scalars(item, named, depth + 1)
    elif isinstance(node, str) and named:
        yield node


# ---------------------------------------------------------------- tox


def _tox_ini(tree: Path) -> tuple[RawConfigParser, str]:
    """The INI form of tox's configuration and the prefix of its sections, wherever it is kept."""
    legacy = table(read_toml(tree, "pyproject.toml"), "tool", "tox").get("legacy_tox_ini")
    if isinstance(legacy, str):
        parser = RawConfigParser(strict=False, allow_no_value=True)
        parser.read_string(legacy)
        return parser, ""
    parser = read_ini(tree, "tox.ini")
    return (parser, "") if parser.sections() else (read_ini(tree, "setup.cfg"), "tox:")


def _tox_toml(tree: Path) -> Mapping[str, object]:
    return read_toml(tree, "tox.toml") or table(read_toml(tree, "pyproject.toml"), "tool", "tox")


def _from_tox(tree: Path) -> tuple[str, ...]:
    parser, prefix = _tox_ini(tree)
    lists = ini_value(parser, f"{prefix}tox", "envlist", "env_list")
    native = " ".join(strings(_tox_toml(tree).get("env_list")))
    return tuple(_factors(f"{lists} {native}") or _versions(native.split()))


def tox_tool(tree: Path) -> TestTool:
    """What tox installs for the tests: [testenv], and [testenv:tests] or [testenv:py…] where named so."""
    parser, prefix = _tox_ini(tree)
    wanted = [s for s in parser.sections() if s == f"{prefix}testenv" or _is_test_environment(s)]
    lines, extras, groups = [], [], []
    for section in wanted:
        lines += [_unconditional(line) for line in ini_lines(ini_value(parser, section, "deps"))]
        extras += _names(ini_value(parser, section, "extras"))
        groups += _names(ini_value(parser, section, "dependency_groups"))
    native = _tox_toml(tree)
    for environment in (table(native, "env_run_base"), table(native, "env", "tests"), table(native, "env", "test")):
        lines += strings(environment.get("deps"))
        extras += strings(environment.get("extras"))
        groups += strings(environment.get("dependency_groups"))
    return TestTool(tuple(filter(None, lines)), tuple(extras), tuple(groups))


def _is_test_environment(section: str) -> bool:
    name = section.rpartition("testenv:")[2] if "testenv:" in section else ""
    return bool(name) and bool(re.match(r"^(tests?|unit|py3\d*|py)$", name))


def _unconditional(line: str) -> str:
    """A dependency of some factors only (`py27: mock`) is for another Python or another job: left out."""
    condition, colon, rest = line.partition(":")
    if not colon or not re.fullmatch(r"[\w.,!{}\s-]+", condition) or rest.startswith("//"):
        return line
    return rest.strip() if condition.strip() in ("tests", "test") else ""


def _names(value: str) -> list[str]:
    """The names in a list; `!pypy: tests` and its like are conditions, of which the name is taken."""
    return [name for name in re.split(r"[,\s]+", value) if re.fullmatch(r"[A-Za-z0-9][\w.-]*", name)]


# ---------------------------------------------------------------- nox


def nox_lines(tree: Path) -> tuple[str, ...]:
    """The string literals of session.install(…) in noxfile.py's test sessions."""
    module = read_syntax(tree, "noxfile.py")
    scope = module_values(module, tree)
    found: list[str] = []
    for function in ast.walk(module):
        if isinstance(function, ast.FunctionDef) and _TEST_SESSION.match(function.name):
            for node in ast.walk(function):
                match node:
                    case ast.Call(func=ast.Attribute(attr="install"), args=arguments):
                        found += _paired([text for argument in arguments for text in _texts(argument, scope)])
                    case _:
                        pass
    return tuple(found)


def _texts(node: ast.expr, scope: Mapping[str, object]) -> Iterator[str]:
    match node:
        case ast.Constant(value=str() as text):
            yield text
        case ast.Starred(value=inner) | ast.Subscript(value=inner):
            yield from _texts(inner, scope)
        case ast.Name(id=name):
            yield from strings(scope.get(name))
        case ast.List(elts=items) | ast.Tuple(elts=items):
            for item in items:
                yield from _texts(item, scope)
        case _:
            return


def _paired(arguments: list[str]) -> list[str]:
    """["-r", "tests.txt", "-e", "."] as the lines a requirements file would have; other options are dropped."""
    lines: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument in ("-r", "-c", "-e", "--requirement", "--constraint", "--editable"):
            lines.append(f"{argument} {next(rest, '')}".strip())
        elif not argument.startswith("-"):
            lines.append(argument)
    return lines
