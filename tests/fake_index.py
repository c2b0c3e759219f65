"""A package index on loopback: JSON or HTML pages, metadata beside the files or only inside them."""

import hashlib
import io
import json
import tarfile
import threading
import zipfile
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def metadata(*fields: str) -> bytes:
    return "\n".join(("Metadata-Version: 2.1", "Name: tool", "Version: 1.0", *fields, "", "Text")).encode()


def wheel(content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("tool/__init__.py", "")
        file.writestr("tool-1.0.dist-info/METADATA", content)
    return packed.getvalue()


def source(content: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as file:
        entry = tarfile.TarInfo("tool-1.0/PKG-INFO")
        entry.size = len(content)
        file.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


@dataclass
class FakeIndex:
    """`files` are served by path; `packages` are lists of PEP 691's entries."""

    packages: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    login: str = ""  # "user:password" that it wants
    only_html: bool = False
    statuses: list[int] = field(default_factory=list)  # answered first, one request each
    requests: list[str] = field(default_factory=list)
    url: str = ""

    def add(self, package: str, filename: str, content: bytes | None = None, **more: Any) -> None:
        """A file; with `content` as its metadata beside it."""
        entry: dict[str, Any] = {"filename": filename, "url": f"../../files/{package}/{filename}", "hashes": {}} | more
        if content is not None:
            entry.setdefault("core-metadata", {"sha256": hashlib.sha256(content).hexdigest()})
            self.files[f"/files/{package}/{filename}.metadata"] = content
        self.packages.setdefault(package, []).append(entry)

    def answer(self, path: str, login: str | None) -> tuple[int, str, bytes]:
        self.requests.append(path)
        if self.statuses:
            return self.statuses.pop(0), "text/plain", b""
        if self.login and login != f"Basic {b64encode(self.login.encode()).decode()}":
            return 401, "text/plain", b"who are you"
        if path in self.files:
            return 200, "application/octet-stream", self.files[path]
        package = path.removeprefix("/simple/").strip("/")
        if package not in self.packages:
            return 404, "text/plain", b"no"
        if self.only_html:
            return 200, "text/html", "".join(map(_link, self.packages[package])).encode()
        page = {"meta": {"api-version": "1.1"}, "name": package, "files": self.packages[package]}
        return 200, "application/vnd.pypi.simple.v1+json", json.dumps(page).encode()


def _link(entry: dict[str, Any]) -> str:
    marks = ""
    if described := entry.get("core-metadata"):
        marks += f' data-core-metadata="sha256={described["sha256"]}"'
    if entry.get("yanked"):
        marks += ' data-yanked=""'
    return f'<a href="{entry["url"]}#sha256=00"{marks}>{entry["filename"]}</a><br>'


@contextmanager
def serving_index() -> Iterator[FakeIndex]:
    index = FakeIndex()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind, content = index.answer(self.path, self.headers.get("Authorization"))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        index.url = f"http://127.0.0.1:{server.server_port}/simple/"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield index
        finally:
            server.shutdown()
            thread.join()
