"""A GitHub on loopback for tests: just enough REST and GraphQL, and every way it is known to fail."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from swefactory.demo import graphql
from swefactory.demo.payloads import connection
from swefactory.sources import credentials
from swefactory.sources.github import GitHubSource
from swefactory.sources.github_client import GitHubClient
from tests.fake_search import search

type Answer = tuple[int, dict[str, str], bytes]


def answer(body: object, status: int = 200, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, named, json.dumps(body).encode()


def node(number: int, **more: Any) -> dict[str, Any]:
    """A merged pull request as GraphQL tells it; its connections are lists."""
    return {
        "__typename": "PullRequest",
        "number": number,
        "title": f"Pull request {number}",
        "body": "",
        "url": f"https://github.com/acme/tool/pull/{number}",
        "createdAt": f"2024-01-{number:02}T00:00:00Z",
        "mergedAt": f"2024-02-{number:02}T00:00:00Z",
        "updatedAt": f"2024-03-{number:02}T00:00:00Z",
        "baseRefOid": "b" * 40,
        "headRefOid": "c" * 40,
        "mergeCommit": {"oid": "d" * 40},
        "author": {"login": "ada"},
        "files": [{"path": "src/x.py"}],
        "commits": [commit("Fix")],
        "closingIssuesReferences": [],
    } | more


def commit(message: str, oid: str = "c" * 40) -> dict[str, Any]:
    dates = {"authoredDate": "2024-01-02T00:00:00Z", "committedDate": "2024-01-03T00:00:00Z"}
    return {"commit": {"oid": oid, "message": message, **dates}}


def closes(number: int, repository: str = "acme/tool") -> dict[str, Any]:
    """An issue among a pull request's closing references."""
    return {"number": number, "repository": {"nameWithOwner": repository}}


def issue_node(number: int, **more: Any) -> dict[str, Any]:
    return {
        "__typename": "Issue",
        "number": number,
        "title": f"Issue {number}",
        "body": "It breaks",
        "url": "",
        "createdAt": "2024-01-01T00:00:00Z",
        "author": {"login": "bob"},
        "repository": {"nameWithOwner": "acme/tool"},
        "comments": [comment("me too")],
        "timelineItems": [],
    } | more


def comment(body: str, created: str = "2024-01-01T05:00:00Z") -> dict[str, Any]:
    return {"body": body, "createdAt": created, "updatedAt": "2024-01-09T00:00:00Z", "author": None}


def closed_by(**closer: Any) -> dict[str, Any]:
    """A closing event of an issue's timeline."""
    kind = "PullRequest" if "number" in closer else "Commit"
    return {"__typename": "ClosedEvent", "closer": {"__typename": kind, **closer}}


class MemoryQuotas:
    """swefactory.protocols.Quotas for one process; notes what it was told."""

    def __init__(self) -> None:
        self.left: dict[tuple[str, str], int] = {}
        self.waits: dict[tuple[str, str | None], float] = {}
        self.n_taken = 0

    def take(self, credential: str, resource: str, patience_s: float) -> float:
        wait_s = max(self.waits.get((credential, resource), 0.0), self.waits.get((credential, None), 0.0))
        self.n_taken += wait_s <= patience_s
        return wait_s

    def note(self, credential: str, resource: str, n_left: int, n_limit: int, resets_at: datetime) -> None:
        self.left[credential, resource] = n_left

    def block(self, credential: str, wait_s: float, resource: str | None = None) -> None:
        self.waits[credential, resource] = wait_s


class MemoryAnswers:
    """swefactory.protocols.Answers for one process."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], tuple[str, bytes]] = {}

    def get(self, credential: str, url: str) -> tuple[str, bytes] | None:
        return self.kept.get((credential, url))

    def put(self, credential: str, url: str, etag: str, body: bytes) -> None:
        self.kept[credential, url] = (etag, body)


def github_source(
    url: str,
    *tokens: str,
    page_size: int = 10,
    quotas: MemoryQuotas | None = None,
    answers: MemoryAnswers | None = None,
) -> GitHubSource:
    """The product's source over the API at `url`; asks as nobody without a token."""
    pool = [credentials.of_token(token) for token in tokens or ("",)]
    made = GitHubClient(url, pool, quotas or MemoryQuotas(), answers or MemoryAnswers())
    return GitHubSource(lambda: made, page_size=page_size)


@dataclass
class FakeGitHub:
    """`nodes` are served newest number first; `faults` answer instead of it, one request each, in order, and
    `query_faults` instead of GraphQL only."""

    nodes: list[dict[str, Any]] = field(default_factory=list)
    issues: dict[int, dict[str, Any]] = field(default_factory=dict)
    repositories: list[dict[str, Any]] = field(default_factory=list)  # that the search finds, see tests/fake_search.py
    faults: list[Answer | None] = field(default_factory=list)
    query_faults: list[Answer | None] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)  # `first` of each query that has one
    tokens: set[str | None] = field(default_factory=set)
    page_limit: int = 100  # of a connection inside a pull request or an issue
    n_free: int = 0  # answers 304
    url: str = ""

    def answer(self, method: str, path: str, body: bytes, etag: str = "") -> Answer | None:
        self.requests.append((method, path))
        if path.endswith("/graphql") and "first" in (variables := json.loads(body)["variables"]):
            self.sizes.append(variables["first"])
        if self.faults:
            return self.faults.pop(0)
        if self.query_faults and path.endswith("/graphql"):
            return self.query_faults.pop(0)
        if path.endswith("/graphql"):
            return self._graphql(json.loads(body))
        route, _, query = path.removeprefix("/api/v3").partition("?")
        found = answer(*search(self.repositories, query)) if route == "/search/repositories" else self._rest(route)
        tag = f'W/"{hashlib.sha256(found[2]).hexdigest()}"'
        if found[0] == 200 and etag == tag:
            self.n_free += 1
            return 304, {"ETag": tag}, b""
        return found[0], {**found[1], "ETag": tag}, found[2]

    def _graphql(self, asked: dict[str, Any]) -> Answer:
        variables = asked["variables"]
        if variables["name"] not in ("tool", "old-tool"):
            message = "Could not resolve to a Repository"
            return answer({"data": {"repository": None}, "errors": [{"type": "NOT_FOUND", "message": message}]})
        if variables.get("after") == "stale":
            return answer({"data": {"repository": None}, "errors": [{"message": "`stale` is not a valid cursor."}]})
        try:
            data = graphql.answer(asked["query"], variables, self._graph())
        except graphql.QueryError as error:
            return answer({"errors": [{"message": str(error)}]})
        absent = [name for name, value in data["repository"].items() if value is None]
        errors = [{"type": "NOT_FOUND", "path": ["repository", name], "message": "Not there"} for name in absent]
        return answer({"data": data, "errors": errors} if errors else {"data": data})

    def _graph(self) -> dict[str, Any]:
        pulls = {n["number"]: self._object(n) for n in sorted(self.nodes, key=lambda n: -n["number"])}
        issues = {number: self._object(issue) for number, issue in self.issues.items()}
        repository = {
            "nameWithOwner": "acme/tool",
            "pullRequests": connection(list(pulls.values())),
            "pullRequest": lambda arguments: pulls.get(arguments["number"]),
            "issue": lambda arguments: issues.get(arguments["number"]),
            "issueOrPullRequest": lambda arguments: {**issues, **pulls}.get(arguments["number"]),
        }
        return {"repository": repository, "rateLimit": {"cost": 2}}

    def _object(self, data: dict[str, Any]) -> dict[str, Any]:
        """With its lists as connections."""

        def paged(rows: list[dict[str, Any]]) -> Callable[[dict[str, Any]], dict[str, Any]]:
            return lambda arguments: connection(rows)({**arguments, "first": self.page_limit})

        return {name: paged(value) if isinstance(value, list) else value for name, value in data.items()}

    def _rest(self, path: str) -> Answer:
        match path.strip("/").split("/"):
            case ["repos", "acme", "old-tool", *rest]:
                return answer(
                    {"message": "Moved Permanently"}, 301, Location="/".join([f"{self.url}/repositories/1", *rest])
                )
            case ["repos", "acme", "tool"] | ["repositories", "1"]:
                return answer(self.facts())
            case ["repos", "acme", "tool", "pulls"] | ["repositories", "1", "pulls"]:
                newest = sorted(self.nodes, key=lambda n: n["updatedAt"] or "", reverse=True)[:1]
                return answer([{"number": n["number"], "updated_at": n["updatedAt"]} for n in newest])
        return answer({"message": "Not Found"}, 404)

    def facts(self) -> dict[str, Any]:
        return {
            "full_name": "acme/tool",
            "clone_url": f"{self.url}/acme/tool.git",
            "html_url": "https://github.com/acme/tool",
            "default_branch": "main",
            "description": None,
            "license": {"spdx_id": "MIT"},
            "stargazers_count": 7,
            "size": 3,
            "language": "Python",
            "topics": ["tools", "cli"],
            "pushed_at": "2024-04-01T00:00:00Z",
            "archived": True,
            "fork": False,
        }


def _handler(fake: FakeGitHub) -> Callable[..., BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fake.tokens.add(self.headers.get("Authorization"))
            found = fake.answer(self.command, self.path, body, self.headers.get("If-None-Match") or "")
            self.close_connection = found is None
            if found is None:  # the line drops
                return
            status, headers, content = found
            self.send_response(status)
            for name, value in {
                "Content-Type": "application/json",
                "Content-Length": str(len(content)),
                **headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
            self.close_connection = int(headers.get("Content-Length", len(content))) != len(content)

        do_GET = do_POST = _serve

        def log_message(self, *args: object) -> None:
            pass

    return Handler


@contextmanager
def serving(fake: FakeGitHub) -> Iterator[FakeGitHub]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(fake)) as server:
        server.daemon_threads = True
        fake.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()
