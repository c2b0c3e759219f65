"""conda's environment files. One property: only what they list; nothing is asked of conda.

Looked for at the root and in the usual folders: environment.yml, environment-dev.yml, ci/environment-py39.yml.
"""

from pathlib import Path

from swefactory.recipes.ci_files import load_yaml
from swefactory.recipes.files import read_text, table

_FOLDERS = (
    ".",
    "ci",
    "ci/requirements",
    "continuous_integration",
    "conda",
    "binder",
    ".binder",
    "requirements",
    "envs",
)


def conda_dependencies(tree: Path) -> list[tuple[str, list[object]]]:
    """Path and `dependencies` of each file; entries are texts, or {"pip": [texts]}."""
    found: list[tuple[str, list[object]]] = []
    for folder in _FOLDERS:
        files = (
            sorted(path.name for path in (tree / folder).glob("*environment*.y*ml")) if (tree / folder).is_dir() else []
        )
        for name in files:
            path = name if folder == "." else f"{folder}/{name}"
            dependencies = table(load_yaml(read_text(tree, path))).get("dependencies")
            if isinstance(dependencies, list):
                found.append((path, dependencies))
    return found
