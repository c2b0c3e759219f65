"""Named repairs of a resolution that failed. One property: each changes the request in one nameable way, or not at all.

The table is ordered, faithful repairs first: a repair is tried when its pattern is in the resolver's words, and only
when it changes something. What it did is kept by its name, never silently.

    lift_date        a pin was published after the bound: the bound is lifted for that one package, to a day after
    drop_lock        the pins of the project's own lock do not fit
    drop_tool        a lint or documentation tool does not fit or does not build
    drop_missing     the registry has no such package
    drop_unusable    all releases of a package that tests ask for are archives that the resolver does not read
    lift_unborn      nothing of a package had been published by then, or its dates lie: the newest that fits is let in
    relax_build      a source distribution does not build: its own pin goes, or wheels only for it
    relax_pins       exact pins of tests and tools do not fit this Python
    relax_bounds     all bounds of tests and tools go; what the project itself requires stays
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from swefactory.recipes.dependencies import is_tool
from swefactory.recipes.requirements import name_of, relaxed


@dataclass(frozen=True)
class Request:
    """What the resolver is asked. `requires` are the project's own, which no repair loosens; times are RFC 3339."""

    requirements: tuple[str, ...]
    constraints: tuple[str, ...]
    requires: frozenset[str] = frozenset()
    before: str = ""
    lifted: Mapping[str, str] = field(default_factory=dict)
    wheels_only: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Repair:
    """`apply` is handed the request and the match; an unchanged request says "not mine". A loosening one departs from
    what the project asks for."""

    name: str
    pattern: re.Pattern[str]
    apply: Callable[[Request, re.Match[str]], Request]
    loosens: bool = False


def next_request(request: Request, log: str, repairs: Sequence[Repair] | None = None) -> tuple[str, Request] | None:
    """The first repair that answers this log and changes the request, with its name; None when there is none."""
    flat = re.sub(r"\s+", " ", log)  # the resolver wraps its sentences
    for repair in ALL if repairs is None else repairs:
        for match in repair.pattern.finditer(flat):
            changed = repair.apply(request, match)
            if changed != request:
                return repair.name, changed
    return None


def changes(before: Request, after: Request) -> str:
    """What a repair changed, in words."""
    gone = [line for line in before.requirements if line not in after.requirements]
    new = [line for line in after.requirements if line not in before.requirements]
    dropped = [line for line in before.constraints if line not in after.constraints]
    lifted = [f"{name} up to {day}" for name, day in after.lifted.items() if before.lifted.get(name) != day]
    wheels = sorted(after.wheels_only - before.wheels_only)
    parts = (
        ("asked for", new), ("instead of" if new else "left out", gone), ("constraints left out", dropped),
        ("let in", lifted), ("wheels only", wheels),
    )  # fmt: skip
    return "; ".join(f"{word} {_listed(lines)}" for word, lines in parts if lines)


def _listed(lines: Sequence[str]) -> str:
    return ", ".join(lines[:8]) + (f" and {len(lines) - 8} more" if len(lines) > 8 else "")


def _lift_date(request: Request, match: re.Match[str]) -> Request:
    day = datetime.fromisoformat(match["date"]) + timedelta(days=1)
    return replace(request, lifted={**request.lifted, canonicalize_name(match["name"]): day.isoformat()})


def _drop_tool(request: Request, match: re.Match[str]) -> Request:
    return _without(request, match["name"]) if is_tool(match["name"]) else request


def _drop_missing(request: Request, match: re.Match[str]) -> Request:
    return _without(request, match["name"])


def _drop_unusable(request: Request, match: re.Match[str]) -> Request:
    """Never what the project itself requires."""
    own = {name_of(line) for line in request.requires}
    return request if canonicalize_name(match["name"]) in own else _without(request, match["name"])


def _without(request: Request, name: str) -> Request:
    kept = tuple(line for line in request.requirements if name_of(line) != canonicalize_name(name))
    return replace(request, requirements=kept)


def _relax_build(request: Request, match: re.Match[str]) -> Request:
    """First the pin that forces this release, then any release of it that must be built."""
    name = canonicalize_name(match["name"])
    loosened = _loosened(request, lambda line: name_of(line) == name)
    return loosened if loosened != request else replace(request, wheels_only=request.wheels_only | {name})


def _drop_lock(request: Request, match: re.Match[str]) -> Request:
    return replace(request, constraints=tuple(line for line in request.constraints if "==" not in line))


def _relax_pins(request: Request, match: re.Match[str]) -> Request:
    return _loosened(request, lambda line: any(s.operator in ("==", "===") for s in Requirement(line).specifier))


def _relax_bounds(request: Request, match: re.Match[str]) -> Request:
    return _loosened(request, lambda line: bool(Requirement(line).specifier))


def _loosened(request: Request, wanted: Callable[[str], bool]) -> Request:
    """The request with the bounds of the `wanted` requirements gone, and of the constraints likewise."""
    loose = tuple(
        relaxed(line) if wanted(line) and line not in request.requires else line for line in request.requirements
    )
    return replace(
        request,
        requirements=tuple(dict.fromkeys(loose)),
        constraints=tuple(line for line in request.constraints if not wanted(line)),
    )


_UNSATISFIABLE = re.compile(r"No solution found|requirements are unsatisfiable")
_NAME = r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)"
_BUILD = re.compile(rf"(?:[Ff]ailed to (?:download and )?build|Failed to fetch wheel:|Building) `?{_NAME}==")

ALL: tuple[Repair, ...] = (
    Repair(
        "lift_date",
        re.compile(rf"`{_NAME}` was filtered by `exclude-newer`.{{0,200}}?was published at (?P<date>\S+Z)"),
        _lift_date,
    ),
    Repair("drop_lock", _UNSATISFIABLE, _drop_lock),
    Repair("drop_tool", _BUILD, _drop_tool),
    Repair("relax_build", _BUILD, _relax_build, loosens=True),
    Repair("drop_missing", re.compile(rf"{_NAME} was not found in the package registry"), _drop_missing),
    Repair("drop_unusable", re.compile(rf"all versions of {_NAME} have a non-PEP 625-compliant"), _drop_unusable),
    Repair(
        "drop_tool",
        re.compile(rf"(?:you require|no version of|Because|because|that) {_NAME}(?=[\s=<>!~{{])"),
        _drop_tool,
    ),
    Repair(
        "lift_unborn",
        re.compile(rf"`{_NAME}` was filtered by `exclude-newer`.{{0,200}}?, published at (?P<date>\S+Z)"),
        _lift_date,
        loosens=True,
    ),
    Repair("relax_pins", _UNSATISFIABLE, _relax_pins, loosens=True),
    Repair("relax_bounds", _UNSATISFIABLE, _relax_bounds, loosens=True),
)
FAITHFUL = tuple(repair for repair in ALL if not repair.loosens)
