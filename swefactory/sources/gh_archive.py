"""Hour files of GH Archive as an index of pull requests: who merged what, or may have. One property: it reads line by
line, and says what it could not read.

    {"type": "PullRequestEvent", "repo": {"name": "acme/tool"}, "payload": {"action": "closed", "number": 7, …}}

Until October 2025 an event says whether the pull request was merged; one that was not is left out. Since then it does
not say: each closed one may have been, and GitHub is asked for it. Before 2015 the repository stands elsewhere.
"""

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from swefactory.errors import UsageError
from swefactory.repository_names import is_name
from swefactory.sources.payloads import Json, as_object, object_of, text_of

_MARK = b'"PullRequestEvent"'  # most lines are of other events, and need not be parsed
_ACTIONS = ("closed", "merged")


@dataclass(frozen=True)
class ArchiveFile:
    """What one file held: pull requests by repository, `n_broken` lines that are no event, and `cut` if it ends before
    its end (a broken download)."""

    path: Path
    numbers: Mapping[str, frozenset[int]]
    n_lines: int
    n_broken: int
    cut: str = ""


def read(path: Path) -> ArchiveFile:
    """Raises UsageError for a file that cannot be opened."""
    numbers: dict[str, set[int]] = {}
    n_lines = n_broken = 0
    cut = ""
    try:
        with closing(_opened(path)) as file:
            for line in file:
                n_lines += 1
                try:
                    if found := _pull_request(line):
                        numbers.setdefault(found[0], set()).add(found[1])
                except ValueError:
                    n_broken += 1
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        cut = f"{path} is broken after line {n_lines}: {error}"
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    return ArchiveFile(path, {name: frozenset(found) for name, found in numbers.items()}, n_lines, n_broken, cut)


def merged(files: Iterator[ArchiveFile]) -> dict[str, frozenset[int]]:
    """The pull requests of all files by repository, sorted; names that differ in case only are one."""
    spelt: dict[str, str] = {}
    numbers: dict[str, set[int]] = {}
    for file in files:
        for name, found in file.numbers.items():
            numbers.setdefault(spelt.setdefault(name.lower(), name), set()).update(found)
    return {name: frozenset(numbers[name]) for name in sorted(numbers)}


def _opened(path: Path) -> IO[bytes]:
    """By its first bytes, not its name: browsers unpack, and keep the name."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if packed else path.open("rb")  # type: ignore[return-value]  # it is one to its reader


def _pull_request(line: bytes) -> tuple[str, int] | None:
    """Repository and number of a pull request that was closed and may have been merged; None for any other event.
    Raises ValueError for what is no event at all."""
    text = line.strip()
    if text and not (text.startswith(b"{") and text.endswith(b"}")):
        raise ValueError("no JSON object")
    if _MARK not in text:
        return None
    event = as_object(json.loads(text))
    payload = object_of(event, "payload")
    if text_of(event, "type") != "PullRequestEvent" or text_of(payload, "action") not in _ACTIONS:
        return None
    pull_request = object_of(payload, "pull_request")
    if pull_request.get("merged") is False:
        return None
    number = payload.get("number") or pull_request.get("number")
    name = _repository(event)
    if not isinstance(number, int) or number < 1 or not is_name(name):
        raise ValueError("no repository or number")
    return name, number


def _repository(event: Json) -> str:
    if name := text_of(object_of(event, "repo"), "name"):
        return name
    former = object_of(event, "repository")
    return f"{text_of(former, 'owner')}/{text_of(former, 'name')}"
