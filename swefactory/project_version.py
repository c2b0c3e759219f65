"""The version of a project at a commit, from files alone. One property: major and minor, as SWE-bench writes it."""

import re
from pathlib import Path

from swefactory.checkouts import Checkouts

_VERSION = re.compile(r"""^\s*(?:__version__|version)\s*(?::\s*\w+\s*)?=\s*["']?v?(\d+\.\d+)""", re.MULTILINE)
_MODULE = re.compile(r"(?:src/|lib/)?\w+/(?:__init__|__about__|__version__|_version|version)\.py")
_TAG = re.compile(r"(\d+\.\d+)")


def project_version(checkouts: Checkouts, mirror: Path, commit: str) -> str:
    """What the usual files say, the first of them that does; else the nearest tag; may be empty."""
    modules = [path for path in checkouts.paths(mirror, commit) if _MODULE.fullmatch(path)]
    texts = checkouts.texts(mirror, commit, ("pyproject.toml", "setup.cfg", "setup.py", *modules))
    for text in texts.values():
        if found := _VERSION.search(text or ""):
            return found[1]
    found = _TAG.search(checkouts.nearest_tag(mirror, commit))
    return found[1] if found else ""
