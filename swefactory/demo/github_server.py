"""A small GitHub: REST, GraphQL and git over HTTP for one repository. Standard library only.

Serves what a crawler asks of the real one, at the same addresses: /repos/…, /graphql, /OWNER/NAME.git,
/OWNER/NAME/pull/N.diff. Answers carry ETags (304 when unchanged), pages are linked, a wrong token is 401, a former
name redirects.
"""

import hashlib
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

from swefactory.checkouts import git_environment, run_git
from swefactory.demo import payloads
from swefactory.demo.graphql import QueryError, answer
from swefactory.demo.history import DemoHistory
from swefactory.demo.loopback import QuietHandler, serving

_CHUNK = 65536


@dataclass(frozen=True)
class Answer:
    """What goes back; `body` is JSON."""

    body: Any
    status: int = HTTPStatus.OK
    headers: Mapping[str, str] | None = None


@contextmanager
def github_server(
    history: DemoHistory,
    *,
    token: str = "",
    former_names: tuple[str, ...] = (),
    address: tuple[str, int] = ("127.0.0.1", 0),
) -> Iterator[str]:
    """Serves while the context is open; gives its base URL. Any token will do where none is named."""

    class Handler(_Handler):
        served = history
        wanted_token = token
        formerly = former_names

    with serving(Handler, address) as url:
        yield url


class _Handler(QuietHandler):
    served: DemoHistory
    wanted_token: str
    formerly: tuple[str, ...]

    def do_GET(self) -> None:
        if ".git/" in self.path:
            self._git()
        elif self.path.endswith(".diff"):
            self._diff()
        else:
            self._body()  # what is not read would be taken for the next request on this connection
            self._send(self._checked() or self._rest())

    def do_POST(self) -> None:
        if ".git/" in self.path:
            self._git()
            return
        body = self._body()
        self._send(self._checked() or self._graphql(body))

    def _checked(self) -> Answer | None:
        given = (self.headers.get("Authorization") or "").split(" ")[-1]
        if self.wanted_token and given != self.wanted_token:
            return Answer({"message": "Bad credentials"}, HTTPStatus.UNAUTHORIZED)
        return None

    # ------------------------------------------------------------ REST

    def _rest(self) -> Answer:
        address = urlsplit(self.path)
        if address.path == "/rate_limit":
            core = {"limit": 5000, "remaining": 4999, "reset": 2**31}
            return Answer({"resources": {"core": core, "graphql": core}, "rate": core})
        match = re.fullmatch(r"/repos/([^/]+/[^/]+)((?:/[^?]*)?)", address.path)
        if match is None:
            return _NOT_FOUND
        name, rest = match[1], match[2]
        if name in self.formerly:
            target = f"{self.url}/repos/{self.served.name}{rest}"
            return Answer({"message": "Moved Permanently", "url": target}, 301, {"Location": target})
        if name.lower() != self.served.name.lower():
            return _NOT_FOUND
        found = self._resource(rest.strip("/").split("/") if rest.strip("/") else [])
        return self._paged(found, address.query) if isinstance(found, list) else found

    def _resource(self, parts: list[str]) -> Answer | list[payloads.Json]:
        """What stands below /repos/OWNER/NAME."""
        issues = {str(found.number): found for found in self.served.issues}
        pulls = {str(found.number): found for found in self.served.pull_requests}
        match parts:
            case []:
                return Answer(payloads.repository(self.served, self.url))
            case ["issues", number] if number in issues:
                return Answer(payloads.issue(self.served, issues[number], self.url))
            case ["issues", number] if number in pulls:
                pull = payloads.pull_request(self.served, pulls[number], self.url)
                return Answer({**pull, "comments": 0, "pull_request": {"url": pull["url"]}})
            case ["issues", number, "comments"] if number in issues:
                return payloads.comments(self.served, issues[number], self.url)
            case ["pulls"]:
                newest_first = sorted(pulls.values(), key=lambda pull: pull.merged_at, reverse=True)
                return [payloads.pull_request(self.served, pull, self.url) for pull in newest_first]
            case ["pulls", number] if number in pulls:
                return Answer(payloads.pull_request(self.served, pulls[number], self.url))
            case ["pulls", number, "files"] if number in pulls:
                return [{"filename": path, "status": "modified"} for path in pulls[number].files]
            case ["pulls", number, "commits"] if number in pulls:
                return payloads.commits(pulls[number])
        return _NOT_FOUND

    def _paged(self, rows: list[payloads.Json], query: str) -> Answer:
        asked = {key: values[-1] for key, values in parse_qs(query).items()}
        size, page = min(100, int(asked.get("per_page", 30))), int(asked.get("page", 1))
        headers = {}
        if page * size < len(rows):
            path = urlsplit(self.path).path
            headers["Link"] = f'<{self.url}{path}?per_page={size}&page={page + 1}>; rel="next"'
        return Answer(rows[(page - 1) * size : page * size], headers=headers)

    # ------------------------------------------------------------ GraphQL

    def _graphql(self, body: bytes) -> Answer:
        try:
            asked = json.loads(body)
            data = answer(asked["query"], asked.get("variables") or {}, payloads.graph(self.served, self.url))
        except (ValueError, KeyError, QueryError) as error:
            return Answer({"errors": [{"message": str(error)}]})
        missing = [
            {"type": "NOT_FOUND", "path": path, "message": f"Could not resolve to {'/'.join(path)}"}
            for path in _absent(data)
        ]
        return Answer({"data": data, "errors": missing} if missing else {"data": data})

    # ------------------------------------------------------------ git

    def _git(self) -> None:
        """Hands the request to git's own HTTP back end, by CGI."""
        address = urlsplit(self.path)
        prefix = f"/{self.served.name}.git"
        if not address.path.startswith(prefix):
            self._send(_NOT_FOUND)
            return
        body = self._body()
        environment = git_environment(
            GIT_PROJECT_ROOT=str(self.served.bare), GIT_HTTP_EXPORT_ALL="1", PATH_INFO=address.path[len(prefix) :],
            QUERY_STRING=address.query, REQUEST_METHOD=self.command, CONTENT_LENGTH=str(len(body)),
            CONTENT_TYPE=self.headers.get("Content-Type", ""), GIT_PROTOCOL=self.headers.get("Git-Protocol", ""),
            HTTP_CONTENT_ENCODING=self.headers.get("Content-Encoding", ""), REMOTE_ADDR="127.0.0.1",
            GIT_CONFIG_COUNT="2", GIT_CONFIG_KEY_0="uploadpack.allowAnySHA1InWant", GIT_CONFIG_VALUE_0="true",
            GIT_CONFIG_KEY_1="uploadpack.allowFilter", GIT_CONFIG_VALUE_1="true",
        )  # fmt: skip
        ran = subprocess.run(
            ["git", "http-backend"], input=body, env=environment, capture_output=True, timeout=120, check=False
        )
        head, _, content = ran.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        self._write(int(headers.pop("Status", "200").split(" ")[0]), headers, content)

    def _diff(self) -> None:
        """A public page, and so without a token: what a pull request changes since it left its base."""
        pages = {f"/{self.served.name}/pull/{found.number}.diff": found for found in self.served.pull_requests}
        self._body()
        if (found := pages.get(self.path)) is None:
            self._send(_NOT_FOUND)
            return
        content = run_git(self.served.bare, "diff", f"{found.base_commit}...{found.head_commit}")
        self._write(HTTPStatus.OK, {"Content-Type": "text/plain; charset=utf-8"}, content)

    # ------------------------------------------------------------ HTTP

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _send(self, found: Answer) -> None:
        content = json.dumps(found.body, sort_keys=True).encode()
        etag = f'W/"{hashlib.sha256(content).hexdigest()[:32]}"'
        headers = {"Content-Type": "application/json; charset=utf-8", "ETag": etag, "X-RateLimit-Remaining": "4999"}
        headers |= dict(found.headers or {})
        if found.status == HTTPStatus.OK and self.headers.get("If-None-Match") == etag:
            self._write(HTTPStatus.NOT_MODIFIED, headers, b"")
        else:
            self._write(found.status, headers, content)

    def _write(self, status: int, headers: Mapping[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() != "content-length":
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        for start in range(0, len(content), _CHUNK):
            self.wfile.write(content[start : start + _CHUNK])


def _absent(data: Mapping[str, Any]) -> list[list[str]]:
    """Where an object was asked for that is not there."""
    repository = data.get("repository", {})
    if repository is None:
        return [["repository"]]
    return [["repository", name] for name, value in repository.items() if value is None]


_NOT_FOUND = Answer({"message": "Not Found"}, HTTPStatus.NOT_FOUND)
