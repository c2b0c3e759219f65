"""How often agents solve what: pass@k by the unbiased estimator, and difficulty bands. Pure.

One property: a rollout that says nothing of the agent (infrastructure, the model's server, cancelled, suspicious) is no
try at all: neither a success nor a failure.
"""

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import comb


class Band(enum.StrEnum):
    """How many of an instance's tries solved it."""

    NONE = "none"
    SOME = "some"
    ALL = "all"


@dataclass(frozen=True)
class Tries:
    """Tries of one agent at one instance that count, and how many of them solved it."""

    n: int
    n_solved: int


def pass_at_k(tries: Tries, k: int) -> float | None:
    """The chance that one of `k` tries solves it, 1 - C(n-c, k) / C(n, k) (Chen et al. 2021); None with fewer tries."""
    if tries.n < k or k < 1:
        return None
    return 1.0 - comb(tries.n - tries.n_solved, k) / comb(tries.n, k)


def mean_pass_at_k(tries: Iterable[Tries], k: int) -> tuple[float | None, int]:
    """The mean over instances with at least `k` tries, and how many those are."""
    found = [rate for each in tries if (rate := pass_at_k(each, k)) is not None]
    return (sum(found) / len(found) if found else None), len(found)


def band(tries: Tries) -> Band | None:
    """None without a try that counts."""
    if not tries.n:
        return None
    return Band.NONE if not tries.n_solved else Band.ALL if tries.n_solved == tries.n else Band.SOME


def bands(tries: Mapping[str, Tries]) -> Mapping[str, Band]:
    """The band of each instance that was tried."""
    return {name: found for name, each in tries.items() if (found := band(each))}
