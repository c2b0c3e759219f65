"""What git's diffs say of themselves: which blobs they compare, which commit they are of. One property: reads text
and nothing else. Pure.
"""

import re
from dataclasses import dataclass

_COMMIT = re.compile(rb"^([0-9a-f]{40}|[0-9a-f]{64})\n", re.MULTILINE)
_OLD_PATH = re.compile(r"^(?:--- a/|(?:rename|copy) from )(.+?)\t?$", re.MULTILINE)
_BYTES = ("utf-8", "surrogateescape")


@dataclass(frozen=True)
class Change:
    """One changed file; its blobs before and after, as many as there are."""

    path: str
    blobs: tuple[str, ...]


def changes_of(raw: bytes) -> tuple[Change, ...]:
    """From the output of `git diff --raw -z --no-abbrev --no-renames`: `:MODE MODE OLD NEW LETTER␀PATH␀`…"""
    fields = raw.split(b"\0")[:-1]
    return tuple(_change(facts, path) for facts, path in zip(fields[::2], fields[1::2], strict=True))


def listed_by_commit(raw: bytes) -> dict[str, tuple[Change, ...]]:
    """From the same of `git diff-tree --stdin`, where `COMMIT␀` stands before each commit's changes."""
    found: dict[str, list[Change]] = {}
    fields = iter(raw.split(b"\0")[:-1])
    commit = ""
    for field in fields:
        if field.startswith(b":"):
            found[commit].append(_change(field, next(fields)))
        else:
            commit = field.decode()
            found[commit] = []
    return {commit: tuple(changes) for commit, changes in found.items()}


def diffs_by_commit(text: bytes) -> dict[str, str]:
    """From the output of `git diff-tree --stdin -p`: a line that is a commit's id stands before its diff, and no line
    of a diff looks so."""
    parts = _COMMIT.split(text)
    return {commit.decode(): diff.decode(*_BYTES) for commit, diff in zip(parts[1::2], parts[2::2], strict=True)}


def old_paths(patch: str) -> tuple[str, ...]:
    """Files that a diff reads, as far as their names need no quotes."""
    return tuple(sorted({path for path in _OLD_PATH.findall(patch) if not path.startswith('"')}))


def _change(facts: bytes, path: bytes) -> Change:
    """Neither nothing nor another repository's commit is a blob."""
    old_mode, new_mode, old, new, _ = facts.lstrip(b":").decode().split(" ")
    sides = ((old_mode, old), (new_mode, new))
    return Change(path.decode(*_BYTES), tuple(blob for mode, blob in sides if mode not in ("000000", "160000")))
