"""The launcher: the one process that reaches the docker engine for the workers. One property: a request reaches the
engine only after docker_launcher_rules let it pass and what it names was found to carry our label.

HTTP with a token in each request. Most requests are docker's own, so that the SDK and the docker program speak to it as
to an engine; a command's streams are passed through once its start was let pass. Builds, pulls and pushes are orders of
ours, see docker_launcher_orders.
"""

import hmac
import http.client
import json
import select
import shutil
import socket
import tempfile
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from urllib.parse import parse_qs, urlencode, urlsplit

from swefactory.errors import InfrastructureError, SwefactoryError, UsageError
from swefactory.sandboxes.docker_engine import Engine
from swefactory.sandboxes.docker_launcher_orders import LauncherRules, Launching
from swefactory.sandboxes.docker_launcher_rules import MAX_JSON_BYTES, Refused, examine

_CHUNK_BYTES = 64 * 1024
_MAX_BODY_BYTES = 8 * 2**30
_HEADERS = ("Content-Type", "Api-Version", "Docker-Experimental", "Ostype", "Server")


class _Handler(BaseHTTPRequestHandler):
    """One request a connection; unbuffered, so that a stream's first bytes are not lost in a buffer."""

    protocol_version = "HTTP/1.1"
    rbufsize = 0
    server: "LauncherServer"

    def _handle(self) -> None:
        self.close_connection = True
        body = _Bounded(self.rfile, 0)
        try:
            body = _Bounded(self.rfile, self._length())
            self._authorised()
            path = urlsplit(self.path)
            if path.path.startswith("/launcher/"):
                self._order(path.path.removeprefix("/launcher/"), body)
            else:
                self._pass_on(path.path, parse_qs(path.query, keep_blank_values=True), body)
        except _Unauthorised as error:
            self._tell(401, error, body)
        except UsageError as error:
            self._tell(403, error, body)
        except SwefactoryError as error:
            self._tell(500, error, body)
        except (BrokenPipeError, ConnectionResetError):
            return  # who asked is gone

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _handle

    def _authorised(self) -> None:
        said = self.headers.get("Authorization", "").encode()
        if not hmac.compare_digest(said, f"Bearer {self.server.launching.rules.token}".encode()):
            raise _Unauthorised("the launcher knows another token; give it as SWEFACTORY_LAUNCHER_TOKEN")

    def _length(self) -> int:
        if self.headers.get("Transfer-Encoding"):
            raise Refused("the launcher takes bodies of a known length only")
        length = self.headers.get("Content-Length") or "0"
        if not length.isdigit() or int(length) > _MAX_BODY_BYTES:
            raise Refused(f"the launcher takes no body of {length} bytes")
        return int(length)

    def _small(self, body: "_Bounded") -> bytes:
        if body.left > MAX_JSON_BYTES:
            raise Refused(f"the launcher takes no order of {body.left} bytes")
        return body.read()

    def _order(self, name: str, body: "_Bounded") -> None:
        launching = self.server.launching
        if self.command != "POST" or name not in ("build", "pull", "push"):
            raise Refused(f"the launcher knows the orders build, pull and push, not {self.command} {name!r}")
        if name == "build":
            with tempfile.TemporaryFile() as file:
                shutil.copyfileobj(body, file)
                file.seek(0)
                answer = launching.build(file)
        else:
            answer = launching.move(name, self._small(body))
        self._send(200, answer, "application/octet-stream")

    def _pass_on(self, path: str, query: Mapping[str, list[str]], body: "_Bounded") -> None:
        is_tar = self.command == "PUT"
        text = b"" if is_tar else self._small(body)
        launching = self.server.launching
        passed = examine(self.command, path, query, text, launching.rules.maximum)
        launching.require(passed)
        where = f"{path}?{urlencode(query, doseq=True)}" if query else path
        if passed.route.is_stream:
            self._stream(where, passed.body)
            return
        connection = self.server.connection()
        try:
            length = body.left if is_tar else len(passed.body)
            kind = "application/x-tar" if is_tar else "application/json"
            headers = {"Content-Type": kind, "Content-Length": str(length)}
            connection.request(self.command, where, body if is_tar else passed.body or None, headers)
            self._relay(connection.getresponse())
        except (OSError, http.client.HTTPException) as error:
            raise InfrastructureError(f"the docker engine does not answer the launcher: {error}") from error
        finally:
            connection.close()

    def _relay(self, answer: http.client.HTTPResponse) -> None:
        self.send_response_only(answer.status)
        for name in _HEADERS:
            if value := answer.headers.get(name):
                self.send_header(name, value)
        if self.command == "HEAD" or answer.status in (204, 304):
            self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")
        self.end_headers()
        while chunk := answer.read(_CHUNK_BYTES):
            self.wfile.write(chunk)

    def _stream(self, where: str, body: bytes) -> None:
        """The engine's own answer and then both ways, until the engine ends it."""
        with self.server.open_socket() as engine:
            lines = ["Content-Type: application/json", "Connection: Upgrade", "Upgrade: tcp"]
            head = [f"POST {where} HTTP/1.1", "Host: docker", *lines, f"Content-Length: {len(body)}", "", ""]
            engine.sendall("\r\n".join(head).encode("latin-1") + body)
            _pump(self.connection, engine)

    def _tell(self, status: int, error: SwefactoryError, body: "_Bounded") -> None:
        """What was sent and not read would make the answer a reset connection."""
        while body.left and body.read(_CHUNK_BYTES):
            pass
        self._send(status, json.dumps({"message": str(error)}).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response_only(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


class _Unauthorised(UsageError):
    """Another token, or none."""


class _Bounded:
    """At most so many bytes of a stream; a read gives as many as it asks for, until they end."""

    def __init__(self, source: BufferedIOBase, length: int) -> None:
        self._source, self.left = source, length

    def read(self, n: int = -1) -> bytes:
        wanted, chunks = self.left if n < 0 else min(n, self.left), []
        while wanted:
            chunk = self._source.read(min(wanted, _CHUNK_BYTES))
            if not chunk:
                self.left = 0
                break
            chunks.append(chunk)
            wanted -= len(chunk)
            self.left -= len(chunk)
        return b"".join(chunks)


def _pump(client: socket.socket, engine: socket.socket) -> None:
    """Until the engine has said everything; the end of the client's input is told to the engine."""
    readers = [client, engine]
    while True:
        ready, _, _ = select.select(readers, [], [])
        for source in ready:
            chunk = source.recv(_CHUNK_BYTES)
            if source is engine:
                if not chunk:
                    return
                client.sendall(chunk)
            elif chunk:
                engine.sendall(chunk)
            else:
                readers.remove(client)
                engine.shutdown(socket.SHUT_WR)


class LauncherServer(ThreadingHTTPServer):
    """Serves one engine's socket at `address`. Raises UsageError without a token of some length."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], engine: Engine, socket_path: str, rules: LauncherRules) -> None:
        if len(rules.token) < 16:
            raise UsageError("the launcher needs a token of 16 characters or more; put it in a secrets file")
        self.launching = Launching(engine, rules)
        self._socket_path = socket_path
        super().__init__(address, _Handler)

    def open_socket(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.connect(self._socket_path)
        except OSError as error:
            made.close()
            raise InfrastructureError(f"the docker engine at {self._socket_path} does not answer: {error}") from error
        return made

    def connection(self) -> http.client.HTTPConnection:
        made = http.client.HTTPConnection("docker", timeout=600)
        made.sock = self.open_socket()
        return made
