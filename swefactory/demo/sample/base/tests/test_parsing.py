from datetime import timedelta

import pytest

from lapse import ParseError, parse


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1h 30m", 5400),
        ("90 minutes", 5400),
        ("1.5 hrs", 5400),
        ("1 day, 2 hours", 93600),
        ("250ms", 0.25),
        ("1:30:00", 5400),
        ("2:05.5", 125.5),
        ("PT1H30M", 5400),
        ("P1DT12H", 129600),
        ("-15 min", -900),
    ],
)
def test_parse(text, seconds):
    assert parse(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["soon", "12", "1 fortnight", "P", "1h and a bit"])
def test_parse_refuses_what_is_no_time_span(text):
    with pytest.raises(ParseError):
        parse(text)
