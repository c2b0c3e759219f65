"""What GitHub's JSON says, as records. One property: a null or missing field is an empty one, never an error.

GitHub's own answers break its description (authors of deleted accounts are null, bodies too), so nothing here trusts
it. Only a pull request without a number, commits or times is no pull request; it is left out.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from db.models import LinkSignal
from swefactory.protocols import CommentRecord, IssueLink, IssueRecord, PullRequestRecord, RepositoryRecord

type Json = Mapping[str, object]


@dataclass(frozen=True)
class Page:
    """One answer to pull_requests.graphql. `cursor` is None after the last page."""

    repository: str
    pull_requests: tuple[PullRequestRecord, ...]
    cursor: str | None


def repository_record(data: Json) -> RepositoryRecord:
    """From REST's repository."""
    stars = data.get("stargazers_count")
    license_id = text_of(object_of(data, "license"), "spdx_id")
    return RepositoryRecord(
        name=text_of(data, "full_name"),
        clone_url=text_of(data, "clone_url"),
        web_url=text_of(data, "html_url"),
        default_branch=text_of(data, "default_branch"),
        description=text_of(data, "description"),
        license="" if license_id == "NOASSERTION" else license_id,
        n_stars=stars if isinstance(stars, int) else 0,
        is_archived=data.get("archived") is True,
        is_fork=data.get("fork") is True,
    )


def issue_record(data: Json, comments: tuple[Json, ...]) -> IssueRecord:
    """From REST's issue and its comments."""
    return IssueRecord(
        number=_number(data),
        title=text_of(data, "title"),
        body=text_of(data, "body"),
        author=text_of(object_of(data, "user"), "login"),
        url=text_of(data, "html_url"),
        opened_at=time_of(data, "created_at"),
        comments=_comments(comments, author="user", created="created_at", updated="updated_at"),
    )


def page_of(repository: Json) -> Page:
    """From the `repository` of pull_requests.graphql."""
    name = text_of(repository, "nameWithOwner")
    connection = object_of(repository, "pullRequests")
    position = object_of(connection, "pageInfo")
    found = (_pull_request(node, name) for node in _nodes(repository, "pullRequests"))
    return Page(
        repository=name,
        pull_requests=tuple(record for record in found if record),
        cursor=(text_of(position, "endCursor") or None) if position.get("hasNextPage") is True else None,
    )


def object_of(data: Json, key: str) -> Json:
    """A nested object; an empty one where there is none."""
    value = data.get(key)
    return value if isinstance(value, Mapping) else {}


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


def _pull_request(node: Json, repository: str) -> PullRequestRecord | None:
    opened_at, merged_at = time_of(node, "createdAt"), time_of(node, "mergedAt")
    number = _number(node)
    if not number or opened_at is None or merged_at is None:
        return None
    commits = [object_of(commit, "commit") for commit in _nodes(node, "commits")]
    times = [time_of(commit, key) for commit in commits for key in ("authoredDate", "committedDate")]
    return PullRequestRecord(
        number=number,
        title=text_of(node, "title"),
        body=text_of(node, "body"),
        author=text_of(object_of(node, "author"), "login"),
        url=text_of(node, "url"),
        base_commit=text_of(node, "baseRefOid"),
        head_commit=text_of(node, "headRefOid"),
        merge_commit=text_of(object_of(node, "mergeCommit"), "oid"),
        opened_at=opened_at,
        merged_at=merged_at,
        updated_at=time_of(node, "updatedAt") or merged_at,
        first_commit_at=min((at for at in times if at), default=None),
        commit_messages=tuple(text_of(commit, "message") for commit in commits),
        files=tuple(path for file in _nodes(node, "files") if (path := text_of(file, "path"))),
        issues=tuple(_closing_references(node, repository)),
    )


def _closing_references(node: Json, repository: str) -> Iterator[IssueLink]:
    """A pull request can close issues of other repositories too; those have no code here to fix."""
    for issue in _nodes(node, "closingIssuesReferences"):
        home = text_of(object_of(issue, "repository"), "nameWithOwner") or repository
        if _number(issue) and home.lower() == repository.lower():
            record = IssueRecord(
                number=_number(issue),
                title=text_of(issue, "title"),
                body=text_of(issue, "body"),
                author=text_of(object_of(issue, "author"), "login"),
                url=text_of(issue, "url"),
                opened_at=time_of(issue, "createdAt"),
                comments=_comments(
                    _nodes(issue, "comments"), author="author", created="createdAt", updated="updatedAt"
                ),
            )
            yield IssueLink(record, frozenset({LinkSignal.CLOSING_REFERENCE}))


def _comments(nodes: tuple[Json, ...], *, author: str, created: str, updated: str) -> tuple[CommentRecord, ...]:
    found = [
        CommentRecord(
            author=text_of(object_of(node, author), "login"),
            created_at=at,
            body=text_of(node, "body"),
            edited_at=time_of(node, updated),
        )
        for node in nodes
        if (at := time_of(node, created))
    ]
    return tuple(sorted(found, key=lambda comment: comment.created_at))


def _number(data: Json) -> int:
    value = data.get("number")
    return value if isinstance(value, int) else 0


def _nodes(data: Json, connection: str) -> tuple[Json, ...]:
    nodes = object_of(data, connection).get("nodes")
    return tuple(node for node in nodes if isinstance(node, Mapping)) if isinstance(nodes, list) else ()
