"""Candidate: a pull request and its issues become a problem, or are dropped for the first of these reasons:

    no_linked_issue ─► too_many_issues ─► issue_without_text ─► diff_unreadable ─► base_commit_missing
      ─► docs_only ─► no_test_change ─► no_source_change ─► no_python_change
      ─► the reasons of `statements` ─► benchmark_contamination ─► duplicate ─► those of `duplicates`

One property: the patch and test_patch hold the pull request's whole diff, byte for byte, and nothing of the solution
is in the problem. Which commits the diff compares and what it is applied to: `pull_ranges`; which files are the
tests': `changed_tests`. Texts: `statements`.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlmodel import Session, col, select

from db.enums import InstanceStatus, RejectReason, StageName
from db.models import Issue, PullRequest, PullRequestIssue, Repository, TaskInstance
from swefactory.checkouts import Checkouts
from swefactory.duplicates import duplicate_of, store_bands
from swefactory.errors import Rejected
from swefactory.file_kinds import FileKind
from swefactory.patches import PatchUnreadable
from swefactory.project_version import project_version
from swefactory.pull_diffs import PullDiff, pull_diff
from swefactory.pull_ranges import PullCommits, PullRange, pull_range
from swefactory.screening import Screening, screen
from swefactory.stage import NextJob, Saved, Services, Stage
from swefactory.statements import Comment, IssueText, Solution

_MOST_ISSUES = 10  # more are a release or a long-lived branch


@dataclass(frozen=True)
class CandidateInput:
    """`instance_id` is the one it has already, or would get."""

    instance_id: str
    repository: str
    clone_url: str
    number: int
    base_commit: str
    head_commit: str
    merge_commit: str
    first_commit_at: datetime | None
    opened_at: datetime
    merged_at: datetime
    license: str
    fork_root: str
    issues: tuple[IssueText, ...]


@dataclass(frozen=True)
class Candidate:
    instance_id: str
    base_commit: str
    version: str
    patch: str
    test_patch: str
    test_files: tuple[str, ...]
    created_at: datetime
    license: str
    screening: Screening


def load(session: Session, pull_request_id: int) -> CandidateInput:
    row = session.get_one(PullRequest, pull_request_id)
    repository = session.get_one(Repository, row.repository_id)
    known = _instance(session, pull_request_id)
    return CandidateInput(
        instance_id=known.instance_id if known else f"{repository.name.replace('/', '__')}-{row.number}",
        repository=repository.name,
        clone_url=repository.clone_url,
        number=row.number,
        base_commit=row.base_commit,
        head_commit=row.head_commit,
        merge_commit=row.merge_commit,
        first_commit_at=row.first_commit_at,
        opened_at=row.opened_at,
        merged_at=row.merged_at,
        license=repository.license,
        fork_root=repository.fork_root,
        issues=_issues(session, pull_request_id),
    )


def work(services: Services, subject: CandidateInput) -> Candidate:
    _check_issues(subject)
    checkouts = services.checkouts
    commits = (subject.base_commit, subject.head_commit, subject.merge_commit)
    mirror = checkouts.mirror_with(subject.repository, subject.clone_url, commits)
    compared = pull_range(checkouts, mirror, PullCommits(_named(subject), *commits))
    diff = _diff(checkouts, mirror, subject, compared)
    _check_files(subject, diff)
    screening = _screening(services, mirror, subject, compared.base_commit, diff.split.patch)
    return Candidate(
        instance_id=subject.instance_id,
        base_commit=compared.base_commit,
        version=project_version(checkouts, mirror, compared.base_commit),
        patch=diff.split.patch,
        test_patch=diff.split.test_patch,
        test_files=diff.test_files,
        created_at=subject.opened_at,
        license=subject.license,
        screening=screening,
    )


def save(session: Session, pull_request_id: int, output: Candidate | Rejected) -> Saved:
    row = _instance(session, pull_request_id)
    if row and row.published:  # an import stays as it was published, whatever a crawl finds of its pull request
        return Saved()
    if isinstance(output, Candidate) and (other := _other_of_that_id(session, pull_request_id, output.instance_id)):
        output = Rejected(
            RejectReason.DUPLICATE, f"{other.instance_id} was mined from another repository that had this name then"
        )
    elif isinstance(output, Candidate):
        output = _known_already(session, pull_request_id, output) or output
    if isinstance(output, Rejected):
        if row:
            row.status, row.reject_reason, row.reject_detail = InstanceStatus.REJECTED, output.reason, output.detail
            session.add(row)
        return Saved(rejected=output)
    has_changed = row is None or _differs(row, output) or row.reject_reason in _REASONS
    if has_changed:
        row = _stored(session, pull_request_id, row, output)
    assert row is not None
    assert row.id is not None
    _record(session, row, row.id, output)
    return Saved(next_jobs=(NextJob(StageName.ENVIRONMENT, row.id, again=has_changed),))


# ---------------------------------------------------------------- reading


def _instance(session: Session, pull_request_id: int) -> TaskInstance | None:
    return session.exec(select(TaskInstance).where(TaskInstance.pull_request_id == pull_request_id)).first()


def _other_of_that_id(session: Session, pull_request_id: int, instance_id: str) -> TaskInstance | None:
    same = select(TaskInstance).where(TaskInstance.instance_id == instance_id)
    return session.exec(same.where(TaskInstance.pull_request_id != pull_request_id)).first()


def _known_already(session: Session, pull_request_id: int, candidate: Candidate) -> Rejected | None:
    return duplicate_of(
        session,
        pull_request_id,
        session.get_one(PullRequest, pull_request_id).repository_id,
        patch_digest=candidate.screening.patch_digest,
        issue_signature=candidate.screening.issue_signature,
    )


def _issues(session: Session, pull_request_id: int) -> tuple[IssueText, ...]:
    """By number."""
    linked = select(Issue).join(PullRequestIssue, col(PullRequestIssue.issue_id) == col(Issue.id))
    found = session.exec(linked.where(PullRequestIssue.pull_request_id == pull_request_id))
    return tuple(_known(row) for row in sorted(found, key=lambda issue: issue.number))


def _known(row: Issue) -> IssueText:
    comments = []
    for comment in row.comments:
        times = [datetime.fromisoformat(at) for key in ("created_at", "edited_at") if (at := comment.get(key))]
        if times:
            comments.append(Comment(max(times), comment.get("body") or ""))
    return IssueText(row.number, row.title, row.body, row.opened_at, tuple(comments))


# ---------------------------------------------------------------- judging


def _named(subject: CandidateInput) -> str:
    return f"{subject.repository}#{subject.number}"


def _check_issues(subject: CandidateInput) -> None:
    if not subject.issues:
        raise Rejected(RejectReason.NO_LINKED_ISSUE, f"{_named(subject)} names no issue that it resolves")
    if len(subject.issues) > _MOST_ISSUES:
        raise Rejected(
            RejectReason.TOO_MANY_ISSUES,
            f"{_named(subject)} resolves {len(subject.issues)} issues, more than {_MOST_ISSUES}: not one problem",
        )
    if not any(issue.has_text for issue in subject.issues):
        numbers = ", ".join(f"#{issue.number}" for issue in subject.issues)
        raise Rejected(
            RejectReason.ISSUE_WITHOUT_TEXT, f"{_named(subject)} resolves {numbers}, of which no text is known"
        )


def _diff(checkouts: Checkouts, mirror: Path, subject: CandidateInput, compared: PullRange) -> PullDiff:
    try:
        return pull_diff(checkouts, mirror, compared.start, compared.end)
    except PatchUnreadable as error:
        raise Rejected(RejectReason.DIFF_UNREADABLE, f"the diff of {_named(subject)}: {error}") from error


def _check_files(subject: CandidateInput, diff: PullDiff) -> None:
    kinds, listed = diff.split.kinds, _listed(diff)
    if kinds == {FileKind.DOCS}:
        raise Rejected(RejectReason.DOCS_ONLY, f"{_named(subject)} changes {listed} only")
    if not diff.test_files:
        detail = "no test" if not diff.split.test_patch else "no test module that pytest would run"
        raise Rejected(RejectReason.NO_TEST_CHANGE, f"{_named(subject)} changes {listed}: {detail}")
    if FileKind.SOURCE not in kinds:
        raise Rejected(RejectReason.NO_SOURCE_CHANGE, f"{_named(subject)} changes tests only: {listed}")
    if not diff.split.changes_python:
        raise Rejected(RejectReason.NO_PYTHON_CHANGE, f"{_named(subject)} changes no Python code and no C: {listed}")


def _listed(diff: PullDiff, n_shown: int = 8) -> str:
    paths = [change.path for change in diff.split.files]
    more = f" and {len(paths) - n_shown} more" if len(paths) > n_shown else ""
    return ", ".join(paths[:n_shown]) + more if paths else "nothing"


def _screening(services: Services, mirror: Path, subject: CandidateInput, base_commit: str, patch: str) -> Screening:
    """Whatever of the pull request's own commits is known must not show through; those of its base may."""
    own = services.checkouts.commits(mirror, subject.base_commit, subject.head_commit)
    solution = Solution(
        repository=subject.repository,
        number=subject.number,
        commits=tuple(sha for sha in dict.fromkeys((*own, subject.head_commit, subject.merge_commit)) if sha),
        first_commit_at=subject.first_commit_at,
        merged_at=subject.merged_at,
        patch=patch,
    )
    return screen(
        subject.issues,
        solution,
        base_commit=base_commit,
        fork_root=subject.fork_root,
        settings=services.settings,
    )


# ---------------------------------------------------------------- writing

_REASONS = frozenset((
    RejectReason.NO_LINKED_ISSUE, RejectReason.TOO_MANY_ISSUES, RejectReason.ISSUE_WITHOUT_TEXT,
    RejectReason.DIFF_UNREADABLE, RejectReason.BASE_COMMIT_MISSING, RejectReason.DOCS_ONLY, RejectReason.NO_TEST_CHANGE,
    RejectReason.NO_SOURCE_CHANGE, RejectReason.NO_PYTHON_CHANGE, RejectReason.ISSUE_OPENED_AFTER_MERGE,
    RejectReason.STATEMENT_IMAGES_ONLY, RejectReason.STATEMENT_LEAKS_FIX, RejectReason.STATEMENT_TOO_SHORT,
    RejectReason.BENCHMARK_CONTAMINATION, RejectReason.DUPLICATE, RejectReason.DUPLICATE_PATCH,
    RejectReason.NEAR_DUPLICATE_ISSUE,
))  # fmt: skip


def _differs(row: TaskInstance, candidate: Candidate) -> bool:
    return any(getattr(row, name) != value for name, value in _values(candidate).items())


def _values(candidate: Candidate) -> dict[str, object]:
    return {
        "base_commit": candidate.base_commit,
        "environment_setup_commit": candidate.base_commit,
        "version": candidate.version,
        "patch": candidate.patch,
        "test_patch": candidate.test_patch,
        "test_files": list(candidate.test_files),
        "problem_statement": candidate.screening.statement.problem_statement,
        "hints_text": candidate.screening.statement.hints_text,
        "created_at": candidate.created_at,
    }


def _record(session: Session, row: TaskInstance, task_instance_id: int, candidate: Candidate) -> None:
    """What was found on the way. It makes no other instance: newer benchmark lists undo no validation."""
    screening = candidate.screening
    row.statement_strips = list(screening.statement.stripped)
    row.decontamination = screening.verdict.as_json()
    row.license = candidate.license
    row.patch_digest, row.issue_signature = screening.patch_digest, screening.issue_signature
    session.add(row)
    store_bands(session, task_instance_id, screening.issue_signature)


def _stored(session: Session, pull_request_id: int, row: TaskInstance | None, candidate: Candidate) -> TaskInstance:
    """A candidate from the start: what was proven of a former state of it says nothing of this one."""
    if row is None:
        repository_id = session.get_one(PullRequest, pull_request_id).repository_id
        row = TaskInstance(
            instance_id=candidate.instance_id,
            repository_id=repository_id,
            pull_request_id=pull_request_id,
            base_commit=candidate.base_commit,
        )
    for name, value in _values(candidate).items():
        setattr(row, name, value)
    row.status, row.reject_reason, row.reject_detail = InstanceStatus.CANDIDATE, None, ""
    row.environment_id, row.validated_at = None, None
    row.fail_to_pass, row.pass_to_pass = [], []
    session.add(row)
    session.flush()
    return row


STAGE: Stage[CandidateInput, Candidate] = Stage(StageName.CANDIDATE, load, work, save)
