"""Repositories that were found become rows and crawl jobs. One property: found twice is queued once.

    found ─┬─ new                       ─► a row with what was told of it, and a crawl job
           ├─ under watch already       ─► the facts are renewed; its crawl is not queued again
           └─ refused by the filters    ─► as above: the crawl job ends rejected, without a request, and has the reason

A crawl that was rejected is queued again when the filters let its repository in now.
"""

import enum
from dataclasses import dataclass

from sqlmodel import Session, select

from db.enums import JobState, SourceKind, StageName
from db.models import Crawl, Job, Repository
from swefactory import admin
from swefactory.protocols import RepositoryRecord
from swefactory.repository_filters import RepositoryFilters, refusal
from swefactory.stages.crawl import store_facts


class Verdict(enum.StrEnum):
    """What became of a repository that was found."""

    QUEUED = "queued"
    KNOWN = "known"  # under watch already
    REFUSED = "refused"
    NOWHERE = "nowhere"  # what was looked up leads to no repository


@dataclass(frozen=True)
class Found:
    """A repository that was found: what the finder knows of it, and the pull requests that an archive names."""

    name: str
    facts: RepositoryRecord | None = None
    numbers: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Finding:
    """What became of it. `reason` and `detail` are a filter's."""

    name: str
    verdict: Verdict
    reason: str = ""
    detail: str = ""


def take_in(
    db: Session, found: Found, filters: RepositoryFilters, *, max_attempts: int = 3, dry_run: bool = False
) -> Finding:
    """Queues what is to be queued; with `dry_run` only says what would be."""
    refused = refusal(found.facts, filters) if found.facts else None
    row = admin.known_repository(db, found.name)
    crawl = _crawl(db, row, SourceKind.GH_ARCHIVE if found.numbers else SourceKind.GITHUB)
    is_known = crawl is not None and found.numbers <= set(crawl.numbers)
    is_let_in = found.facts is not None and refused is None and crawl is not None and _was_rejected(db, crawl)
    if not dry_run:
        if not is_known or is_let_in:
            _queue(db, found, row, crawl, is_refused=refused is not None, max_attempts=max_attempts)
        if found.facts and (kept := admin.known_repository(db, found.name)):
            store_facts(kept, found.facts)
    if refused:
        return Finding(found.name, Verdict.REFUSED, refused.reason.value, refused.detail)
    return Finding(found.name, Verdict.KNOWN if is_known and not is_let_in else Verdict.QUEUED)


def _queue(
    db: Session, found: Found, row: Repository | None, crawl: Crawl | None, *, is_refused: bool, max_attempts: int
) -> None:
    """A refused one's turn comes first: its facts are enough for the verdict only while they are fresh."""
    admin.add_repository(
        db,
        row.name if row else found.name,
        source=SourceKind.GH_ARCHIVE if found.numbers else SourceKind.GITHUB,
        limit=crawl.pull_request_limit if crawl else None,
        numbers=found.numbers,
        max_attempts=max_attempts,
        priority=int(is_refused),
    )


def _crawl(db: Session, row: Repository | None, source: SourceKind) -> Crawl | None:
    if row is None:
        return None
    return db.exec(select(Crawl).where(Crawl.repository_id == row.id, Crawl.source == source)).first()


def _was_rejected(db: Session, crawl: Crawl) -> bool:
    job = db.exec(select(Job).where(Job.stage == StageName.CRAWL, Job.subject_id == crawl.id)).first()
    return job is not None and job.state is JobState.REJECTED
