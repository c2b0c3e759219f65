from datetime import datetime, timedelta

import pytest
from marshmallow import Schema, ValidationError

from lapse import Duration, Range, RangeSchema


class Settings(Schema):
    timeout = Duration(required=True)


def test_a_setting_is_read_and_written():
    assert Settings().load({"timeout": "1h 30m"}) == {"timeout": timedelta(minutes=90)}
    assert Settings().dump({"timeout": timedelta(minutes=90)}) == {"timeout": "PT1H30M"}


@pytest.mark.parametrize("value", ["soon", 12])
def test_a_bad_setting_is_refused(value):
    with pytest.raises(ValidationError, match="Not a time span"):
        Settings().load({"timeout": value})


def test_a_range_is_read_by_its_length():
    loaded = RangeSchema().load({"start": "2024-03-01T09:00:00", "length": "90 min"})
    assert loaded == Range(datetime(2024, 3, 1, 9), datetime(2024, 3, 1, 10, 30))
