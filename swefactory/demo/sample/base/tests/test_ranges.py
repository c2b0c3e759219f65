from datetime import datetime, timedelta

import pytest

from lapse import Range, merge, total


def at(hour):
    return datetime(2024, 3, 1, hour)


def test_a_range_holds_its_start_but_not_its_end():
    morning = Range(at(9), at(12))
    assert at(9) in morning
    assert at(12) not in morning


def test_a_range_cannot_end_before_it_starts():
    with pytest.raises(ValueError, match="cannot end before"):
        Range(at(12), at(9))


def test_merge_joins_ranges_that_overlap_or_touch():
    ranges = [Range(at(9), at(11)), Range(at(10), at(12)), Range(at(12), at(13)), Range(at(15), at(16))]
    assert merge(ranges) == [Range(at(9), at(13)), Range(at(15), at(16))]


def test_total_adds_the_lengths_up():
    assert total([Range(at(9), at(11)), Range(at(15), at(16))]) == timedelta(hours=3)
