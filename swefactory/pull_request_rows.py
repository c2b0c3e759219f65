"""Writes what sources say of a repository's pull requests and issues into its rows. One property: every source writes
the same rows, and what one cannot know never erases what another told.

    GitHub (by pages or by an archive's numbers) ─┐
                                                  ├─► pull_request ─ pull_request_issue ─ issue
    git history ──────────────────────────────────┘

GitHub's word on a pull request replaces git's, never the other way round. Links: the signals of one source are
replaced by its next word; where both kinds of source told of a pull request they add up.
"""

from typing import Any

from sqlmodel import Session, SQLModel, select

from db.enums import LinkSignal, SourceKind
from db.models import Issue, PullRequest, PullRequestIssue
from swefactory.links import confidence
from swefactory.protocols import IssueLink, IssueRecord, PullRequestRecord


def store_pull_request(
    session: Session, repository_id: int, source: SourceKind, record: PullRequestRecord
) -> tuple[int, bool, bool]:
    """Upserts a pull request with its issues: its id, whether it was there, whether anything of it is new."""
    same = select(PullRequest).where(PullRequest.repository_id == repository_id, PullRequest.number == record.number)
    known = session.exec(same).first()
    row = known or PullRequest(repository_id=repository_id, number=record.number)
    others = {kind for kind in row.sources if _is_api(kind) != _is_api(source)}
    values = _pull_request_values(record)
    if _is_api(source) or not others:
        row.updated_at = record.updated_at  # moves with every comment, so it alone is no change
    else:
        values = {name: value for name, value in values.items() if not getattr(row, name)}
    has_changed = _assign(row, values)
    row.sources = sorted({*row.sources, source.value})
    session.add(row)
    session.flush()
    assert row.id is not None
    has_changed |= _store_links(session, repository_id, row.id, record.issues, adding=bool(others))
    return row.id, known is not None, has_changed


def _is_api(source: str) -> bool:
    return source != SourceKind.GIT_HISTORY


def _store_links(
    session: Session, repository_id: int, pull_request_id: int, links: tuple[IssueLink, ...], *, adding: bool
) -> bool:
    """Makes the links of a pull request those of `links`, or adds these; whether anything changed, an issue's text
    included."""
    standing = select(PullRequestIssue).where(PullRequestIssue.pull_request_id == pull_request_id)
    gone = {row.issue_id: row for row in session.exec(standing)}
    has_changed = False
    for link in links:
        issue_id, is_new_text = _store_issue(session, repository_id, link.issue)
        row = gone.pop(issue_id, None) or PullRequestIssue(pull_request_id=pull_request_id, issue_id=issue_id)
        signals = {*link.signals, *(map(LinkSignal, row.signals) if adding else ())}
        stored = {"signals": sorted(signal.value for signal in signals), "confidence": confidence(signals)}
        has_changed |= _assign(row, stored) or is_new_text
        session.add(row)
    if adding:
        return has_changed
    for row in gone.values():
        session.delete(row)
    return has_changed or bool(gone)


def _store_issue(session: Session, repository_id: int, record: IssueRecord) -> tuple[int, bool]:
    """Its id, and whether anything changed."""
    same = select(Issue).where(Issue.repository_id == repository_id, Issue.number == record.number)
    row = session.exec(same).first() or Issue(repository_id=repository_id, number=record.number)
    has_changed = _assign(row, {name: value for name, value in _issue_values(record).items() if value})
    session.add(row)
    session.flush()
    assert row.id is not None
    return row.id, has_changed


def _assign(row: SQLModel, values: dict[str, Any]) -> bool:
    """Sets what differs; whether anything did."""
    different = {name: value for name, value in values.items() if getattr(row, name) != value}
    for name, value in different.items():
        setattr(row, name, value)
    return bool(different)


def _pull_request_values(record: PullRequestRecord) -> dict[str, Any]:
    return {
        "title": record.title,
        "body": record.body,
        "author": record.author,
        "url": record.url,
        "base_commit": record.base_commit,
        "head_commit": record.head_commit,
        "merge_commit": record.merge_commit,
        "first_commit_at": record.first_commit_at,
        "commit_messages": list(record.commit_messages),
        "files": list(record.files),
        "opened_at": record.opened_at,
        "merged_at": record.merged_at,
    }


def _issue_values(record: IssueRecord) -> dict[str, Any]:
    comments = [
        {
            "author": comment.author,
            "created_at": comment.created_at.isoformat(),
            "edited_at": comment.edited_at.isoformat() if comment.edited_at else None,
            "body": comment.body,
        }
        for comment in record.comments
    ]
    return {
        "title": record.title,
        "body": record.body,
        "author": record.author,
        "url": record.url,
        "opened_at": record.opened_at,
        "comments": comments,
    }
