"""Which folder of a repository holds the project under test. One property: a project at the root is never left.

    .                        the root is a project, or nothing better is known
    packages/json            the root is none: the nearest project above most of the test files
    python                   no project stands above a test file, and this is the only one of the repository

A root whose pyproject.toml only configures tools, or lists a workspace, is no project. What is read below the folder
(requirements, versions, source roots) is then told as of the root again, where everything else begins. Other projects
of the repository that it requires are taken from the checkout too, not from the registry: they are developed together,
and a later release of one could hold the fix.
"""

import posixpath
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from packaging.utils import canonicalize_name

from swefactory.protocols import ProjectLayout
from swefactory.recipes.files import ini_value, read_ini, read_toml, table, text
from swefactory.recipes.setup_py import setup_keywords

_PROJECT_FILES = tuple(f"{'*/' * n}{name}" for n in (1, 2, 3) for name in ("pyproject.toml", "setup.py", "setup.cfg"))
_NOT_PROJECTS = frozenset(
    ("docs", "doc", "examples", "example", "tests", "test", "benchmarks", "scripts", "tools", "ci")
)


def project_folder(tree: Path, test_files: Iterable[str]) -> str:
    """The folder, relative to the root; "." for the root itself."""
    if is_project(tree):
        return "."
    above = Counter(filter(None, (_nearest(tree, path) for path in test_files)))
    if above:
        return min(above, key=lambda folder: (-above[folder], folder))
    found = [folder for folder in _below(tree) if is_project(tree / folder)]
    return found[0] if len(found) == 1 else "."


def is_project(folder: Path) -> bool:
    """Whether what stands in the folder can be installed."""
    document = read_toml(folder, "pyproject.toml")
    tool = table(document, "tool")
    return (
        any((folder / name).is_file() for name in ("setup.py", "flit.ini"))
        or bool(ini_value(read_ini(folder, "setup.cfg"), "metadata", "name"))
        or any(table(document, key) for key in ("project", "build-system"))
        or any(table(tool, key) for key in ("poetry", "flit"))
    )


def _nearest(tree: Path, path: str) -> str:
    """The nearest project above a test file; empty when none is."""
    parents = (str(parent) for parent in PurePosixPath(path).parents if parent != PurePosixPath())
    return next((folder for folder in parents if _is_inside(tree, folder) and is_project(tree / folder)), "")


def _below(tree: Path) -> list[str]:
    """Folders at most two levels down that may hold a project, sorted."""
    found = [path for pattern in ("*/", "*/*/") for path in tree.glob(pattern) if path.is_dir()]
    names = sorted(path.relative_to(tree).as_posix() for path in found)
    return [name for name in names if not {*name.split("/")} & _NOT_PROJECTS and _is_inside(tree, name)]


def _is_inside(tree: Path, folder: str) -> bool:
    return (tree / folder).resolve().is_relative_to(tree.resolve()) and not any(c in folder for c in "\n\r")


def beside(tree: Path, folder: str, names: Iterable[str]) -> list[str]:
    """Folders of the repository's other projects with these names, in the order of their folders."""
    wanted = {canonicalize_name(name) for name in names if name}
    found = [path.parent for pattern in _PROJECT_FILES for path in tree.glob(pattern)]
    folders = sorted({path.relative_to(tree).as_posix() for path in found} - {".", folder})
    return [each for each in folders if _is_inside(tree, each) and _name(tree / each) in wanted]


def _name(folder: Path) -> str:
    document = read_toml(folder, "pyproject.toml")
    stated = table(document, "project").get("name") or table(document, "tool", "poetry").get("name")
    name = stated or setup_keywords(folder).get("name") or ini_value(read_ini(folder, "setup.cfg"), "metadata", "name")
    return canonicalize_name(text(name))


def moved(layout: ProjectLayout, folder: str) -> ProjectLayout:
    """The layout as of the root, of a project that was read below `folder`."""
    if folder == ".":
        return layout
    roots = tuple(posixpath.normpath(posixpath.join(folder, root)) for root in layout.source_roots)
    generated = {f"{folder}/{path}": text for path, text in layout.generated_files.items()}
    return replace(layout, folder=folder, source_roots=roots, generated_files=generated)
