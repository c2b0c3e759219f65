"""Which Python a checkout is given. One property: every version that a file names is listed with what became of it.

In this order, the newest version that existed at the commit's date, that requires-python admits and a sandbox offers:

    1  classifiers
    2  CI files, jobs that run tests before others
    3  tox envlist
    4  nox sessions
    5  .python-version, runtime.txt, environment.yml, Pipfile
    6  the newest that was six months old then
    7  the newest that had been released

Where no sandbox offers the wished one, the next lower offered version takes its place, then the next higher; a project
of Python 2 is never given Python 3.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

from packaging.specifiers import SpecifierSet

from db.enums import RejectReason
from swefactory.errors import Rejected
from swefactory.protocols import Considered
from swefactory.recipes.ci_files import CiJob
from swefactory.recipes.conda_files import conda_dependencies
from swefactory.recipes.declared import Declared
from swefactory.recipes.files import read_text, read_toml, table, text
from swefactory.recipes.nox_files import nox_pythons
from swefactory.recipes.python_names import minor_key, versions
from swefactory.recipes.requirements import specifier_set
from swefactory.recipes.tox_files import tox_pythons

RELEASES = {
    "2.7": date(2010, 7, 3), "3.5": date(2015, 9, 13), "3.6": date(2016, 12, 23), "3.7": date(2018, 6, 27),
    "3.8": date(2019, 10, 14), "3.9": date(2020, 10, 5), "3.10": date(2021, 10, 4), "3.11": date(2022, 10, 24),
    "3.12": date(2023, 10, 2), "3.13": date(2024, 10, 7), "3.14": date(2025, 10, 7),
}  # fmt: skip
_SETTLED = timedelta(days=183)
_CLASSIFIER = "Programming Language :: Python :: "


@dataclass(frozen=True)
class PythonChoice:
    """The version, in one sentence why, and all that was considered."""

    version: str
    why: str
    considered: tuple[Considered, ...]


def choose_python(
    tree: Path, declared: Declared, jobs: Sequence[CiJob], as_of: datetime, pythons: Collection[str]
) -> PythonChoice:
    """The choice for the checkout at `tree`. Raises Rejected(NO_INTERPRETER)."""
    bounds = specifier_set(declared.requires_python)
    wishes = list(_wishes(tree, declared, jobs, as_of.date()))
    offered = [v for v in pythons if v in RELEASES]
    found: list[Considered] = []
    chosen: tuple[str, str] | None = None
    for origin, named in wishes:
        judged = [Considered(v, origin, _obstacle(v, bounds, as_of.date(), offered)) for v in named]
        wished = [c for c in judged if c.verdict in ("", "no sandbox offers it")]
        if chosen is None and wished:
            best = wished[0]
            chosen = (best.version, origin) if not best.verdict else _nearest(best, offered, bounds)
            if chosen is None:
                raise Rejected(RejectReason.NO_INTERPRETER, _sentence(declared, [*found, *judged], offered))
            judged = _with_chosen(judged, chosen[0], best, origin)
        found += judged
    found = [_worded(c) for c in found]
    if chosen is None:
        raise Rejected(RejectReason.NO_INTERPRETER, _sentence(declared, found, offered))
    version, why = chosen
    return PythonChoice(version, why, tuple(found))


def _wishes(tree: Path, declared: Declared, jobs: Sequence[CiJob], day: date) -> Iterator[tuple[str, list[str]]]:
    """Origins and the versions they name, newest first, in the order of the table above."""
    origin = declared.why.get("classifiers", "")
    yield _ordered(f"classifiers in {origin}", _from_classifiers(declared.classifiers))
    tested = [job for job in jobs if job.runs_tests and job.pythons]
    named = tested or [job for job in jobs if job.pythons]
    for job in sorted(named, key=lambda job: max(map(minor_key, job.pythons)), reverse=True):
        yield _ordered(job.origin, job.pythons)
    for found, place in (tox_pythons(tree), nox_pythons(tree), *_single_files(tree)):
        yield _ordered(place, found)
    yield _ordered("newest that was six months old", [v for v, out in RELEASES.items() if out <= day - _SETTLED][-1:])
    yield _ordered("newest that had been released", [v for v, out in RELEASES.items() if out <= day][-1:])


def _ordered(origin: str, named: Iterable[str]) -> tuple[str, list[str]]:
    return origin, sorted({v for v in named if v in RELEASES}, key=minor_key, reverse=True)


def _from_classifiers(classifiers: Iterable[str]) -> list[str]:
    return [text.removeprefix(_CLASSIFIER).strip() for text in classifiers if text.startswith(_CLASSIFIER)]


def _single_files(tree: Path) -> Iterator[tuple[tuple[str, ...], str]]:
    yield tuple(versions(read_text(tree, ".python-version").split())), ".python-version"
    yield tuple(versions(read_text(tree, "runtime.txt").split())), "runtime.txt"
    for path, items in conda_dependencies(tree):
        matches = (re.match(r"^python\s*[=<>~]*\s*(\d\.\d+)", text(item)) for item in items)
        yield tuple(match.group(1) for match in matches if match), path
    pipfile = table(read_toml(tree, "Pipfile"), "requires")
    yield tuple(versions([text(pipfile.get("python_version")), text(pipfile.get("python_full_version"))])), "Pipfile"


def _obstacle(version: str, bounds: SpecifierSet, day: date, offered: Collection[str]) -> str:
    """Why this version cannot be taken; empty when it can."""
    if RELEASES[version] > day:
        return f"not released before {RELEASES[version]}"
    if not admits(bounds, version):
        return f"requires-python is {bounds}"
    return "" if version in offered else "no sandbox offers it"


def admits(bounds: SpecifierSet, version: str) -> bool:
    """Whether some patch release is admitted; a late one stands for all."""
    return bounds.contains(f"{version}.99", prereleases=True) or bounds.contains(f"{version}.0", prereleases=True)


def _nearest(wished: Considered, offered: Collection[str], bounds: SpecifierSet) -> tuple[str, str] | None:
    """The offered version next below the wished one, else next above; never another major version."""
    fitting = sorted((v for v in offered if admits(bounds, v) and v[0] == wished.version[0]), key=minor_key)
    lower = [v for v in fitting if minor_key(v) < minor_key(wished.version)]
    higher = [v for v in fitting if minor_key(v) > minor_key(wished.version)]
    if not lower and not higher:
        return None
    return (lower[-1] if lower else higher[0]), f"nearest to {wished.version} ({wished.origin})"


def _with_chosen(judged: list[Considered], version: str, best: Considered, origin: str) -> list[Considered]:
    """The candidates of the origin that decided, with the one that was taken marked."""
    marked = [Considered(c.version, c.origin, "chosen") if c.version == version else c for c in judged]
    if all(c.version != version for c in judged):
        marked.append(Considered(version, f"nearest to {best.version} ({origin})", "chosen"))
    return marked


def _worded(candidate: Considered) -> Considered:
    """A candidate that nothing stands against lost to an earlier one."""
    if candidate.verdict:
        return candidate
    return Considered(candidate.version, candidate.origin, "an earlier place or a newer version decides")


def _sentence(declared: Declared, found: Sequence[Considered], offered: Collection[str]) -> str:
    named = "; ".join(f"{c.version} ({c.origin}): {c.verdict}" for c in found[:6])
    bounds = f" within {declared.requires_python}" if declared.requires_python else ""
    return (
        f"no Python{bounds} can be had here; considered: {named}; offered: {', '.join(sorted(offered, key=minor_key))}"
    )
