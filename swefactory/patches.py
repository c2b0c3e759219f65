"""A pull request's diff, split into `patch` and `test_patch`. One property: no byte of the diff is changed or lost.

    diff --git a/src/x.py b/src/x.py         ─► patch
    diff --git a/tests/test_x.py b/…         ─► test_patch

The split is by whole file sections of git's own text, so renames, deletions, modes and binary hunks survive;
unidiff then counts every hunk. Text is `str` with undecodable bytes as surrogates. Which file is a test's is said by
whoever splits (see `changed_tests`), else by its path. Pure.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from unidiff.errors import UnidiffParseError
from unidiff.patch import PatchSet

from swefactory.file_kinds import FileKind, is_docs, is_extension_source, is_python, is_test_path

_WHOLE_BINARY = re.compile(
    r"GIT binary patch\n(?:literal|delta) \d+\n(?:[A-Za-z]\S+\n)*\n(?:literal|delta) \d+\n(?:[A-Za-z]\S+\n)*\n\Z"
)
_SECTION = re.compile(r"^(?=diff --git )", re.MULTILINE)
_FIELD = re.compile(
    r"^(?P<key>rename from|rename to|copy from|copy to|---|\+\+\+|old mode|new mode|new file mode|deleted file mode) "
    r"(?P<value>.*)$"
)
_QUOTED = re.compile(r"\\([0-3][0-7]{2})|\\(.)|([^\\]+)")
_BYTES = ("utf-8", "surrogateescape")
_ESCAPES = dict(zip("ntrabfv", "\n\t\r\a\b\f\v", strict=True))  # others, like \" and \\, stand for themselves


class PatchUnreadable(ValueError):
    """The text is not a whole git diff; says which file and why."""


@dataclass(frozen=True)
class FileChange:
    """One file's section. A path is None where the file does not exist on that side."""

    old_path: str | None
    new_path: str | None
    is_binary: bool
    text: str

    @property
    def paths(self) -> tuple[str, ...]:
        """Its one path, or both of a rename."""
        return tuple(dict.fromkeys(path for path in (self.old_path, self.new_path) if path))

    @property
    def path(self) -> str:
        return self.paths[-1]


@dataclass(frozen=True)
class SplitPatch:
    """The two halves. Each file is in one of them, so they apply in any order. `tests` are paths of the test_patch."""

    patch: str
    test_patch: str
    files: tuple[FileChange, ...]
    tests: frozenset[str]

    @property
    def kinds(self) -> frozenset[FileKind]:
        return frozenset(self._kind(change.path) for change in self.files)

    @property
    def changes_python(self) -> bool:
        """Whether Python code outside the tests and docs changes, or what an extension module is compiled from."""
        paths = [path for change in self.files for path in change.paths]
        return any(self._kind(p) is FileKind.SOURCE and (is_python(p) or is_extension_source(p)) for p in paths)

    def _kind(self, path: str) -> FileKind:
        if path in self.tests:
            return FileKind.TEST
        return FileKind.DOCS if is_docs(path) else FileKind.SOURCE


def split_patch(files: Sequence[FileChange], is_test: Callable[[str], bool] = is_test_path) -> SplitPatch:
    """Splits the files of a diff. Raises PatchUnreadable where the halves would not apply on their own: for a rename
    between tests and the rest, which the caller avoids by a diff without renames (see `crossing_renames`), and for
    a file of one half in whose place the other has a folder."""
    if crossing := crossing_renames(files, is_test):
        raise PatchUnreadable(f"{' -> '.join(crossing[0].paths)} moves between tests and source in one section")
    tests = frozenset(path for change in files for path in change.paths if is_test(path))
    _check_folders(files, tests)
    return SplitPatch(
        patch="".join(change.text for change in files if change.path not in tests),
        test_patch="".join(change.text for change in files if change.path in tests),
        files=tuple(files),
        tests=tests,
    )


def crossing_renames(
    files: Sequence[FileChange], is_test: Callable[[str], bool] = is_test_path
) -> tuple[FileChange, ...]:
    """Files that are renamed from the tests to the source or back: half of each would belong to each patch."""
    return tuple(change for change in files if len({is_test(path) for path in change.paths}) > 1)


def _check_folders(files: Sequence[FileChange], tests: frozenset[str]) -> None:
    every = {path for change in files for path in change.paths}
    for path in sorted(every):
        above = (str(folder) for folder in PurePosixPath(path).parents)
        if other := next(
            (folder for folder in above if folder in every and (folder in tests) != (path in tests)), None
        ):
            raise PatchUnreadable(
                f"{other} is a file on one side and a folder with {path}, of the other half, on the other"
            )


def unstorable_paths(files: Iterable[FileChange]) -> tuple[str, ...]:
    """Paths whose section is no text that a database keeps (bytes that are not UTF-8, NUL)."""
    odd = (c for c in files if "\0" in c.text or any("\ud800" <= x <= "\udfff" for x in c.text))
    return tuple(path for change in odd for path in change.paths)


def file_changes(diff: str) -> tuple[FileChange, ...]:
    """The file sections of git's diff, in their order; joined they are the diff. Raises PatchUnreadable."""
    sections = _SECTION.split(diff)
    if sections[0]:
        raise PatchUnreadable(f"it starts with {sections[0][:60]!r} and not with 'diff --git'")
    return tuple(_file_change(section) for section in sections[1:])


def _file_change(section: str) -> FileChange:
    header, body, is_binary = _parts(section)
    title = header[0]
    fields = {m["key"]: m["value"] for line in header[1:] if (m := _FIELD.match(line))}
    if any(line.startswith("Binary files ") for line in header):
        raise PatchUnreadable(f"{title!r} says that binary files differ, not how")
    old, new = _paths(title, fields)
    if body:
        _count_hunks(title, body)
    return FileChange(
        old_path=None if "new file mode" in fields else old,
        new_path=None if "deleted file mode" in fields else new,
        is_binary=is_binary,
        text=section,
    )


def _parts(section: str) -> tuple[list[str], str, bool]:
    """Header lines, the hunks, whether the hunks are binary (and then not returned)."""
    match = re.search(r"^(?:@@ |GIT binary patch$)", section, re.MULTILINE)
    if match is None:
        return section.split("\n"), "", False
    header = section[: match.start()].split("\n")
    is_binary = match.group().startswith("GIT")
    if is_binary and not _WHOLE_BINARY.match(section, match.start()):
        raise PatchUnreadable(f"{header[0]!r}: its binary hunk is cut off")
    return header, "" if is_binary else section[match.start() :], is_binary


def _count_hunks(title: str, hunks: str) -> None:
    """unidiff gets plain names: those of the header may hold what it cannot tell apart, like two spaces."""
    try:
        parsed = PatchSet(f"--- a/file\n+++ b/file\n{hunks}")
    except UnidiffParseError as error:
        raise PatchUnreadable(f"{title!r}: {str(error).strip()}") from error
    if len(parsed) != 1 or sum(len(hunk) + 1 for hunk in parsed[0]) != hunks.count("\n"):
        raise PatchUnreadable(f"{title!r}: there are lines that belong to no hunk")


def _paths(title: str, fields: dict[str, str]) -> tuple[str, str]:
    """Old and new path, from where the header says them without ambiguity."""
    for source, target, n_prefix in (("rename from", "rename to", 0), ("copy from", "copy to", 0), ("---", "+++", 2)):
        if source in fields and target in fields:
            old, new = _unquoted(fields[source]), _unquoted(fields[target])
            old, new = (new if old == "/dev/null" else old), (old if new == "/dev/null" else new)
            return old[n_prefix:], new[n_prefix:]
    return _same_path(title)


def _same_path(title: str) -> tuple[str, str]:
    """Of a section without hunks or rename: both paths are the same, so the line is a path said twice."""
    both = title.removeprefix("diff --git ")
    if both.startswith('"') and both.endswith('"'):
        halves = both[1:-1].split('" "')
        names = [_unquoted(f'"{half}"') for half in halves]
    else:
        names = [both[: len(both) // 2], both[len(both) // 2 + 1 :]]
    if len(names) != 2 or [n[:2] for n in names] != ["a/", "b/"] or names[0][2:] != names[1][2:]:
        raise PatchUnreadable(f"{title!r}: which file it changes cannot be told")
    return names[0][2:], names[1][2:]


def _unquoted(name: str) -> str:
    """A path as git writes it: in quotes as in C when it holds special bytes; a tab ends a name with spaces."""
    name = name.removesuffix("\t")
    if not (name.startswith('"') and name.endswith('"') and len(name) > 1):
        return name
    raw = bytearray()
    for match in _QUOTED.finditer(name[1:-1]):
        octal, escaped, plain = match.groups()
        raw += bytes([int(octal, 8)]) if octal else (plain or _ESCAPES.get(escaped, escaped)).encode(*_BYTES)
    return raw.decode(*_BYTES)
