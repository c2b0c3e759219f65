"""Pull requests from GitHub: REST by PyGithub, and one GraphQL query a page. One property: never sleeps long.

A limit, an outage or a broken answer becomes Transient with GitHub's own waiting time, so that the job waits in the
catalog and not in a worker. Nothing is asked before the first call.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from importlib.resources import files

import requests
from github import Auth, Github, GithubException

from db.models import RejectReason
from swefactory.errors import InfrastructureError, Rejected, Transient, UsageError
from swefactory.links import linked_issues
from swefactory.protocols import IssueLink, IssueRecord, PullRequestPage, PullRequestRecord, RepositoryRecord
from swefactory.sources.payloads import Json, Page, issue_record, object_of, page_of, repository_record, text_of

_PAUSE_S = 30.0  # after an outage
_LIMIT_PAUSE_S = 60.0  # GitHub's rule where it names no time
_TOO_MUCH = ("something went wrong", "timeout", "timedout", "resource_limits_exceeded")


class GitHubSource:
    """The Protocol PullRequestSource over one API address and one token. `pause_s` lies between two requests."""

    def __init__(self, base_url: str, token: str, *, page_size: int = 25, pause_s: float = 0.25) -> None:
        self._base_url = base_url.rstrip("/")
        self._token = token
        self._page_size = page_size
        self._pause_s = pause_s

    def repository(self, name: str) -> RepositoryRecord:
        """Its facts under its present name."""
        record = repository_record(_object(self._get(name, f"/repos/{name}")))
        if not record.name:
            raise Transient(f"{self._base_url} answered for {name} without its name; asked again later", _PAUSE_S)
        return record

    def pages(self, name: str, since: datetime | None, cursor: str | None) -> Iterator[PullRequestPage]:
        """Ends with the first page on which nothing was updated at or after `since`."""
        known: dict[int, IssueRecord | None] = {}
        while True:
            page = self._page(name, cursor)
            wanted = [p for p in page.pull_requests if since is None or p.updated_at >= since]
            cursor = page.cursor if wanted or since is None else None
            linked = tuple(self._with_keyword_links(record, name, page.repository, known) for record in wanted)
            yield PullRequestPage(linked, cursor)
            if cursor is None:
                return

    @cached_property
    def _client(self) -> Github:
        return Github(
            auth=Auth.Token(self._token) if self._token else None,
            base_url=self._base_url,
            retry=None,
            timeout=60,
            seconds_between_requests=self._pause_s,
            seconds_between_writes=self._pause_s,  # a GraphQL query is a POST, but writes nothing
        )

    def _page(self, name: str, cursor: str | None) -> Page:
        """Asked again for less when GitHub gives up on a page: a few huge pull requests can be too much for it."""
        for n_asked in sorted({self._page_size, max(1, self._page_size // 5), 1}, reverse=True):
            answer = self._ask(name, cursor, n_asked)
            repository = object_of(object_of(answer, "data"), "repository")
            if isinstance(repository.get("pullRequests"), Mapping):
                return page_of(repository)
            complaint = _complaint(answer)
            if not any(sign in complaint.lower() for sign in _TOO_MUCH):
                break
        return self._no_page(name, cursor, answer, complaint)

    def _no_page(self, name: str, cursor: str | None, answer: Json, complaint: str) -> Page:
        lower = complaint.lower()
        if "not_found" in lower or "could not resolve to a repository" in lower:
            raise Rejected(RejectReason.REPOSITORY_NOT_FOUND, self._absent(name))
        if "rate_limited" in lower or "rate limit" in lower:
            raise Transient(f"GitHub's rate limit is reached while crawling {name}; goes on later", _LIMIT_PAUSE_S)
        if cursor is not None and "cursor" in lower:
            return self._page(name, None)  # a cursor kept too long; upserts make a second look harmless
        if not complaint or any(sign in lower for sign in _TOO_MUCH):
            detail = complaint or f"{str(answer)[:80]!r} is not GitHub's GraphQL; is SWEFACTORY_GITHUB_URL right?"
            raise Transient(f"{self._base_url} gave no pull requests of {name}: {detail}; asked again later", _PAUSE_S)
        raise InfrastructureError(f"{self._base_url} cannot list the pull requests of {name}: {complaint}")

    def _ask(self, name: str, cursor: str | None, n_asked: int) -> Json:
        owner, _, short = name.partition("/")
        query = files("swefactory.sources").joinpath("pull_requests.graphql").read_text(encoding="utf-8")
        variables = {"owner": owner, "name": short, "first": n_asked, "after": cursor}
        requester = self._client.requester
        try:
            with self._explained(name):
                body = {"query": query, "variables": variables}
                _, data = requester.requestJsonAndCheck("POST", requester.graphql_url, input=body)
        except Transient as outage:
            cause = outage.__cause__
            if isinstance(cause, GithubException) and cause.status in (502, 504) and n_asked > 1:
                return {"errors": [{"message": f"timeout, {cause.status}"}]}
            raise
        return _object(data)

    def _with_keyword_links(
        self, record: PullRequestRecord, asked: str, present: str, known: dict[int, IssueRecord | None]
    ) -> PullRequestRecord:
        """Adds the issues that only its texts name. A number that is a pull request's is no issue."""
        closing = {link.issue.number: link for link in record.issues}
        said = linked_issues({asked, present}, record.title, record.body, record.commit_messages)
        for number, signals in said.items():
            if number in closing:
                closing[number] = replace(closing[number], signals=closing[number].signals | signals)
                continue
            if number not in known:
                known[number] = None if number == record.number else self._issue(present or asked, number)
            if issue := known[number]:
                closing[number] = IssueLink(issue, signals)
        return replace(record, issues=tuple(closing[number] for number in sorted(closing)))

    def _issue(self, name: str, number: int) -> IssueRecord | None:
        """By REST. One that is gone keeps its number and has no text; None for a pull request."""
        path = f"/repos/{name}/issues/{number}"
        try:
            data = _object(self._get(name, path))
            if "number" not in data:
                raise Transient(
                    f"{self._base_url} answered for {name}#{number} without it; asked again later", _PAUSE_S
                )
            if "pull_request" in data:
                return None
            if data.get("number") != number:  # transferred: GitHub leads to another repository's issue
                return IssueRecord(number=number, title="", body="")
            comments = self._get(name, f"{path}/comments?per_page=100") if data.get("comments") else []
        except Rejected:
            return IssueRecord(number=number, title="", body="")
        return issue_record(data, tuple(map(_object, comments)) if isinstance(comments, list) else ())

    def _get(self, name: str, path: str) -> object:
        """By PyGithub's requester and not its objects: those trip over null fields and ask again for each comment."""
        with self._explained(name):
            return self._client.requester.requestJsonAndCheck("GET", path)[1]

    @contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        """Turns what PyGithub and requests raise into our error tree."""
        try:
            yield
        except GithubException as error:
            raise self._from_status(error, name) from error
        except requests.exceptions.RequestException as error:
            reason = type(error).__name__
            raise Transient(
                f"{self._base_url} broke off while asked for {name} ({reason}); goes on later", _PAUSE_S
            ) from error
        except ValueError as error:
            raise Transient(
                f"{self._base_url} answered for {name} with broken JSON; asked again later", _PAUSE_S
            ) from error
        except RuntimeError as error:  # PyGithub's word for a redirection to another host
            raise UsageError(f"asked for {name}: {error}; correct SWEFACTORY_GITHUB_URL ({self._base_url})") from error

    def _from_status(self, error: GithubException, name: str) -> Exception:
        headers = {key.lower(): value for key, value in (error.headers or {}).items()}
        message = text_of(_object(error.data), "message")
        if error.status == 401 or (not self._token and headers.get("x-ratelimit-limit") == "0"):
            have = "refuses the token" if self._token else "wants a token"
            return UsageError(f"{self._base_url} {have} (asked for {name}): set SWEFACTORY_GITHUB_TOKEN to a valid one")
        if _is_limit(error.status, headers, message):
            wait_s = _wait_s(headers, time.time)
            return Transient(f"GitHub's rate limit is reached while crawling {name}; goes on in {wait_s:.0f} s", wait_s)
        if error.status >= 500:
            return Transient(f"{self._base_url} answered {error.status} for {name}; asked again later", _PAUSE_S)
        if error.status in (404, 410):
            return Rejected(RejectReason.REPOSITORY_NOT_FOUND, self._absent(name))
        if error.status in (403, 451):
            return Rejected(
                RejectReason.REPOSITORY_NOT_FOUND, f"GitHub refuses access to {name}: {message or error.status}"
            )
        return InfrastructureError(
            f"{self._base_url} answered {error.status} for {name}: {message or 'no reason given'}"
        )

    def _absent(self, name: str) -> str:
        return f"{self._base_url} knows no repository {name}, or the token may not see it; check the name"


def _object(data: object) -> Json:
    return data if isinstance(data, Mapping) else {}


def _complaint(answer: Json) -> str:
    """GraphQL's errors in one line: type and message of each."""
    errors = answer.get("errors")
    if not isinstance(errors, list):
        return ""
    found = [_object(error) for error in errors]
    return "; ".join(f"{text_of(e, 'type')} {text_of(e, 'message')}".strip() for e in found)


def _is_limit(status: int, headers: Mapping[str, str], message: str) -> bool:
    if status == 429:
        return True
    told = "retry-after" in headers or headers.get("x-ratelimit-remaining") == "0" or "rate limit" in message.lower()
    return status == 403 and told


def _wait_s(headers: Mapping[str, str], clock: Callable[[], float]) -> float:
    """Retry-After, else the reset of an exhausted limit, else a minute; between a second and an hour."""
    if headers.get("retry-after", "").isdigit():
        wait_s = float(headers["retry-after"])
    elif headers.get("x-ratelimit-remaining") == "0" and headers.get("x-ratelimit-reset", "").isdigit():
        wait_s = float(headers["x-ratelimit-reset"]) - clock() + 1
    else:
        wait_s = _LIMIT_PAUSE_S
    return min(max(wait_s, 1.0), 3700.0)
