"""Which rungs of a recipe hold together, and with which repairs. One property: every try is recorded with its outcome.

    1  all rungs named for tests at once, with faithful repairs
    2  what the project itself requires, alone: if that cannot be had, no rung can help
    3  one rung on top of the other, best first: one that clashes with those before it is left out
    4  all rungs again, with the repairs that loosen pins and bounds
    5  the fallbacks, one by one
    6  what the project requires, and pytest

The first that resolves is taken; most checkouts need no more than the first. In the end the system packages are added
that a build from source needs, when the lock has releases to build.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from swefactory.errors import Rejected
from swefactory.protocols import Attempt, Recipe, Rung
from swefactory.recipes.lock import Locked, Unresolved, built_from_source, package_names, resolve
from swefactory.recipes.repairs import ALL, FAITHFUL, Repair
from swefactory.recipes.requirements import name_of
from swefactory.recipes.system_packages import has_build_needs, of_builds
from swefactory.sandbox_protocols import RunUv

_DETAIL = 400


@dataclass(frozen=True)
class Climbed:
    """The recipe with the rungs that held, its attempts and its system packages; and its lock."""

    recipe: Recipe
    locked: Locked


Try = Callable[[Recipe, Sequence[Repair]], Locked]


def climb(recipe: Recipe, *, run_uv: RunUv, timeout_s: float) -> Climbed:
    """Climbs the rungs of `recipe`. Raises LadderFailed (a Rejected) with all attempts, and what `resolve` raises."""
    attempts: list[Attempt] = []

    def tried(asked: Recipe, repairs: Sequence[Repair]) -> Locked:
        return resolve(asked, run_uv=run_uv, timeout_s=timeout_s, repairs=repairs)

    primary = [rung for rung in recipe.rungs if not rung.is_fallback]
    fallbacks = [rung for rung in recipe.rungs if rung.is_fallback]
    try:
        used, locked = _highest(recipe, primary, fallbacks, tried, attempts)
    except Rejected as verdict:
        raise LadderFailed(verdict, replace(recipe, attempts=(*recipe.attempts, *attempts))) from verdict
    held = {rung.name for rung in used}
    rungs = tuple(replace(rung, is_fallback=rung.name not in held) for rung in recipe.rungs)
    attempts = [*_worth(recipe, used), *attempts, *locked.attempts]
    asked = replace(_with(recipe, used), rungs=rungs, attempts=(*recipe.attempts, *attempts))
    return Climbed(_with_build_packages(asked, locked, run_uv, timeout_s), locked)


class LadderFailed(Rejected):
    """Nothing resolves; `recipe` holds what was tried, `log` the last words of the resolver."""

    def __init__(self, verdict: Rejected, recipe: Recipe) -> None:
        super().__init__(verdict.reason, verdict.detail)
        self.recipe = recipe
        self.log = verdict.log if isinstance(verdict, Unresolved) else verdict.detail


def _highest(
    recipe: Recipe, primary: list[Rung], fallbacks: list[Rung], tried: Try, attempts: list[Attempt]
) -> tuple[list[Rung], Locked]:
    """The first way of the table that resolves, with its rungs. Raises the last Rejected when none does."""
    if (locked := _attempt("all together", _with(recipe, primary), FAITHFUL, tried, attempts)) is not None:
        return primary, locked
    base = tried(_with(recipe, []), ALL)
    held: list[Rung] = []
    best: Locked | None = None
    for rung in primary if len(primary) > 1 else []:
        found = _attempt(rung.name, _with(recipe, [*held, rung]), FAITHFUL, tried, attempts)
        if found is not None:
            held, best = [*held, rung], found
    if best is not None:
        return held, best
    if primary and (loose := _attempt("all, loosened", _with(recipe, primary), ALL, tried, attempts)) is not None:
        return primary, loose
    for rung in fallbacks:
        if (found := _attempt(rung.name, _with(recipe, [rung]), ALL, tried, attempts)) is not None:
            return [rung], found
    return [], base


def _attempt(
    name: str, recipe: Recipe, repairs: Sequence[Repair], tried: Try, attempts: list[Attempt]
) -> Locked | None:
    try:
        return tried(recipe, repairs)
    except Rejected as verdict:
        attempts.append(Attempt("rung", name, worked=False, detail=verdict.detail[-_DETAIL:]))
        return None


def _with(recipe: Recipe, rungs: Iterable[Rung]) -> Recipe:
    """The recipe with these rungs on what always comes."""
    rungs = list(rungs)
    of_rungs = {line for rung in recipe.rungs for line in rung.requirements}
    of_constraints = {line for rung in recipe.rungs for line in rung.constraints}
    always = [line for line in recipe.requirements if line not in of_rungs or line in recipe.always]
    lines = {*always, *(line for rung in rungs for line in rung.requirements)}
    if not any(name_of(line) == "pytest" for line in lines):
        lines.add("pytest")
    constraints = [line for line in recipe.constraints if line not in of_constraints]
    constraints += [line for rung in rungs for line in rung.constraints]
    return replace(recipe, requirements=tuple(sorted(lines)), constraints=tuple(sorted(set(constraints))))


def _worth(recipe: Recipe, used: Iterable[Rung]) -> list[Attempt]:
    """What each rung in use brought that none before it had."""
    seen = {name_of(line) for line in recipe.always}
    found: list[Attempt] = []
    for rung in used:
        names = {name_of(line) for line in rung.requirements}
        new = sorted(names - seen)
        found.append(Attempt("rung", rung.name, worked=True, detail=", ".join(new)[:_DETAIL], n_requirements=len(new)))
        seen |= names
    return found


def _with_build_packages(recipe: Recipe, locked: Locked, run_uv: RunUv, timeout_s: float) -> Recipe:
    """System packages for the builds of this lock: those of the table for what is built, and CI's `-dev` packages."""
    if not locked.has_sources:
        return recipe
    asked = [name for name in package_names(locked.text) if has_build_needs(name)]
    built = built_from_source(locked, asked, recipe, run_uv=run_uv, timeout_s=timeout_s) if asked else []
    needs = of_builds(built)
    ours = {name: recipe.origins.get(name, "") for name in recipe.build_packages} if needs else {}
    packages = {*recipe.system_packages, *needs, *ours}
    return replace(recipe, system_packages=tuple(sorted(packages)), origins={**recipe.origins, **needs})
