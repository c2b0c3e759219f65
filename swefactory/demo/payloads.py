"""The sample repository in the words of GitHub's REST and GraphQL APIs."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from swefactory.demo.history import DemoComment, DemoHistory, DemoIssue, DemoPullRequest

Json = dict[str, Any]


def stamp(at: datetime) -> str:
    """A time as GitHub writes it."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


# ---------------------------------------------------------------- REST


def repository(history: DemoHistory, url: str) -> Json:
    owner, _, name = history.name.partition("/")
    return {
        "id": 1, "node_id": "R_1", "name": name, "full_name": history.name, "private": False, "owner": user(owner),
        "html_url": f"{url}/{history.name}", "url": f"{url}/repos/{history.name}", "fork": False, "archived": False,
        "description": history.description, "clone_url": f"{url}/{history.name}.git", "default_branch": "main",
        "stargazers_count": history.n_stars, "license": {"spdx_id": history.license, "key": history.license.lower()},
        "created_at": stamp(history.begun_at), "language": "Python", "topics": [], "size": 20,
    }  # fmt: skip


def user(login: str) -> Json:
    return {"login": login, "id": sum(login.encode()), "type": "User"}


def issue(history: DemoHistory, found: DemoIssue, url: str) -> Json:
    api = f"{url}/repos/{history.name}/issues/{found.number}"
    return {
        "id": found.number, "number": found.number, "title": found.title, "body": found.body, "state": "closed",
        "user": user(found.author), "html_url": f"{url}/{history.name}/issues/{found.number}", "url": api,
        "comments": len(found.comments), "comments_url": f"{api}/comments", "created_at": stamp(found.opened_at),
        "updated_at": stamp(found.opened_at),
    }  # fmt: skip


def comments(history: DemoHistory, found: DemoIssue, url: str) -> list[Json]:
    return [
        {
            "id": found.number * 100 + number, "user": user(comment.author), "body": comment.body,
            "url": f"{url}/repos/{history.name}/issues/comments/{found.number * 100 + number}",
            "created_at": stamp(comment.created_at), "updated_at": stamp(comment.created_at),
        }
        for number, comment in enumerate(found.comments)
    ]  # fmt: skip


def pull_request(history: DemoHistory, found: DemoPullRequest, url: str) -> Json:
    api = f"{url}/repos/{history.name}/pulls/{found.number}"
    page = f"{url}/{history.name}/pull/{found.number}"
    base = {"ref": "main", "sha": found.base_commit, "repo": repository(history, url)}
    return {
        "id": found.number, "number": found.number, "title": found.title, "body": found.body, "state": "closed",
        "user": user(found.author), "html_url": page, "url": api, "diff_url": f"{page}.diff",
        "created_at": stamp(found.opened_at), "updated_at": stamp(found.merged_at), "merged": True,
        "merged_at": stamp(found.merged_at), "merge_commit_sha": found.merge_commit,
        "base": base, "head": {"ref": "topic", "sha": found.head_commit},
    }  # fmt: skip


def commits(found: DemoPullRequest) -> list[Json]:
    identity = {"name": found.author, "date": stamp(found.committed_at)}
    commit = {"message": found.commit_message, "author": identity, "committer": identity}
    return [{"sha": found.head_commit, "commit": commit}]


# ---------------------------------------------------------------- GraphQL


def graph(history: DemoHistory, url: str) -> Json:
    """The root object of GraphQL queries."""

    def find(arguments: Mapping[str, Any]) -> Json | None:
        asked = f"{arguments.get('owner')}/{arguments.get('name')}".lower()
        return _graph_repository(history, url) if asked == history.name.lower() else None

    return {"repository": find, "rateLimit": {"cost": 1, "remaining": 4999, "limit": 5000}}


def _graph_repository(history: DemoHistory, url: str) -> Json:
    newest_first = sorted(history.pull_requests, key=lambda found: found.merged_at, reverse=True)
    pulls = {found.number: _graph_pull_request(history, found, url) for found in newest_first}
    issues = {found.number: _graph_issue(history, found, url) for found in history.issues}

    def merged(arguments: Mapping[str, Any]) -> Json:
        order = arguments.get("orderBy") or {}
        rows = list(pulls.values()) if order.get("direction") == "DESC" else list(pulls.values())[::-1]
        wanted = rows if "MERGED" in (arguments.get("states") or ["MERGED"]) else []
        return connection(wanted)(arguments)

    return {
        "nameWithOwner": history.name,
        "url": f"{url}/{history.name}",
        "pullRequests": merged,
        "pullRequest": lambda arguments: pulls.get(arguments["number"]),
        "issue": lambda arguments: issues.get(arguments["number"]),
        "issueOrPullRequest": lambda arguments: {**issues, **pulls}.get(arguments["number"]),
    }


def _graph_pull_request(history: DemoHistory, found: DemoPullRequest, url: str) -> Json:
    repository = {"nameWithOwner": history.name}
    closing = [_graph_issue(history, found.issue, url)] if found.issue and found.is_closing else []
    commit = {"message": found.commit_message, "oid": found.head_commit}
    dates = {"authoredDate": stamp(found.committed_at), "committedDate": stamp(found.committed_at)}
    return {
        "__typename": "PullRequest", "repository": repository,
        "number": found.number, "title": found.title, "body": found.body, "author": {"login": found.author},
        "url": f"{url}/{history.name}/pull/{found.number}", "createdAt": stamp(found.opened_at),
        "mergedAt": stamp(found.merged_at), "updatedAt": stamp(found.merged_at), "state": "MERGED",
        "baseRefOid": found.base_commit, "headRefOid": found.head_commit, "mergeCommit": {"oid": found.merge_commit},
        "files": connection([{"path": path} for path in found.files]),
        "commits": connection([{"commit": {**commit, **dates}}]),
        "closingIssuesReferences": connection(closing),
    }  # fmt: skip


def _graph_issue(history: DemoHistory, found: DemoIssue, url: str) -> Json:
    closers = [pull for pull in history.pull_requests if pull.issue == found and pull.is_closing]
    repository = {"nameWithOwner": history.name}
    closed = [
        {"__typename": "ClosedEvent",
         "closer": {"__typename": "PullRequest", "number": pull.number, "repository": repository}}
        for pull in closers
    ]  # fmt: skip
    return {
        "__typename": "Issue", "repository": repository,
        "number": found.number, "title": found.title, "body": found.body, "author": {"login": found.author},
        "url": f"{url}/{history.name}/issues/{found.number}", "createdAt": stamp(found.opened_at),
        "comments": connection([_graph_comment(comment) for comment in found.comments]),
        "timelineItems": connection(closed),
    }  # fmt: skip


def _graph_comment(comment: DemoComment) -> Json:
    at = stamp(comment.created_at)
    return {"author": {"login": comment.author}, "body": comment.body, "createdAt": at, "updatedAt": at}


def connection(rows: Sequence[Json]) -> Callable[[Mapping[str, Any]], Json]:
    """A list in pages, as Relay's specification has them; a cursor is the number of rows before it."""

    def page(arguments: Mapping[str, Any]) -> Json:
        start = int(arguments.get("after") or 0)
        end = start + int(arguments.get("first") or len(rows))
        info = {"hasNextPage": end < len(rows), "endCursor": str(min(end, len(rows)))}
        nodes = [dict(row) for row in rows[start:end]]
        return {"nodes": nodes, "pageInfo": info, "totalCount": len(rows)}

    return page
