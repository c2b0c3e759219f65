"""Repositories by GitHub's search. One property: what GitHub counts and does not show is said, never left out silently.

    SearchQuery + Slice ─► q=language:python stars:>=50 created:2019-01-01..2019-06-30 ─► pages of 100, most stars first

The search has limits of its own (30 requests a minute): a limit or an outage goes to `pause`, which sleeps or raises.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from urllib.parse import urlencode

from swefactory.errors import Rejected, Transient, UsageError
from swefactory.protocols import RepositoryRecord
from swefactory.sources.github_client import PAUSE_S, GitHubClient
from swefactory.sources.payloads import as_object, repository_record
from swefactory.sources.search import CAP, Part, Slice, cut_of, parts

_PAGE = 100
_TRIES = 5  # of one request


@dataclass(frozen=True)
class SearchQuery:
    """What is looked for beside a slice's dates and stars. Raises UsageError on values GitHub's syntax cannot hold."""

    language: str = ""
    pushed_after: date | None = None
    topics: tuple[str, ...] = ()
    license: str = ""
    forks: bool = False

    def text(self, piece: Slice) -> str:
        """The value of `q`."""
        words = [_qualifier("language", self.language), _qualifier("license", self.license.lower())]
        words += [_qualifier("topic", topic) for topic in self.topics]
        words.append(f"pushed:>={self.pushed_after}" if self.pushed_after else "")
        words.append("fork:true" if self.forks else "")
        return " ".join(word for word in (*words, str(piece)) if word)


def _qualifier(name: str, value: str) -> str:
    if '"' in value:
        raise UsageError(f'--{name} {value!r} cannot be searched for: leave out the "')
    quoted = value if value.replace("-", "").replace(".", "").replace("+", "").isalnum() else f'"{value}"'
    return f"{name}:{quoted}" if value else ""


@dataclass(frozen=True)
class SearchPage:
    """One answer: `n_total` repositories match, `records` are those of this page."""

    n_total: int
    is_complete: bool
    records: tuple[RepositoryRecord, ...]


class RepositorySearch:
    """One query. `pause` is handed each Transient: it waits, or raises it."""

    def __init__(self, client: GitHubClient, query: SearchQuery, pause: Callable[[Transient], None]) -> None:
        self._client = client
        self._query = query
        self._pause = pause
        self.n_counted: int | None = None  # repositories in all, as the first answer says

    def pages(self, whole: Slice, limit: int | None = None) -> Iterator[Part[SearchPage]]:
        """Every repository once, a page at a time; `cut` of a part's last page says what is missing. A `limit` that
        one query can show takes those with most stars; a larger one takes the oldest."""
        names: set[str] = set()
        for part in self._parts(whole, limit):
            for page in self._of_part(part):
                left = None if limit is None else limit - len(names)
                new = {record.name: record for record in page.answer.records if record.name not in names}
                records = tuple(new.values())[:left]
                names |= {record.name for record in records}
                yield replace(page, answer=replace(page.answer, records=records))
                if limit is not None and len(names) >= limit:
                    return

    def _parts(self, whole: Slice, limit: int | None) -> Iterator[Part[SearchPage]]:
        if limit is None or limit > CAP:
            yield from parts(whole, lambda piece: self._page(piece, 1))
        else:
            answer = self._page(whole, 1)
            yield Part(whole, answer, cut_of(whole, replace(answer, n_total=min(answer.n_total, CAP))))

    def _of_part(self, part: Part[SearchPage]) -> Iterator[Part[SearchPage]]:
        """Its pages. Results move between pages while they are read, so that some can be missed: that is said."""
        n_wanted = min(part.answer.n_total, CAP)
        n_pages = -(-n_wanted // _PAGE)
        names = {record.name for record in part.answer.records}
        answer = part.answer
        for number in range(1, max(n_pages, 1) + 1):
            answer = answer if number == 1 else self._page(part.slice, number)
            names |= {record.name for record in answer.records}
            is_last = number >= n_pages
            missed = f"{part.slice}: GitHub counted {n_wanted} repositories and showed {len(names)}"
            cut = part.cut or (missed if len(names) < n_wanted else "")
            yield Part(part.slice, answer, cut if is_last else "")

    def _page(self, piece: Slice, number: int) -> SearchPage:
        text = self._query.text(piece)
        for n_left in range(_TRIES, 0, -1):
            try:
                return self._asked(text, number)
            except Transient as error:
                if n_left == 1:
                    raise
                self._pause(error)
        raise AssertionError("the last try returns or raises")

    def _asked(self, text: str, number: int) -> SearchPage:
        wanted = {"q": text, "sort": "stars", "order": "desc", "per_page": _PAGE, "page": number}
        path = f"/search/repositories?{urlencode(wanted)}"
        subject = f"the search {text!r}"  # each goes to its own credential of the pool
        try:
            data = as_object(self._client.get(subject, path, resource="search", keep=False))
        except Rejected as error:
            raise UsageError(f"{self._client.base_url} cannot search for repositories: {error.detail}") from error
        total, items = data.get("total_count"), data.get("items")
        if not isinstance(total, int) or not isinstance(items, list):
            raise Transient(f"{self._client.base_url} answered {subject} without results; asked again later", PAUSE_S)
        records = (repository_record(as_object(item)) for item in items)
        found = tuple(record for record in records if record.name)
        self.n_counted = total if self.n_counted is None else self.n_counted
        return SearchPage(total, data.get("incomplete_results") is not True, found)
