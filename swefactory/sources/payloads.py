"""What GitHub's JSON says, as records. One property: a null or missing field is an empty one, never an error.

GitHub's own answers break its description (authors of deleted accounts are null, bodies too), so nothing here trusts
it. Only a pull request without a number, commits or times is no pull request; it is left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from swefactory.protocols import CommentRecord, IssueRecord, PullRequestRecord, RepositoryRecord

type Json = Mapping[str, object]


@dataclass(frozen=True)
class Pull:
    """A pull request as GraphQL tells it. `closing` are the issues of this repository that GitHub says it closes,
    `commits` the ids of its own commits and of its merge; `rest` leads to what did not fit: connection -> cursor."""

    record: PullRequestRecord
    closing: frozenset[int]
    commits: frozenset[str]
    rest: Mapping[str, str]


@dataclass(frozen=True)
class Page:
    """One answer to pull_requests.graphql. `cursor` is None after the last page."""

    repository: str
    pulls: tuple[Pull, ...]
    cursor: str | None


@dataclass(frozen=True)
class FoundIssue:
    """An issue, and what closed it: pull requests of its repository by number, commits by id. `rest` is the cursor of
    comments that did not fit."""

    record: IssueRecord
    closers: frozenset[int | str]
    rest: str | None


def repository_record(data: Json) -> RepositoryRecord:
    """From REST's repository, of a listing or whole; only the whole one says what it is a fork of."""
    stars, size, topics = data.get("stargazers_count"), data.get("size"), data.get("topics")
    license_id = text_of(object_of(data, "license"), "spdx_id")
    return RepositoryRecord(
        name=text_of(data, "full_name"),
        clone_url=text_of(data, "clone_url"),
        web_url=text_of(data, "html_url"),
        default_branch=text_of(data, "default_branch"),
        description=text_of(data, "description"),
        license="" if license_id == "NOASSERTION" else license_id,
        language=text_of(data, "language"),
        topics=tuple(sorted(topic for topic in topics if isinstance(topic, str))) if isinstance(topics, list) else (),
        n_stars=stars if isinstance(stars, int) else 0,
        size_bytes=size * 1024 if isinstance(size, int) else 0,
        is_archived=data.get("archived") is True,
        is_fork=data.get("fork") is True,
        fork_root=text_of(object_of(data, "source"), "full_name"),
        pushed_at=time_of(data, "pushed_at"),
    )


def page_of(repository: Json) -> Page:
    """From the `repository` of pull_requests.graphql."""
    name = text_of(repository, "nameWithOwner")
    connection = object_of(repository, "pullRequests")
    found = (pull_of(node, name) for node in nodes_of(repository, "pullRequests"))
    return Page(repository=name, pulls=tuple(pull for pull in found if pull), cursor=next_cursor(connection))


def pull_of(node: Json, repository: str) -> Pull | None:
    """From GraphQL's PullRequest; None for one that is not merged, or none at all."""
    opened_at, merged_at = time_of(node, "createdAt"), time_of(node, "mergedAt")
    number = _number(node)
    if not number or opened_at is None or merged_at is None:
        return None
    commits = [object_of(commit, "commit") for commit in nodes_of(node, "commits")]
    merge_commit = text_of(object_of(node, "mergeCommit"), "oid")
    record = PullRequestRecord(
        number=number,
        title=text_of(node, "title"),
        body=text_of(node, "body"),
        author=text_of(object_of(node, "author"), "login"),
        url=text_of(node, "url"),
        base_commit=text_of(node, "baseRefOid"),
        head_commit=text_of(node, "headRefOid"),
        merge_commit=merge_commit,
        opened_at=opened_at,
        merged_at=merged_at,
        updated_at=time_of(node, "updatedAt") or merged_at,
        first_commit_at=first_commit_at(commits),
        commit_messages=tuple(text_of(commit, "message") for commit in commits),
        files=file_paths(node),
    )
    rest = {name: cursor for name in ("files", "commits") if (cursor := next_cursor(object_of(node, name)))}
    ids = {merge_commit, *(text_of(commit, "oid") for commit in commits)} - {""}
    return Pull(record, frozenset(_closing(node, repository)), frozenset(ids), rest)


def first_commit_at(commits: Sequence[Json]) -> datetime | None:
    """When the earliest of GraphQL's commits was written or committed."""
    times = [time_of(commit, key) for commit in commits for key in ("authoredDate", "committedDate")]
    return min((at for at in times if at), default=None)


def file_paths(node: Json) -> tuple[str, ...]:
    """The paths of a PullRequest's `files`."""
    return tuple(path for file in nodes_of(node, "files") if (path := text_of(file, "path")))


def issue_of(node: Json, repository: str) -> FoundIssue | None:
    """From GraphQL's issueOrPullRequest; None for a pull request. One that moved to another repository keeps its
    number and has no text: there is no code here to fix."""
    if text_of(node, "__typename") == "PullRequest" or not _number(node):
        return None
    home = text_of(object_of(node, "repository"), "nameWithOwner") or repository
    if home.lower() != repository.lower():
        return FoundIssue(IssueRecord(_number(node), "", ""), frozenset(), None)
    record = IssueRecord(
        number=_number(node),
        title=text_of(node, "title"),
        body=text_of(node, "body"),
        author=text_of(object_of(node, "author"), "login"),
        url=text_of(node, "url"),
        opened_at=time_of(node, "createdAt"),
        comments=comments_of(node),
    )
    return FoundIssue(record, frozenset(_closers(node, repository)), next_cursor(object_of(node, "comments")))


def comments_of(node: Json) -> tuple[CommentRecord, ...]:
    """The comments of GraphQL's issue, oldest first."""
    found = [
        CommentRecord(
            author=text_of(object_of(comment, "author"), "login"),
            created_at=at,
            body=text_of(comment, "body"),
            edited_at=time_of(comment, "updatedAt"),
        )
        for comment in nodes_of(node, "comments")
        if (at := time_of(comment, "createdAt"))
    ]
    return tuple(sorted(found, key=lambda comment: comment.created_at))


def nodes_of(data: Json, connection: str) -> tuple[Json, ...]:
    """The objects of a connection; none where it is null."""
    nodes = object_of(data, connection).get("nodes")
    return tuple(node for node in nodes if isinstance(node, Mapping)) if isinstance(nodes, list) else ()


def next_cursor(connection: Json) -> str | None:
    """Where a connection goes on; None after its end."""
    position = object_of(connection, "pageInfo")
    return (text_of(position, "endCursor") or None) if position.get("hasNextPage") is True else None


def as_object(data: object) -> Json:
    """An object; an empty one for anything else."""
    return data if isinstance(data, Mapping) else {}


def object_of(data: Json, key: str) -> Json:
    """A nested object; an empty one where there is none."""
    return as_object(data.get(key))


def text_of(data: Json, key: str) -> str:
    """A text that every database can store: no NUL, no half of a surrogate pair."""
    value = data.get(key)
    return storable(value) if isinstance(value, str) else ""


def storable(text: str) -> str:
    """`text` without what PostgreSQL's or UTF-8's rules forbid."""
    return text.replace("\0", "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def time_of(data: Json, key: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text_of(data, key))
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _closing(node: Json, repository: str) -> Iterator[int]:
    """A pull request can close issues of other repositories too; those have no code here to fix."""
    for issue in nodes_of(node, "closingIssuesReferences"):
        home = text_of(object_of(issue, "repository"), "nameWithOwner") or repository
        if _number(issue) and home.lower() == repository.lower():
            yield _number(issue)


def _closers(node: Json, repository: str) -> Iterator[int | str]:
    for event in nodes_of(node, "timelineItems"):
        closer = object_of(event, "closer")
        home = text_of(object_of(closer, "repository"), "nameWithOwner") or repository
        if home.lower() == repository.lower():
            if number := _number(closer):
                yield number
            elif commit := text_of(closer, "oid"):
                yield commit


def _number(data: Json) -> int:
    value = data.get("number")
    return value if isinstance(value, int) else 0
