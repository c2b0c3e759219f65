"""Where packages are developed, by a package index. One property: no code of a package runs, and each package that
leads nowhere says why.

    GET INDEX/NAME/ ─► newest file ─► GET FILE.metadata, else what lies inside FILE ─► Project-URL ─► owner/name

Credentials in the index's address go to the index's host only, and into no message.
"""

import hashlib
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import requests
from packaging.utils import canonicalize_name

from swefactory.errors import Transient, UsageError
from swefactory.package_indexes import bare, certificates
from swefactory.sources.package_pages import IndexFile, files_of_html, files_of_json, metadata_in, repository_in

_AT_ONCE = 8
_TIMEOUT_S = 60
_PAUSES_S = (0.5, 2.0)  # before the second and the third try
_LARGEST_PAGE, _LARGEST_FILE = 64 * 2**20, 20 * 2**20
_JSON = "application/vnd.pypi.simple.v1+json"
_ACCEPT = f"{_JSON}, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"


@dataclass(frozen=True)
class Lead:
    """Where a package leads. `says` is the field that named the repository, or why there is none; `is_fault`: because
    the index did not answer, and another time it may."""

    package: str
    repository: str | None
    says: str
    is_fault: bool = False


class PackageIndex:
    """One index. Raises UsageError for an address that is none."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"{bare(address)!r} is no package index on the web; set SWEFACTORY_INDEX_URL to one")
        self.address = bare(address).rstrip("/")
        self._host = urlsplit(self.address).netloc
        self._auth = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
        self._verify = certificates() or True
        self._local = threading.local()

    def leads(self, packages: Sequence[str]) -> Iterator[Lead]:
        """In the order of `packages`; several are asked for at once. Raises UsageError on refused credentials."""
        with ThreadPoolExecutor(_AT_ONCE, "package-index") as pool:
            yield from pool.map(self._lead, packages)

    def _lead(self, package: str) -> Lead:
        try:
            return self._found(package)
        except _Absent as absence:
            return Lead(package, None, str(absence))
        except Transient as error:
            return Lead(package, None, str(error), is_fault=True)

    def _found(self, package: str) -> Lead:
        files = self._files(package)
        if not files:
            raise _Absent(f"{self.address} lists no file of it that has a version")
        described = next((file for file in files if file.metadata_sha256 is not None), None)
        metadata = self._metadata_of(described) if described else self._metadata_inside(files[0])
        return Lead(package, *repository_in(metadata))

    def _files(self, package: str) -> list[IndexFile]:
        url = f"{self.address}/{canonicalize_name(package)}/"
        reply = self._get(url, _LARGEST_PAGE, f"{self.address} has no package of this name")
        text = reply.content.decode("utf-8", "replace")
        try:
            return files_of_json(text, reply.url) if "json" in reply.kind else files_of_html(text, reply.url)
        except ValueError as error:
            raise Transient(f"{self.address} answered for {package} with a broken page; run again later", 0) from error

    def _metadata_of(self, file: IndexFile) -> bytes:
        reply = self._get(f"{file.url}.metadata", _LARGEST_FILE, f"the metadata of {file.filename} is not there")
        if file.metadata_sha256 and hashlib.sha256(reply.content).hexdigest() != file.metadata_sha256:
            raise _Absent(f"the metadata of {file.filename} is not what {self.address} says it is")
        return reply.content

    def _metadata_inside(self, file: IndexFile) -> bytes:
        reply = self._get(file.url, _LARGEST_FILE, f"{file.filename} is not there")
        if (metadata := metadata_in(reply.content, file.filename)) is None:
            raise _Absent(f"{file.filename} holds no metadata that can be read")
        return metadata

    def _get(self, url: str, most_bytes: int, absent: str) -> "_Reply":
        """Raises _Absent, Transient after the last try, UsageError on refused credentials."""
        said = ""
        for pause_s in (*_PAUSES_S, None):
            try:
                return self._asked(url, most_bytes, absent)
            except _Busy as busy:
                said = str(busy)
            except requests.exceptions.RequestException as error:
                said = f"broke off ({type(error).__name__})"  # its text can hold the whole address
            if pause_s is not None:
                time.sleep(pause_s)
        raise Transient(f"{urlsplit(url).netloc} {said}; run again later", 60)

    def _asked(self, url: str, most_bytes: int, absent: str) -> "_Reply":
        auth = self._auth if urlsplit(url).netloc == self._host else None
        with self._session().get(
            url, headers={"Accept": _ACCEPT}, auth=auth, timeout=_TIMEOUT_S, stream=True, verify=self._verify
        ) as reply:
            if reply.status_code == 401:
                raise UsageError(f"{self.address} wants other credentials; correct them in SWEFACTORY_INDEX_URL")
            if reply.status_code == 429 or reply.status_code >= 500:
                raise _Busy(f"answered {reply.status_code}")
            if reply.status_code >= 400:
                raise _Absent(absent if reply.status_code in (404, 410) else f"{absent} ({reply.status_code})")
            content = b"".join(_up_to(reply, most_bytes))
            if len(content) > most_bytes:
                raise _Absent(f"{urlsplit(bare(url)).path} has more than {most_bytes} bytes")
            return _Reply(content, reply.headers.get("Content-Type", ""), bare(reply.url))

    def _session(self) -> requests.Session:
        """One a thread: requests promises no more."""
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
        session: requests.Session = self._local.session
        return session


@dataclass(frozen=True)
class _Reply:
    content: bytes
    kind: str
    url: str  # after redirections


class _Absent(Exception):
    """The index has not what was asked for; the message says what."""


class _Busy(Exception):
    """Another time it may answer."""


def _up_to(reply: requests.Response, most_bytes: int) -> Iterator[bytes]:
    """Some more at most, so that the caller sees that there is more."""
    n = 0
    for chunk in reply.iter_content(2**16):
        n += len(chunk)
        yield chunk
        if n > most_bytes:
            return
