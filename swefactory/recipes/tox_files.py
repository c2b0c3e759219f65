"""tox's configuration: tox.ini, setup.cfg, tox.toml or pyproject.toml. One property: read for one Python, never run.

The environment read is the one that tox itself would run the tests with on that Python: a name of the envlist with the
factor (py39, py39-django4), else one called tests. Conditional lines (`py27,py35: mock`, `!pypy: numpy`) hold by its
factors; {toxinidir}, {[section]option} and {env:NAME:default} are replaced, what else is in braces is left empty.
"""

import re
from collections.abc import Iterable, Mapping
from configparser import RawConfigParser
from dataclasses import dataclass, field
from pathlib import Path

from swefactory.recipes.files import ini_lines, ini_value, parse_ini, read_ini, read_toml, strings, table, text
from swefactory.recipes.python_names import expanded, factors, split_names

_REFERENCE = re.compile(r"\{\[([^\]]+)\]([^{}]+)\}")
_ENVIRONMENT = re.compile(r"\{env:([^:{}]+)(?::([^{}]*))?\}")
_ROOT = re.compile(r"\{(?:toxinidir|tox_root|package_root)\}/?")
_CONDITION = re.compile(r"^((?:[\w.!{},-]+\s*,\s*)*[\w.!{},-]+)\s*:(?!/)\s*(?=\S)")
_NAMES = re.compile(r"^(tests?|unit(-?tests?)?|pytest|py3?|python3?|default|check)$")
_MAX_DEPTH = 8


@dataclass(frozen=True)
class TestTool:
    """What tox or nox installs before it runs the tests, lines as requirements files spell them, and how it runs them.
    `origin` is the file and the section or session."""

    __test__ = False
    origin: str = ""
    lines: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Ini:
    parser: RawConfigParser
    prefix: str  # of its sections: "" or "tox:"
    path: str


def tox_pythons(tree: Path) -> tuple[tuple[str, ...], str]:
    """The versions of the envlist, and the file's name."""
    ini, (native, native_path) = _ini(tree), _native(tree)
    names = _envlist(ini)
    listed = native.get("env_list")
    if listed:
        flat = [text(item) for item in listed] if isinstance(listed, list) else [text(listed)]
        products = _product_items(listed)
        found = [v for name in (*flat, *products) for v in (*factors(name), *factors(f"py{name}"))]
        return tuple(dict.fromkeys(found)), f"{native_path} env_list"
    versions = tuple(v for v in factors(" ".join(names)))
    return versions, f"{ini.path} [{ini.prefix}tox] envlist"


def _product_items(listed: object) -> list[str]:
    """tox 4.20's `{product = [["3.9", "3.10"], …]}` and `{prefix = "py3", start = 9, stop = 13}` entries."""
    found: list[str] = []
    for item in listed if isinstance(listed, list) else []:
        axes = table(item).get("product")
        for axis in axes if isinstance(axes, list) else []:
            found += strings(axis)
            ranged = table(axis)
            start, stop = ranged.get("start"), ranged.get("stop")
            if isinstance(start, int) and isinstance(stop, int) and 0 <= stop - start < 40:
                found += [f"{text(ranged.get('prefix'))}{number}" for number in range(start, stop + 1)]
    return found


def tox_tool(tree: Path, python_version: str = "") -> TestTool:
    """What tox would do for the tests on this Python; an empty tool when it is not used."""
    native, path = _native(tree)
    if native:
        return _native_tool(native, path, python_version)
    ini = _ini(tree)
    if not any(section.startswith(f"{ini.prefix}testenv") for section in ini.parser.sections()):
        return TestTool()
    name = _chosen(_envlist(ini), [*_sections(ini)], python_version)
    known = {*name.split("-"), "py", "py3" if python_version.startswith("3") else "py2"}

    def lines(option: str) -> tuple[str, ...]:
        return tuple(_kept(_substituted(ini, _option(ini, name, option), name), known))

    # One `a b` on a line of extras is two names; a line of deps is one requirement.
    return TestTool(
        origin=f"{ini.path} [{ini.prefix}testenv{f':{name}' if _has_own(ini, name) else ''}]",
        lines=lines("deps"),
        extras=tuple(part for line in lines("extras") for part in _names(line)),
        groups=tuple(part for line in lines("dependency_groups") for part in _names(line)),
        commands=lines("commands"),
        variables=_variables((*lines("setenv"), *lines("set_env"))),
    )


# ---------------------------------------------------------------- INI


def _ini(tree: Path) -> _Ini:
    legacy = table(read_toml(tree, "pyproject.toml"), "tool", "tox").get("legacy_tox_ini")
    if isinstance(legacy, str):
        return _Ini(parse_ini(legacy), "", "pyproject.toml [tool.tox] legacy_tox_ini")
    parser = read_ini(tree, "tox.ini")
    if any(section == "tox" or section.startswith("testenv") for section in parser.sections()):
        return _Ini(parser, "", "tox.ini")
    setup = read_ini(tree, "setup.cfg")
    prefix = "tox:" if setup.has_section("tox:tox") else ""
    return _Ini(setup if prefix else RawConfigParser(), prefix, "setup.cfg")


def _envlist(ini: _Ini) -> list[str]:
    value = ini_value(ini.parser, f"{ini.prefix}tox", "envlist", "env_list")
    lines = "\n".join(line.partition(" #")[0] for line in ini_lines(value))
    return [name for part in split_names(_substituted(ini, lines, "")) for name in expanded(part)]


def _sections(ini: _Ini) -> dict[str, list[str]]:
    """Each [testenv:NAME] section by the names it stands for; generative names are spread."""
    found: dict[str, list[str]] = {}
    for section in ini.parser.sections():
        head, colon, names = section.partition("testenv:")
        if colon and head == ini.prefix:
            for part in split_names(names):
                for name in expanded(part):
                    found.setdefault(name, []).append(section)
    return found


def _chosen(envlist: list[str], sections: Iterable[str], python_version: str) -> str:
    """The environment of this Python with the fewest further factors; else one named for tests; else py39 itself."""
    factor = f"py{python_version.replace('.', '')}"
    dotted = f"py{python_version}"
    unwanted = re.compile(r"lint|docs?|type|mypy|flake|style|cov|report|build|min|lowest|nightly|dev|bench|wheel")
    fitting = [n for n in (*envlist, *sections) if {factor, dotted, python_version} & set(n.split("-"))]
    fitting.sort(key=lambda n: (bool(unwanted.search(n)), n.count("-")))
    named = [n for n in (*envlist, *sections) if _NAMES.match(n)]
    return (fitting or named or [factor])[0]


def _has_own(ini: _Ini, name: str) -> bool:
    return name in _sections(ini)


def _option(ini: _Ini, name: str, option: str) -> str:
    """The option as the environment's own sections give it, else as [testenv] does."""
    for section in (*_sections(ini).get(name, ()), f"{ini.prefix}testenv"):
        if value := ini_value(ini.parser, section, option):
            return value
    return ""


def _substituted(ini: _Ini, value: str, name: str, depth: int = 0) -> str:
    if depth > _MAX_DEPTH:
        return ""

    def other(found: re.Match[str]) -> str:
        section, option = found.group(1), found.group(2)
        inner = ini_value(ini.parser, section, option) or ini_value(ini.parser, f"{ini.prefix}{section}", option)
        return _substituted(ini, inner, name, depth + 1)

    value = _REFERENCE.sub(other, value)
    value = _ENVIRONMENT.sub(lambda found: found.group(2) or "", value)
    return _ROOT.sub("{toxinidir}/", value).replace("{envname}", name).replace("{env_name}", name)


def _kept(value: str, known: set[str]) -> list[str]:
    """The lines that hold for these factors, without their condition."""
    found: list[str] = []
    for line in ini_lines(value):
        condition = _CONDITION.match(line)
        if condition is None or condition.group(1).count("{") != condition.group(1).count("}"):
            found.append(line)
        elif any(_holds(part, known) for name in split_names(condition.group(1)) for part in expanded(name)):
            found.append(line[condition.end() :].strip())
    return found


def _holds(condition: str, known: set[str]) -> bool:
    """`py39-!win`: every factor is one of the environment's, every one with a mark is not."""
    return all((part[1:] not in known) if part.startswith("!") else (part in known) for part in condition.split("-"))


def _names(value: str) -> list[str]:
    return [name for name in re.split(r"[,\s]+", value) if re.fullmatch(r"[A-Za-z0-9][\w.-]*", name)]


def _variables(lines: Iterable[str]) -> dict[str, str]:
    pairs = (line.partition("=") for line in lines)
    return {name.strip(): value.strip() for name, equals, value in pairs if equals and name.strip().isidentifier()}


# ---------------------------------------------------------------- TOML


def _native(tree: Path) -> tuple[Mapping[str, object], str]:
    if found := read_toml(tree, "tox.toml"):
        return found, "tox.toml"
    section = table(read_toml(tree, "pyproject.toml"), "tool", "tox")
    return ({}, "") if "legacy_tox_ini" in section else (section, "pyproject.toml [tool.tox]")


def _native_tool(native: Mapping[str, object], path: str, python_version: str) -> TestTool:
    name = _chosen([], list(table(native, "env")), python_version)
    own, base = table(native, "env", name), table(native, "env_run_base")

    def values(option: str) -> tuple[str, ...]:
        found = own.get(option, base.get(option))
        items = found if isinstance(found, list) else [found]
        return tuple(_ROOT.sub("{toxinidir}/", item) for item in items if isinstance(item, str))

    commands = own.get("commands", base.get("commands"))
    argvs = [strings(argv) for argv in commands] if isinstance(commands, list) else []
    variables = {**table(base, "set_env"), **table(own, "set_env")}
    return TestTool(
        origin=f"{path} {f'env.{name}' if own else 'env_run_base'}",
        lines=values("deps"),
        extras=values("extras"),
        groups=values("dependency_groups"),
        commands=tuple(" ".join(argv) for argv in argvs if argv),
        variables={key: value for key, value in variables.items() if isinstance(value, str)},
    )
