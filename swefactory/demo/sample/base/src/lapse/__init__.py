"""Time spans for people: read them, write them, add them up."""

from lapse.backoff import delays
from lapse.formatting import clock, humanize, iso
from lapse.parsing import ParseError, parse
from lapse.ranges import Range, merge, total
from lapse.schema import Duration, RangeSchema

__all__ = [
    "Duration",
    "ParseError",
    "Range",
    "RangeSchema",
    "clock",
    "delays",
    "humanize",
    "iso",
    "merge",
    "parse",
    "total",
]
