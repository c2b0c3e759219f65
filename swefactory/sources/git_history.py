"""Pull requests from a local mirror's history, without any API. One property: it reads commits and nothing else.

    Merge pull request #12 from you/branch      ─► base: first parent, head: second parent
    Say what it does (#12)                      ─► base: the parent, head: the commit itself

Walks the first parents from HEAD. Issues are known by number only, from closing keywords in the messages: git holds
neither their texts nor comments, and a message tells the solution, so it never stands in for the problem.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Protocol

import git

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

_HEAD = "refs/swefactory/HEAD"  # where mirrors keep what HEAD was, see swefactory.checkouts
_MERGE = re.compile(r"Merge pull request #([1-9]\d{0,8}) from \S+")
_SQUASH = re.compile(r"(?P<title>.*?)\s*\(#(?P<number>[1-9]\d{0,8})\)\s*")
_MAX_COMMITS = 250  # of one pull request, as GitHub lists at most


class Mirrors(Protocol):
    """Where mirrors are, as swefactory.checkouts.Checkouts knows it."""

    def path_of(self, name: str) -> Path: ...


class GitHistorySource:
    """The Protocol PullRequestSource over mirrors that stand already. A cursor is the next commit to look at."""

    def __init__(self, mirrors: Mirrors, *, page_size: int = 25) -> None:
        self._mirrors = mirrors
        self._page_size = page_size

    def repository(self, name: str) -> RepositoryRecord:
        """What a clone tells: its default branch. The address it came from is the catalog's to know."""
        with self._open(name) as repo:
            branch = "" if repo.head.is_detached else repo.head.reference.name
            return RepositoryRecord(name=name, clone_url="", web_url="", default_branch=branch)

    def usage(self) -> ApiUsage:
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
        """By merge time along the first parents. Ends with the first page of which all merged before `since`."""
        with self._open(name) as repo:
            start = cursor if cursor and _has(repo, cursor) else _HEAD
            commits = repo.iter_commits(start, first_parent=True)
            merged = (
                (commit, number, title) for commit in commits if (named := _named(commit)) for number, title in [named]
            )
            following = next(merged, None)
            while following:
                page = [following, *islice(merged, self._page_size - 1)]
                following = next(merged, None)
                recent = [one for one in page if since is None or _merged_at(one[0]) >= since]
                wanted = [one for one in recent if not numbers or one[1] in numbers]
                if not recent:
                    break
                after = following[0].hexsha if following else None
                yield PullRequestPage(tuple(_record(repo, name, *one) for one in wanted), after)
                if after is None:
                    return
        yield PullRequestPage((), None)

    def _open(self, name: str) -> git.Repo:
        path = self._mirrors.path_of(name)
        if not path.exists():
            raise UsageError(f"{name} has no mirror at {path} yet; add it with its clone: swefactory repo add --clone")
        repo = git.Repo(path, odbt=git.GitCmdObjectDB)
        repo.git.update_environment(
            GIT_DIR=str(path), GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_NOSYSTEM="1", LC_ALL="C"
        )
        if not _has(repo, _HEAD):
            raise InfrastructureError(f"the mirror {path} of {name} has no HEAD; delete that folder and run again")
        return repo


def _has(repo: git.Repo, revision: str) -> bool:
    try:
        repo.git.cat_file("-e", f"{revision}^{{commit}}")
    except git.GitCommandError:
        return False
    return True


def _named(commit: git.Commit) -> tuple[int, str] | None:
    """The pull request that a commit of the main line says it is, and its title."""
    subject, _, rest = _text(commit).partition("\n")
    if len(commit.parents) == 2 and (merge := _MERGE.match(subject)):
        return int(merge[1]), rest.strip().partition("\n")[0].strip()
    if len(commit.parents) == 1 and (squash := _SQUASH.fullmatch(subject)):
        return int(squash["number"]), squash["title"]
    return None


def _record(repo: git.Repo, name: str, commit: git.Commit, number: int, title: str) -> PullRequestRecord:
    base, head = commit.parents[0], commit.parents[-1] if len(commit.parents) > 1 else commit
    commits = [*repo.iter_commits(f"{base.hexsha}..{head.hexsha}", max_count=_MAX_COMMITS)][::-1]
    own_text = [] if head == commit else [_text(commit)]
    messages = tuple([_text(one) for one in commits] + own_text)
    links = linked_issues({name}, title, "", messages)
    times = [_aware(at) for one in commits for at in (one.authored_datetime, one.committed_datetime)]
    first_at = min(times, default=None)
    return PullRequestRecord(
        number=number,
        title=title,
        body=_text(commit).partition("\n")[2].strip(),
        author=str(head.author.name or ""),
        url="",
        base_commit=base.hexsha,
        head_commit=head.hexsha,
        merge_commit=commit.hexsha,
        opened_at=first_at or _merged_at(commit),
        merged_at=_merged_at(commit),
        updated_at=_merged_at(commit),
        first_commit_at=first_at,
        commit_messages=messages,
        files=tuple(
            repo.git.diff("--name-only", "--no-renames", "-z", f"{base.hexsha}...{head.hexsha}").split("\0")[:-1]
        ),
        issues=tuple(IssueLink(IssueRecord(n, "", ""), signals) for n, signals in links.items() if n != number),
    )


def _merged_at(commit: git.Commit) -> datetime:
    return _aware(commit.committed_datetime)


def _aware(at: datetime) -> datetime:
    return at.astimezone(UTC)


def _text(commit: git.Commit) -> str:
    """A message as text that every database stores. What is not UTF-8 comes with replacement characters: GitPython
    does not see the commit's encoding."""
    message = commit.message
    text = message.decode("utf-8", "replace") if isinstance(message, bytes) else message
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8", "replace")
