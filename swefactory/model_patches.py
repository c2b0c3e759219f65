"""What of a patch may take part in grading. One property: nothing that steers the tests comes from the patch.

`restrict` keeps or drops whole files of a git diff. Dropped, and so as in the base commit plus the test_patch:

    tests            files the test_patch touches; all below their tests/ folder; test_*.py, *_test.py, conftest.py
    configuration    pytest.ini, tox.ini and .coveragerc; pyproject.toml, setup.cfg where pytest's section changes
    start-up         sitecustomize.py, usercustomize.py, *.pth, and what is imported before the tests: a new
                     top-level module named like one of the standard library, of pytest or of the environment
    git's own        .git, .gitmodules, links to other commits

The gold patch passes the same gate when an instance is validated, so that a solution that is equal to it is graded
equal. A patch of which a file's paths cannot be told for sure is refused as a whole. Pure.
"""

import configparser
import re
import sys
import tomllib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NoReturn

_TEST_FOLDERS = frozenset(("test", "tests"))
_TOP_TEST_FOLDERS = frozenset(("testing", "t"))  # deeper ones are often the product: numpy/testing
_CONFIGURATION = frozenset((
    "pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml", "tox.ini", ".coveragerc", "conftest.py",
    "sitecustomize.py", "usercustomize.py", ".gitmodules",
))  # fmt: skip
_START_UP_MODULES = sys.stdlib_module_names | {"pytest", "_pytest", "py", "pluggy", "setuptools", "pkg_resources"}
_HEADER = "diff --git "
_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+\d+(?:,(\d+))? @@")
_OCTAL = re.compile(r"\\([0-7]{3}|.)")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "\\": "\\", '"': '"'}


class PatchUnreadable(ValueError):
    """A patch whose files cannot be told apart for sure; it must not be applied."""


@dataclass(frozen=True)
class Hunk:
    """One hunk: its first line and number of lines in the old file, and (" ", "-" or "+", text) of each line."""

    start: int
    n_old: int
    lines: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class FileChange:
    """One file's part of a git diff. `paths` are all names it could touch, as git would read them; `hunks` is None
    when more than text changes."""

    text: str
    paths: frozenset[str]
    is_new: bool
    is_commit_link: bool
    hunks: tuple[Hunk, ...] | None


@dataclass(frozen=True)
class RestrictedPatch:
    """What is left of a patch, and the paths that were left out, sorted."""

    patch: str
    dropped: tuple[str, ...]


def restrict(
    patch: str,
    test_patch: str,
    base_text: Callable[[str], str | None] = lambda path: None,
    installed: Collection[str] = (),
    steering: Collection[str] = (),
) -> RestrictedPatch:
    """The part of `patch` that may be graded. `base_text` reads a file of the base commit (None: no such text),
    `installed` are top-level modules of the environment, `steering` further files that start the tests. Raises
    PatchUnreadable."""
    protected = protected_paths(test_patch) | {*steering}
    kept: list[str] = []
    dropped: set[str] = set()
    for change in changes(patch):
        if any(_is_protected(path, protected) for path in change.paths) or _steers(change, base_text, installed):
            dropped |= change.paths
        else:
            kept.append(change.text)
    return RestrictedPatch("".join(kept), tuple(sorted(dropped)))


def protected_paths(test_patch: str) -> frozenset[str]:
    """Files that the test_patch touches, and folders of tests that hold them. Raises PatchUnreadable."""
    tests = frozenset(path for change in changes(test_patch) for path in change.paths)
    return tests | {folder for path in tests if (folder := _test_folder(path))}


def _is_protected(path: str, protected: Collection[str]) -> bool:
    parts = PurePosixPath(path).parts
    return any("/".join(parts[:n]) in protected for n in range(1, len(parts) + 1))


def _test_folder(path: str) -> str:
    """The outermost tests folder that holds this file, or nothing: tests beside the code protect only themselves."""
    parts = PurePosixPath(path).parts[:-1]
    for n, part in enumerate(parts):
        if part.lower() in _TEST_FOLDERS or (n == 0 and part.lower() in _TOP_TEST_FOLDERS):
            return "/".join(parts[: n + 1])
    return ""


def _steers(change: FileChange, base_text: Callable[[str], str | None], installed: Collection[str]) -> bool:
    """Whether this file decides what runs, how it runs, or what is imported before it runs."""
    return change.is_commit_link or any(
        _is_steering_name(path)
        or (change.is_new and _is_shadow(path, installed))
        or (PurePosixPath(path).name in ("setup.cfg", "pyproject.toml") and _section_changes(change, path, base_text))
        for path in change.paths
    )


def _is_steering_name(path: str) -> bool:
    pure = PurePosixPath(path)
    name = pure.name.lower()  # a file system may not tell the cases apart
    is_test = name.startswith("test_") or name.endswith("_test.py")
    return (
        name in _CONFIGURATION or name.endswith(".pth") or (is_test and name.endswith(".py"))
        or ".git" in (part.lower() for part in pure.parts) or pure.is_absolute() or ".." in pure.parts
    )  # fmt: skip


def _is_shadow(path: str, installed: Collection[str]) -> bool:
    """Whether a new file would be imported in place of a module that stands outside the tree."""
    parts = PurePosixPath(path).parts
    parts = parts[1:] if len(parts) > 1 and parts[0] in ("src", "lib") else parts
    name = parts[0].split(".")[0]
    is_top_level = len(parts) == 1 or (len(parts) == 2 and parts[1].split(".")[0] == "__init__")
    return is_top_level and (name in _START_UP_MODULES or name in installed) and _is_importable(parts[-1])


def _is_importable(name: str) -> bool:
    return name.endswith((".py", ".pyc", ".so", ".pyd"))


# ---------------------------------------------------------------- files of a diff


def changes(patch: str) -> Iterator[FileChange]:
    """The files of a git diff, in its order. Raises PatchUnreadable."""
    text: list[str] = []
    for line in patch.removesuffix("\n").split("\n"):
        if line.startswith(_HEADER):
            if text:
                yield _change(text)
            text = []
        elif not text and line.strip():
            raise PatchUnreadable(f"not a git diff: it begins with {line[:60]!r}")
        if text or line.startswith(_HEADER):
            text.append(line)
    if text:
        yield _change(text)


def _change(lines: list[str]) -> FileChange:
    head = lines[: next((n for n, line in enumerate(lines) if line.startswith(("@@ ", "GIT binary"))), len(lines))]
    hunks = tuple(_hunks(lines[len(head) :]))
    paths = {path for line in head[1:] for path in _named(line)} | _header_paths(head)
    return FileChange(
        text="\n".join(lines) + "\n",
        paths=frozenset(paths),
        is_new=any(line.startswith(("new file mode", "rename to", "copy to")) for line in head),
        is_commit_link=any(line.endswith(" 160000") for line in head),
        hunks=None if any(line.startswith(("rename ", "copy ", "GIT binary")) for line in lines) else hunks,
    )


def _hunks(lines: list[str]) -> Iterator[Hunk]:
    """The hunks of a file. What stands between and after them must not be able to begin another file for git."""
    n = 0
    while n < len(lines):
        if header := _HUNK.match(lines[n]):
            hunk, n = _hunk(header, lines, n + 1)
            yield hunk
        elif lines[n].startswith(("--- ", "+++ ", "@@")):
            _refuse(lines[n])
        else:
            n += 1


def _hunk(header: re.Match[str], lines: list[str], n: int) -> tuple[Hunk, int]:
    """One hunk, and the number of the line after it."""
    n_old, n_new = int(header.group(2) or 1), int(header.group(3) or 1)
    found: list[tuple[str, str]] = []
    while n_old or n_new:
        line = lines[n] if n < len(lines) else _refuse("the end of a hunk")
        mark = line[:1] or " "
        if mark in " -+":
            found.append((mark, line[1:]))
            n_old, n_new = n_old - (mark != "+"), n_new - (mark != "-")
        if mark not in " -+\\" or n_old < 0 or n_new < 0:
            _refuse(line)
        n += 1
    return Hunk(int(header.group(1)), int(header.group(2) or 1), tuple(found)), n


def _named(line: str) -> Iterator[str]:
    """The path that a line of a file's head names."""
    for mark in ("--- ", "+++ "):
        if line.startswith(mark):
            name = _unquoted(line[len(mark) :].removesuffix("\r").split("\t")[0])
            if name != "/dev/null":
                yield name[2:] if name[:2] in ("a/", "b/") else _refuse(line)
    for mark in ("rename from ", "rename to ", "copy from ", "copy to "):
        if line.startswith(mark):
            yield _unquoted(line[len(mark) :].removesuffix("\r"))


def _header_paths(head: list[str]) -> set[str]:
    """The path of `diff --git a/P b/P`. With two names it cannot be split for sure: then other lines must name them."""
    rest = head[0][len(_HEADER) :].removesuffix("\r")
    if rest.startswith('"'):
        first = re.match(r'"(?:[^"\\]|\\.)*"', rest)
        second = rest[first.end() + 1 :] if first else ""
        names = {_unquoted(first.group(0)), _unquoted(second)} if first and second else set()
        if names and all(name[:2] in ("a/", "b/") for name in names):
            return {name[2:] for name in names}
    half = (len(rest) - 1) // 2
    if rest[:2] == "a/" and rest[half : half + 3] == " b/" and rest[2:half] == rest[half + 3 :]:
        return {rest[2:half]}
    if any(line.startswith(("rename to ", "copy to ")) for line in head):
        return set()
    return _refuse(head[0])


def _refuse(line: str) -> NoReturn:
    raise PatchUnreadable(f"cannot tell which file this line of the patch names: {line[:120]!r}")


def _unquoted(name: str) -> str:
    """A path as git wrote it: quoted like a C string when it holds unusual characters."""
    if not name.startswith('"'):
        return name
    if len(name) < 2 or not name.endswith('"'):
        return _refuse(name)
    parts: list[bytes] = []
    last = 1
    inner_end = len(name) - 1
    for match in _OCTAL.finditer(name, 1, inner_end):
        code = match.group(1)
        value = bytes([int(code, 8) & 255]) if len(code) == 3 else _ESCAPES.get(code, code).encode()
        parts += [name[last : match.start()].encode("utf-8", "surrogateescape"), value]
        last = match.end()
    parts.append(name[last:inner_end].encode("utf-8", "surrogateescape"))
    return b"".join(parts).decode("utf-8", "surrogateescape")


# ---------------------------------------------------------------- pytest's section of shared files


def _section_changes(change: FileChange, path: str, base_text: Callable[[str], str | None]) -> bool:
    """Whether pytest's part of a shared configuration file changes; yes when that cannot be told."""
    base = base_text(path) or ""
    try:
        return _pytest_section(path, base) != _pytest_section(path, applied(base, change.hunks))
    except (ValueError, configparser.Error):
        return True


def applied(base: str, hunks: tuple[Hunk, ...] | None) -> str:
    """The file after its hunks. Raises ValueError when one does not fit exactly."""
    if hunks is None:
        raise ValueError("the change is not one of text alone")
    old, new, at = base.split("\n"), list[str](), 0
    for hunk in hunks:
        begin = hunk.start - 1 if hunk.n_old else hunk.start
        new += old[at:begin]
        before = [text for mark, text in hunk.lines if mark != "+"]
        if begin < at or old[begin : begin + len(before)] != before:
            raise ValueError("a hunk does not fit the base commit's file")
        new += [text for mark, text in hunk.lines if mark != "-"]
        at = begin + len(before)
    return "\n".join(new + old[at:])


def _pytest_section(path: str, text: str) -> object:
    """What pytest reads of the file."""
    if path.endswith(".toml"):
        return tomllib.loads(text).get("tool", {}).get("pytest")
    parser = configparser.RawConfigParser(strict=False, delimiters=("=", ":"))
    parser.read_string(text)
    return {name: dict(parser.items(name)) for name in sorted(parser.sections()) if "pytest" in name}
