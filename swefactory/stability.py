"""In which conditions tests run again and again, and what the runs say of each test. Pure.

    run   order       CPU    clock and zone   hash seed
    1     default     -      -                1
    2     reversed    low    -                2           bronze ends with run 3, silver with 10, gold with 30;
    3     random:3    -      shifted          3           when a test is unstable by then, runs 4 to 8 change one
    4     default     -      -                4           thing at a time and tell by what
    5     reversed    -      -                1
    6     default     low    -                1
    7     default     -      shifted          1
    8     random:3    -      -                1
    n     random:n    n%5=0  n%7=0            n

One property: a condition counts only as it was measured inside the sandbox, so a cause is never named for what did not
run. A name is the simplest explanation of the runs that were, no proof; the bound says how sure "stable" is.

The bound is Clopper and Pearson's (1934), one-sided, 95 %: with no flip in n runs it is 1 - 0.05^(1/n), which the rule
of three (Hanley and Lippman-Hand 1983) rounds to 3/n. Three runs leave 63 %, ten 26 %, thirty 9.5 %.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from db.enums import Change, Outcome, Stability, Tier
from swefactory.grading import Conditions, RunSummary, Standing, standing

N_RUNS: Mapping[Tier, int] = {Tier.BRONZE: 3, Tier.SILVER: 10, Tier.GOLD: 30}
LAST_TELLING_RUN = 8
LOW_CPUS = 0.5
SHIFTED_ZONE = "SWE-14"  # POSIX for UTC+14: needs no zone files
CLOCK_SHIFT_S = 400 * 86400

_NETWORK = re.compile(
    r"ConnectionRefusedError|ConnectionError|NewConnectionError|MaxRetryError|socket\.gaierror|\bgaierror\b|"
    r"Name or service not known|Temporary failure in name resolution|Network is unreachable|No route to host|"
    r"getaddrinfo failed|URLError|ConnectTimeout|ClientConnectorError|httpx\.ConnectError",
)


def conditions_of(number: int) -> Conditions:
    """What run `number`, from 1, is asked to differ in."""
    match number:
        case 1 | 4:
            return Conditions(hash_seed=number)
        case 2:
            return Conditions("reversed", 2, is_slow=True)
        case 3:
            return Conditions("random:3", 3, is_shifted=True)
        case 5:
            return Conditions("reversed")
        case 6:
            return Conditions(is_slow=True)
        case 7:
            return Conditions(is_shifted=True)
        case 8:
            return Conditions("random:3")
    return Conditions(f"random:{number}", number, is_slow=number % 5 == 0, is_shifted=number % 7 == 0)


def upper_bound(n_flips: int, n_runs: int, confidence: float = 0.95) -> float:
    """The largest rate of flips at which so few are still as likely as 1 - confidence; see the module's docstring."""
    if n_flips >= n_runs:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(60):
        rate = (low + high) / 2
        likelihood = sum(math.comb(n_runs, k) * rate**k * (1 - rate) ** (n_runs - k) for k in range(n_flips + 1))
        low, high = (rate, high) if likelihood > 1 - confidence else (low, rate)
    return high


# ---------------------------------------------------------------- one test


@dataclass(frozen=True)
class TestVerdict:
    """What all runs say of one test; the fields are those of db.models.TestVerdict."""

    __test__ = False
    test_id: str
    change: Change
    before: Stability
    after: Stability
    n_runs: int
    n_flips: int
    flip_rate_upper: float


def verdicts(
    before: Sequence[RunSummary], after: Sequence[RunSummary], online: RunSummary | None = None
) -> tuple[TestVerdict, ...]:
    """One verdict for each test that ran anywhere, sorted by id. Runs that timed out are no evidence. `online` is a run
    after the patch with a network: it names a cause and counts for nothing else."""
    before, after = ([run for run in runs if not run.timed_out] for runs in (before, after))
    if not before or not after:
        return ()
    ids = sorted({test_id for run in (*before, *after) for test_id in run.outcomes})
    return tuple(_verdict(test_id, before, after, online) for test_id in ids)


def unstable_states(before: Sequence[RunSummary], after: Sequence[RunSummary]) -> tuple[bool, bool]:
    """Whether two runs of the state before, and of the one after, differ in what a test is worth."""
    found = verdicts(before, after)
    return any(_n_flips(v.test_id, before) for v in found), any(_n_flips(v.test_id, after) for v in found)


def _verdict(
    test_id: str, before: Sequence[RunSummary], after: Sequence[RunSummary], online: RunSummary | None
) -> TestVerdict:
    flips = [_n_flips(test_id, runs) for runs in (before, after)]
    bounds = [upper_bound(n, len(runs)) for n, runs in zip(flips, (before, after), strict=True)]
    return TestVerdict(
        test_id=test_id,
        change=_change(test_id, before, after),
        before=stability(test_id, before),
        after=Stability.NETWORK_DEPENDENT if _needs_network(test_id, after, online) else stability(test_id, after),
        n_runs=min(len(before), len(after)),
        n_flips=sum(flips),
        flip_rate_upper=round(max(bounds), 6),
    )


def _standings(test_id: str, runs: Sequence[RunSummary]) -> list[Standing]:
    return [standing(run.outcomes.get(test_id)) for run in runs]


def _n_flips(test_id: str, runs: Sequence[RunSummary]) -> int:
    """Runs that differ from what most runs say."""
    counted = Counter(_standings(test_id, runs))
    return sum(counted.values()) - max(counted.values())


def _needs_network(test_id: str, runs: Sequence[RunSummary], online: RunSummary | None) -> bool:
    """Whether it fails in every run without a network and holds in the one with it."""
    if online is None or standing(online.outcomes.get(test_id)) is not Standing.HOLDS:
        return False
    return set(_standings(test_id, runs)) == {Standing.FAILS}


def _change(test_id: str, before: Sequence[RunSummary], after: Sequence[RunSummary]) -> Change:
    states = [set(_standings(test_id, runs)) for runs in (before, after)]
    if any(len(found) > 1 for found in states):
        return Change.UNSTABLE
    match states[0].pop(), states[1].pop():
        case Standing.FAILS, Standing.HOLDS:
            could_not_start = all(run.outcomes.get(test_id) in (None, Outcome.ERROR) for run in before)
            return Change.ERROR_TO_PASS if could_not_start else Change.FAIL_TO_PASS
        case Standing.HOLDS, Standing.HOLDS:
            return Change.PASS_TO_PASS
        case Standing.HOLDS, Standing.FAILS:
            return Change.PASS_TO_FAIL
        case Standing.FAILS, Standing.FAILS:
            return Change.FAIL_TO_FAIL
    return Change.NOTHING


# ---------------------------------------------------------------- why


_STABLE = {
    Standing.HOLDS: Stability.STABLE_PASS,
    Standing.FAILS: Stability.STABLE_FAIL,
    Standing.NEITHER: Stability.STABLE_SKIP,
}


def stability(test_id: str, runs: Sequence[RunSummary]) -> Stability:
    """What the runs of one state say of a test, and the simplest cause where they differ."""
    found = list(zip((run.conditions for run in runs), _standings(test_id, runs), strict=True))
    worth = {worth for _, worth in found}
    failures = [run.messages.get(test_id, "") for run in runs if standing(run.outcomes.get(test_id)) is Standing.FAILS]
    if failures and all(_NETWORK.search(message) for message in failures):
        return Stability.NETWORK_DEPENDENT
    if len(worth) > 1:
        return _cause(found)
    return _STABLE[worth.pop()]


def _cause(found: Sequence[tuple[Conditions, Standing]]) -> Stability:
    """The one condition that tells the runs apart by itself; flaky where none does, or more than one."""
    plain = {worth for conditions, worth in found if conditions.is_plain}
    if len(plain) != 1:
        return Stability.FLAKY
    kinds: Mapping[Stability, Callable[[Conditions], bool]] = {
        Stability.ORDER_DEPENDENT: lambda c: c.order != "default" and not c.is_slow and not c.is_shifted,
        Stability.SLOW: lambda c: c.order == "default" and c.is_slow and not c.is_shifted,
        Stability.TIME_DEPENDENT: lambda c: c.order == "default" and not c.is_slow and c.is_shifted,
    }
    alone = {kind: [(c, worth) for c, worth in found if matches(c)] for kind, matches in kinds.items()}
    named = [kind for kind, runs in alone.items() if _always_differs(runs, plain)]
    return named[0] if len(named) == 1 else Stability.FLAKY


def _always_differs(runs: Sequence[tuple[Conditions, Standing]], plain: set[Standing]) -> bool:
    """Whether some order (or the one other condition) gives another result each time that it runs."""
    by_order: dict[str, set[Standing]] = {}
    for conditions, worth in runs:
        by_order.setdefault(conditions.order, set()).add(worth)
    return any(not worth & plain for worth in by_order.values())
