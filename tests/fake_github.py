"""A GitHub on loopback for tests: just enough REST and GraphQL, and every way it is known to fail."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

type Answer = tuple[int, dict[str, str], bytes]


def answer(body: object, status: int = 200, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, named, json.dumps(body).encode()


def node(number: int, **more: Any) -> dict[str, Any]:
    """A merged pull request as GraphQL tells it."""
    return {
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
        "files": {"nodes": [{"path": "src/x.py"}]},
        "commits": {
            "nodes": [
                {
                    "commit": {
                        "message": "Fix",
                        "authoredDate": "2024-01-02T00:00:00Z",
                        "committedDate": "2024-01-03T00:00:00Z",
                    }
                }
            ]
        },
        "closingIssuesReferences": {"nodes": []},
    } | more


def issue_node(number: int, **more: Any) -> dict[str, Any]:
    return {
        "number": number,
        "title": f"Issue {number}",
        "body": "It breaks",
        "url": "",
        "createdAt": "2024-01-01T00:00:00Z",
        "author": {"login": "bob"},
        "repository": {"nameWithOwner": "acme/tool"},
        "comments": {
            "nodes": [
                {
                    "body": "me too",
                    "createdAt": "2024-01-01T05:00:00Z",
                    "updatedAt": "2024-01-09T00:00:00Z",
                    "author": None,
                }
            ]
        },
    } | more


@dataclass
class FakeGitHub:
    """`nodes` are served newest number first; `faults` answer instead of it, one request each, in order."""

    nodes: list[dict[str, Any]] = field(default_factory=list)
    issues: dict[int, dict[str, Any]] = field(default_factory=dict)
    comments: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    faults: list[Answer | None] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)  # `first` of each query
    tokens: set[str | None] = field(default_factory=set)
    url: str = ""

    def answer(self, method: str, path: str, body: bytes) -> Answer | None:
        self.requests.append((method, path))
        if path.endswith("/graphql"):
            self.sizes.append(json.loads(body)["variables"]["first"])
        if self.faults:
            return self.faults.pop(0)
        if path.endswith("/graphql"):
            return self._graphql(json.loads(body)["variables"])
        return self._rest(path.partition("?")[0].removeprefix("/api/v3"))

    def _graphql(self, variables: dict[str, Any]) -> Answer:
        if variables["name"] not in ("tool", "old-tool"):
            message = "Could not resolve to a Repository"
            return answer({"data": {"repository": None}, "errors": [{"type": "NOT_FOUND", "message": message}]})
        if variables["after"] == "stale":
            return answer({"data": {"repository": None}, "errors": [{"message": "`stale` is not a valid cursor."}]})
        start, nodes = int(variables["after"] or 0), sorted(self.nodes, key=lambda n: -n["number"])
        end = start + variables["first"]
        position = {"hasNextPage": end < len(nodes), "endCursor": str(end)}
        page = {"nodes": nodes[start:end], "pageInfo": position}
        return answer({"data": {"repository": {"nameWithOwner": "acme/tool", "pullRequests": page}}})

    def _rest(self, path: str) -> Answer:
        match path.strip("/").split("/"):
            case ["repos", "acme", "old-tool", *rest]:
                return answer(
                    {"message": "Moved Permanently"}, 301, Location="/".join([f"{self.url}/repositories/1", *rest])
                )
            case ["repos", "acme", "tool"] | ["repositories", "1"]:
                return answer(self.facts())
            case ["repos", "acme", "tool", "issues", number] if int(number) in self.issues:
                return answer(self.issues[int(number)])
            case ["repos", "acme", "tool", "issues", number, "comments"]:
                return answer(self.comments.get(int(number), []))
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
            "archived": True,
            "fork": False,
        }


def _handler(fake: FakeGitHub) -> Callable[..., BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fake.tokens.add(self.headers.get("Authorization"))
            found = fake.answer(self.command, self.path, body)
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
