"""Where in a checkout a fact stands. One property: a place that is named holds the text; when none does, only the file.

Files are parsed by libraries that forget their lines, so the line is looked for afterwards: the first that names the
requirement at or after the first that names its list.
"""

import re
from pathlib import Path

from swefactory.recipes.files import read_text


def located(tree: Path, path: str, key: str, requirement: str) -> str:
    """ "pyproject.toml:12 tests": where `requirement` stands in the list `key` of the file; without a line when it is
    not found as it is written."""
    name = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", requirement)
    if not path or name is None:
        return f"{path} {key}".strip()
    number = _line(tree, path, key, re.sub(r"[-_.]+", "[-_.]+", name.group()))
    return (f"{path}:{number} {key}" if number else f"{path} {key}").strip()


def _line(tree: Path, path: str, key: str, pattern: str) -> int:
    lines = read_text(tree, path).splitlines()
    heading = re.compile(rf"(?<![\w-]){re.escape(key)}(?![\w-])")
    wanted = re.compile(rf"(?<![\w.-]){pattern}(?![\w-])", re.IGNORECASE)
    start = next((number for number, line in enumerate(lines) if heading.search(line)), 0)
    order = [*range(start, len(lines)), *range(start)]
    return next((number + 1 for number in order if wanted.search(lines[number])), 0)
