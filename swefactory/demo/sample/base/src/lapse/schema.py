"""marshmallow fields, for configuration files that say `timeout: 1h 30m`."""

from datetime import timedelta

from marshmallow import Schema, ValidationError, fields, post_load
from marshmallow.utils import from_iso_datetime, isoformat

from lapse.formatting import iso
from lapse.parsing import ParseError, parse
from lapse.ranges import Range


class Duration(fields.Field):
    """A time span, read in every way `lapse.parse` knows and written in ISO 8601's."""

    default_error_messages = {"invalid": "Not a time span."}

    def _serialize(self, value, attr, obj, **kwargs):
        return None if value is None else iso(value)

    def _deserialize(self, value, attr, data, **kwargs):
        if isinstance(value, timedelta):
            return value
        try:
            return parse(value)
        except (ParseError, AttributeError) as error:
            raise self.make_error("invalid") from error


class Moment(fields.Field):
    """A moment in ISO 8601's way."""

    def _serialize(self, value, attr, obj, **kwargs):
        return None if value is None else isoformat(value)

    def _deserialize(self, value, attr, data, **kwargs):
        try:
            return from_iso_datetime(value)
        except (TypeError, ValueError) as error:
            raise ValidationError("Not a moment.") from error


class RangeSchema(Schema):
    """A range, as `{"start": …, "end": …}` or `{"start": …, "length": "1h 30m"}`."""

    start = Moment(required=True)
    end = Moment()
    length = Duration(load_only=True)

    @post_load
    def make_range(self, data, **kwargs):
        if "length" in data:
            return Range(data["start"], data["start"] + data["length"])
        if "end" in data:
            return Range(data["start"], data["end"])
        raise ValidationError("Give an end or a length.")
