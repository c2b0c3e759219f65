"""Pull requests from a local mirror's history, without any API. One property: what it says, a commit says.

    Merge pull request #12 from you/branch      ─► merge commit; its title stands in the body
    Say what it does (#12)                      ─► squash commit, or a merge commit whose subject was edited
    Say what it does (#11) (#12)                ─► #12: a backport or a second round names the first, then itself

Which commits are looked at, and how they name their number, is in swefactory.sources.main_lines. Issues are known by
number only, from closing keywords in the messages and from changelog entries of the pull request itself: git holds
neither their texts nor comments, and a message tells the solution, so it never stands in for the problem. A number
that is a pull request's cannot be an issue's.

The base commit is, as SWE-bench has it, what of the main line the author built on. GitHub's base.sha, the main line at
the last push, is not in git: it lies between the fork point and the merge's first parent. The fork point is taken, as
there the patch gives the head byte for byte; at the first parent other work may be in its way.

    merge     the best common ancestor of the merge commit's two parents; the head is its second
    squash    the parent of the squash commit, which is head and merge commit at once
    rebase    leaves no mark in git, unless each of its commits names the number: then neighbours of one number are one
              pull request, its base the parent of the oldest, its head and merge commit the newest
    stacked   one merged into another's branch is part of that other, which reached the main line; its own merge lies on
              a branch of which git cannot tell whether it is this repository's or a fork's with numbers of its own
    merge-backs  of the main line into the branch move the base on: it is the commit of the main line that was last
              merged into the branch, so that neither patch nor commits hold what came from there
"""

import re
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

import git
from identify.identify import license_id

from db.enums import LinkSignal
from swefactory.changelogs import changelog_issues
from swefactory.errors import InfrastructureError, UsageError
from swefactory.links import linked_issues
from swefactory.protocols import (
    ApiUsage,
    CitedIssues,
    IssueLink,
    IssueRecord,
    PullRequestPage,
    PullRequestRecord,
    RepositoryRecord,
)
from swefactory.sources.main_lines import HEAD, Merged, commits_of, merged_pull_requests

_MAX_COMMITS = 250  # of one pull request, as GitHub lists at most
_WRAPPED_COPYRIGHT = re.compile(r"[ \t]*\n[ \t]*(?=copyright\s+(?:holder|notice|owner|law|licen[sc]e))", re.IGNORECASE)
_LICENSE_STEMS = ("license", "licence", "copying", "unlicense")


class Mirrors(Protocol):
    """Mirrors and what they hold, as swefactory.checkouts.Checkouts knows it."""

    def path_of(self, name: str) -> Path: ...

    def commit_exists(self, mirror: Path, commit: str) -> bool: ...

    def texts(self, mirror: Path, commit: str, paths: Collection[str]) -> Mapping[str, str | None]: ...

    def changelog_diffs(self, mirror: Path, commits: Iterable[str]) -> Mapping[str, str]: ...


class GitHistorySource:
    """The Protocol PullRequestSource over mirrors that stand already. A cursor is the merge commit to look at next."""

    def __init__(self, mirrors: Mirrors, *, page_size: int = 25) -> None:
        self._mirrors = mirrors
        self._page_size = page_size
        self._read: tuple[str, tuple[Merged, ...]] = ("", ())  # of the last repository: a job is one page of it

    def repository(self, name: str) -> RepositoryRecord:
        """What a clone tells: its default branch and licence. The address it came from is the catalog's to know."""
        with self._open(name) as repo:
            branch = "" if repo.head.is_detached else repo.head.reference.name
            return RepositoryRecord(
                name=name, clone_url="", web_url="", default_branch=branch, license=self._license(name, repo)
            )

    def usage(self) -> ApiUsage:
        """Nothing is asked of an API."""
        return ApiUsage()

    def pages(
        self,
        name: str,
        since: datetime | None,
        cursor: str | None,
        *,
        numbers: Sequence[int] = (),
        cited: CitedIssues | None = None,
    ) -> Iterator[PullRequestPage]:
        """Newest first by when they came into the main line, until `since`. Changelogs are read without `cited`."""
        with self._open(name) as repo:
            merged = self._merged(repo)
            newest_at = merged[0].visible_at if merged else None
            known = {one.number for one in merged}
            wanted = [one for one in merged if one.number in numbers or (not numbers and _is_recent(one, since))]
            at = _position(merged, wanted, cursor)
            while at < len(wanted):
                page = wanted[at : at + self._page_size]
                at += self._page_size
                following = wanted[at].commit.sha if at < len(wanted) else None
                yield PullRequestPage(self._records(repo, name, page, known), following, newest_at)
                if following is None:
                    return
        yield PullRequestPage((), None, newest_at)

    def _open(self, name: str) -> git.Repo:
        path = self._mirrors.path_of(name)
        if not path.exists():
            raise UsageError(f"{name} has no mirror at {path} yet; add it with its clone: swefactory repo add --clone")
        repo = git.Repo(path, odbt=git.GitCmdObjectDB)
        repo.git.update_environment(
            GIT_DIR=str(path), GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_NOSYSTEM="1", LC_ALL="C"
        )
        if not self._mirrors.commit_exists(path, HEAD):
            raise InfrastructureError(f"the mirror {path} of {name} has no HEAD; delete that folder and run again")
        return repo

    def _merged(self, repo: git.Repo) -> tuple[Merged, ...]:
        """All pull requests of the mirror as it stands: read once while its branches stay where they are."""
        state = f"{repo.git_dir} {repo.git.show_ref(head=True)}"
        if self._read[0] != state:
            self._read = (state, merged_pull_requests(repo))
        return self._read[1]

    def _records(
        self, repo: git.Repo, name: str, page: list[Merged], pull_requests: Collection[int]
    ) -> tuple[PullRequestRecord, ...]:
        mirror = Path(repo.git_dir)
        changes = self._mirrors.changelog_diffs(mirror, [sha for one in page for sha in one.shas])
        bases = [_base(repo, one) for one in page]
        files = _files(repo, [(base, one.head) for base, one in zip(bases, page, strict=True)])
        return tuple(
            _record(repo, name, one, base, files[base, one.head], changes, pull_requests)
            for base, one in zip(bases, page, strict=True)
        )

    def _license(self, name: str, repo: git.Repo) -> str:
        """The SPDX id of the licence file at the top; empty where its text is no known licence's."""
        listing = repo.git.ls_tree(HEAD, z=True).split("\0")
        entries = [entry.partition("\t") for entry in listing]
        files = [path for facts, _, path in entries if facts.startswith("100") and _is_license(path)]
        texts = self._mirrors.texts(Path(repo.git_dir), HEAD, files)
        found = {_spdx_id(texts[path] or "") for path in files}
        return found.pop() if len(found) == 1 else ""  # several, or one that is unknown: for a person to read


def _is_recent(merged: Merged, since: datetime | None) -> bool:
    return since is None or merged.visible_at >= since


def _position(merged: Sequence[Merged], wanted: Sequence[Merged], cursor: str | None) -> int:
    """Where in `wanted` to go on: at the cursor, after everything if it is older than all wanted, and from the start
    if the history was rewritten without it."""
    at = next((i for i, one in enumerate(wanted) if one.commit.sha == cursor), None)
    if at is not None:
        return at
    return len(wanted) if any(one.commit.sha == cursor for one in merged) else 0


def _is_license(path: str) -> bool:
    return path.lower().replace("-", ".").partition(".")[0] in _LICENSE_STEMS


def _spdx_id(text: str) -> str:
    """Lines that begin with "copyright" are left out by `license_id`, also where only the wrapping put the word there,
    as in "authors or copyright holders"."""
    text = _WRAPPED_COPYRIGHT.sub(" ", text)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", prefix="swefactory-license-") as file:
        file.write(text)
        file.flush()
        return license_id(file.name) or ""


def _base(repo: git.Repo, merged: Merged) -> str:
    """See the module's cases. Histories that share nothing have no fork point."""
    if merged.head == merged.commit.sha:
        return merged.base
    try:
        return str(repo.git.merge_base(merged.base, merged.head))
    except git.GitCommandError as error:
        if isinstance(error.status, int) and error.status < 0:
            why = f"git was ended by signal {-error.status} in {repo.git_dir}; tried again"
            raise InfrastructureError(why) from error
        return merged.base


def _files(repo: git.Repo, pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], tuple[str, ...]]:
    """What changed between each base and head, by one process."""
    wanted = dict.fromkeys(pairs)
    with tempfile.TemporaryFile() as lines:
        for base, head in wanted:
            lines.write(f"{head} {base}\n{head} {head}\n".encode())
        lines.seek(0)
        command = ("--stdin", "-r", "-z", "--name-only", "--no-renames", "--always")
        out = repo.git.diff_tree(*command, istream=lines, stdout_as_string=False)
    fields = iter(out.decode("utf-8", "replace").split("\0"))
    found = {}
    for base, head in wanted:  # `--always` names the head before its files, and again for the comparison with itself
        assert next(fields) == head
        found[base, head] = tuple(iter(fields.__next__, head))
    return found


def _record(
    repo: git.Repo,
    name: str,
    merged: Merged,
    base: str,
    files: tuple[str, ...],
    changes: Mapping[str, str],
    pull_requests: Collection[int],
) -> PullRequestRecord:
    commit, head = merged.commit, merged.head
    is_merge = head != commit.sha
    commits = [commit]
    if is_merge or len(merged.shas) > 1:
        commits = commits_of(repo, f"{merged.base}..{head}", f"--max-count={_MAX_COMMITS}")[::-1]
    messages = tuple([one.message for one in commits] + ([commit.message] if is_merge else []))
    signals = {n: set(found) for n, found in linked_issues({name}, merged.title, "", messages).items()}
    for sha in merged.shas:
        for number in changelog_issues(changes.get(sha, ""), {name}):
            signals.setdefault(number, set()).add(LinkSignal.CHANGELOG)
    times = [at for one in commits for at in (one.authored_at, one.committed_at)]
    first_at = min(times, default=None)
    return PullRequestRecord(
        number=merged.number,
        title=merged.title,
        body=commit.message.partition("\n")[2].strip(),
        author=commits[-1].author if commits else commit.author,
        url="",
        base_commit=base,
        head_commit=head,
        merge_commit=commit.sha,
        opened_at=first_at or commit.committed_at,
        merged_at=commit.committed_at,
        updated_at=merged.visible_at,
        first_commit_at=first_at,
        commit_messages=messages,
        files=files,
        issues=tuple(
            IssueLink(IssueRecord(number, "", ""), frozenset(signals[number]))
            for number in sorted(signals)
            if number != merged.number and number not in pull_requests
        ),
    )
