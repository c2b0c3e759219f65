from datetime import timedelta

import pytest

from lapse import clock, humanize, iso


def test_humanize_shows_the_two_largest_units():
    assert humanize(timedelta(days=1, hours=12, minutes=5)) == "1 day, 12 hours"


def test_humanize_shows_as_many_units_as_asked_for():
    assert humanize(timedelta(days=1, hours=12, minutes=5), parts=3) == "1 day, 12 hours, 5 minutes"


def test_humanize_of_nothing():
    assert humanize(timedelta()) == "0 seconds"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00:00"), (59, "0:00:59"), (5400, "1:30:00"), (90061, "25:01:01")],
)
def test_clock(seconds, text):
    assert clock(timedelta(seconds=seconds)) == text


def test_iso():
    assert iso(timedelta(days=1, hours=12)) == "P1DT12H"
    assert iso(timedelta(minutes=-15)) == "-PT15M"
