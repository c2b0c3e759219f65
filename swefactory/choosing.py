"""The choice among several tries at one task instance: who is chosen, and how good that is for each number of tries.

    scores ─► an order of critics ─► the best of some tries ─► expected over every choice of n of the N there are

One property: a choice looks at the tries in hand alone; what is known of the others, whether they resolved, and what
tests they wrote, changes nothing. So the curve at n is what n tries would have given. Pure.

Ties are broken at random, which the curve expects and `best` does by taking the first. At n = 1 every order gives what
chance gives; the bound is the oracle's, pass@n of `swefactory.pass_rates`.
"""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import comb

from swefactory.pass_rates import Tries, pass_at_k

REPRODUCTION = "reproduction"
_MOST_SUBSETS = 13_000  # more are sampled: all choices up to N = 16
_SEED = 1

type Order = tuple[str, ...]  # critics: the first decides, the next breaks its ties
type _Key = tuple[float, ...]


@dataclass(frozen=True)
class Try:
    """One try at an instance. `scores` are those of critics who look at it alone; `passes` maps another try, by its
    place, to the share of that one's reproduction tests that hold here. A try that wrote no such test is in none."""

    resolved: bool | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    passes: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Point:
    """One point of a curve: the mean over `n_instances` of what `n` tries each would have given."""

    n: int
    n_instances: int
    random: float
    chosen: Mapping[Order, float]
    oracle: float


def best(tries: Sequence[Try], order: Order) -> int:
    """The place of the one that is chosen of all; the first of equals."""
    return _best(tries, order, range(len(tries)))[0]


def agreement(tries: Sequence[Try], place: int, among: Iterable[int]) -> float:
    """How much of the reproduction tests that tries `among` wrote, its own included, holds here; 0 without any."""
    shares = [share for author in among if (share := tries[place].passes.get(author)) is not None]
    return sum(shares) / len(shares) if shares else 0.0


def curve(instances: Sequence[Sequence[Try]], orders: Sequence[Order]) -> list[Point]:
    """For n = 1, 2, … the mean over the instances with at least n tries, of which all are graded."""
    most = max(map(len, instances), default=0)
    points = []
    for n in range(1, most + 1):
        enough = [tries for tries in instances if len(tries) >= n]
        chosen = {order: _mean(expected(tries, n, order) for tries in enough) for order in orders}
        at_random, bound = _mean(_rate(tries) for tries in enough), _mean(_bound(tries, n) for tries in enough)
        points.append(Point(n, len(enough), at_random, chosen, bound))
    return points


def expected(tries: Sequence[Try], n: int, order: Order) -> float:
    """The chance that the one chosen of `n` of these tries, drawn without looking, resolves."""
    if REPRODUCTION not in order:
        return _expected_of_fixed(tries, n, order)
    subsets = list(_subsets(len(tries), n))
    return _mean(_mean(float(bool(tries[at].resolved)) for at in _best(tries, order, each)) for each in subsets)


def _expected_of_fixed(tries: Sequence[Try], n: int, order: Order) -> float:
    """Scores that do not depend on the company: the best group of equals that is met decides. Exact for any number."""
    groups: dict[_Key, list[Try]] = {}
    for each in tries:
        groups.setdefault(_fixed_key(each, order), []).append(each)
    n_worse, total = len(tries), 0.0
    for key in sorted(groups, reverse=True):
        n_before, n_worse = n_worse, n_worse - len(groups[key])
        total += (comb(n_before, n) - comb(n_worse, n)) * _rate(groups[key])
    return total / comb(len(tries), n)


def _best(tries: Sequence[Try], order: Order, among: Sequence[int]) -> list[int]:
    """All that are best by this order."""
    keys = {at: _key(tries, order, at, among) for at in among}
    top = max(keys.values())
    return [at for at in among if keys[at] == top]


def _key(tries: Sequence[Try], order: Order, at: int, among: Sequence[int]) -> _Key:
    return tuple(
        round(agreement(tries, at, among), 9) if critic == REPRODUCTION else tries[at].scores[critic]
        for critic in order
    )


def _fixed_key(each: Try, order: Order) -> _Key:
    return tuple(each.scores[critic] for critic in order)


def _subsets(n_all: int, n: int) -> Iterator[tuple[int, ...]]:
    """Every choice of n, or as many random ones as are enough, always the same."""
    if comb(n_all, n) <= _MOST_SUBSETS:
        yield from combinations(range(n_all), n)
        return
    draw = random.Random(_SEED)  # noqa: S311 - a sample, no secret
    for _ in range(_MOST_SUBSETS):
        yield tuple(sorted(draw.sample(range(n_all), n)))


def _rate(tries: Sequence[Try]) -> float:
    return sum(bool(each.resolved) for each in tries) / len(tries)


def _bound(tries: Sequence[Try], n: int) -> float:
    found = pass_at_k(Tries(len(tries), sum(bool(each.resolved) for each in tries)), n)
    assert found is not None
    return found


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)
