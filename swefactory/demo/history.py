"""The sample repository and its history: made from files of ours, the same commit ids every time.

    sample/base/            the package as it began
    sample/changes/N.patch  what pull request N changes
    sample/pulls.toml       who opened it when, which issue it resolves, and what must become of it

Its package depends on marshmallow without an upper bound and was written before marshmallow 4 took away what it
imports: only an environment resolved as of each commit's date can run its tests.
"""

import shutil
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from swefactory.checkouts import apply_patch, run_git

_SAMPLE = Path(__file__).parent / "sample"
_COMMITTED_BEFORE, _MERGED_AFTER = timedelta(minutes=20), timedelta(hours=5)


@dataclass(frozen=True)
class DemoComment:
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
    comments: tuple[DemoComment, ...]


@dataclass(frozen=True)
class DemoPullRequest:
    """A merged pull request; `is_closing` when GitHub itself knows that it closes the issue. `fate` is "validated" or
    the RejectReason that must be given."""

    number: int
    title: str
    body: str
    author: str
    committed_at: datetime
    opened_at: datetime
    merged_at: datetime
    commit_message: str
    base_commit: str
    head_commit: str
    merge_commit: str
    files: tuple[str, ...]
    issue: DemoIssue | None
    is_closing: bool
    fate: str


@dataclass(frozen=True)
class DemoHistory:
    """The bare repository and what its server says of it."""

    name: str
    description: str
    license: str
    n_stars: int
    begun_at: datetime
    bare: Path
    pull_requests: tuple[DemoPullRequest, ...]

    @property
    def issues(self) -> tuple[DemoIssue, ...]:
        return tuple(pull_request.issue for pull_request in self.pull_requests if pull_request.issue)

    def instance_id(self, number: int) -> str:
        """SWE-bench's name of the task instance that pull request `number` becomes."""
        return f"{self.name.replace('/', '__')}-{number}"


def build_history(folder: Path) -> DemoHistory:
    """Makes the bare repository below `folder`, anew; some ten git commands a pull request."""
    facts = tomllib.loads((_SAMPLE / "pulls.toml").read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    bare = folder / "repository.git"
    with tempfile.TemporaryDirectory(dir=folder) as name:
        tree = Path(name) / "tree"
        shutil.copytree(_SAMPLE / "base", tree)
        run_git(tree, "init", "--quiet", "--initial-branch=main", "--template=")
        _commit(tree, "lapse 0.3.0", "ines-prado", facts["begun_at"])
        pull_requests = tuple(_pull_request(tree, pull) for pull in facts["pulls"])
        made = Path(name) / "bare"
        run_git(tree, "clone", "--quiet", "--mirror", ".", str(made))
        shutil.rmtree(bare, ignore_errors=True)
        made.rename(bare)
    return DemoHistory(
        name=facts["name"],
        description=facts["description"],
        license=facts["license"],
        n_stars=facts["stars"],
        begun_at=facts["begun_at"],
        bare=bare,
        pull_requests=pull_requests,
    )


def _pull_request(tree: Path, pull: Mapping[str, Any]) -> DemoPullRequest:
    """Commits the change on a branch of its own, keeps that as refs/pull/N/head, and merges it into main."""
    number, author, opened_at = pull["number"], pull["author"], pull["opened_at"]
    committed_at, merged_at = opened_at - _COMMITTED_BEFORE, opened_at + _MERGED_AFTER
    base = _id_of(tree, "main")
    run_git(tree, "checkout", "--quiet", "-b", f"topic-{number}")
    apply_patch(tree, (_SAMPLE / "changes" / f"{number}.patch").read_text(encoding="utf-8"))
    _commit(tree, pull["commit"], author, committed_at)
    head = _id_of(tree, "HEAD")
    run_git(tree, "update-ref", f"refs/pull/{number}/head", head)
    files = run_git(tree, "diff", "--name-only", base, head).decode().splitlines()
    run_git(tree, "checkout", "--quiet", "main")
    _merge(tree, pull, author, merged_at)
    run_git(tree, "branch", "--quiet", "-D", f"topic-{number}")
    issue = _issue(pull["issue"]) if "issue" in pull else None
    return DemoPullRequest(
        number=number, title=pull["title"], body=pull["body"], author=author, committed_at=committed_at,
        opened_at=opened_at, merged_at=merged_at, commit_message=pull["commit"], base_commit=base, head_commit=head,
        merge_commit=_id_of(tree, "HEAD"), files=tuple(files), issue=issue,
        is_closing=pull.get("links") == "closing", fate=pull["fate"],
    )  # fmt: skip


def _merge(tree: Path, pull: Mapping[str, Any], author: str, merged_at: datetime) -> None:
    """As GitHub's two buttons do it: a merge commit, or one squashed commit whose title ends with (#N)."""
    number, branch = pull["number"], f"topic-{pull['number']}"
    if pull["merged"] == "squash":
        run_git(tree, "merge", "--quiet", "--squash", branch)
        _commit(tree, f"{pull['title']} (#{number})\n\n{pull['body']}", author, merged_at)
        return
    message = f"Merge pull request #{number} from {author}/{branch}\n\n{pull['title']}\n\n{pull['body']}"
    run_git(tree, "merge", "--quiet", "--no-ff", "--message", message, branch, env=_identity("ines-prado", merged_at))


def _commit(tree: Path, message: str, author: str, at: datetime) -> None:
    run_git(tree, "add", "--all", "--force")
    run_git(tree, "commit", "--quiet", "--no-verify", "--message", message, env=_identity(author, at))


def _identity(author: str, at: datetime) -> dict[str, str]:
    identity: dict[str, str] = {}
    for role in ("AUTHOR", "COMMITTER"):
        identity |= {f"GIT_{role}_NAME": author, f"GIT_{role}_EMAIL": f"{author}@lapse.example"}
        identity[f"GIT_{role}_DATE"] = at.strftime("%Y-%m-%dT%H:%M:%SZ")
    return identity


def _id_of(tree: Path, name: str) -> str:
    return run_git(tree, "rev-parse", name).decode().strip()


def _issue(facts: Mapping[str, Any]) -> DemoIssue:
    comments: Sequence[Mapping[str, Any]] = facts["comments"]
    return DemoIssue(
        number=facts["number"],
        title=facts["title"],
        body=facts["body"].strip(),
        author=facts["author"],
        opened_at=facts["opened_at"],
        comments=tuple(DemoComment(**comment) for comment in comments),
    )
