"""What a package index says of one package: a page of files, and the metadata of one of them. One property: nothing a
page says is trusted; what cannot be read is left out. Pure.

    {"files": [{"filename", "url", "yanked", "core-metadata": {"sha256"}}]}             JSON, PEP 691
    <a href=URL data-core-metadata="sha256=…" data-yanked>click-8.1.7-py3-none-any.whl</a>   HTML, PEP 503, 658, 714
"""

import io
import json
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from urllib.parse import unquote, urljoin, urlsplit

from packaging.metadata import parse_email
from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, parse_sdist_filename, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from swefactory.repository_names import name_in_address

_METADATA = ("core-metadata", "dist-info-metadata", "data-dist-info-metadata")  # today's key, PEP 658's, and its typo
_SOURCE = ("source", "repository", "sourcecode", "github", "code")  # PEP 753, and what people write
_HOME = ("homepage", "home")
_NO_HOME = ("funding", "sponsor", "donate", "donation")
_LONGEST_METADATA = 4 * 2**20


@dataclass(frozen=True)
class IndexFile:
    """A file of a package. `metadata_sha256` is "" where its metadata has no hash, None where it has no metadata."""

    filename: str
    url: str
    version: Version
    is_wheel: bool
    is_yanked: bool
    metadata_sha256: str | None


def files_of_json(text: str, page_url: str) -> list[IndexFile]:
    """Best first, see `_best_first`. Raises ValueError for what is no page of PEP 691."""
    page = json.loads(text)
    files = page.get("files") if isinstance(page, dict) else None
    if not isinstance(files, list):
        raise ValueError("no list of files")
    found = []
    for file in files:
        if isinstance(file, dict) and isinstance(url := file.get("url"), str):
            metadata = next((file[key] for key in _METADATA if file.get(key)), None)
            sha256 = str(metadata.get("sha256", "")) if isinstance(metadata, dict) else "" if metadata else None
            found.append((str(file.get("filename", "")), urljoin(page_url, url), bool(file.get("yanked")), sha256))
    return _best_first(found)


def files_of_html(text: str, page_url: str) -> list[IndexFile]:
    """Best first; none for a page without links to files."""
    parser = _Links()
    parser.feed(text)
    found = []
    for link in parser.links:
        url = urljoin(page_url, link.get("href") or "").partition("#")[0]
        said = next((link[f"data-{key}"] for key in _METADATA[:2] if link.get(f"data-{key}") is not None), None)
        is_there = said is not None and said.lower() != "false"
        sha256 = said.partition("sha256=")[2] if is_there and said else None
        filename = unquote(urlsplit(url).path.rpartition("/")[2])
        found.append((filename, url, "data-yanked" in link, sha256))
    return _best_first(found)


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[Mapping[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.links.append(dict(attrs))


def _best_first(found: Iterable[tuple[str, str, bool, str | None]]) -> list[IndexFile]:
    """The newest release that was not taken back, final ones before others, wheels first. Files without a version in
    their names are left out."""
    files = []
    for filename, url, is_yanked, sha256 in found:
        is_wheel = filename.endswith(".whl")
        try:
            version = parse_wheel_filename(filename)[1] if is_wheel else parse_sdist_filename(filename)[1]
        except (InvalidWheelFilename, InvalidSdistFilename, InvalidVersion):
            continue
        files.append(IndexFile(filename, url, version, is_wheel, is_yanked, sha256))
    return sorted(files, key=_goodness, reverse=True)


def _goodness(file: IndexFile) -> tuple[bool, bool, Version, bool]:
    return not file.is_yanked, not file.version.is_prerelease, file.version, file.is_wheel


def metadata_in(archive: bytes, filename: str) -> bytes | None:
    """The metadata inside a wheel or a source distribution, read without unpacking; None where there is none."""
    try:
        if filename.endswith((".whl", ".zip")):
            with zipfile.ZipFile(io.BytesIO(archive)) as wheel:
                entries = {name: wheel.getinfo(name).file_size for name in wheel.namelist()}
                name = _metadata_name(entries)
                return wheel.read(name) if name else None
        with tarfile.open(fileobj=io.BytesIO(archive)) as source:
            members = {member.name: member for member in source if member.isfile()}
            name = _metadata_name({name: member.size for name, member in members.items()})
            file = source.extractfile(members[name]) if name else None
            return file.read() if file else None
    except (OSError, EOFError, zipfile.BadZipFile, tarfile.TarError, zlib.error, NotImplementedError, RuntimeError):
        return None


def _metadata_name(sizes: Mapping[str, int]) -> str | None:
    fitting = [name for name, size in sizes.items() if size <= _LONGEST_METADATA]
    return next((name for name in fitting if re.fullmatch(r"[^/]+\.dist-info/METADATA|[^/]+/PKG-INFO", name)), None)


def repository_in(metadata: bytes) -> tuple[str | None, str]:
    """The repository that a package's metadata leads to, and the field that said so, or what its fields say instead."""
    urls = dict(_urls(metadata))
    labels = sorted(urls, key=_rank)
    for label in labels:
        if name := name_in_address(urls[label]):
            return name, f"{label}: {urls[label]}"
    said = ", ".join(f"{label}: {urls[label]}" for label in labels[:3])
    return None, f"its metadata leads to no repository on GitHub ({said})" if said else "its metadata names no address"


def _urls(metadata: bytes) -> Iterator[tuple[str, str]]:
    """Label -> address; fields that packaging finds malformed (a label twice) are taken as they are."""
    raw, rest = parse_email(metadata)
    fields = [*raw.get("project_urls", {}).items()]
    fields += [(label, url) for label, _, url in (text.partition(",") for text in rest.get("project-url", []))]
    fields += [("Home-page", raw.get("home_page", "")), ("Download-URL", raw.get("download_url", ""))]
    for label, url in fields:
        if _plain(label) not in _NO_HOME and url.strip() and url.strip() != "UNKNOWN":
            yield label.strip() or "Project-URL", url.strip()


def _rank(label: str) -> int:
    plain = _plain(label)
    return 0 if plain in _SOURCE else 1 if plain in _HOME else 2


def _plain(label: str) -> str:
    """As PEP 753 compares labels."""
    return re.sub(r"[\W_]", "", label).lower()
