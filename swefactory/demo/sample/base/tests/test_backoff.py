from datetime import timedelta

from lapse import delays
from lapse.backoff import budget

SECOND = timedelta(seconds=1)


def test_each_delay_is_longer_than_the_one_before():
    assert delays(SECOND, 4) == [SECOND, 2 * SECOND, 4 * SECOND, 8 * SECOND]


def test_no_delay_is_longer_than_the_longest():
    assert delays(SECOND, 4, longest=3 * SECOND) == [SECOND, 2 * SECOND, 3 * SECOND, 3 * SECOND]


def test_the_budget_is_the_sum():
    assert budget(delays(SECOND, 3)) == 7 * SECOND
