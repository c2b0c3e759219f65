"""How a checkout is made importable without a build: its layout, and static metadata that stands for an install.

    FOLDER/<name>-<version>.dist-info/{METADATA,RECORD,INSTALLER,entry_points.txt,top_level.txt}
    FOLDER/<neighbour>-<version>.dist-info/METADATA     of the repository's other projects that it requires
    FOLDER/project.pth        one line per source root: /testbed, /testbed/src
    FOLDER/bin/<script>       for each console script

The folder is mounted read-only at PROJECT_DIR and given to site.addsitedir there. One property: importlib.metadata,
pkg_resources and pytest find the project as if it were installed, and no line of it has run.
"""

import posixpath
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from packaging.utils import canonicalize_name

from swefactory.protocols import ProjectLayout
from swefactory.recipes.declared import Declared
from swefactory.recipes.generated_files import generated_files
from swefactory.recipes.versions import find_version
from swefactory.sandbox_protocols import CHECKOUT_DIR, PYTHON

_NOT_PACKAGES = frozenset(
    ("tests", "test", "testing", "docs", "doc", "examples", "example", "benchmarks", "benchmark", "scripts", "tools",
     "build", "dist", "setup", "conftest", "noxfile", "tasks", "bench", "contrib", "ci", "utils", "requirements", "t")
)  # fmt: skip
_ENTRY_POINT = re.compile(r"^\s*([\w.]+)(?:\s*:\s*([\w.]+))?\s*$")


def layout_of(tree: Path, declared: Declared, fallback_version: str = "") -> tuple[ProjectLayout, Mapping[str, str]]:
    """The layout of the checkout at `tree`, and where its facts came from."""
    roots, roots_why = _source_roots(tree, declared)
    version, version_why = find_version(tree, declared, roots, fallback_version)
    files = generated_files(tree, version, roots)
    layout = ProjectLayout(
        name=_safe_name(declared.name) or _guessed_name(tree, roots),
        version=version,
        source_roots=roots,
        entry_points={group: dict(sorted(found.items())) for group, found in sorted(declared.entry_points.items())},
        requires=declared.requires,
        generated_files=files,
    )
    written = {"generated_files": ", ".join(files)} if files else {}
    return layout, {"version": version_why, "source_roots": roots_why, **written}


def with_roots_of(layout: ProjectLayout, after: Path, declared: Declared) -> ProjectLayout:
    """The layout with the source roots besides that the tree after a fix has: one that moves the sources, to src for
    instance, is imported from both places. A root that is not there counts for nothing."""
    roots, _ = _source_roots(after, declared)
    return replace(layout, source_roots=tuple(dict.fromkeys((*layout.source_roots, *roots))))


def _safe_name(name: str) -> str:
    """The name when it can be one: it becomes part of a file name."""
    return name if re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", name) else ""


def _guessed_name(tree: Path, roots: tuple[str, ...]) -> str:
    return next((name for root in roots for name in packages_below(tree / root)), "project")


def _source_roots(tree: Path, declared: Declared) -> tuple[tuple[str, ...], str]:
    stated = tuple(root for root in declared.source_roots if _is_inside(tree, root))
    if stated:
        return stated, declared.why.get("source_roots", "")
    if packages_below(tree / "src") or any((tree / "src").glob("*.py")):
        return ("src",), "src holds the packages"
    return (".",), "the root holds the packages"


def _is_inside(tree: Path, root: str) -> bool:
    folder = (tree / root).resolve()
    return folder.is_relative_to(tree.resolve()) and folder.is_dir() and not re.search(r"[\n\r]", root)


def packages_below(folder: Path) -> tuple[str, ...]:
    """The import packages directly in `folder` that are not tests, docs or tools, sorted."""
    found = (path.parent.name for path in folder.glob("*/__init__.py"))
    return tuple(sorted(name for name in found if name.isidentifier() and name not in _NOT_PACKAGES))


def import_names(tree: Path, layout: ProjectLayout, modules: tuple[str, ...] = ()) -> tuple[str, ...]:
    """What a smoke test imports: the package or module of the project's own name, else every package it holds."""
    wanted = {canonicalize_name(layout.name).replace("-", ""), *(name.lower().replace("_", "") for name in modules)}
    found: list[str] = []
    for root in layout.source_roots:
        singles = [path.stem for path in (tree / root).glob("*.py") if path.stem.isidentifier()]
        names = [*packages_below(tree / root), *(name for name in singles if name not in _NOT_PACKAGES)]
        found += [name for name in names if name.lower().replace("_", "") in wanted]
    if not found:
        found = [name for root in layout.source_roots for name in packages_below(tree / root)]
    return tuple(dict.fromkeys(found))


# ---------------------------------------------------------------- the folder


def write_project(layout: ProjectLayout, folder: Path) -> None:
    """Writes the static metadata of `layout` into `folder`, which is made."""
    info = f"{canonicalize_name(layout.name).replace('-', '_')}-{layout.version}.dist-info"
    files = {
        f"{info}/METADATA": _metadata(layout),
        f"{info}/INSTALLER": "swefactory\n",
        f"{info}/entry_points.txt": _entry_points(layout),
        "project.pth": "".join(f"{_inside(root)}\n" for root in layout.source_roots),
    }
    for name, target in _scripts(layout).items():
        files[f"bin/{name}"] = target
    for name, version in layout.neighbours.items():
        theirs = f"{canonicalize_name(name).replace('-', '_')}-{version}.dist-info"
        files[f"{theirs}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in sorted([*files, f"{info}/RECORD"]))
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content, encoding="utf-8")
        (folder / path).chmod(0o755 if path.startswith("bin/") else 0o644)


def _inside(root: str) -> str:
    return posixpath.normpath(posixpath.join(CHECKOUT_DIR, root))


def _metadata(layout: ProjectLayout) -> str:
    head = f"Metadata-Version: 2.1\nName: {layout.name}\nVersion: {layout.version}\n"
    return head + "".join(f"Requires-Dist: {requirement}\n" for requirement in layout.requires)


def _entry_points(layout: ProjectLayout) -> str:
    """entry_points.txt; what does not read `module:attr` is left out, it would break every reader of the file."""
    parts: list[str] = []
    for group, entries in sorted(layout.entry_points.items()):
        lines = [
            f"{name} = {value}" for name, value in sorted(entries.items()) if _ENTRY_POINT.match(value) and _plain(name)
        ]
        parts += [f"[{group}]", *lines, ""] if _plain(group) and lines else []
    return "\n".join(parts)


def _plain(name: str) -> bool:
    return bool(name) and not re.search(r"[\[\]=\n\r]", name)


def _scripts(layout: ProjectLayout) -> dict[str, str]:
    """A launcher per console script, as installers write it."""
    found: dict[str, str] = {}
    for group in ("console_scripts", "gui_scripts"):
        for name, value in layout.entry_points.get(group, {}).items():
            target = _ENTRY_POINT.match(value)
            if target and target.group(2) and re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
                found[name] = _launcher(target.group(1), target.group(2))
    return found


def _launcher(module: str, attribute: str) -> str:
    return (
        f"#!{PYTHON}\nimport sys\nfrom {module} import {attribute.partition('.')[0]}\n\n"
        f'if __name__ == "__main__":\n    sys.exit({attribute}())\n'
    )
