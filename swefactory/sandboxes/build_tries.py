"""How a lock that needs source distributions is built. One property: build requirements of the lock's own days first.

A lock's first line may say `# exclude-newer: TIME`, the bound of what builds it (see recipes.lock). The tries, until
one works:

    dated           build requirements published before that time
    dated, lifted   the bound lifted for the lock's own packages: one of them may be newer than it, a repair's doing
    undated         today's build requirements; then with setuptools below 81, the last with pkg_resources, then below
                    58, the last that translates Python 2

The dated ones are left out where the lock names no time. What follows a failure depends on what it says.
"""

import re
from dataclasses import dataclass

_BOUND = re.compile(r"\A# exclude-newer: (\d{4}-\d\d-\d\dT[\d:.]+Z)$", re.MULTILINE)
_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==", re.MULTILINE)
_BUILD_TOOLS = ("setuptools", "wheel")
_EVER = "2999-01-01T00:00:00Z"
_SETUPTOOLS = re.compile(r"setuptools|pkg_resources|use_2to3|distutils")
_TOO_NEW = re.compile(r"exclude-newer|no version of|no versions of|[Nn]o solution found|was not found in")


@dataclass(frozen=True)
class BuildTry:
    """One way to install: options for `uv pip install`, and a file of build constraints."""

    name: str
    options: tuple[str, ...] = ()
    constraint: str = ""


_UNDATED = (
    BuildTry("undated"),
    BuildTry("undated, setuptools<81", constraint="setuptools<81\n"),
    BuildTry("undated, setuptools<58", constraint="setuptools<58\n"),
)


def tries_of(lock: str) -> tuple[BuildTry, ...]:
    """All tries for `lock`, in their order."""
    found = _BOUND.search(lock)
    if found is None:
        return _UNDATED
    dated = ("--exclude-newer", found[1])
    names = sorted({name for name in _PIN.findall(lock) if name.lower() not in _BUILD_TOOLS})
    lifted = tuple(f"--exclude-newer-package={name}={_EVER}" for name in names)
    return (BuildTry("dated", dated), BuildTry("dated, lifted", (*dated, *lifted)), *_UNDATED)


def following(tries: tuple[BuildTry, ...], failed: BuildTry, said: str) -> BuildTry | None:
    """The try after `failed`, which said `said`; None when none can help."""
    rest = tries[tries.index(failed) + 1 :]
    if failed.name == "dated" and not _TOO_NEW.search(said):
        rest = rest[1:]
    if failed.name.startswith("undated") and not _SETUPTOOLS.search(said):
        return None
    return rest[0] if rest else None
