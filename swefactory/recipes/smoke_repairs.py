"""Named repairs of an environment that stands but does not work yet. One property: no name is guessed.

The table is ordered. Each answers a pattern in the words of Python, pytest or a compiler, and changes the recipe in one
nameable way, or not at all:

    fix_requirements    the fix itself changes what the tests need: its requirements (done by the caller)
    declared_elsewhere  a missing module that a rung left out declares: that requirement is added
    missing_module      a missing module of the fixed table (see imports): its distribution is added
    missing_plugin      a marker of the fixed table that --strict-markers does not know: its plugin is added
    system_library      a shared library of the fixed table: its Debian package is added
    build_packages      a build from source failed: the `-dev` packages that the project's CI installs are added
    without_extensions  the project's own extension modules do not build, and it works without (done by the caller)
    older_python        a module or an API that this Python has lost: the next lower interpreter (done by the caller)
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from packaging.utils import canonicalize_name

from swefactory.protocols import Attempt, Recipe
from swefactory.recipes.imports import MARKS, MODULES, missing_module
from swefactory.recipes.requirements import name_of
from swefactory.recipes.system_packages import missing_library

_NO_MARKER = re.compile(r"'(\w+)' not found in `markers` configuration option|'(\w+)' is not a registered marker")
_NO_HEADER = re.compile(
    r"fatal error: \S+\.h|command '\S*(?:gcc|cc|g\+\+|clang)\S*' failed|cannot find -l\w+|pkg-config|_config executable"
)
_LOST = re.compile(
    r"No module named '(?:imp|asyncore|asynchat|smtpd|cgi|pipes|telnetlib|crypt|nntplib|imghdr|formatter|binhex)'"
    r"|cannot import name '\w+' from 'collections'|module 'collections' has no attribute '[A-Z]\w+'"
    r"|cannot import name '(?:getargspec|formatargspec)' from 'inspect'|module 'inspect' has no attribute 'getargspec'"
    r"|module 'pkgutil' has no attribute 'ImpImporter'|longintrepr\.h|use_2to3 is invalid"
    r"|has no member named .tp_print."
    r"|module 'configparser' has no attribute 'SafeConfigParser'|has no attribute 'readfp'|_PyUnicode_get_wstr_length"
    r"|module 'ast' has no attribute '(?:Str|Num|NameConstant|Bytes)'|'Thread' object has no attribute 'isAlive'"
    r"|module 'asyncio' has no attribute '(?:coroutine|async)'|module 'typing' has no attribute '(?:io|re)'"
    r"|module 'unittest' has no attribute 'makeSuite'|cannot import name 'coroutine' from 'asyncio'"
)


@dataclass(frozen=True)
class SmokeRepair:
    """`apply` is handed the recipe and the log; an unchanged recipe says "not mine"."""

    name: str
    apply: Callable[[Recipe, str], Recipe]


def repaired(recipe: Recipe, log: str, installed: tuple[str, ...]) -> Recipe | None:
    """The recipe after the first repair that answers `log`, which is recorded; None when there is none."""
    for repair in REPAIRS:
        changed = repair.apply(recipe, log)
        new = [line for line in changed.requirements if line not in recipe.requirements]
        packages = sorted({*changed.system_packages} - {*recipe.system_packages})
        if packages or any(name_of(line) not in installed for line in new):
            detail = ", ".join((*new, *packages))
            attempt = Attempt("repair", repair.name, worked=True, detail=detail)
            origins = {**recipe.origins, **dict.fromkeys((*new, *packages), f"repair {repair.name}")}
            return replace(changed, attempts=(*recipe.attempts, attempt), origins={**origins, **changed.origins})
    return None


def wants_older_python(log: str) -> str:
    """The words in `log` that an older Python would not say; empty when there are none."""
    found = _LOST.search(log)
    return found.group() if found else ""


def with_requirements(recipe: Recipe, lines: tuple[str, ...], repair: str) -> Recipe:
    """The recipe with further requirements, whatever rungs hold; those that it names already stay as they are."""
    have = {name_of(line) for line in recipe.requirements} | {canonicalize_name(recipe.layout.name)}
    added = tuple(line for line in lines if name_of(line) not in have)
    return replace(
        recipe,
        requirements=tuple(sorted((*recipe.requirements, *added))),
        always=(*recipe.always, *added),
        repairs=(*recipe.repairs, repair) if added else recipe.repairs,
        why={**recipe.why, repair: ", ".join(added)} if added else recipe.why,
    )


def _declared_elsewhere(recipe: Recipe, log: str) -> Recipe:
    module = missing_module(log)
    names = {canonicalize_name(name) for name in (module, MODULES.get(module, "")) if name}
    for rung in recipe.rungs:
        for line in rung.requirements if rung.is_fallback else ():
            if name_of(line) in names:
                found = with_requirements(recipe, (line,), "declared_elsewhere")
                return replace(found, origins={**found.origins, line: f"{rung.origins.get(line, '')} ({rung.name})"})
    return recipe


def _missing_module(recipe: Recipe, log: str) -> Recipe:
    name = MODULES.get(missing_module(log), "")
    return with_requirements(recipe, (name,), "missing_module") if name else recipe


def _missing_plugin(recipe: Recipe, log: str) -> Recipe:
    names = [MARKS[mark] for found in _NO_MARKER.findall(log) for mark in found if mark in MARKS]
    return with_requirements(recipe, tuple(sorted(set(names))), "missing_plugin") if names else recipe


def _system_library(recipe: Recipe, log: str) -> Recipe:
    library, package = missing_library(log)
    if not package or package in recipe.system_packages:
        return recipe
    return _with_packages(recipe, (package,), "system_library", f"{library} is missing")


def _build_packages(recipe: Recipe, log: str) -> Recipe:
    missing = tuple(name for name in recipe.build_packages if name not in recipe.system_packages)
    failed = _NO_HEADER.search(log)
    return _with_packages(recipe, missing, "build_packages", "a build needs them") if missing and failed else recipe


def _with_packages(recipe: Recipe, packages: tuple[str, ...], repair: str, why: str) -> Recipe:
    origins = {name: recipe.origins.get(name, why) for name in packages}
    return replace(
        recipe,
        system_packages=tuple(sorted({*recipe.system_packages, *packages})),
        repairs=(*recipe.repairs, repair),
        origins={**recipe.origins, **origins},
    )


REPAIRS: tuple[SmokeRepair, ...] = (
    SmokeRepair("declared_elsewhere", _declared_elsewhere),
    SmokeRepair("missing_module", _missing_module),
    SmokeRepair("missing_plugin", _missing_plugin),
    SmokeRepair("system_library", _system_library),
    SmokeRepair("build_packages", _build_packages),
)
