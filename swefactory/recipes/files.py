"""Reading a checkout's own files. One property: nothing is executed, and nothing outside the checkout is read.

The files come from strangers: a link that leaves the tree, an odd encoding, a giant file or broken syntax is the
same as "this file says nothing".
"""

import ast
import configparser
import tomllib
import warnings
from collections.abc import Mapping
from pathlib import Path

_MAX_BYTES = 2 * 2**20


def read_text(tree: Path, path: str) -> str:
    """The text of `path` in `tree`; empty when it is missing, too large, not a file, or leads out of the tree."""
    root = tree.resolve()
    try:
        target = (root / path).resolve()
        if not target.is_relative_to(root) or not target.is_file() or target.stat().st_size > _MAX_BYTES:
            return ""
        return target.read_bytes().decode("utf-8", "replace").removeprefix("\ufeff").replace("\r\n", "\n")
    except (OSError, ValueError):  # too long a name, a null byte, a loop of links
        return ""


def read_toml(tree: Path, path: str) -> Mapping[str, object]:
    """The TOML document at `path`; empty when there is none that parses."""
    try:
        return tomllib.loads(read_text(tree, path))
    except (tomllib.TOMLDecodeError, RecursionError):
        return {}


def read_ini(tree: Path, path: str) -> configparser.RawConfigParser:
    """The INI document at `path`, without interpolation; empty when there is none that parses."""
    return parse_ini(read_text(tree, path))


def parse_ini(text: str) -> configparser.RawConfigParser:
    """As `read_ini`, from text."""
    parser = configparser.RawConfigParser(strict=False, allow_no_value=True)
    try:
        parser.read_string(text)
    except configparser.Error:
        return configparser.RawConfigParser()
    return parser


def read_syntax(tree: Path, path: str) -> ast.Module:
    """The syntax tree of the Python file at `path`; empty when it does not parse (Python 2, for one)."""
    return parse_syntax(read_text(tree, path))


def parse_syntax(text: str) -> ast.Module:
    """As `read_syntax`, from text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in other people's strings
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return ast.Module(body=[], type_ignores=[])


def ini_value(parser: configparser.RawConfigParser, section: str, *names: str) -> str:
    """The first of the options `names` (dash or underscore) that `section` has; empty when none."""
    for name in names:
        for spelling in (name, name.replace("_", "-"), name.replace("-", "_")):
            if parser.has_option(section, spelling):
                return (parser.get(section, spelling) or "").strip()
    return ""


def ini_lines(text: str) -> tuple[str, ...]:
    """The lines of a multi-line option, without blanks and comments."""
    lines = (line.strip() for line in text.splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


def table(value: object, *keys: str) -> Mapping[str, object]:
    """The table below `keys`; empty where the document has something else there."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def text(value: object) -> str:
    """`value` when it is a string, else empty."""
    return value if isinstance(value, str) else ""


def strings(value: object) -> tuple[str, ...]:
    """The strings of a list; a lone string counts as its lines."""
    if isinstance(value, str):
        return ini_lines(value)
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list | tuple | set) else ()
