"""What repositories hold at a commit: facts, texts, diffs and trees. One property: never runs repository code.

    CACHE/trees/owner+name/SHA/   one commit's files, no .git; shared, so never written after it is complete

Reads the partial mirrors of swefactory.mirrors: whatever needs contents first fetches them all in one request. A diff
is the same on every machine. Functions on plain trees are in swefactory.trees and can be had from here too.
"""

import os
import re
import subprocess
import tempfile
from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from db.enums import RejectReason
from swefactory import held_folders
from swefactory.changelogs import is_changelog
from swefactory.errors import InfrastructureError, Rejected
from swefactory.git_commands import git_environment, last_line, run_git
from swefactory.held_folders import held_folder
from swefactory.mirrors import MIRROR_HEAD, Mirrors, is_partial
from swefactory.raw_diffs import Change, changes_of, diffs_by_commit, listed_by_commit, old_paths
from swefactory.trees import apply_patch, copy_tree, diff, seal, unpack

__all__ = [
    "MIRROR_HEAD", "Checkouts", "apply_patch", "copy_tree", "diff", "git_environment", "run_git", "seal",
]  # fmt: skip

_PARTS = ".parts"  # below the trees: no owner is called so
_EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
_RAW = ("--raw", "-z", "--no-abbrev", "--no-renames", "--ignore-submodules=all")
_TEXT = (
    "--no-color", "--no-ext-diff", "--no-textconv", "--diff-algorithm=myers", "--ignore-submodules=none",
    "--src-prefix=a/", "--dst-prefix=b/",
)  # fmt: skip
_PATTERNLESS = {"GIT_ATTR_SOURCE": _EMPTY_TREE, "GIT_LITERAL_PATHSPECS": "1"}


class Checkouts(Mirrors):
    """Mirrors and trees below two folders; safe to use from several processes at once. Every reader raises Transient
    or Rejected(REPOSITORY_NOT_FOUND) when contents had to be fetched and could not be."""

    def __init__(self, mirrors: Path, cache: Path, token: str = "", api_url: str = "https://api.github.com") -> None:
        super().__init__(mirrors, token, api_url)
        self._trees = cache / "trees"
        self._scratch = cache / "scratch"

    # ------------------------------------------------------------ facts of commits

    def merge_base(self, mirror: Path, one: str, other: str) -> str | None:
        """The best common ancestor; None without one, or when a commit is missing."""
        if len(self.commits_present(mirror, (one, other))) < len({one, other}):
            return None
        try:
            return self._git(mirror, "merge-base", one, other).decode().strip()
        except subprocess.CalledProcessError:
            return None

    def parent(self, mirror: Path, commit: str) -> str | None:
        """The first parent; None without one, or when a commit is missing."""
        if not self.commit_exists(mirror, commit):
            return None
        try:
            return self._git(mirror, "rev-parse", "--verify", "--quiet", f"{commit}^^{{commit}}").decode().strip()
        except subprocess.CalledProcessError:
            return None

    def commits(self, mirror: Path, old: str, new: str) -> tuple[str, ...]:
        """Those of `new` that `old` has not, newest first; none when one of the two is missing."""
        if len(self.commits_present(mirror, (old, new))) < len({old, new}):
            return ()
        return tuple(self._git(mirror, "rev-list", f"{old}..{new}").decode().split())

    def nearest_tag(self, mirror: Path, commit: str) -> str:
        """The last tag with a number in it before `commit`; empty without one."""
        try:
            return self._git(mirror, "describe", "--tags", "--abbrev=0", "--match=*[0-9]*", commit).decode().strip()
        except subprocess.CalledProcessError:
            return ""

    def paths(self, mirror: Path, commit: str) -> tuple[str, ...]:
        """Every file of `commit`, sorted."""
        listing = self._git(mirror, "ls-tree", "-r", "-z", "--name-only", commit)
        return tuple(listing.decode("utf-8", "surrogateescape").split("\0")[:-1])

    # ------------------------------------------------------------ texts

    def text(self, mirror: Path, commit: str, path: str) -> str | None:
        """A file's text at `commit`; None when there is no such file."""
        return self.texts(mirror, commit, (path,))[path]

    def texts(self, mirror: Path, commit: str, paths: Collection[str]) -> dict[str, str | None]:
        """As `text` for several files, with one request at most."""
        blobs = self._blobs(mirror, commit, paths) if paths and self.commit_exists(mirror, commit) else {}
        self.prefetch(mirror, blobs.values())
        contents = self._contents(mirror, set(blobs.values()))
        return {path: contents[blobs[path]] if path in blobs else None for path in paths}

    def _blobs(self, mirror: Path, commit: str, paths: Iterable[str]) -> dict[str, str]:
        """The blob of each of `paths` that is a file at `commit`."""
        listing = self._git(mirror, "ls-tree", "-r", "-z", commit, "--", *paths, env=_PATTERNLESS)
        rows = (row.split("\t", 1) for row in listing.decode("utf-8", "surrogateescape").split("\0")[:-1])
        found = {path: facts.split(" ") for facts, path in rows}
        return {path: found[path][2] for path in paths if path in found and found[path][1] == "blob"}

    def _contents(self, mirror: Path, blobs: Collection[str]) -> dict[str, str]:
        if not blobs:
            return {}
        stream = self._git(mirror, "cat-file", "--batch", stdin="".join(f"{one}\n" for one in sorted(blobs)).encode())
        found: dict[str, str] = {}
        position = 0
        while position < len(stream):
            end = stream.index(b"\n", position)
            blob, kind, *size = stream[position:end].decode().split(" ")
            if kind == "missing":
                raise InfrastructureError(f"blob {blob} is missing in {mirror}; delete that folder and run again")
            start, position = end + 1, end + 2 + int(size[0])
            found[blob] = stream[start : position - 1].decode("utf-8", "replace")
        return found

    # ------------------------------------------------------------ diffs

    def applies(self, mirror: Path, commit: str, patch: str) -> bool:
        """Whether a diff fits `commit`; nothing is written into the mirror."""
        if is_partial(mirror) and (paths := old_paths(patch)):
            self.prefetch(mirror, self._blobs(mirror, commit, paths).values())
        with tempfile.TemporaryDirectory(prefix="swefactory-index-") as folder:
            env = {"GIT_INDEX_FILE": f"{folder}/index"}
            self._git(mirror, "read-tree", commit, env=env)
            command = ("apply", "--cached", "--check", "--whitespace=nowarn", "-")
            try:
                self._git(mirror, *command, stdin=patch.encode("utf-8", "surrogateescape"), env=env)
            except subprocess.CalledProcessError:
                return False
        return True

    def diff(self, mirror: Path, old: str, new: str, *, renames: bool = True, as_binary: Sequence[str] = ()) -> str:
        """The change from `old` to `new` as git writes it, whole binary hunks included; bytes that are not UTF-8 as
        surrogates. Files of `as_binary` come as binary hunks; links to other repositories' commits as their ids.
        Raises InfrastructureError when the mirror lacks objects that its origin cannot give."""
        with tempfile.NamedTemporaryFile("w", prefix="swefactory-attributes-") as attributes:
            attributes.writelines(f"{_attribute_pattern(path)} -diff\n" for path in as_binary)
            attributes.flush()
            command = [
                "-c", f"core.attributesFile={attributes.name}", "diff", "--binary", "--full-index", "--unified=3",
                *_TEXT, "--find-renames=50%" if renames else "--no-renames", old, new,
            ]  # fmt: skip
            try:
                if is_partial(mirror):  # of renames too: a rename is an addition and a deletion here
                    self._prefetch_changes(mirror, changes_of(self._git(mirror, "diff", *_RAW, old, new)))
                found = self._git(mirror, *command, env=_PATTERNLESS)
            except subprocess.CalledProcessError as error:
                raise InfrastructureError(
                    f"cannot compare {old} with {new} in {mirror}: {last_line(error.stderr)}; "
                    "if objects are missing there, delete that folder and run again"
                ) from error
        return found.decode("utf-8", "surrogateescape")

    def changelog_diffs(self, mirror: Path, commits: Iterable[str]) -> dict[str, str]:
        """What each commit changed in changelog files against its first parent, as a diff without context; empty
        without such a change or without a parent. A missing commit is left out. One request and a handful of
        processes, however many commits; no other file is fetched."""
        pairs = self._with_first_parents(mirror, commits)
        stdin = "".join(f"{' '.join(pair)}\n" for pair in pairs if len(pair) == 2).encode()
        compared = ("diff-tree", "--stdin", "-r")
        listed = listed_by_commit(self._git(mirror, *compared, *_RAW, stdin=stdin))
        told = [change for changes in listed.values() for change in changes if is_changelog(change.path)]
        found = {pair[0]: "" for pair in pairs}
        if told:
            self._prefetch_changes(mirror, told)
            files = sorted({change.path for change in told})
            command = (*compared, "-p", "--unified=0", *_TEXT, "--full-index", "--no-renames", "--", *files)
            found |= diffs_by_commit(self._git(mirror, *command, stdin=stdin, env=_PATTERNLESS))
        return found

    def _with_first_parents(self, mirror: Path, commits: Iterable[str]) -> list[list[str]]:
        present = self.commits_present(mirror, commits)
        stdin = "".join(f"{commit}\n" for commit in sorted(present)).encode()
        return [
            line.split(" ")[:2]
            for line in self._git(mirror, "rev-list", "--no-walk=unsorted", "--parents", "--stdin", stdin=stdin)
            .decode()
            .splitlines()
        ]

    def _prefetch_changes(self, mirror: Path, changes: Iterable[Change]) -> None:
        self.prefetch(mirror, (blob for change in changes for blob in change.blobs))

    # ------------------------------------------------------------ trees

    def tree(self, name: str, mirror: Path, commit: str) -> Path:
        """A shared folder with the files of `commit`; do not write into it, see `copy_tree`.
        Raises Rejected(BASE_COMMIT_MISSING)."""
        target = self._trees / name.replace("/", "+") / commit
        if target.exists():
            return target
        if not self.commit_exists(mirror, commit):
            raise Rejected(RejectReason.BASE_COMMIT_MISSING, f"commit {commit} of {name} is not in its mirror")
        target.parent.mkdir(parents=True, exist_ok=True)
        self.prefetch_tree(mirror, commit)
        with held_folder(self._trees / _PARTS) as part:
            try:
                _move(unpack(mirror, commit, part), target)
            except subprocess.CalledProcessError as error:
                raise InfrastructureError(
                    f"cannot write the files of {commit} from {mirror.name}: {last_line(error.stderr)}; "
                    "is the disk full?"
                ) from error
        return target

    def scratch(self) -> AbstractContextManager[Path]:
        """A private folder for one evaluation, gone when its context ends."""
        return held_folder(self._scratch)

    def sweep(self) -> None:
        """Removes what killed processes left half-written, and their private folders."""
        held_folders.sweep(self._trees / _PARTS)
        held_folders.sweep(self._scratch)


def _move(part: Path, target: Path) -> None:
    try:
        os.rename(part, target)
    except OSError:  # another process was faster; its result is the same
        if not target.exists():
            raise


def _attribute_pattern(path: str) -> str:
    """The line of an attributes file that names this one path: glob characters escaped, the whole quoted as in C."""
    escaped = re.sub(r"([\\*?\[])", r"\\\1", path).encode("utf-8", "surrogateescape")
    quoted = "".join(chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\{b:03o}" for b in escaped)
    return f'"/{quoted}"'
