"""One requirement, however it is spelled, as PEP 508 text. One property: no address ever comes out.

A requirement on the checkout itself (`-e .`, `.[test]`, `{toxinidir}[test]`) becomes `.[test]`, expanded later by
`dependencies`. Direct references (git, http, paths) are left out: a lock holds names and hashes only.
"""

import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from swefactory.recipes.files import read_text, strings, text

_SELF = re.compile(r"^(?:-e\s*|--editable[= ]\s*)?(?:file:)?(?:\{toxinidir\}|\.)/?(\[[\w\s,.-]*\])?$")
_COMMENT = re.compile(r"(^|\s)#.*$")
_QUOTED = re.compile(r"""^(["'])((?:(?!\1).)*)\1$""")
_HASH = re.compile(r"\s--(?:hash|global-option|install-option|config-settings)[= ]\S+")
_EGG = re.compile(r"^(?:-e\s*|--editable[= ]\s*)?\S+[#&]egg=([A-Za-z0-9._-]+)")
_WILDCARD_BOUND = re.compile(r"([<>]=?\s*[\d.]+?)\.\*")
_MAX_DEPTH = 8


@dataclass(frozen=True)
class FileRequirements:
    """What a requirements file asks for, its includes followed, in the order found."""

    requirements: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict)  # requirement -> "requirements/tests.txt:3"


def clean(line: str) -> str:
    """PEP 508 text, `.` or `.[extras]` for the checkout itself, or empty for what cannot be locked by name."""
    line = _QUOTED.sub(r"\2", _HASH.sub("", _COMMENT.sub("", line)).strip()).strip()
    own = _SELF.match(line)
    if own:
        return "." + (own.group(1) or "").replace(" ", "")
    egg = _EGG.match(line)
    try:
        requirement = Requirement(egg.group(1) if egg else _WILDCARD_BOUND.sub(r"\1", line))
    except InvalidRequirement:
        return ""
    requirement.url = None  # the name is kept: the registry's release is nearer to it than nothing
    return str(requirement)


def cleaned(lines: Iterable[str]) -> tuple[str, ...]:
    """Every line cleaned; empty ones left out."""
    return tuple(found for found in map(clean, lines) if found)


def read_requirements(tree: Path, path: str) -> FileRequirements:
    """A requirements file with its -r and -c includes, which are relative to the file that names them."""
    return _read(tree, path, frozenset())


def _read(tree: Path, path: str, above: frozenset[str]) -> FileRequirements:
    path = posixpath.normpath(path)
    if path in above or len(above) > _MAX_DEPTH:
        return FileRequirements()
    numbered = _joined(read_text(tree, path))
    located = [(line, f"{path}:{number}") for number, line in numbered]
    return _collected(tree, located, posixpath.dirname(path), above | {path})


def _joined(text: str) -> list[tuple[int, str]]:
    """Lines with their numbers; what a backslash continues is one line."""
    found: list[tuple[int, str]] = []
    held, start = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        start = start if held else number
        held += line
        if held.endswith("\\"):
            held = held[:-1] + " "
            continue
        found.append((start, held))
        held = ""
    return [*found, *([(start, held)] if held else [])]


def _collected(tree: Path, lines: Iterable[tuple[str, str]], folder: str, above: frozenset[str]) -> FileRequirements:
    requirements: list[str] = []
    constraints: list[str] = []
    origins: dict[str, str] = {}
    for line, origin in lines:
        option, target = _include(_COMMENT.sub("", line).strip())
        if not option:
            found = cleaned([line])
            requirements += found
            origins |= {requirement: origin for requirement in found if requirement not in origins}
            continue
        inner = _read(tree, posixpath.join(folder, target), above)
        (requirements if option == "r" else constraints).extend(inner.requirements)
        constraints += inner.constraints
        origins = {**inner.origins, **origins}
    return FileRequirements(tuple(requirements), tuple(c for c in constraints if not c.startswith(".")), origins)


def _include(line: str) -> tuple[str, str]:
    found = re.match(r"^(?:-(r|c)\s*|--(requirement|constraint)[= ]\s*)(\S+)$", line)
    if not found:
        return "", ""
    return found.group(1) or found.group(2)[0], found.group(3).strip("\"'")


def read_lines(tree: Path, lines: Iterable[str], origin: str = "") -> FileRequirements:
    """Lines as tox, nox and pip write them: requirements, or `-r file` / `-c file` relative to the root."""
    located = ((re.sub(r"\{toxinidir\}/(?=[^\[])", "", line).strip(), origin) for line in lines)
    return _collected(tree, located, "", frozenset())


def name_of(requirement: str) -> str:
    """The canonical project name of a cleaned requirement; empty for the checkout itself."""
    return "" if requirement.startswith(".") else canonicalize_name(Requirement(requirement).name)


def marker_holds(requirement: str, environment: Mapping[str, str]) -> bool:
    """Whether the requirement applies at all in `environment` (markers with `extra` do not)."""
    marker = Requirement(requirement).marker
    return marker is None or marker.evaluate({**environment, "extra": ""})


def relaxed(requirement: str) -> str:
    """The same requirement without its bounds."""
    loose = Requirement(requirement)
    loose.specifier = SpecifierSet()
    return str(loose)


def specifier_set(spec: str) -> SpecifierSet:
    """A specifier set, lenient to `>=3.6.*` and poetry's operators; empty when it cannot be read."""
    try:
        return SpecifierSet(_WILDCARD_BOUND.sub(r"\1", spec))
    except InvalidSpecifier:
        try:
            return SpecifierSet(poetry_specifier(spec))
        except InvalidSpecifier:
            return SpecifierSet()


# ---------------------------------------------------------------- poetry and pipenv


def poetry_requirement(name: str, value: object) -> str:
    """A poetry or Pipfile entry as PEP 508 text; empty for git, path and url entries' addresses (the name stays)."""
    if isinstance(value, list):
        value = value[-1] if value else "*"
    if isinstance(value, str):
        return clean(f"{name}{poetry_specifier(value)}")
    if not isinstance(value, Mapping):
        return ""
    extras = ",".join(strings(value.get("extras")))
    if path := text(value.get("path")):  # the registry's namesake of a folder beside us is anybody's
        return f".{f'[{extras}]' if extras else ''}" if path.rstrip("/") == "." else ""
    markers = [text(value.get("markers")), _python_marker(text(value.get("python")))]
    suffix = " and ".join(f"({marker})" for marker in markers if marker)
    version = poetry_specifier(text(value.get("version")) or "*")
    return clean(f"{name}{f'[{extras}]' if extras else ''}{version}{f' ; {suffix}' if suffix else ''}")


def _python_marker(spec: str) -> str:
    bounds = poetry_specifier(spec) if spec else ""
    pieces = (re.match(r"([<>=!~]+)\s*(.+)", bound.strip()) for bound in bounds.split(",") if bound.strip())
    return " and ".join(f'python_version {piece.group(1)} "{_minor(piece.group(2))}"' for piece in pieces if piece)


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def poetry_specifier(spec: str) -> str:
    """Poetry's caret and tilde as PEP 440 bounds; of alternatives (`||`) the last, which is the newest."""
    spec = spec.rpartition("||")[2].strip()
    return ",".join(bound for bound in map(_bound, re.split(r"[,\s]+(?=[\^~<>=!*\d])", spec)) if bound)


def _bound(spec: str) -> str:
    spec = spec.strip().rstrip(",")
    if spec in ("", "*", "latest"):
        return ""
    if spec.startswith("^") or (spec.startswith("~") and not spec.startswith("~=")):
        version = spec[1:].strip()
        return f">={version},<{_next(version, caret=spec[0] == '^')}"
    return f"=={spec}" if spec[0].isdigit() else spec.replace(" ", "")


def _next(version: str, *, caret: bool) -> str:
    """The first version that a caret or a tilde no longer admits."""
    parts = [int(found) for found in re.findall(r"\d+", re.split(r"[a-z+-]", version)[0])] or [0]
    first_set = next((i for i, part in enumerate(parts) if part), len(parts) - 1)
    index = first_set if caret else min(1, len(parts) - 1)
    return ".".join(str(part) for part in [*parts[:index], parts[index] + 1])
