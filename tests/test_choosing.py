"""The choice among tries and its curve, against looking at every subset."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swefactory.choosing import REPRODUCTION, Order, Try, agreement, best, curve, expected

ORDERS: list[Order] = [("a",), ("b", "a"), (REPRODUCTION,), ("a", REPRODUCTION)]
SCORE = st.sampled_from([0.0, 0.5, 1.0])


@st.composite
def some_tries(draw: st.DrawFn) -> list[Try]:
    n = draw(st.integers(1, 5))
    return [
        Try(
            draw(st.booleans()), {"a": draw(SCORE), "b": draw(SCORE)},
            {author: draw(SCORE) for author in range(n) if author % 2},
        )
        for _ in range(n)
    ]  # fmt: skip


def by_looking(tries: list[Try], n: int, order: Order) -> float:
    """The same by the definition: every subset, its best by each critic in turn, equals sharing the chance."""
    rates = []
    for subset in combinations(range(len(tries)), n):
        left = list(subset)
        for critic in order:
            said = {at: agreement(tries, at, subset) if critic == REPRODUCTION else tries[at].scores[critic]
                    for at in left}  # fmt: skip
            left = [at for at in left if said[at] == pytest.approx(max(said.values()))]
        rates.append(sum(bool(tries[at].resolved) for at in left) / len(left))
    return sum(rates) / len(rates)


@settings(max_examples=60)
@given(some_tries(), st.sampled_from(ORDERS))
def test_the_curve_is_the_mean_over_every_subset_and_lies_below_the_oracle(tries: list[Try], order: Order) -> None:
    points = curve([tries], [order])
    assert [point.n for point in points] == list(range(1, len(tries) + 1))
    for point in points:
        assert point.chosen[order] == pytest.approx(by_looking(tries, point.n, order))
        assert point.chosen[order] <= point.oracle + 1e-9
        assert point.random == pytest.approx(points[0].oracle)
    assert points[0].chosen[order] == pytest.approx(points[0].random), "of one there is no choice"
    assert points[-1].oracle == float(any(each.resolved for each in tries))


def test_tests_of_tries_that_are_not_in_hand_count_for_nothing() -> None:
    """Only the third wrote tests: without it, the two others are equal."""
    tries = [Try(True, {}, {2: 1.0}), Try(False, {}, {2: 0.0}), Try(False, {}, {2: 1.0})]
    assert expected(tries, 2, (REPRODUCTION,)) == pytest.approx((0.5 + 0.5 + 0.0) / 3)
    assert best(tries, (REPRODUCTION,)) == 0


def test_instances_with_fewer_tries_leave_the_curve() -> None:
    sure = [Try(True, {"a": 1.0})]
    chosen = [Try(False, {"a": 0.0}), Try(True, {"a": 1.0})]
    one, two = curve([sure, chosen], [("a",)])
    assert (one.n_instances, one.random, one.oracle) == (2, 0.75, 0.75)
    assert (two.n_instances, two.random, two.chosen["a",], two.oracle) == (1, 0.5, 1.0, 1.0)
    assert curve([], [("a",)]) == []


def test_more_subsets_than_can_be_looked_at_are_sampled_alike_each_time() -> None:
    tries = [Try(at == 0, {}, {0: float(at == 0)}) for at in range(18)]
    found = expected(tries, 9, (REPRODUCTION,))
    assert found == expected(tries, 9, (REPRODUCTION,)) == pytest.approx(0.5, abs=0.02), "it is among half of them"
