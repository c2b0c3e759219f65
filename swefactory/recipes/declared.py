"""What a checkout declares about itself, from all the files that may say it. One property: each fact has an origin.

    pyproject.toml (PEP 621, 735, poetry, pdm, flit, hatch)  >  setup.cfg  >  setup.py  >  Pipfile

The first file that states a fact wins; extras and groups of the same name are taken from the first, others are added.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields


@dataclass(frozen=True)
class Declared:
    """Facts of one file, or of all merged. Requirements are cleaned PEP 508 texts, `.[extra]` for itself.

    `version_from` says where a version that is not stated is kept: "attr:pkg.__version__" or "file:VERSION".
    `development` holds dependency groups by name, whatever tool they are for. `compiled` says what would need
    a compiler, empty when nothing does.
    """

    name: str = ""
    version: str = ""
    version_from: str = ""
    requires_python: str = ""
    classifiers: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    tests_require: tuple[str, ...] = ()
    build_requires: tuple[str, ...] = ()
    extras: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    development: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    entry_points: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    source_roots: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()  # import packages and modules named one by one
    local: tuple[str, ...] = ()  # names of its dependencies that are folders beside it
    compiled: str = ""
    why: Mapping[str, str] = field(default_factory=dict)


def merged(parts: Iterable[tuple[str, Declared]]) -> Declared:
    """The parts as one, earlier ones first; `why` names the file of each fact, and of each extra ("extras tests")."""
    facts: dict[str, object] = {}
    why: dict[str, str] = {}
    for origin, part in parts:
        for each in fields(Declared):
            value = getattr(part, each.name)
            if each.name == "why" or not value:
                continue
            if isinstance(value, Mapping):
                held = facts.setdefault(each.name, {})
                assert isinstance(held, dict)
                facts[each.name] = {**value, **held}
                why[each.name] = ", ".join(dict.fromkeys([*filter(None, [why.get(each.name)]), origin]))
                why |= {f"{each.name} {name}": origin for name in value if name not in held}
            elif each.name not in facts:
                facts[each.name], why[each.name] = value, origin
    return Declared(**facts, why=why)  # type: ignore[arg-type]  # each value has its own field's type


def entry_point_lines(lines: Iterable[str]) -> dict[str, str]:
    """`name = module:attr` lines as a mapping; extras in brackets are dropped."""
    pairs = (line.partition("=") for line in lines)
    return {n.strip(): v.partition("[")[0].strip() for n, _, v in pairs if n.strip() and v.strip()}
