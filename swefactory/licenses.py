"""Which licences may be mined. One property: what is not known to be allowed is not allowed.

A repository's licence is an SPDX identifier or expression. `A OR B` is allowed if one is, `A AND B` if both are, and an
exception (`WITH`) only ever adds permissions. GitHub says NOASSERTION or nothing where it recognises no licence: such a
repository is allowed only by an allow-list that says `NOASSERTION`, or `*`, which allows all. Pure.
"""

from collections.abc import Collection
from functools import cache
from typing import Any

from license_expression import ExpressionError, Licensing, get_spdx_licensing

from swefactory.errors import UsageError

ANY, UNKNOWN = "*", "NOASSERTION"

# Permissive: they ask for notices at most, so that what is mined can be passed on with them, in whole or in part.
PERMISSIVE = frozenset((
    "0BSD", "Apache-2.0", "BlueOak-1.0.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "HPND", "ISC", "MIT",
    "MIT-0", "NCSA", "PostgreSQL", "PSF-2.0", "Python-2.0", "Unlicense", "UPL-1.0", "W3C", "X11", "Zlib",
))  # fmt: skip


@cache
def _licensing() -> Licensing:
    """Late and once: it reads the whole list of SPDX, which takes a moment."""
    return get_spdx_licensing()


def parse_allow_list(text: str) -> frozenset[str]:
    """A ','-separated list of SPDX identifiers in any case; empty: the permissive ones. Raises UsageError."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    return frozenset(map(_canonical, names)) if names else PERMISSIVE


def allowed(spdx: str, allow_list: Collection[str]) -> bool:
    """Whether a repository under this identifier or expression may be mined. The allow-list is of canonical names."""
    if ANY in allow_list:
        return True
    try:
        tree = _licensing().parse(spdx, validate=True) if spdx.upper() != UNKNOWN else None
    except ExpressionError:
        tree = None
    return UNKNOWN in allow_list if tree is None else _is_allowed(tree, allow_list)


def _is_allowed(tree: Any, allow_list: Collection[str]) -> bool:
    licensing = _licensing()
    if isinstance(tree, licensing.OR):
        return any(_is_allowed(part, allow_list) for part in tree.args)
    if isinstance(tree, licensing.AND):
        return all(_is_allowed(part, allow_list) for part in tree.args)
    return bool(getattr(tree, "license_symbol", tree).key in allow_list)


def _canonical(name: str) -> str:
    if name in (ANY, UNKNOWN):
        return name
    try:
        return str(_licensing().parse(name, validate=True, simple=True).key)
    except (ExpressionError, AttributeError) as error:
        raise UsageError(
            f"SWEFACTORY_LICENSES names {name!r}, which is no SPDX identifier; see https://spdx.org/licenses"
        ) from error
