"""The demo's GitHub, failing as it is told: fourteen kinds of fault at each kind of endpoint. One property: it notes
every request and every fault that fired, so that a test can tell that it proved something."""

import json
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus

from swefactory.demo import github_server
from swefactory.demo.history import DemoHistory
from swefactory.demo.loopback import serving

KINDS = (
    "secondary", "secondary429", "primary", "500", "502", "503", "html", "404", "401", "truncate", "badjson", "empty",
    "reset", "slow",
)  # fmt: skip
ENDPOINTS = ("facts", "probe", "page", "issues", "refs", "pack")
_WAIT_S = 900  # what limits ask for: so long that no run sits it out
_GATEWAY = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"
_LIMIT = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."


@dataclass(frozen=True)
class Fault:
    """`kind` in place of `times` answers of an endpoint, after `after` good ones."""

    kind: str
    endpoint: str
    times: int = 1
    after: int = 0


@dataclass
class FaultyGitHub:
    """`pages` are the cursors of the pages asked for, in order; at most `page_size` pull requests are on one."""

    url: str = ""
    faults: tuple[Fault, ...] = ()
    page_size: int = 2
    delay_s: float = 0.0  # of each page
    asked: Counter[str] = field(default_factory=Counter)
    fired: Counter[str] = field(default_factory=Counter)
    pages: list[str | None] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault(self, *faults: Fault) -> None:
        """From now on these, and everything is counted anew."""
        with self.lock:
            self.faults = faults
            self.asked.clear()
            self.fired.clear()
            self.pages.clear()

    def kind_for(self, endpoint: str) -> str:
        """Counts a request; what is to happen to it, "" for nothing."""
        with self.lock:
            self.asked[endpoint] += 1
            n = self.asked[endpoint]
            for fault in self.faults:
                if fault.endpoint == endpoint and fault.after < n <= fault.after + fault.times:
                    self.fired[endpoint] += 1
                    return fault.kind
        return ""


@contextmanager
def faulty_github(history: DemoHistory, *, token: str = "") -> Iterator[FaultyGitHub]:
    """Serves `history` while the context is open."""
    state = FaultyGitHub()

    class Handler(_Handler):
        served = history
        wanted_token = token
        formerly = ()
        github = state

    with serving(Handler) as url:
        state.url = url
        yield state


class _Handler(github_server._Handler):
    github: FaultyGitHub
    _asked = b""
    _is_cut = False

    def do_GET(self) -> None:
        self._serve(super().do_GET)

    def do_POST(self) -> None:
        self._serve(super().do_POST)

    def _serve(self, answer: Callable[[], None]) -> None:
        self._asked, self._is_cut = super()._body(), False
        endpoint = self._endpoint()
        kind = self.github.kind_for(endpoint)
        if endpoint == "page":
            self._note_page()
        match kind:
            case "":
                answer()
            case "slow":
                time.sleep(0.2)
                answer()
            case "truncate":
                self._is_cut = True
                answer()
            case _:
                self._fail(kind)

    def _endpoint(self) -> str:
        path = self.path.partition("?")[0]
        if ".git/" in path:
            return "refs" if path.endswith("/info/refs") else "pack"
        if path == "/graphql":
            asked = json.loads(self._asked)
            return "page" if "first" in asked["variables"] else "issues"
        return "probe" if path.endswith("/pulls") else "facts" if re.fullmatch(r"/repos/[^/]+/[^/]+", path) else path

    def _note_page(self) -> None:
        """Makes the page as small as these tests want it."""
        asked = json.loads(self._asked)
        variables = asked["variables"]
        with self.github.lock:
            self.github.pages.append(variables["after"])
        variables["first"] = min(variables["first"], self.github.page_size)
        self._asked = json.dumps(asked).encode()
        time.sleep(self.github.delay_s)

    def _body(self) -> bytes:
        return self._asked

    def _fail(self, kind: str) -> None:
        match kind:
            case "secondary" | "secondary429":
                status = HTTPStatus.FORBIDDEN if kind == "secondary" else HTTPStatus.TOO_MANY_REQUESTS
                self._say(status, {"message": _LIMIT}, {"Retry-After": str(_WAIT_S)})
            case "primary":
                resets_at = str(int(time.time()) + _WAIT_S)
                told = {"X-RateLimit-Limit": "5000", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": resets_at}
                self._say(HTTPStatus.FORBIDDEN, {"message": "API rate limit exceeded for user ID 1."}, told)
            case "html":
                self._write(HTTPStatus.BAD_GATEWAY, {"Content-Type": "text/html"}, _GATEWAY)
            case "404":
                self._say(HTTPStatus.NOT_FOUND, {"message": "Not Found"})
            case "401":
                self._say(HTTPStatus.UNAUTHORIZED, {"message": "Bad credentials"})
            case "badjson":
                self._write(HTTPStatus.OK, {"Content-Type": "application/json"}, b'{"message": "ok", ')
            case "empty":
                self._write(HTTPStatus.OK, {"Content-Type": "application/json"}, b"")
            case "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                self.connection.close()
            case _:
                self._say(int(kind), {"message": "Server Error"})

    def _say(self, status: int, body: object, headers: Mapping[str, str] | None = None) -> None:
        named = {"Content-Type": "application/json", **(headers or {})}
        self._write(status, named, json.dumps(body).encode())

    def _write(self, status: int, headers: Mapping[str, str], content: bytes) -> None:
        if not self._is_cut:
            super()._write(status, headers, content)
            return
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() != "content-length":
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        self.close_connection = True

    def finish(self) -> None:
        """Of a connection that was reset there is nothing left to flush."""
        with suppress(OSError, ValueError):
            super().finish()
