"""The files that a build would write into the tree: versions. One property: a file that is there is never touched.

setuptools_scm, hatch-vcs and pdm ask git for the version and write it into a module that the package imports. Here is
no build and no history, so the module is written from the version that `versions` found:

    [tool.setuptools_scm] version_file or write_to        setup.py use_scm_version={"write_to": …}
    [tool.hatch.build.hooks.vcs] version-file              [tool.pdm.version] write_to

versioneer keeps its module in the repository and does without git by itself.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from packaging.version import Version

from swefactory.protocols import ProjectLayout
from swefactory.recipes.files import read_ini, read_toml, table, text
from swefactory.recipes.setup_py import setup_keywords

_MODULE = """\
__version__ = version = {version!r}
__version_tuple__ = version_tuple = {version_tuple!r}
__commit_id__ = commit_id = None
"""
_PATH = re.compile(r"^(?!.*(^|/)\.\.(/|$))[\w./-]+$")


def generated_files(tree: Path, version: str, source_roots: tuple[str, ...]) -> dict[str, str]:
    """Path -> text of each such file that the checkout at `tree` does not hold."""
    found: dict[str, str] = {}
    for path, template in _asked(tree, source_roots):
        clean = path.strip().lstrip("/")
        if _PATH.match(clean) and not (tree / clean).exists() and (tree / clean).parent.is_dir():
            found.setdefault(clean, _filled(template, clean, version))
    return dict(sorted(found.items()))


def _asked(tree: Path, source_roots: tuple[str, ...]) -> list[tuple[str, str]]:
    """The files asked for and their templates, empty for the tool's own."""
    tool = table(read_toml(tree, "pyproject.toml"), "tool")
    scm, pdm = table(tool, "setuptools_scm"), table(tool, "pdm", "version")
    hook = table(tool, "hatch", "build", "hooks", "vcs")
    keyword = setup_keywords(tree).get("use_scm_version")
    cfg = read_ini(tree, "setup.cfg")
    asked = [
        (text(scm.get("version_file")), text(scm.get("version_file_template"))),
        (text(scm.get("write_to")), text(scm.get("write_to_template"))),
        (text(hook.get("version-file")), text(hook.get("template"))),
        (text(cfg.get("tool:setuptools_scm", "write_to", fallback="")), ""),
    ]
    if isinstance(keyword, Mapping):
        for option in ("version_file", "write_to"):
            asked.append((text(keyword.get(option)), text(keyword.get(f"{option}_template"))))
    if path := text(pdm.get("write_to")):
        root = "" if source_roots == (".",) else f"{source_roots[0]}/"
        asked.append((f"{root}{path}", text(pdm.get("write_template"))))
    return [(path, template) for path, template in asked if path]


def _filled(template: str, path: str, version: str) -> str:
    release = Version(version)
    parts: tuple[int | str, ...] = release.release
    if release.dev is not None:
        parts = (*parts, f"dev{release.dev}")
    if not template:
        return _MODULE.format(version=version, version_tuple=parts) if path.endswith(".py") else f"{version}\n"
    # By hand: a template is a stranger's text, and str.format would follow its attributes and widths.
    known = {"{version}": version, "{version!r}": repr(version), "{version_tuple}": repr(parts), "{}": version}
    filled = template
    for name, value in known.items():
        filled = filled.replace(name, value)
    return filled if filled.endswith("\n") else f"{filled}\n"


def write_generated(layout: ProjectLayout, checkout: Path) -> None:
    """Writes the layout's generated files into a copy of the checkout, where no file stands in their place."""
    for path, content in sorted(layout.generated_files.items()):
        target = checkout / path
        is_inside = target.parent.resolve().is_relative_to(checkout.resolve()) and target.parent.is_dir()
        if is_inside and not target.exists() and not target.is_symlink():
            target.write_text(content, encoding="utf-8")
