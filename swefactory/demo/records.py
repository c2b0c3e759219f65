"""What the sample repository's history holds, as values. One property: frozen, so that a server can share them.

    DemoHistory ─┬─ DemoIssue ── DemoComment
                 ├─ DemoPull ─┬─ DemoCommit
                 │            └─ DemoFile
                 └─ ScriptedSolution       what the scripted model does on one task instance

Times are aware and UTC. An author of "" is a deleted account.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from db.models import RejectReason


@dataclass(frozen=True)
class DemoPerson:
    login: str
    name: str
    email: str


@dataclass(frozen=True)
class DemoComment:
    comment_id: int
    author: str
    created_at: datetime
    body: str


@dataclass(frozen=True)
class DemoIssue:
    number: int
    title: str
    body: str
    author: str
    opened_at: datetime
    closed_at: datetime | None
    labels: tuple[str, ...]
    comments: tuple[DemoComment, ...]

    @property
    def updated_at(self) -> datetime:
        return max(filter(None, (self.opened_at, self.closed_at, *(c.created_at for c in self.comments))))


@dataclass(frozen=True)
class DemoCommit:
    """One commit of a pull request's branch, or of main."""

    sha: str
    parents: tuple[str, ...]
    tree: str
    message: str
    person: DemoPerson
    at: datetime


@dataclass(frozen=True)
class DemoFile:
    """One file of a pull request's diff; `patch` is its hunks, as GitHub's REST API gives them."""

    path: str
    status: str  # added, modified, removed
    n_additions: int
    n_deletions: int
    blob: str
    patch: str


@dataclass(frozen=True)
class DemoPull:
    """A pull request. `reason` is the rejection expected of it; None where it must become a valid task instance,
    and for the one that was closed without a merge (`merged_at` and `merge_commit` empty)."""

    number: int
    title: str
    body: str
    author: str
    merged_by: str
    branch: str
    opened_at: datetime
    merged_at: datetime | None
    closed_at: datetime
    base_commit: str
    head_commit: str
    merge_commit: str
    commits: tuple[DemoCommit, ...]
    files: tuple[DemoFile, ...]
    diff: str
    closes: tuple[int, ...]  # GitHub's closing references
    reason: RejectReason | None


@dataclass(frozen=True)
class ScriptedSolution:
    """How the scripted model goes about one task instance: it replaces `old` by `new` in `path`.

    `marker` is text of the problem statement by which a conversation is known to be about this instance.
    """

    instance_id: str
    marker: str
    resolves: bool
    path: str
    tests: str
    probe: str  # a line of Python that shows the fault
    thought: str
    old: str
    new: str
    summary: str


@dataclass(frozen=True)
class DemoHistory:
    """The sample repository: its bare git directory, and everything GitHub would say of it."""

    name: str
    formerly: tuple[str, ...]
    git_dir: Path
    description: str
    license: str
    n_stars: int
    created_at: datetime
    default_branch: str
    tests_break_after: datetime  # resolving its dependencies as of a later day breaks its tests
    head_commit: str  # the tip of the default branch
    commits: tuple[DemoCommit, ...]  # every commit that a ref leads to
    people: Mapping[str, DemoPerson]
    issues: tuple[DemoIssue, ...]
    pulls: tuple[DemoPull, ...]
    solutions: tuple[ScriptedSolution, ...]

    @property
    def merged(self) -> tuple[DemoPull, ...]:
        return tuple(pull for pull in self.pulls if pull.merged_at is not None)

    @property
    def expected_fates(self) -> dict[int, RejectReason | None]:
        """What must become of each merged pull request, by its number; None for a valid task instance."""
        return {pull.number: pull.reason for pull in self.merged}

    def instance_id(self, number: int) -> str:
        return instance_id(self.name, number)


def instance_id(name: str, number: int) -> str:
    """SWE-bench's id of a task instance: `owner__name-NUMBER`."""
    return f"{name.replace('/', '__')}-{number}"
