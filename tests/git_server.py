"""git over HTTP on loopback, by git's own back end. One property: it counts what it is asked."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from swefactory.checkouts import git_environment
from swefactory.demo.loopback import QuietHandler, serving

FAULTS = ("500", "502", "503", "429", "403", "html", "truncate", "empty", "reset")


@dataclass
class GitServer:
    """`posts` counts requests for objects or refs; while `fault` is set every request ends so. Without `filters` it
    gives whole packs only. `authorisations` are those of all requests."""

    url: str = ""
    posts: int = 0
    fault: str = ""
    filters: bool = True
    authorisations: list[str | None] = field(default_factory=list)


@contextmanager
def git_server(repository: Path, *, filters: bool = True) -> Iterator[GitServer]:
    """Serves one repository while the context is open."""
    server = GitServer(filters=filters)

    class Handler(_Handler):
        served = repository
        state = server

    with serving(Handler) as url:
        server.url = f"{url}/acme/tool.git"
        yield server


class _Handler(QuietHandler):
    served: Path
    state: GitServer

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        body = self._body()
        self.state.posts += 1
        self._answer(body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, body: bytes) -> None:
        self.state.authorisations.append(self.headers.get("Authorization"))
        match self.state.fault:
            case "" | "truncate":
                self._git(body)
            case "html":
                self._write(200, {"Content-Type": "text/html"}, b"<html>Sign in</html>")
            case "empty":
                self._write(200, {"Content-Type": self._wanted_type()}, b"")
            case "reset":
                self.close_connection = True
            case status:
                self._write(int(status), {}, b"")

    def _wanted_type(self) -> str:
        kind = "result" if self.command == "POST" else "advertisement"
        return f"application/x-git-upload-pack-{kind}"

    def _git(self, body: bytes) -> None:
        address = urlsplit(self.path)
        environment = git_environment(
            GIT_PROJECT_ROOT=str(self.served), GIT_HTTP_EXPORT_ALL="1",
            PATH_INFO=address.path.removeprefix("/acme/tool.git"),
            QUERY_STRING=address.query, REQUEST_METHOD=self.command, CONTENT_LENGTH=str(len(body)),
            CONTENT_TYPE=self.headers.get("Content-Type", ""), GIT_PROTOCOL=self.headers.get("Git-Protocol", ""),
            HTTP_CONTENT_ENCODING=self.headers.get("Content-Encoding", ""), REMOTE_ADDR="127.0.0.1",
            GIT_CONFIG_COUNT="2", GIT_CONFIG_KEY_0="uploadpack.allowAnySHA1InWant", GIT_CONFIG_VALUE_0="true",
            GIT_CONFIG_KEY_1="uploadpack.allowFilter", GIT_CONFIG_VALUE_1=str(self.state.filters).lower(),
        )  # fmt: skip
        ran = subprocess.run(["git", "http-backend"], input=body, env=environment, capture_output=True, timeout=60)
        head, _, content = ran.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        cut = len(content) // 2 if self.state.fault == "truncate" else len(content)
        self._write(int(headers.pop("Status", "200").split(" ")[0]), headers, content[:cut], len(content))

    def _write(self, status: int, headers: dict[str, str], content: bytes, length: int | None = None) -> None:
        """With a `length` greater than the content, the connection ends early."""
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() != "content-length":
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = self.close_connection or (length or 0) > len(content)
