"""What builds a project's own extension modules. One property: read from files alone, each requirement with its origin.

    build-system.requires (PEP 518), setup_requires       as the project states them
    setuptools and wheel                                  where a setup.py builds, or nothing else is stated
    what setup.py imports                                 Cython, numpy, cffi, …: those of a table, also in a `try`
    what a backend asks for when it runs                  ninja for meson-python, cmake for scikit-build-core

The last two stand in no file that a tool could read: setup.py imports what its author had installed, and a backend
answers only when it runs. All become an environment of their own, as of the base commit's date.
"""

import ast
from collections.abc import Mapping
from pathlib import Path

from swefactory.recipes.declared import Declared
from swefactory.recipes.files import read_syntax, read_text
from swefactory.recipes.provenance import located
from swefactory.recipes.requirements import name_of

# Module -> distribution: what people build extension modules with.
_BUILDERS = {
    "Cython": "cython", "numpy": "numpy", "cffi": "cffi", "pybind11": "pybind11", "pkgconfig": "pkgconfig",
    "extension_helpers": "extension-helpers", "setuptools_scm": "setuptools-scm", "setuptools_rust": "setuptools-rust",
    "skbuild": "scikit-build", "nanobind": "nanobind", "mypyc": "mypy", "pythran": "pythran", "packaging": "packaging",
    "setuptools_dso": "setuptools-dso", "setuptools_git_versioning": "setuptools-git-versioning", "toml": "toml",
}  # fmt: skip
# Requirement -> what its get_requires_for_build_wheel asks for besides.
_ASKED_LATER = {
    "meson-python": ("ninja", "meson"), "scikit-build-core": ("cmake", "ninja"), "scikit-build": ("cmake", "ninja"),
    "sip": ("ninja",),
}  # fmt: skip


def build_needs(tree: Path, declared: Declared) -> Mapping[str, str]:
    """Requirement -> origin; empty for a project of Python alone."""
    if not declared.compiled:
        return {}
    file = declared.why.get("build_requires", "")
    key = "setup_requires" if file == "setup.py" else "requires"
    stated = [line for line in declared.build_requires if name_of(line)]
    found = {line: located(tree, file, key, line) for line in stated}
    names = {name_of(line) for line in found}
    for name, origin in _unstated(tree, names).items():
        if name not in names:
            found[name] = origin
    return dict(sorted(found.items()))


def _unstated(tree: Path, stated: set[str]) -> dict[str, str]:
    """What a build needs besides what is stated, by name."""
    found: dict[str, str] = {}
    if (tree / "setup.py").is_file() or not stated:
        found |= dict.fromkeys(("setuptools", "wheel"), "builds setup.py")
        found |= {_BUILDERS[module]: f"imported by setup.py:{line}" for module, line in _imports(tree).items()}
    if ".pyx" in read_text(tree, "setup.py") + read_text(tree, "pyproject.toml"):
        found.setdefault("cython", "compiles .pyx")
    for name in sorted(stated & _ASKED_LATER.keys()):
        found |= dict.fromkeys(_ASKED_LATER[name], f"asked for by {name}")
    return found


def _imports(tree: Path) -> dict[str, int]:
    """Builders that setup.py imports anywhere, with the line; one in a `try` may make the difference."""
    found: dict[str, int] = {}
    for node in ast.walk(read_syntax(tree, "setup.py")):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            modules = [node.module or ""]
        for module in (name.partition(".")[0] for name in modules):
            if module in _BUILDERS:
                found.setdefault(module, getattr(node, "lineno", 0))
    return found
