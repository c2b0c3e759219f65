"""A whole source of pull requests in memory, as swefactory.protocols.PullRequestSource promises it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from db.enums import LinkSignal, RejectReason
from swefactory.errors import Rejected
from swefactory.protocols import (
    ApiUsage,
    CitedIssues,
    IssueLink,
    IssueRecord,
    PullRequestPage,
    PullRequestRecord,
    RepositoryRecord,
)

DAY = datetime(2024, 1, 1, tzinfo=UTC)


def day(number: float) -> datetime:
    return DAY + timedelta(days=number)


def issue(number: int, title: str = "It breaks", body: str = "When I do this.", **more: object) -> IssueRecord:
    return IssueRecord(number=number, title=title, body=body, **more)  # type: ignore[arg-type]


def resolves(*issues: IssueRecord) -> tuple[IssueLink, ...]:
    return tuple(IssueLink(one, frozenset({LinkSignal.CLOSING_REFERENCE})) for one in issues)


def pull_request(number: int, *, updated: float | None = None, **more: object) -> PullRequestRecord:
    """Opened on day `number`, merged the next, with a test among its files."""
    values: dict[str, object] = {
        "title": f"Pull request {number}",
        "body": "",
        "author": "ada",
        "url": f"https://example.org/pull/{number}",
        "base_commit": "b" * 40,
        "head_commit": "c" * 40,
        "merge_commit": "d" * 40,
        "opened_at": day(number),
        "merged_at": day(number + 1),
        "updated_at": day(number + 1 if updated is None else updated),
        "first_commit_at": day(number),
        "commit_messages": ("Fix it",),
        "files": ("src/x.py", "tests/test_x.py"),
    }
    return PullRequestRecord(number=number, **{**values, **more})  # type: ignore[arg-type]


@dataclass
class FakeSource:
    """Pages of `page_size`, newest update first; a cursor is an offset. Counts what it was asked for."""

    pull_requests: list[PullRequestRecord]
    page_size: int = 2
    facts: RepositoryRecord = field(
        default_factory=lambda: RepositoryRecord(
            "acme/tool", "https://example.org/acme/tool.git", "", "main", license="MIT"
        )
    )
    asked: list[str | None] = field(default_factory=list)
    n_facts_asked: int = 0
    broken: Exception | None = None
    citations: dict[int, frozenset[int]] = field(default_factory=dict)  # what changelogs were said to cite
    usage_each: ApiUsage = field(default_factory=ApiUsage)  # of each page
    asked_for: ApiUsage = field(default_factory=ApiUsage)

    def repository(self, name: str) -> RepositoryRecord:
        self.n_facts_asked += 1
        if name != self.facts.name and name != "acme/old-name":
            raise Rejected(RejectReason.REPOSITORY_NOT_FOUND, f"no repository {name}")
        return self.facts

    def usage(self) -> ApiUsage:
        told, self.asked_for = self.asked_for, ApiUsage()
        return told

    def pages(
        self,
        name: str,
        since: datetime | None,
        cursor: str | None,
        *,
        numbers: Sequence[int] = (),
        cited: CitedIssues | None = None,
    ) -> Iterator[PullRequestPage]:
        found = [pr for pr in self.pull_requests if since is None or pr.updated_at >= since]
        found = [pr for pr in found if not numbers or pr.number in numbers]
        found.sort(key=lambda pr: pr.updated_at, reverse=True)
        start = int(cursor or 0)
        while True:
            self.asked.append(str(start) if start else None)
            self.asked_for = self.usage_each
            if self.broken:
                raise self.broken
            end = start + self.page_size
            if cited:
                self.citations |= cited(found[start:end])
            yield PullRequestPage(tuple(found[start:end]), str(end) if end < len(found) else None)
            if end >= len(found):
                return
            start = end
