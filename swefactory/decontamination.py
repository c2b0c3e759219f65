"""Whether a task instance is in, or too near to, a published benchmark. Fails closed.

(Signatures; the insides follow.)
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self


class MatchKind(StrEnum):
    """Why an instance counts as a benchmark's."""

    PULL_REQUEST = "pull_request"
    BASE_COMMIT = "base_commit"
    PATCH = "patch"
    ISSUE_TEXT = "issue_text"


@dataclass(frozen=True)
class InstanceFacts:
    """What is compared. `fork_root` is the root of the repository's fork network, itself where it is no fork."""

    repository: str
    number: int
    base_commit: str
    patch_digest: str
    issue_signature: str
    fork_root: str = ""


@dataclass(frozen=True)
class ListId:
    """A benchmark list as it was in force."""

    name: str
    sha256: str
    n_rows: int


@dataclass(frozen=True)
class Match:
    kind: MatchKind
    benchmark: str
    instance_id: str
    detail: str = ""


@dataclass(frozen=True)
class Verdict:
    """What is recorded per instance. `near` are matches that are noted and reject nothing."""

    matched: tuple[Match, ...]
    lists: tuple[ListId, ...]

    def as_json(self) -> dict[str, Any]:
        raise NotImplementedError


@dataclass(frozen=True)
class BenchmarkList:
    """One list, read whole."""

    id: ListId

    @classmethod
    def load(cls, paths: Iterable[Path]) -> tuple[Self, ...]:
        """Every list, or none: raises UsageError for a missing, unreadable, empty or malformed one."""
        raise NotImplementedError


def load_lists(extra: str = "") -> tuple[BenchmarkList, ...]:
    """The lists that the package ships and the ':'-separated files of the setting `benchmarks`. Raises UsageError."""
    raise NotImplementedError


def check(facts: InstanceFacts, lists: Sequence[BenchmarkList]) -> Verdict:
    """Compares one instance with every list. Raises UsageError when there is no list."""
    raise NotImplementedError


def patch_digest(patch: str) -> str:
    """sha256:… over the normalised patch; "" for a patch without a changed line of text."""
    raise NotImplementedError


def signature(text: str) -> str:
    """The MinHash of an issue text in storable form; "" for a text too short to compare."""
    raise NotImplementedError


def bands(issue_signature: str) -> tuple[tuple[int, str], ...]:
    """(band, digest) keys: two texts that share one are near-duplicates' candidates. None for ""."""
    raise NotImplementedError


def similarity(one: str, other: str) -> float:
    """The estimated Jaccard similarity of two signatures, 0..1."""
    raise NotImplementedError
