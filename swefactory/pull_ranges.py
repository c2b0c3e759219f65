r"""Which two commits a pull request's diff compares, and the base commit it is applied to. One property: base commit
plus diff is `result`, in every file that the diff touches; that is what was merged, or the reason here says why not.

The API's `base.sha` is the tip of the base branch at some time: when the pull request was opened, pushed to or merged
(GitHub says nowhere which; github/docs#431, github/rest-api-description#5978). SWE-bench takes it as base_commit and
GitHub's three-dot diff, merge-base(base, head)..head, as the patch. Here base.sha is used where it holds what the
property asks for, else the tip that was merged into, which the merge commit M tells:

    merge    B──A──M         squash   B──A──M        rebase   B──A──1'──2'=M     fast-forward   B──1──2=M
              \    /                   \                      \
               1──2                     1──2                   1──2
    tip: M's first parent    M's parent              below 1' (same author,      base.sha, else M's parent
                                                     time and words as 1)

    merge-back   B──A──C──M     stacked   B──────A'───M    A, another's branch, was squashed as A' and this one, 1──2,
                  \  \   /                 \               retargeted: its three-dot diff holds A too and so does
                   1──2─3                   A──1──2        not apply to A'; what M adds to its tip does

Diff and base commit, the first that holds:
  1. fork..head on base.sha, if that gives what M holds. The fork is the later one of merge-base(base.sha, head) and
     merge-base(tip, head): with a stale base.sha the branch's merge-backs would else count as its own change.
  2. The same, if fork..head on the tip gives what M holds and applies to base.sha, which has all that the branch was
     built on: only others' work in the same files, between base.sha and the merge, tells the two apart. Else the tip.
  3. tip..M on the tip: conflicts solved in M, parts of the branch that the base had already. Not when M brings files
     that the branch does not touch: it merged other work too.
  4. fork..head on base.sha, the tip or, as it fits there always, on the fork: M is unknown or no measure.
A head that is in base.sha already (recorded after the merge), or gone, leaves 3; a base.sha that is gone (its branch
was force-pushed) leaves the tip. With neither base nor merge commit there is no base commit. A rebased branch whose
head is gone looks like a squash of its last commit; GitHub keeps all heads.
"""

import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from db.enums import RejectReason
from swefactory.checkouts import Checkouts, run_git
from swefactory.errors import InfrastructureError, Rejected

_MAX_REBASED = 500
_IDENTITY = "%an%x00%ae%x00%at%x00%B%x01"  # what a rebase keeps of a commit


@dataclass(frozen=True)
class PullCommits:
    """What a source says of a pull request; empty where it does not know. `name` is for messages: owner/name#12."""

    name: str
    base: str
    head: str
    merge: str


@dataclass(frozen=True)
class PullRange:
    """The diff is start..end and fits `base_commit`. `result` is the commit that this gives in the touched files: the
    merge commit; the head, where base.sha is older in them or the merge is unknown; None where it is between both."""

    base_commit: str
    start: str
    end: str
    result: str | None


def pull_range(checkouts: Checkouts, mirror: Path, pull: PullCommits) -> PullRange:
    """Raises Rejected(DIFF_UNREADABLE, BASE_COMMIT_MISSING) when too much is gone, InfrastructureError."""
    git = _Commits(checkouts, mirror)
    base, head, merge = (commit if git.has(commit) else "" for commit in (pull.base, pull.head, pull.merge))
    if base and any(commit and git.holds(base, commit) for commit in (merge, head)):
        base = ""  # recorded after the merge
    if not (merge or head):
        raise Rejected(
            RejectReason.DIFF_UNREADABLE, f"neither head nor merge commit of {pull.name} can be had any more"
        )
    tip = git.tip(base, head, merge)
    fork = git.latest_fork([base, tip], head)
    own = (fork, head) if fork else None
    merged = (tip, merge) if tip and merge else None
    if not own and not merged:
        raise Rejected(
            RejectReason.BASE_COMMIT_MISSING,
            f"base commit {pull.base or '(unknown)'} of {pull.name} is not in its repository any more, "
            "or holds the pull request already",
        )
    if own and (found := _own_as_merged(git, base, tip, merge, own)):
        return found
    if merged and (own is None or git.changed(*merged) <= git.changed(*own)):
        return PullRange(tip, *merged, result=merge)
    assert own is not None
    bases = [start for start in (base, tip) if start]
    return next((found for start in bases if (found := _on(git, start, own))), PullRange(own[0], *own, result=own[1]))


def _own_as_merged(git: "_Commits", base: str, tip: str, merge: str, own: tuple[str, str]) -> PullRange | None:
    """The branch's own diff, when it is what `merge` brought; None when that is not known, or something else."""
    if not merge:
        return None
    if base and git.gives(base, own, merge):
        return PullRange(base, *own, result=merge)
    if not tip or not git.gives(tip, own, merge):
        return None
    is_whole = bool(base) and git.latest_fork([base], own[1]) == own[0]  # base.sha lacks nothing the branch has
    return (_on(git, base, own) if is_whole else None) or PullRange(tip, *own, result=merge)


def _on(git: "_Commits", start: str, own: tuple[str, str]) -> PullRange | None:
    """The branch's own diff on `start`, when it applies there."""
    if git.gives(start, own, own[1]):
        return PullRange(start, *own, result=own[1])
    return PullRange(start, *own, result=None) if git.fits(start, own) else None


class _Commits:
    """Questions to one mirror. Nothing is written into it. Names of files are bytes, as git has them."""

    def __init__(self, checkouts: Checkouts, mirror: Path) -> None:
        self._checkouts = checkouts
        self._mirror = mirror

    def has(self, commit: str) -> bool:
        return bool(commit) and self._checkouts.commit_exists(self._mirror, commit)

    def holds(self, commit: str, ancestor: str) -> bool:
        """Whether `ancestor` is `commit` or in its history."""
        return self._checkouts.merge_base(self._mirror, commit, ancestor) == ancestor

    def tip(self, base: str, head: str, merge: str) -> str:
        """What `merge` was merged into; empty when it is unknown or was the first commit."""
        parents = self._git("rev-list", "--parents", "--max-count=1", merge).split()[1:] if merge else []
        if len(parents) > 1 and head and self.holds(parents[0], head) and not self.holds(parents[1], head):
            return parents[1]  # the base branch was merged into the branch, and the result pushed as base
        if len(parents) != 1 or not head:
            return parents[0] if parents else ""
        if self.holds(merge, head):
            return base if base and self.holds(merge, base) else parents[0]
        n_rebased = self._n_rebased(head, merge)
        below = self._git("rev-list", "--first-parent", f"--skip={max(n_rebased, 1)}", "--max-count=1", merge)
        return below.strip() or parents[0]

    def latest_fork(self, bases: Iterable[str], head: str) -> str:
        """Where the branch left one of `bases` last; empty when it left none, or is in all of them."""
        latest = ""
        for base in bases if head else ():
            fork = self._checkouts.merge_base(self._mirror, base, head) if base else None
            if fork and fork != head and (not latest or self.holds(fork, latest)):
                latest = fork
        return latest

    def changed(self, old: str, new: str, env: Mapping[str, str] | None = None) -> frozenset[str]:
        """Paths that differ between two trees; reads trees only."""
        found = self._git("diff-tree", "-r", "-z", "--name-only", "--no-renames", old, new, env=env)
        return frozenset(found.split("\0")[:-1])

    def gives(self, start: str, diff: tuple[str, str], result: str) -> bool:
        """Whether `diff` applied to `start` yields the files of `result`, in all that it touches. Blobs are needed only
        where `start` has another content than the diff was made from."""
        touched = self.changed(*diff)
        if _apart(touched, self.changed(start, diff[0])):
            return _apart(touched, self.changed(diff[1], result))
        return self._applied(start, diff, touched, result) is True

    def fits(self, start: str, diff: tuple[str, str]) -> bool:
        """Whether `diff` applies to `start` at all."""
        return self._applied(start, diff, frozenset(), start) is not None

    def _applied(self, start: str, diff: tuple[str, str], touched: frozenset[str], result: str) -> bool | None:
        """As `gives`, by applying it; None when it does not apply. A check alone misses a folder in a file's place."""
        patch = self._checkouts.diff(self._mirror, *diff)
        if not self._checkouts.applies(self._mirror, start, patch):
            return None
        with tempfile.TemporaryDirectory(prefix="swefactory-apply-") as folder:
            objects = str((self._mirror / "objects").resolve())
            (Path(folder) / "objects").mkdir()
            env = {
                "GIT_INDEX_FILE": f"{folder}/index",
                "GIT_OBJECT_DIRECTORY": f"{folder}/objects",
                "GIT_ALTERNATE_OBJECT_DIRECTORIES": f'"{objects}"' if ":" in objects else objects,
            }
            self._git("read-tree", start, env=env)
            command = ("apply", "--cached", "--whitespace=nowarn", "-")
            try:
                run_git(self._mirror, *command, stdin=patch.encode("utf-8", "surrogateescape"), env=env)
            except subprocess.CalledProcessError:
                return None
            tree = self._git("write-tree", "--missing-ok", env=env).strip()
            return _apart(touched, self.changed(tree, result, env))

    def _n_rebased(self, head: str, merge: str) -> int:
        """How many commits, from `merge` downwards, are the branch's own but for their parents."""
        fork = self._checkouts.merge_base(self._mirror, merge, head)
        reach = [head, f"^{fork}"] if fork else [head]
        limits = (f"--max-count={_MAX_REBASED}", f"--format={_IDENTITY}")
        own = {*self._git("log", "--no-merges", *limits, *reach).split("\x01\n")} - {""}
        landed = self._git("log", "--first-parent", *limits, merge).split("\x01\n")
        return next((n for n, commit in enumerate(landed) if commit not in own), len(landed))

    def _git(self, *args: str, env: Mapping[str, str] | None = None) -> str:
        try:
            return run_git(self._mirror, *args, env=env).decode("utf-8", "surrogateescape")
        except subprocess.CalledProcessError as error:
            words = error.stderr.decode(errors="replace").strip()[-300:]
            raise InfrastructureError(
                f"git {args[0]} failed in {self._mirror}: {words}; if objects are missing there, delete that folder "
                "and run again"
            ) from error


def _apart(touched: frozenset[str], changed: frozenset[str]) -> bool:
    """Whether no touched path differs, lies below one that differs, or above one."""
    return touched.isdisjoint(changed | _folders(changed)) and changed.isdisjoint(_folders(touched))


def _folders(paths: Iterable[str]) -> set[str]:
    return {path[:n] for path in paths for n, char in enumerate(path) if char == "/"}
