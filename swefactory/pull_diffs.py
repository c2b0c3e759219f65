"""The diff of a pull request, read from its repository and split. One property: what a database keeps as text applies
byte for byte, files with other bytes included: those come as binary hunks, which are ASCII.

Whether a file is a test's is judged with its content and its surroundings, see `changed_tests`. A file that moves
between the tests and the rest comes as deleted here and new there, so that each half applies without the other.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from swefactory.changed_tests import ChangedTests, Surroundings, changed_tests
from swefactory.checkouts import Checkouts
from swefactory.patches import (
    FileChange,
    PatchUnreadable,
    SplitPatch,
    crossing_renames,
    file_changes,
    split_patch,
    unstorable_paths,
)
from swefactory.python_tests import CONFIGURATION_FILES, test_names

_MAX_CHARS = 5_000_000


@dataclass(frozen=True)
class PullDiff:
    """The halves, and the test modules that pytest would run after both, sorted."""

    split: SplitPatch
    test_files: tuple[str, ...]


def pull_diff(checkouts: Checkouts, mirror: Path, start: str, end: str) -> PullDiff:
    """Raises PatchUnreadable, InfrastructureError when the mirror lacks objects."""
    diff = checkouts.diff(mirror, start, end)
    files = file_changes(diff)
    tests = _tests(checkouts, mirror, (start, end), files)
    odd: tuple[str, ...] = ()
    while (found := set(unstorable_paths(files)) - set(odd)) or crossing_renames(files, tests.paths.__contains__):
        odd += tuple(sorted(found))  # a second round for a file that was a rename without content
        diff = checkouts.diff(mirror, start, end, renames=False, as_binary=odd)
        files = file_changes(diff)
    if odd := unstorable_paths(files):  # git never writes a link's target as binary
        raise PatchUnreadable(f"{odd[0]} is a link whose target is no text")
    if len(diff) > _MAX_CHARS:
        raise PatchUnreadable(f"it has {len(diff)} characters, more than {_MAX_CHARS}")
    return PullDiff(split_patch(files, tests.paths.__contains__), tests.modules)


def _tests(checkouts: Checkouts, mirror: Path, ends: tuple[str, str], files: Iterable[FileChange]) -> ChangedTests:
    """Judges files as they are at the end; those that are gone there as they were at the start."""
    changes = tuple(files)
    start, end = ends
    left = {change.new_path for change in changes if change.new_path}
    gone = {path for change in changes for path in change.paths} - left
    texts = _texts(checkouts, mirror, start, gone) | _texts(checkouts, mirror, end, left)
    there = frozenset(checkouts.paths(mirror, end))
    found = checkouts.texts(mirror, end, [path for path in CONFIGURATION_FILES if path in there])
    configuration = {path: text or "" for path, text in found.items()}
    paths = there | frozenset(checkouts.paths(mirror, start))
    return changed_tests(changes, texts, Surroundings(paths, test_names(configuration)))


def _texts(checkouts: Checkouts, mirror: Path, commit: str, paths: Iterable[str]) -> dict[str, str]:
    found = checkouts.texts(mirror, commit, [path for path in sorted(paths) if path.endswith(".py")])
    return {path: text for path, text in found.items() if text is not None}
