"""Whether a task instance is, or is too near to, a published benchmark's. One property: no verdict without the lists.

    pull_request   it is the very pull request, names in any case
    base_commit    it starts where a benchmark's instance starts: one SHA is one history, so forks, mirrors and renamed
                   repositories of a benchmark's repository are found, too
    patch          its patch changes the same lines (see `likeness`), in whatever repository
    issue_text     its issue reads the same (similarity of at least 0.8), in whatever repository
    repository     it is of a repository of which the list lacks instances, so that nobody can say that it is none

The verdict, with the lists in force and their digests, is recorded per instance and exported.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from swefactory.benchmark_lists import BenchmarkList, ListId, Row, load_lists
from swefactory.errors import UsageError
from swefactory.likeness import THRESHOLD, bands, patch_digest, signature, similarity

__all__ = ["BenchmarkList", "InstanceFacts", "ListId", "Match", "MatchKind", "Verdict", "bands", "check", "load_lists"]
__all__ += ["patch_digest", "signature", "similarity"]
_VERSION = 1


class MatchKind(StrEnum):
    """Why an instance counts as a benchmark's."""

    PULL_REQUEST = "pull_request"
    BASE_COMMIT = "base_commit"
    PATCH = "patch"
    ISSUE_TEXT = "issue_text"
    REPOSITORY = "repository"


@dataclass(frozen=True)
class InstanceFacts:
    """What is compared. `fork_root` is the root of the repository's fork network, "" where it is no fork."""

    repository: str
    number: int
    base_commit: str
    patch_digest: str
    issue_signature: str
    fork_root: str = ""


@dataclass(frozen=True)
class Match:
    """`detail` says how: by which similarity, in a fork of what. No instance_id where only the repository matches."""

    kind: MatchKind
    benchmark: str
    instance_id: str
    detail: str = ""


@dataclass(frozen=True)
class Verdict:
    """What is recorded. `matched` is in the order of the lists and then of MatchKind."""

    matched: tuple[Match, ...]
    lists: tuple[ListId, ...]

    @property
    def is_clean(self) -> bool:
        return not self.matched

    def as_json(self) -> dict[str, Any]:
        """Of JSON's own types, versioned."""
        return {
            "version": _VERSION,
            "matched": [asdict(match) | {"kind": match.kind.value} for match in self.matched],
            "lists": [asdict(known) for known in self.lists],
        }

    def __str__(self) -> str:
        return ", ".join(
            f"{m.instance_id or 'perhaps one'} of {m.benchmark} ({m.kind.value}{': ' * bool(m.detail)}{m.detail})"
            for m in self.matched
        )


def check(facts: InstanceFacts, lists: Sequence[BenchmarkList]) -> Verdict:
    """Compares one instance with every list. Raises UsageError when there is none."""
    if not lists:
        raise UsageError("no benchmark list was given to compare with; see `swefactory benchmark list`")
    matched = tuple(match for known in lists for match in _matches(facts, known))
    return Verdict(matched, tuple(known.id for known in lists))


def _matches(facts: InstanceFacts, known: BenchmarkList) -> Iterator[Match]:
    pull_request = (facts.repository.lower(), facts.number)
    for row in known.by_pull_request.get(pull_request, ()):
        yield _match(MatchKind.PULL_REQUEST, row)
    for row in known.by_base_commit.get(facts.base_commit.lower(), ()):
        yield _match(MatchKind.BASE_COMMIT, row, _relation(facts, row))
    for row in known.by_patch.get(facts.patch_digest, ()):
        yield _match(MatchKind.PATCH, row, _relation(facts, row))
    near = {row.instance_id: row for band in bands(facts.issue_signature) for row in known.by_band.get(band, ())}
    for _, row in sorted(near.items()):
        found = similarity(facts.issue_signature, row.issue_signature)
        if found >= THRESHOLD:
            yield _match(MatchKind.ISSUE_TEXT, row, f"similarity {found:.2f}")
    for name in sorted({facts.repository.lower(), facts.fork_root.lower()} & known.incomplete_repositories):
        detail = f"the list has {known.id.n_rows} of {known.n_published} instances and lacks some of {name}"
        yield Match(MatchKind.REPOSITORY, known.id.name, "", detail)


def _match(kind: MatchKind, row: Row, detail: str = "") -> Match:
    return Match(kind, row.benchmark, row.instance_id, detail)


def _relation(facts: InstanceFacts, row: Row) -> str:
    """How the two repositories stand to each other."""
    if row.repo.lower() == facts.repository.lower():
        return "in the same repository"
    if facts.fork_root and row.repo.lower() == facts.fork_root.lower():
        return f"in a fork of {row.repo}"
    return "in another repository"
