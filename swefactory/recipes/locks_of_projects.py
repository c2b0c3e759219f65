"""The pins of a lock file that a project keeps for itself: uv.lock, poetry.lock, pdm.lock or Pipfile.lock.

They come as constraints: the project's own automation ran with these releases, and a newer one of the same days may
already break it. One property: a package that the lock has in several versions, one per Python, is left free.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from swefactory.recipes.files import read_text, read_toml, table, text
from swefactory.recipes.requirements import clean


def locked_pins(tree: Path) -> tuple[tuple[str, ...], str]:
    """`name==version` texts, sorted, and the file they are from; nothing when there is no lock."""
    for path in ("uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock"):
        versions: defaultdict[str, set[str]] = defaultdict(set)
        for name, version in _entries(tree, path):
            versions[name].add(version)
        pins = (clean(f"{name}=={next(iter(found))}") for name, found in versions.items() if len(found) == 1)
        if kept := tuple(sorted(pin for pin in pins if pin)):
            return kept, path
    return (), ""


def _entries(tree: Path, path: str) -> Iterator[tuple[str, str]]:
    if path == "Pipfile.lock":
        document = _json(tree, path)
        for section in ("default", "develop"):
            for name, entry in table(document, section).items():
                yield name, text(table(entry).get("version")).removeprefix("==")
        return
    packages = read_toml(tree, path).get("package")
    for entry in packages if isinstance(packages, list) else []:
        source = table(table(entry).get("source"))
        if not source or "registry" in source or source.get("type") == "legacy":
            yield text(table(entry).get("name")), text(table(entry).get("version"))


def _json(tree: Path, path: str) -> object:
    try:
        document: object = json.loads(read_text(tree, path) or "{}")
    except (ValueError, RecursionError):
        return {}
    return document
