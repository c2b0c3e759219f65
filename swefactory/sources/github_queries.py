"""What GitHub's GraphQL API is asked for, and what its complaints mean. One property: what GitHub gives up on is asked
for again in smaller parts before it counts as an outage.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from itertools import batched

from db.enums import RejectReason
from swefactory.errors import InfrastructureError, Rejected, Transient
from swefactory.protocols import IssueRecord
from swefactory.sources.github_client import PAUSE_S, GitHubClient, TooMuch
from swefactory.sources.payloads import (
    FoundIssue,
    Json,
    Page,
    Pull,
    as_object,
    comments_of,
    file_paths,
    first_commit_at,
    issue_of,
    next_cursor,
    nodes_of,
    object_of,
    page_of,
    pull_of,
    text_of,
)

_TOO_MUCH = ("something went wrong", "timeout", "timedout", "resource_limits_exceeded")
_LIMIT_PAUSE_S = 60.0
_ISSUES_AT_ONCE = 50  # two connections each: one point


class GitHubQueries:
    """Pages, pull requests and issues of one API."""

    def __init__(self, client: GitHubClient) -> None:
        self._client = client

    def page(self, name: str, cursor: str | None, size: int) -> Page:
        """Merged pull requests, newest update first. A cursor kept too long starts over: a second look is harmless."""
        for n_asked in sorted({size, max(1, size // 5), 1}, reverse=True):
            try:
                found = self._repository(name, "pull_requests", {"first": n_asked, "after": cursor}, ("pull_request",))
            except TooMuch:
                if n_asked == 1:
                    raise
            except _StaleCursor:
                return self.page(name, None, size)
            else:
                page = page_of(found)
                return replace(page, pulls=tuple(self._whole(name, pull) for pull in page.pulls))
        raise AssertionError("the last size is 1")

    def pulls(self, name: str, numbers: Sequence[int]) -> Page:
        """Those of these numbers that are merged pull requests; a page without a next one."""
        found = self._by_number(name, numbers, "pullRequest", "pull_request", "pullRequest")
        present = next((text_of(node, "repository") for node in found.values()), name)
        pulls = [self._whole(name, pull) for node in found.values() if (pull := pull_of(node, name))]
        return Page(present, tuple(pulls), None)

    def issues(self, name: str, numbers: Iterable[int]) -> dict[int, FoundIssue | None]:
        """By number: None for a pull request; an issue that is gone keeps its number and has no text."""
        wanted = sorted(set(numbers))
        found: dict[int, FoundIssue | None] = {
            number: FoundIssue(IssueRecord(number, "", ""), frozenset(), None) for number in wanted
        }
        for chunk in batched(wanted, _ISSUES_AT_ONCE):
            for number, node in self._by_number(name, chunk, "issueOrPullRequest", "issue", "issue").items():
                issue = issue_of(node, name)
                found[number] = self._with_all_comments(name, issue) if issue and issue.rest else issue
        return found

    def _by_number(self, name: str, numbers: Sequence[int], field: str, file: str, fragment: str) -> dict[int, Json]:
        """The objects that are there, by one query; by several when GitHub gives up on it."""
        selections = "\n".join(
            f"n{number}: {field}(number: {number}) {{ __typename ...{fragment} }}" for number in numbers
        )
        query = (
            "query($owner: String!, $name: String!) { rateLimit { cost } repository(owner: $owner, name: $name) {"
            f" nameWithOwner {selections} }} }}"
        )
        try:
            answer = self._answer(name, query + _text(file), {})
            found = object_of(object_of(answer, "data"), "repository")
            gone = {str(_last(error)) for error in _errors(answer) if text_of(error, "type") == "NOT_FOUND"}
            if any(found.get(f"n{number}") is None and f"n{number}" not in gone for number in numbers):
                raise TooMuch(f"{self._client.base_url} left out issues of {name}; asked again later", PAUSE_S)
        except TooMuch:
            if len(numbers) == 1:
                raise
            half = len(numbers) // 2
            parts = (numbers[:half], numbers[half:])
            return {n: node for part in parts for n, node in self._by_number(name, part, field, file, fragment).items()}
        nodes = ((number, as_object(found.get(f"n{number}"))) for number in numbers)
        return {number: node for number, node in nodes if node}

    def _whole(self, name: str, pull: Pull) -> Pull:
        """With the files and commits beyond the first hundred."""
        record, ids = pull.record, set(pull.commits)
        if cursor := pull.rest.get("files"):
            more = self._rest(name, "files", "pullRequest", record.number, cursor)
            record = replace(record, files=record.files + tuple(path for node in more for path in file_paths(node)))
        if cursor := pull.rest.get("commits"):
            for node in self._rest(name, "commits", "pullRequest", record.number, cursor):
                commits = [object_of(commit, "commit") for commit in nodes_of(node, "commits")]
                messages = tuple(text_of(commit, "message") for commit in commits)
                times = [at for at in (record.first_commit_at, first_commit_at(commits)) if at]
                ids |= {text_of(commit, "oid") for commit in commits} - {""}
                record = replace(
                    record,
                    commit_messages=record.commit_messages + messages,
                    first_commit_at=min(times, default=None),
                )
        return replace(pull, record=record, commits=frozenset(ids))

    def _with_all_comments(self, name: str, issue: FoundIssue) -> FoundIssue:
        more = self._rest(name, "comments", "issue", issue.record.number, issue.rest)
        comments = issue.record.comments + tuple(comment for node in more for comment in comments_of(node))
        ordered = tuple(sorted(comments, key=lambda comment: comment.created_at))
        return replace(issue, record=replace(issue.record, comments=ordered), rest=None)

    def _rest(self, name: str, connection: str, owner: str, number: int, cursor: str | None) -> Iterator[Json]:
        """Each further part of a connection, as the object that has it."""
        while cursor:
            node = object_of(self._repository(name, connection, {"number": number, "after": cursor}), owner)
            yield node
            cursor = next_cursor(object_of(node, connection))

    def _repository(self, name: str, file: str, variables: Mapping[str, object], fragments: Sequence[str] = ()) -> Json:
        answer = self._answer(name, "".join(map(_text, (file, *fragments))), variables)
        return object_of(object_of(answer, "data"), "repository")

    def _answer(self, name: str, query: str, variables: Mapping[str, object]) -> Json:
        """An answer that holds the repository, though parts of it may be missing."""
        owner, _, short = name.partition("/")
        answer = self._client.query(name, query, {"owner": owner, "name": short, **variables})
        found = object_of(object_of(answer, "data"), "repository")
        asked_for = [key for key in ("pullRequests", "pullRequest", "issue") if key in found]
        if found and all(isinstance(found[key], Mapping) for key in asked_for):
            return answer
        raise self._complaint(name, answer)

    def _complaint(self, name: str, answer: Json) -> Exception:
        said = "; ".join(f"{text_of(e, 'type')} {text_of(e, 'message')}".strip() for e in _errors(answer))
        where, lower = self._client.base_url, said.lower()
        if "not_found" in lower or "could not resolve to a repository" in lower:
            return Rejected(RejectReason.REPOSITORY_NOT_FOUND, self._client.absent(name))
        if "rate_limited" in lower or "rate limit" in lower:
            return Transient(f"GitHub's rate limit is reached while crawling {name}; goes on later", _LIMIT_PAUSE_S)
        if "cursor" in lower:
            return _StaleCursor(said)
        if any(sign in lower for sign in _TOO_MUCH):
            return TooMuch(f"{where} gave nothing of {name}: {said}; asked again later", PAUSE_S)
        if said:
            return InfrastructureError(f"{where} cannot list the pull requests of {name}: {said}")
        what = f"{str(answer)[:80]!r} is not GitHub's GraphQL; is SWEFACTORY_GITHUB_URL right?"
        return TooMuch(f"{where} gave nothing of {name}: {what} asked again later", PAUSE_S)


class _StaleCursor(Exception):
    """GitHub does not know this cursor any more."""


def _errors(answer: Json) -> list[Json]:
    errors = answer.get("errors")
    return [as_object(error) for error in errors] if isinstance(errors, list) else []


def _last(error: Json) -> object:
    path = error.get("path")
    return path[-1] if isinstance(path, list) and path else None


def _text(name: str) -> str:
    return files("swefactory.sources.graphql").joinpath(f"{name}.graphql").read_text(encoding="utf-8")
