"""The version of a checkout, read and never computed by running it. One property: always a valid PEP 440 text.

In order: what the project's files state; where they say it is kept (attr:, file:, path:); a literal `__version__` in
its package; the fallback (the newest tag reachable from the commit, see `from_tags`); "0.0.0.dev0".
"""

import ast
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from packaging.version import InvalidVersion, Version

from swefactory.git_commands import run_git
from swefactory.recipes.declared import Declared
from swefactory.recipes.files import parse_syntax, read_text

LAST_RESORT = "0.0.0.dev0"
_TAG = re.compile(r"^(?:[A-Za-z_.-]*?[-_/])??v?(\d+(?:\.\d+)*(?:[-_.]?(?:a|b|rc|alpha|beta|post|dev)\d*)?)$")


def find_version(tree: Path, declared: Declared, roots: Iterable[str], fallback: str = "") -> tuple[str, str]:
    """The version and where it was found."""
    candidates = (
        (declared.version, declared.why.get("version", "")),
        (_kept(tree, declared.version_from, tuple(roots)), declared.version_from),
        (_in_package(tree, declared, tuple(roots)), "__version__"),
        (fallback, "the newest tag"),
    )
    for candidate, origin in candidates:
        if valid(candidate):
            return str(Version(candidate)), origin
    return LAST_RESORT, "nothing states it"


def valid(version: str) -> bool:
    """Whether `version` is one by PEP 440."""
    try:
        return bool(version) and bool(Version(version))
    except InvalidVersion:
        return False


def literal(source: str, name: str) -> str:
    """The text that `source` binds to `name`; empty when it computes it."""
    for node in ast.walk(parse_syntax(source)):
        match node:
            case ast.Assign(targets=targets, value=ast.Constant(value=str() as value)):
                if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                    return value
            case ast.AnnAssign(target=ast.Name(id=found), value=ast.Constant(value=str() as value)) if found == name:
                return value
            case _:
                pass
    found_text = re.search(rf"""^{re.escape(name)}\s*(?::[^=\n]+)?=\s*["']([^"'\n]+)["']""", source, re.MULTILINE)
    return found_text.group(1) if found_text else ""  # Python 2 sources do not parse


def _kept(tree: Path, place: str, roots: tuple[str, ...]) -> str:
    """The version at "attr:pkg.mod.NAME", "file:VERSION" or "path:src/pkg/_version.py"."""
    kind, _, where = place.partition(":")
    where = where.strip()
    if kind == "file":
        return read_text(tree, where).strip()
    if kind == "path":
        return literal(read_text(tree, where), "__version__") or literal(read_text(tree, where), "VERSION")
    module, _, name = where.rpartition(".")
    path = module.replace(".", "/")
    for root in (*roots, ".", "src"):
        for file in (f"{root}/{path}/__init__.py", f"{root}/{path}.py"):
            if found := literal(read_text(tree, file), name):
                return found
    return ""


def _in_package(tree: Path, declared: Declared, roots: tuple[str, ...]) -> str:
    """A literal `__version__` in the package of the project's own name, or a VERSION file at the root."""
    stem = re.sub(r"[-.]+", "_", declared.name)
    names = dict.fromkeys((stem, stem.lower(), *declared.modules))
    for root in dict.fromkeys((*roots, ".", "src")):
        for name in filter(None, names):
            places = [
                f"{root}/{name}/{file}.py" for file in ("__init__", "__about__", "_version", "version", "__version__")
            ]
            for file in (*places, f"{root}/{name}.py"):
                if valid(found := literal(read_text(tree, file), "__version__")):
                    return found
    plain = read_text(tree, "VERSION").strip() or read_text(tree, "version.txt").strip()
    return plain if valid(plain) else ""


def from_tags(mirror: Path, commit: str) -> str:
    """The version of the newest release tag reachable from `commit` in a bare mirror; empty when there is none. Raises
    InfrastructureError where git could not answer.

    attrs at a commit after tag 22.1.0 answers "22.1.0": the number its own build would give up to the local part.
    """
    try:
        told = run_git(mirror, "tag", "--merged", commit, "--sort=-creatordate", "--list").decode()
    except subprocess.CalledProcessError:
        return ""
    matches = (_TAG.match(tag) for tag in told.splitlines())
    versions = (match.group(1) for match in matches if match)
    numbers = [Version(version) for version in versions if valid(version)]
    released = [number for number in numbers if not number.is_prerelease]
    return str(max(released or numbers, default="")) if numbers else ""
