"""Which candidates are measured. One property: the choice looks at names, repositories and dates, at no outcome.

Strata are a repository and two years of it. Within a stratum the order is by a hash of seed and instance_id;
repositories take turns, and so do the periods of each. The first n of the order are the choice: a smaller n is a part
of a larger.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swefactory.checkouts import Checkouts
from swefactory.errors import Rejected
from swefactory.patches import PatchUnreadable
from swefactory.pull_diffs import pull_diff
from swefactory.pull_ranges import PullCommits, pull_range
from swefactory.stages.environments import EnvironmentInput

_YEARS = range(2018, 2027)


@dataclass(frozen=True)
class Pull:
    """A known pull request."""

    instance_id: str
    repository: str
    created_at: str
    base: str
    head: str
    merge: str

    @property
    def year(self) -> int:
        return int(self.created_at[:4])


def read_pulls(path: Path) -> list[Pull]:
    """One JSON object a line: instance_id, repo, created_at, base_sha, head_sha and merge_sha."""
    return [_pull(json.loads(line)) for line in path.read_text().splitlines()]


def _pull(row: Mapping[str, Any]) -> Pull:
    shas = (row[name] or "" for name in ("base_sha", "head_sha", "merge_sha"))
    return Pull(row["instance_id"], row["repo"], row["created_at"], *shas)


def ordered(pulls: Iterable[Pull], seed: str) -> list[Pull]:
    """All of the years measured, in the order in which they are taken."""
    strata: dict[str, dict[int, list[Pull]]] = defaultdict(lambda: defaultdict(list))
    for pull in pulls:
        if pull.year in _YEARS:
            strata[pull.repository][pull.year // 2].append(pull)
    lanes = [
        _turns([sorted(found, key=lambda pull: _rank(seed, pull.instance_id)) for _, found in _shuffled(periods, seed)])
        for _, periods in _shuffled(strata, seed)
    ]
    return list(_turns([list(lane) for lane in lanes]))


def _shuffled[K, V](table: Mapping[K, V], seed: str) -> list[tuple[K, V]]:
    return sorted(table.items(), key=lambda item: _rank(seed, str(item[0])))


def _rank(seed: str, name: str) -> str:
    return hashlib.sha256(f"{seed}\0{name}".encode()).hexdigest()


def _turns(lanes: Sequence[Sequence[Pull]]) -> Iterator[Pull]:
    """The first of each lane, then the second of each, …"""
    for number in range(max(map(len, lanes), default=0)):
        yield from (lane[number] for lane in lanes if number < len(lane))


def as_candidate(checkouts: Checkouts, mirrors: Path, pull: Pull) -> EnvironmentInput | None:
    """The pull request as the candidate stage would hand it on; None when it has no fix or no test to run. `mirrors`
    holds owner+name/repo."""
    origin = str((mirrors / pull.repository.replace("/", "+") / "repo").resolve())
    mirror = checkouts.mirror_with(pull.repository, origin, [pull.base, pull.head, pull.merge])
    commits = PullCommits(pull.instance_id, pull.base, pull.head, pull.merge)
    try:
        found = pull_range(checkouts, mirror, commits)
        diff = pull_diff(checkouts, mirror, found.start, found.end)
    except (Rejected, PatchUnreadable):
        return None
    if not diff.test_files or not diff.split.patch or not diff.split.test_patch:
        return None
    return EnvironmentInput(
        instance_id=pull.instance_id,
        repository=pull.repository,
        clone_url=origin,
        base_commit=found.base_commit,
        test_patch=diff.split.test_patch,
        test_files=diff.test_files,
        patch=diff.split.patch,
    )
