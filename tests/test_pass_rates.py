"""pass@k and bands, against counting every choice of k tries."""

from itertools import combinations

import pytest

from swefactory.pass_rates import Band, Tries, band, mean_pass_at_k, pass_at_k


@pytest.mark.parametrize("n", range(1, 7))
def test_pass_at_k_is_the_share_of_choices_that_hold_a_success(n: int) -> None:
    for n_solved in range(n + 1):
        tries = [True] * n_solved + [False] * (n - n_solved)
        for k in range(1, n + 1):
            choices = list(combinations(tries, k))
            expected = sum(any(choice) for choice in choices) / len(choices)
            assert pass_at_k(Tries(n, n_solved), k) == pytest.approx(expected)


def test_instances_with_too_few_tries_are_left_out() -> None:
    assert pass_at_k(Tries(3, 1), 4) is None
    assert mean_pass_at_k([Tries(1, 1), Tries(2, 1), Tries(2, 0)], 2) == (0.5, 2)
    assert mean_pass_at_k([], 1) == (None, 0)
    assert [band(Tries(*each)) for each in ((0, 0), (2, 0), (2, 1), (2, 2))] == [None, Band.NONE, Band.SOME, Band.ALL]
