"""A checkout becomes a Recipe. One property: decided from files alone; nothing of the repository is executed.

The Python version is the newest that the project declared and that existed at `as_of`:
classifiers within requires-python; else the newest in CI files, tox or .python-version; else the newest that was
then at least six months old. When this machine has no such interpreter, the next lower, then the next higher one that
requires-python admits.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from packaging.specifiers import SpecifierSet

from db.models import RejectReason
from swefactory.errors import Rejected
from swefactory.protocols import Recipe
from swefactory.recipes import dependencies
from swefactory.recipes.ci_config import minor_key, python_versions
from swefactory.recipes.declared import Declared, merged
from swefactory.recipes.layout import layout_of
from swefactory.recipes.pyproject import read_flit_ini, read_pipfile, read_pyproject
from swefactory.recipes.requirements import specifier_set
from swefactory.recipes.setuptools_files import read_setup_cfg, read_setup_py

RELEASES = {
    "2.7": date(2010, 7, 3), "3.5": date(2015, 9, 13), "3.6": date(2016, 12, 23), "3.7": date(2018, 6, 27),
    "3.8": date(2019, 10, 14), "3.9": date(2020, 10, 5), "3.10": date(2021, 10, 4), "3.11": date(2022, 10, 24),
    "3.12": date(2023, 10, 2), "3.13": date(2024, 10, 7), "3.14": date(2025, 10, 7),
}  # fmt: skip
OLDEST = "3.6"  # uv resolves for nothing older
_SETTLED = timedelta(days=183)
_CLASSIFIER = "Programming Language :: Python :: "
_PROJECT_FILES = ("pyproject.toml", "setup.cfg", "setup.py", "flit.ini")


def detect(tree: Path, *, as_of: datetime, pythons: Collection[str], fallback_version: str = "") -> Recipe:
    """The recipe of the checkout at `tree`. `as_of` is its commit's date, `pythons` what the sandboxes offer ("3.9"),
    `fallback_version` the version when the files state none.
    Raises Rejected(NOT_PYTHON_PROJECT | NO_INTERPRETER | BUILD_FAILED)."""
    declared = read_declared(tree)
    if declared.compiled:
        detail = f"compiled extension modules are not built yet ({declared.compiled})"
        raise Rejected(RejectReason.BUILD_FAILED, detail)
    version, version_why = choose_python(tree, declared, as_of, pythons)
    chosen = dependencies.choose(tree, declared)
    layout, layout_why = layout_of(tree, declared, fallback_version)
    return Recipe(
        python_version=version,
        requirements=chosen.requirements,
        constraints=chosen.constraints,
        system_packages=(),
        test_command=("-m", "pytest"),
        environment_variables={},
        layout=layout,
        as_of=as_of.astimezone(UTC),
        why={**chosen.why, **layout_why, "name": declared.why.get("name", ""), "python_version": version_why},
    )


def read_declared(tree: Path) -> Declared:
    """Everything the project files declare. Raises Rejected(NOT_PYTHON_PROJECT) when there is no Python to install."""
    if not any((tree / name).is_file() for name in _PROJECT_FILES) and not any(tree.glob("*.py")):
        detail = f"no {', '.join(_PROJECT_FILES)} and no Python file at the root"
        raise Rejected(RejectReason.NOT_PYTHON_PROJECT, detail)
    return merged(
        [
            ("pyproject.toml", read_pyproject(tree)),
            ("setup.cfg", read_setup_cfg(tree)),
            ("setup.py", read_setup_py(tree)),
            ("flit.ini", read_flit_ini(tree)),
            ("Pipfile", read_pipfile(tree)),
        ]
    )


def choose_python(tree: Path, declared: Declared, as_of: datetime, pythons: Collection[str]) -> tuple[str, str]:
    """The Python version and why. Raises Rejected(NO_INTERPRETER)."""
    bounds = specifier_set(declared.requires_python)
    released = [v for v, day in RELEASES.items() if day <= as_of.date() and _admits(bounds, v)]
    offered = [v for v in pythons if v in RELEASES and minor_key(v) >= minor_key(OLDEST)]
    wishes: dict[str, Sequence[str]] = {
        f"classifiers in {declared.why.get('classifiers', '')}": _from_classifiers(declared.classifiers)
    }
    wishes |= python_versions(tree)
    wishes["newest that was six months old"] = [v for v in released if RELEASES[v] <= as_of.date() - _SETTLED]
    for origin, versions in wishes.items():
        named = sorted({v for v in versions if v in released}, key=minor_key)
        if not named:
            continue
        both = [v for v in named if v in offered]
        if both and both[-1] == named[-1]:
            return both[-1], origin
        return _nearest(named[-1], offered, bounds, origin)
    return _nearest(released[-1] if released else "", offered, bounds, "requires-python")


def _from_classifiers(classifiers: Iterable[str]) -> list[str]:
    named = (text.removeprefix(_CLASSIFIER).strip() for text in classifiers if text.startswith(_CLASSIFIER))
    return [version for version in named if version in RELEASES]


def _admits(bounds: SpecifierSet, version: str) -> bool:
    """Whether some patch release is admitted; a late one stands for all."""
    return bounds.contains(f"{version}.99", prereleases=True) or bounds.contains(f"{version}.0", prereleases=True)


def _nearest(wanted: str, offered: Iterable[str], bounds: SpecifierSet, origin: str) -> tuple[str, str]:
    """The offered version next below the wanted one, else next above; never another major version."""
    fitting = sorted((v for v in offered if _admits(bounds, v) and v[0] == wanted[:1]), key=minor_key)
    lower = [v for v in fitting if minor_key(v) < minor_key(wanted)]
    higher = [v for v in fitting if minor_key(v) > minor_key(wanted)]
    if not lower and not higher:
        detail = (
            f"it wants Python {wanted or str(bounds)} ({origin}); this machine offers "
            f"{', '.join(sorted(offered, key=minor_key))}; nothing older than {OLDEST} can be resolved"
        )
        raise Rejected(RejectReason.NO_INTERPRETER, detail)
    return (lower[-1] if lower else higher[0]), f"nearest to {wanted} ({origin})"
