"""Crawl: one page of a repository's merged pull requests a job. One property: killed anywhere, no page but the one
in flight is fetched twice.

    watermark_at ◄─ newest update ── page ── page ── page ── … ── watermark of the last crawl, or the limit
                                      └─ crawl_cursor: where the next job goes on

The position is saved in the transaction that stores the page's rows and queues their candidate jobs. Every pull
request looked at gets one, those without tests too: each dropped one then has its reason. The limit counts those that
touch tests, in this crawl, newest update first.
"""

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlmodel import Session, SQLModel, col, select

from db.models import (
    Issue,
    PullRequest,
    PullRequestIssue,
    RejectReason,
    Repository,
    SourceKind,
    StageName,
    utc_now,
)
from swefactory.errors import Rejected
from swefactory.file_kinds import touches_tests
from swefactory.links import confidence
from swefactory.protocols import (
    IssueLink,
    IssueRecord,
    PullRequestPage,
    PullRequestRecord,
    RepositoryRecord,
)
from swefactory.stage import NextJob, Saved, Services, Stage


@dataclass(frozen=True)
class Position:
    """How far a crawl has come: where the next page is, what it took, the newest update when it began."""

    cursor: str | None = None
    n_with_tests: int = 0
    newest_at: datetime | None = None

    @classmethod
    def parse(cls, stored: str | None) -> "Position":
        if not stored:
            return cls()
        facts = json.loads(stored)
        newest = facts["newest_at"]
        return cls(facts["cursor"], facts["n_with_tests"], datetime.fromisoformat(newest) if newest else None)

    def stored(self) -> str:
        return json.dumps(asdict(self), default=datetime.isoformat)


@dataclass(frozen=True)
class CrawlInput:
    name: str
    source: SourceKind
    clone_url: str
    watermark_at: datetime | None
    limit: int | None
    position: Position


@dataclass(frozen=True)
class CrawlOutput:
    """One page. `facts` only with the first; after the last, `position.cursor` is None."""

    facts: RepositoryRecord | None
    pull_requests: tuple[PullRequestRecord, ...]
    position: Position


def load(session: Session, repository_id: int) -> CrawlInput:
    row = session.get_one(Repository, repository_id)
    return CrawlInput(
        name=row.name,
        source=row.source,
        clone_url=row.clone_url,
        watermark_at=row.watermark_at,
        limit=row.pull_request_limit,
        position=Position.parse(row.crawl_cursor),
    )


def work(services: Services, subject: CrawlInput) -> CrawlOutput:
    is_first = subject.position.cursor is None
    if subject.source is SourceKind.GIT_HISTORY:
        services.checkouts.mirror(subject.name, subject.clone_url, fetch=is_first)
    source = services.sources[subject.source]
    facts = source.repository(subject.name) if is_first else None
    name = facts.name if facts else subject.name
    pages = source.pages(name, subject.watermark_at, subject.position.cursor)
    page = next(pages, PullRequestPage((), None))
    return _within_limit(facts, page, subject)


def _within_limit(facts: RepositoryRecord | None, page: PullRequestPage, subject: CrawlInput) -> CrawlOutput:
    """The page up to the pull request that fills the limit."""
    n_with_tests = subject.position.n_with_tests
    taken: list[PullRequestRecord] = []
    for record in page.pull_requests:
        if _is_full(n_with_tests, subject.limit):
            break
        taken.append(record)
        n_with_tests += touches_tests(record.files)
    newest_at = max((record.updated_at for record in page.pull_requests), default=None)
    position = Position(
        cursor=None if _is_full(n_with_tests, subject.limit) else page.cursor,
        n_with_tests=n_with_tests,
        newest_at=newest_at if subject.position.cursor is None else subject.position.newest_at,
    )
    return CrawlOutput(facts, tuple(taken), position)


def _is_full(n_with_tests: int, limit: int | None) -> bool:
    return limit is not None and n_with_tests >= limit


def save(session: Session, repository_id: int, output: CrawlOutput | Rejected) -> Saved:
    row = session.get_one(Repository, repository_id)
    if isinstance(output, CrawlOutput) and output.facts and (taken := _other_of_that_name(session, row, output.facts)):
        output = Rejected(
            RejectReason.REPOSITORY_NOT_FOUND, f"{row.name} is called {taken.name} now, which is under watch already"
        )
    if isinstance(output, Rejected):
        row.crawl_cursor = None
        return Saved(rejected=output)
    if output.facts:
        _store_facts(row, output.facts)
    jobs = [job for record in output.pull_requests if (job := _stored(session, repository_id, record))]
    _store_position(row, output.position)
    session.add(row)
    if output.position.cursor is not None:
        jobs.append(NextJob(StageName.CRAWL, repository_id, again=True))
    return Saved(next_jobs=tuple(jobs))


def _stored(session: Session, repository_id: int, record: PullRequestRecord) -> NextJob | None:
    """Upserts one pull request with its issues; its candidate job if anything of it is new."""
    same = select(PullRequest).where(PullRequest.repository_id == repository_id, PullRequest.number == record.number)
    known = session.exec(same).first()
    row = known or PullRequest(repository_id=repository_id, number=record.number)
    row.updated_at = record.updated_at  # moves with every comment, so it alone is no change
    has_changed = _assign(row, _pull_request_values(record))
    session.add(row)
    session.flush()
    assert row.id is not None
    has_changed |= _store_links(session, repository_id, row.id, record.issues)
    return NextJob(StageName.CANDIDATE, row.id, again=known is not None) if has_changed else None


def _store_links(session: Session, repository_id: int, pull_request_id: int, links: tuple[IssueLink, ...]) -> bool:
    """Makes the links of a pull request those of `links`; whether anything changed, an issue's text included."""
    standing = select(PullRequestIssue).where(PullRequestIssue.pull_request_id == pull_request_id)
    gone = {row.issue_id: row for row in session.exec(standing)}
    has_changed = False
    for link in links:
        issue_id, is_new_text = _store_issue(session, repository_id, link.issue)
        row = gone.pop(issue_id, None) or PullRequestIssue(pull_request_id=pull_request_id, issue_id=issue_id)
        signals = sorted(signal.value for signal in link.signals)
        is_new_link = _assign(row, {"signals": signals, "confidence": confidence(link.signals)})
        has_changed |= is_new_text or is_new_link
        session.add(row)
    for row in gone.values():
        session.delete(row)
    return has_changed or bool(gone)


def _store_issue(session: Session, repository_id: int, record: IssueRecord) -> tuple[int, bool]:
    """Its id, and whether anything changed. What the source cannot know does not erase what stands."""
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


def _store_facts(row: Repository, facts: RepositoryRecord) -> None:
    """What the source does not know stays as it was."""
    row.name = facts.name
    row.clone_url = facts.clone_url or row.clone_url
    row.web_url = facts.web_url or row.web_url
    row.default_branch = facts.default_branch or row.default_branch
    row.description = facts.description or row.description
    row.license = facts.license or row.license
    row.n_stars = facts.n_stars
    row.is_archived = facts.is_archived
    row.is_fork = facts.is_fork


def _store_position(row: Repository, position: Position) -> None:
    if position.cursor is not None:
        row.crawl_cursor = position.stored()
        return
    row.crawl_cursor = None
    row.watermark_at = position.newest_at or row.watermark_at
    row.crawled_at = utc_now()


def _other_of_that_name(session: Session, row: Repository, facts: RepositoryRecord) -> Repository | None:
    same = select(Repository).where(Repository.source == row.source, Repository.name == facts.name)
    return session.exec(same.where(col(Repository.id) != row.id)).first()


STAGE: Stage[CrawlInput, CrawlOutput] = Stage(StageName.CRAWL, load, work, save)
