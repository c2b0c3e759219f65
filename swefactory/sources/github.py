"""Pull requests from GitHub: pages of them and their issues by GraphQL, two REST calls a crawl. One property: an
unchanged repository costs no quota.

    GET /repos/NAME          its facts                            ┐ asked with the ETags of the last
    GET …/pulls?per_page=1   the newest update of any closed one  ┘ answers: 304 is free
    page of 25 ─► numbers that its texts, GitHub and changelogs name ─► those issues, 50 a query

A link needs evidence: GitHub's closing reference, a closing keyword, a changelog entry, or the event that closed the
issue. A mere mention is none, but the issue is asked what closed it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property

from db.enums import LinkSignal
from swefactory.errors import Transient
from swefactory.links import linked_issues, mentioned_issues
from swefactory.protocols import ApiUsage, CitedIssues, IssueLink, PullRequestPage, PullRequestRecord, RepositoryRecord
from swefactory.sources.github_client import PAUSE_S, GitHubClient
from swefactory.sources.github_queries import GitHubQueries
from swefactory.sources.payloads import FoundIssue, Page, Pull, as_object, repository_record, time_of

_SECOND, _SETTLED = timedelta(seconds=1), timedelta(minutes=1)
_MOST_MENTIONS = 20  # more is a release or a list, which closes nothing


class GitHubSource:
    """The Protocol PullRequestSource over one API."""

    def __init__(self, connect: Callable[[], GitHubClient], *, page_size: int = 25) -> None:
        self._connect = connect
        self._page_size = page_size

    @cached_property
    def _client(self) -> GitHubClient:
        return self._connect()

    @cached_property
    def _queries(self) -> GitHubQueries:
        return GitHubQueries(self._client)

    def usage(self) -> ApiUsage:
        return self._client.usage()

    def repository(self, name: str) -> RepositoryRecord:
        """Its facts under its present name."""
        record = repository_record(as_object(self._client.get(name, f"/repos/{name}")))
        if not record.name:
            raise Transient(f"{self._client.base_url} answered for {name} without its name; asked again later", PAUSE_S)
        return record

    def pages(
        self,
        name: str,
        since: datetime | None,
        cursor: str | None,
        *,
        numbers: Sequence[int] = (),
        cited: CitedIssues | None = None,
    ) -> Iterator[PullRequestPage]:
        """Ends with the first page on which nothing was updated at or after `since`. The cursor of `numbers` is how
        many of them are done."""
        newest_at = self._newest_update(name) if cursor is None and not numbers else None
        if since and newest_at and newest_at <= since:  # `since` of an unchanged repository is its newest update
            yield PullRequestPage((), None, newest_at)
            return
        while True:
            page = self._page(name, cursor, numbers)
            wanted = [pull for pull in page.pulls if numbers or since is None or pull.record.updated_at >= since]
            cursor = page.cursor if wanted or numbers or since is None else None
            yield PullRequestPage(self._linked(wanted, name, page.repository, cited), cursor, newest_at)
            if cursor is None:
                return

    def _newest_update(self, name: str) -> datetime | None:
        """Of any closed pull request; merged ones are among them. Within a minute of it, a second before: another
        one can still be updated in the same second, which must not look crawled."""
        path = f"/repos/{name}/pulls?state=closed&sort=updated&direction=desc&per_page=1"
        rows = self._client.get(name, path, is_verdict=False)  # its facts, asked for just before, say that it is there
        at = time_of(as_object(rows[0]), "updated_at") if isinstance(rows, list) and rows else None
        return at - _SECOND if at and datetime.now(UTC) - at < _SETTLED else at

    def _page(self, name: str, cursor: str | None, numbers: Sequence[int]) -> Page:
        if not numbers:
            return self._queries.page(name, cursor, self._page_size)
        start = int(cursor or 0)
        end = start + self._page_size
        page = self._queries.pulls(name, numbers[start:end])
        return replace(page, cursor=str(end) if end < len(numbers) else None)

    def _linked(
        self, pulls: Sequence[Pull], asked: str, present: str, cited: CitedIssues | None
    ) -> tuple[PullRequestRecord, ...]:
        """The records with their links, the issues read at once for the whole page."""
        names = {asked, present}
        citations = cited([pull.record for pull in pulls]) if cited else {}
        signals = [_signals(pull, names, citations.get(pull.record.number, frozenset())) for pull in pulls]
        mentions = [_mentions(pull, names) for pull in pulls]
        own = {pull.record.number for pull in pulls}
        named = {number for found in (*signals, *mentions) for number in found} - own
        issues = self._queries.issues(asked, named)
        return tuple(
            replace(pull.record, issues=_links(pull, said, mentioned, issues))
            for pull, said, mentioned in zip(pulls, signals, mentions, strict=True)
        )


def _signals(pull: Pull, names: set[str], cited: frozenset[int]) -> dict[int, set[LinkSignal]]:
    """What the pull request itself gives as evidence, by issue."""
    record = pull.record
    found: dict[int, set[LinkSignal]] = {number: {LinkSignal.CLOSING_REFERENCE} for number in pull.closing}
    for number, signals in linked_issues(names, record.title, record.body, record.commit_messages).items():
        found.setdefault(number, set()).update(signals)
    for number in cited:
        found.setdefault(number, set()).add(LinkSignal.CHANGELOG)
    found.pop(record.number, None)
    return found


def _mentions(pull: Pull, names: set[str]) -> frozenset[int]:
    texts = (pull.record.title, pull.record.body, *pull.record.commit_messages)
    found = frozenset(number for text in texts for number in mentioned_issues(text, names))
    return found if len(found) <= _MOST_MENTIONS else frozenset()


def _links(
    pull: Pull,
    signals: Mapping[int, set[LinkSignal]],
    mentioned: frozenset[int],
    issues: Mapping[int, FoundIssue | None],
) -> tuple[IssueLink, ...]:
    """With the closers' word. A number that is a pull request's is no issue."""
    links = []
    for number in sorted(signals.keys() | mentioned):
        issue = issues.get(number)
        if issue is None:
            continue
        closed = issue.closers & {pull.record.number, *pull.commits}
        found = signals.get(number, set()) | ({LinkSignal.CLOSER} if closed else set())
        if found:
            links.append(IssueLink(issue.record, frozenset(found)))
    return tuple(links)
