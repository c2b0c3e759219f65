"""Crawl: one page of a source's merged pull requests a job. One property: killed anywhere, no page but the one in
flight is fetched twice.

    watermark_at ◄─ newest update ── page ── page ── page ── … ── watermark of the last crawl, or the limit
                                      └─ position: where the next job goes on

The position is saved in the transaction that stores the page's rows and queues their candidate jobs. Every pull
request looked at gets one, those without tests too: each dropped one then has its reason. The limit counts those that
touch tests, in this crawl, newest update first. A repository that the filters refuse is not asked for its pull
requests, nor for its facts when they are fresh.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from sqlmodel import Session, col, select

from db.enums import RejectReason, SourceKind, StageName
from db.models import Crawl, Repository, utc_now
from swefactory import licenses
from swefactory.changelogs import changelog_issues, is_changelog
from swefactory.checkouts import Checkouts
from swefactory.config import Settings
from swefactory.errors import Rejected
from swefactory.file_kinds import touches_tests
from swefactory.protocols import ApiUsage, CitedIssues, PullRequestPage, PullRequestRecord, RepositoryRecord
from swefactory.pull_request_rows import store_pull_request
from swefactory.repository_filters import RepositoryFilters, refusal
from swefactory.stage import NextJob, Saved, Services, Stage

_FACTS_ARE_FRESH = timedelta(days=1)


@dataclass(frozen=True)
class Position:
    """How far a crawl has come: where the next page is, what it took, until when it covers all updates."""

    cursor: str | None = None
    n_with_tests: int = 0
    covered_until: datetime | None = None

    @classmethod
    def parse(cls, stored: str | None) -> "Position":
        if not stored:
            return cls()
        facts = json.loads(stored)
        until = facts["covered_until"]
        return cls(facts["cursor"], facts["n_with_tests"], datetime.fromisoformat(until) if until else None)

    def stored(self) -> str:
        return json.dumps(asdict(self), default=datetime.isoformat)


@dataclass(frozen=True)
class CrawlInput:
    """`known` are the repository's facts if a search told them lately."""

    name: str
    source: SourceKind
    clone_url: str
    numbers: tuple[int, ...]
    watermark_at: datetime | None
    limit: int | None
    position: Position
    known: RepositoryRecord | None


@dataclass(frozen=True)
class CrawlOutput:
    """One page. `facts` only with the first; after the last, `position.cursor` is None."""

    facts: RepositoryRecord | None
    pull_requests: tuple[PullRequestRecord, ...]
    position: Position
    usage: ApiUsage


def load(session: Session, crawl_id: int) -> CrawlInput:
    row = session.get_one(Crawl, crawl_id)
    repository = session.get_one(Repository, row.repository_id)
    is_fresh = repository.facts_at is not None and utc_now() - repository.facts_at < _FACTS_ARE_FRESH
    return CrawlInput(
        name=repository.name,
        source=row.source,
        clone_url=repository.clone_url,
        numbers=tuple(row.numbers),
        watermark_at=row.watermark_at,
        limit=row.pull_request_limit,
        position=Position.parse(row.position),
        known=_record(repository) if is_fresh else None,
    )


def work(services: Services, subject: CrawlInput) -> CrawlOutput:
    source = services.sources[subject.source]
    source.usage()  # what a job that failed in this process had asked is not this one's
    facts = _facts(services, subject) if subject.position.cursor is None else None
    name = facts.name if facts else subject.name
    clone_url = (facts and facts.clone_url) or subject.clone_url
    cited = None if subject.source is SourceKind.GIT_HISTORY else _citing(services.checkouts, name, clone_url)
    pages = source.pages(name, subject.watermark_at, subject.position.cursor, numbers=subject.numbers, cited=cited)
    page = next(pages, PullRequestPage((), None))
    return _within_limit(facts, page, subject, source.usage())


def _facts(services: Services, subject: CrawlInput) -> RepositoryRecord:
    """Raises Rejected for a repository that the filters refuse."""
    filters = filters_of(services.settings)
    if subject.known and (refused := refusal(subject.known, filters)):
        raise refused
    if subject.source is SourceKind.GIT_HISTORY:
        services.checkouts.mirror(subject.name, subject.clone_url, fetch=True)
    facts = services.sources[subject.source].repository(subject.name)
    if refused := refusal(facts, filters):
        raise refused
    return facts


def filters_of(settings: Settings) -> RepositoryFilters:
    return RepositoryFilters(
        min_stars=settings.min_stars,
        max_bytes=settings.max_repository_bytes,
        pushed_after=settings.pushed_after,
        language=settings.language,
        forks=settings.forks,
        archived=settings.archived,
        licenses=licenses.parse_allow_list(settings.licenses),
    )


def _citing(checkouts: Checkouts, name: str, clone_url: str) -> CitedIssues:
    """Reads changelog entries from the clone, for those that touch tests too: no other becomes a candidate."""

    def cited(records: Sequence[PullRequestRecord]) -> Mapping[int, frozenset[int]]:
        told = [r for r in records if r.merge_commit and touches_tests(r.files) and any(map(is_changelog, r.files))]
        if not told or not clone_url:
            return {}
        commits = [record.merge_commit for record in told]
        mirror = checkouts.mirror_with(name, clone_url, commits)
        diffs = checkouts.changelog_diffs(mirror, commits)
        return {r.number: changelog_issues(diffs.get(r.merge_commit, ""), {name}) - {r.number} for r in told}

    return cited


def _within_limit(
    facts: RepositoryRecord | None, page: PullRequestPage, subject: CrawlInput, usage: ApiUsage
) -> CrawlOutput:
    """The page up to the pull request that fills the limit."""
    n_with_tests = subject.position.n_with_tests
    taken: list[PullRequestRecord] = []
    for record in page.pull_requests:
        if _is_full(n_with_tests, subject.limit):
            break
        taken.append(record)
        n_with_tests += touches_tests(record.files)
    until = page.covered_until or max((record.updated_at for record in page.pull_requests), default=None)
    if subject.numbers:  # they say nothing of the pull requests between them
        until = None
    position = Position(
        cursor=None if _is_full(n_with_tests, subject.limit) else page.cursor,
        n_with_tests=n_with_tests,
        covered_until=until if subject.position.cursor is None else subject.position.covered_until,
    )
    return CrawlOutput(facts, tuple(taken), position, usage)


def _is_full(n_with_tests: int, limit: int | None) -> bool:
    return limit is not None and n_with_tests >= limit


def save(session: Session, crawl_id: int, output: CrawlOutput | Rejected) -> Saved:
    row = session.get_one(Crawl, crawl_id)
    repository = session.get_one(Repository, row.repository_id)
    if isinstance(output, CrawlOutput) and output.facts and (taken := _other(session, repository, output.facts)):
        output = Rejected(
            RejectReason.REPOSITORY_NOT_FOUND, f"{repository.name} is called {taken} now, which is under watch already"
        )
    if isinstance(output, Rejected):
        row.position = None
        return Saved(rejected=output)
    if output.facts:
        store_facts(repository, output.facts)
    jobs = [
        NextJob(StageName.CANDIDATE, pull_request_id, again=was_there)
        for record in output.pull_requests
        for pull_request_id, was_there, has_changed in [
            store_pull_request(session, row.repository_id, row.source, record)
        ]
        if has_changed
    ]
    _count(row, output)
    _store_position(row, output.position)
    session.add(row)
    if output.position.cursor is not None:
        jobs.append(NextJob(StageName.CRAWL, crawl_id, again=True))
    return Saved(next_jobs=tuple(jobs))


def store_facts(row: Repository, facts: RepositoryRecord) -> None:
    """What the source does not know stays as it was."""
    row.name = facts.name
    for name in ("clone_url", "web_url", "default_branch", "description", "license", "language", "fork_root"):
        setattr(row, name, getattr(facts, name) or getattr(row, name))
    if facts.pushed_at is None:  # a clone knows nothing of what follows
        return
    row.topics = list(facts.topics)
    row.n_stars, row.size_bytes, row.pushed_at = facts.n_stars, facts.size_bytes, facts.pushed_at
    row.is_archived, row.is_fork = facts.is_archived, facts.is_fork
    row.facts_at = utc_now()


def _record(row: Repository) -> RepositoryRecord:
    return RepositoryRecord(
        name=row.name,
        clone_url=row.clone_url,
        web_url=row.web_url,
        default_branch=row.default_branch,
        description=row.description,
        license=row.license,
        language=row.language,
        topics=tuple(row.topics),
        n_stars=row.n_stars,
        size_bytes=row.size_bytes,
        is_archived=row.is_archived,
        is_fork=row.is_fork,
        fork_root=row.fork_root,
        pushed_at=row.pushed_at,
    )


def _count(row: Crawl, output: CrawlOutput) -> None:
    row.n_examined += len(output.pull_requests)
    row.n_rest += output.usage.n_rest
    row.n_rest_free += output.usage.n_rest_free
    row.n_graphql += output.usage.n_graphql
    row.n_graphql_points += output.usage.n_graphql_points


def _store_position(row: Crawl, position: Position) -> None:
    if position.cursor is not None:
        row.position = position.stored()
        return
    row.position = None
    row.watermark_at = position.covered_until or row.watermark_at
    row.crawled_at = utc_now()


def _other(session: Session, row: Repository, facts: RepositoryRecord) -> str | None:
    """The present name, if another row has it."""
    same = select(Repository).where(Repository.name == facts.name, col(Repository.id) != row.id)
    return facts.name if session.exec(same).first() else None


STAGE: Stage[CrawlInput, CrawlOutput] = Stage(StageName.CRAWL, load, work, save)
