"""setup.cfg and setup.py as `Declared`. One property: setup.py is read as a syntax tree, never run."""

import configparser
import posixpath
from collections.abc import Mapping
from configparser import RawConfigParser
from pathlib import Path

from swefactory.recipes.declared import Declared, entry_point_lines
from swefactory.recipes.files import ini_lines, ini_value, read_ini, read_text, strings, text
from swefactory.recipes.requirements import cleaned, read_requirements
from swefactory.recipes.setup_py import mentions, setup_keywords


def read_setup_cfg(tree: Path) -> Declared:
    """What setup.cfg declares: its metadata and options sections."""
    parser = read_ini(tree, "setup.cfg")
    version = ini_value(parser, "metadata", "version")
    kept_elsewhere = version.startswith(("attr:", "file:"))
    root = _where(ini_value(parser, "options", "package_dir")) or ini_value(parser, "options.packages.find", "where")
    return Declared(
        name=ini_value(parser, "metadata", "name"),
        version="" if kept_elsewhere else version,
        version_from=version.replace(": ", ":") if kept_elsewhere else "",
        requires_python=ini_value(parser, "options", "python_requires"),
        classifiers=ini_lines(ini_value(parser, "metadata", "classifiers", "classifier")),
        requires=_option_requires(tree, ini_value(parser, "options", "install_requires")),
        tests_require=cleaned(ini_lines(ini_value(parser, "options", "tests_require"))),
        extras={name: cleaned(lines) for name, lines in _section(parser, "options.extras_require").items()},
        entry_points=_cfg_entry_points(parser),
        source_roots=(posixpath.normpath(root),) if root else (),
        modules=ini_lines(ini_value(parser, "options", "py_modules")),
    )


def _option_requires(tree: Path, value: str) -> tuple[str, ...]:
    if value.startswith("file:"):
        paths = (path.strip() for path in value.removeprefix("file:").split(","))
        return tuple(line for path in paths for line in read_requirements(tree, path).requirements)
    return cleaned(part for line in ini_lines(value) for part in _split_semicolons(line))


def _split_semicolons(line: str) -> list[str]:
    """setup.cfg allows `a; b` on one line; a marker also follows a semicolon, and holds an operator."""
    parts = line.split(";")
    return [line] if any(operator in line.partition(";")[2] for operator in ("==", "<", ">", "!=", " in ")) else parts


def _where(package_dir: str) -> str:
    """The root of `=src` in a package_dir option."""
    for line in ini_lines(package_dir):
        name, _, folder = line.partition("=")
        if not name.strip():
            return folder.strip()
    return ""


def _section(parser: RawConfigParser, name: str) -> dict[str, tuple[str, ...]]:
    if not parser.has_section(name):
        return {}
    return {option: ini_lines(value or "") for option, value in parser.items(name)}


def _cfg_entry_points(parser: RawConfigParser) -> dict[str, dict[str, str]]:
    return {group: entry_point_lines(lines) for group, lines in _section(parser, "options.entry_points").items()}


def read_setup_py(tree: Path) -> Declared:
    """What the setup() call in setup.py says, as far as it is literal."""
    keywords = setup_keywords(tree)
    requires = cleaned(strings(keywords.get("install_requires")))
    if not requires and "install_requires" not in keywords and _has_requirements_txt(tree):
        requires = read_requirements(tree, "requirements.txt").requirements
    package_dir = keywords.get("package_dir")
    return Declared(
        name=text(keywords.get("name")),
        version=text(keywords.get("version")),
        requires_python=text(keywords.get("python_requires")),
        classifiers=strings(keywords.get("classifiers")),
        requires=requires,
        tests_require=cleaned(strings(keywords.get("tests_require"))),
        build_requires=cleaned(strings(keywords.get("setup_requires"))),
        extras=_extras(keywords.get("extras_require")),
        entry_points=_entry_points(keywords.get("entry_points")),
        source_roots=_roots(package_dir) if isinstance(package_dir, Mapping) else (),
        modules=(*strings(keywords.get("py_modules")), *_top_level(strings(keywords.get("packages")))),
        compiled=_compiled(tree, keywords),
    )


def _has_requirements_txt(tree: Path) -> bool:
    """Whether setup.py computes its requirements from requirements.txt, which it then names."""
    return "requirements.txt" in read_text(tree, "setup.py")


def _extras(value: object) -> dict[str, tuple[str, ...]]:
    """Extras by name; a name with a marker (`:python_version<"3"`) is a conditional requirement, left out."""
    if not isinstance(value, Mapping):
        return {}
    return {name: cleaned(strings(items)) for name, items in value.items() if isinstance(name, str) and ":" not in name}


def _entry_points(value: object) -> dict[str, dict[str, str]]:
    if isinstance(value, Mapping):
        return {str(group): entry_point_lines(strings(lines)) for group, lines in value.items()}
    parser = RawConfigParser(delimiters=("=",), strict=False)
    try:
        parser.read_string(text(value))
    except configparser.Error:
        return {}
    return {group: {name: found for name, found in parser.items(group) if found} for group in parser.sections()}


def _roots(package_dir: Mapping[object, object]) -> tuple[str, ...]:
    """`{"": "src"}` names a root; `{"pkg": "lib/pkg"}` names one when the folder has the package's own name."""
    roots: list[str] = []
    for name, folder in package_dir.items():
        if not name and isinstance(folder, str):
            roots.append(posixpath.normpath(folder or "."))
        elif isinstance(folder, str) and isinstance(name, str) and posixpath.basename(folder.rstrip("/")) == name:
            roots.append(posixpath.dirname(folder.rstrip("/")) or ".")
    return tuple(dict.fromkeys(roots))


def _top_level(packages: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(package.partition(".")[0] for package in packages))


def _compiled(tree: Path, keywords: Mapping[str, object]) -> str:
    """What in setup.py asks for a compiler. Whether the package also works without shows when it is tried."""
    named = {"Extension", "CythonExtension", "RustExtension", "cythonize", "Pybind11Extension", "cffi_modules"}
    if not (mentions(tree, *named) or keywords.get("ext_modules") or keywords.get("cffi_modules")):
        return ""
    return "ext_modules in setup.py"
