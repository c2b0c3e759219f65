r"""Which commits of a history are pull requests. One property: a number counts only where it is this repository's.

    HEAD ──●──────●──────────●─── first parents of HEAD, and of the branches that releases are made from
            \    / "(#12)"  /
             ●──●          / "Merge branch '2.0.x'": a line of releases merged back; its first parents count too
                  ●──●──●─┘ "Merge pull request #9 from …"

A commit beside these lines may come from a fork, whose pull requests have numbers of their own. Number and form:

    Merge pull request #12 from you/branch | Merge PR #12: … | Merge #12: …      merges only
    Merge remote-tracking branch 'origin/pr/12'                                  merges only
    Title (#12) | Title (GH-12)                                                  at the end of the subject
    PR-URL: https://…/owner/name/pull/12 | Pull-Request: #12                     a trailer

GitLab's "See merge request …!12" and Bitbucket's "(pull request #12)" are left alone: both number merge requests and
issues apart, and a repository that moved to GitHub holds both kinds of 12.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby

import git

HEAD = "refs/swefactory/HEAD"  # where mirrors keep what HEAD was, see swefactory.mirrors
_N = r"#?([1-9]\d{0,8})\b"
_MERGE = re.compile(rf"(?i:Merge (?:pull[ -]request|PR)s?:? {_N}(?!\.\d)|Merge #([1-9]\d{{0,8}})(?=:|\s*$))")
_PULL_REF = re.compile(
    r"Merge (?:remote-tracking )?(?:branch|commit|ref) '(?:\S+/)?(?:pr|pull|pulls)/([1-9]\d{0,8})(?:/\w+)?'"
)
_SUFFIX = re.compile(
    r"(?P<title>.*?)[\s.]*\((?:PR |pull request )?(?:#|GH-|gh-)(?P<number>[1-9]\d{0,8})\)[\s.]*"
    r"(?:\[(?:skip ci|ci skip)\])?\s*"
)
_TRAILER = re.compile(
    r"^(?:PR-URL|Pull-Request|Pull Request|PR):\s*(?:https?://\S+/pull/|#|GH-)([1-9]\d{0,8})/?\s*$", re.MULTILINE | re.I
)
_MERGED_BACK = re.compile(r"Merge (?:remote-tracking )?branch '(?:(?:origin|upstream)/)?([^']+)'")
_VERSION = r"v?\d+(?:[._]\d+)*(?:[._-]?x)?"
_LINE = re.compile(
    rf"(?:main|master|develop|dev|devel|trunk|next|stable|maint|maintenance)|(?:\w+[-_/.])?{_VERSION}"
    rf"(?:[-_.](?:stable|maint\w*|branch|dev|devel|lts|fixes|release))?|(?:stable|maint\w*|release[sd]?)[-_/][\w.-]+",
    re.IGNORECASE,
)
_FIELDS = ("%H", "%P", "%at", "%ct", "%an", "%B")


@dataclass(frozen=True)
class Commit:
    """One commit; its message as text that every database stores, the summary line first."""

    sha: str
    parents: tuple[str, ...]
    authored_at: datetime
    committed_at: datetime
    author: str
    message: str

    @property
    def subject(self) -> str:
        return self.message.partition("\n")[0]


@dataclass(frozen=True)
class Merged:
    """One merged pull request. `commit` is its merge commit, `shas` all of it that lie on a main line, newest first;
    `visible_at` is when it came into HEAD's own line, or now if the clock of its maker ran ahead."""

    number: int
    title: str
    base: str
    head: str
    commit: Commit
    shas: tuple[str, ...]
    visible_at: datetime


def merged_pull_requests(repo: git.Repo) -> tuple[Merged, ...]:
    """All of a mirror, newest first. Where commits far apart name one number the oldest is it: a later one mends or
    repeats it."""
    found: dict[int, Merged] = {}
    for line, seen_at in _lines(repo):
        for merged in _of_line(line, seen_at):
            known = found.get(merged.number)
            if known is None or merged.commit.committed_at < known.commit.committed_at:
                found[merged.number] = merged
    return tuple(sorted(found.values(), key=lambda one: (one.visible_at, one.number), reverse=True))


def commits_of(repo: git.Repo, *revisions: str) -> list[Commit]:
    """`git log` of these, newest first; messages in whatever encoding their commit names come as text."""
    form = "--format=tformat:" + "%x00".join(_FIELDS) + "%x00"
    out = repo.git.log("--encoding=UTF-8", "-z", form, *revisions, "--", stdout_as_string=False)
    fields = out.decode("utf-8", "replace").split("\0")
    return [_commit(*fields[at : at + 6]) for at in range(0, len(fields) - 6, 7)]


def _commit(sha: str, parents: str, authored: str, committed: str, author: str, message: str) -> Commit:
    return Commit(sha, tuple(parents.split()), _at(authored), _at(committed), author, message.rstrip("\n"))


def _at(seconds: str) -> datetime:
    """A broken date is the oldest there is: GitHub and git accept years that no calendar has."""
    try:
        return datetime.fromtimestamp(int(seconds), tz=UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(0, tz=UTC)


def _lines(repo: git.Repo) -> Iterator[tuple[list[Commit], datetime | None]]:
    """The main lines, each commit once: HEAD's, those of release branches, and what was merged back from such."""
    seen: set[str] = set()
    waiting: list[tuple[str, datetime | None]] = [(HEAD, None), *((name, None) for name in _release_branches(repo))]
    while waiting:
        start, seen_at = waiting.pop(0)
        line = []
        for commit in commits_of(repo, "--first-parent", start):
            if commit.sha in seen:
                break
            seen.add(commit.sha)
            line.append(commit)
            back = _MERGED_BACK.match(commit.subject)
            if back and len(commit.parents) == 2 and _LINE.fullmatch(back[1]):
                waiting.append((commit.parents[1], seen_at or commit.committed_at))
        yield line, seen_at


def _release_branches(repo: git.Repo) -> list[str]:
    """Branches named like a line of releases, those of a clone's remotes too."""
    names = repo.git.for_each_ref("--format=%(refname)", "refs/heads", "refs/remotes").splitlines()
    short = {name: re.sub(r"^refs/(?:heads|remotes/[^/]+)/", "", name) for name in names}
    return sorted(name for name in names if _LINE.fullmatch(short[name]))


def _of_line(line: list[Commit], seen_at: datetime | None) -> Iterator[Merged]:
    now = datetime.now(UTC)
    named = [(commit, *found) for commit in line if commit.parents and (found := _named(commit))]
    positions = {commit.sha: at for at, commit in enumerate(line)}

    def run(item: tuple[int, tuple[Commit, int, str]]) -> tuple[object, ...]:
        at, (commit, number, _) = item
        is_squash = len(commit.parents) == 1
        return (number, positions[commit.sha] - at) if is_squash else (commit.sha,)

    for _, grouped in groupby(enumerate(named), key=run):
        members = [item for _, item in grouped]
        (newest, number, title), oldest = members[0], members[-1][0]
        yield Merged(
            number=number,
            title=title if len(members) == 1 else members[-1][2],
            base=oldest.parents[0],
            head=newest.parents[1] if len(newest.parents) > 1 else newest.sha,
            commit=newest,
            shas=tuple(commit.sha for commit, _, _ in members),
            visible_at=min(now, max(newest.committed_at, seen_at or newest.committed_at)),
        )


def _named(commit: Commit) -> tuple[int, str] | None:
    """The pull request that a commit of a main line says it is, and its title."""
    subject, rest = commit.subject, commit.message.partition("\n")[2].strip()
    is_merge = len(commit.parents) == 2
    if is_merge and (merge := _MERGE.match(subject)):
        said = subject[merge.end() :].strip(" :-")
        title = rest.partition("\n")[0].strip() if not said or said.startswith("from ") else said
        return int(merge[1] or merge[2]), title or said
    if is_merge and (merge := _PULL_REF.match(subject)):
        return int(merge[1]), rest.partition("\n")[0].strip()
    if len(commit.parents) <= 2 and (suffix := _SUFFIX.fullmatch(subject)):
        return int(suffix["number"]), suffix["title"]
    if trailers := _TRAILER.findall(rest.rpartition("\n\n")[2]):
        return int(trailers[-1]), subject
    return None
