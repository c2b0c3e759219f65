"""Stretches of time with a start and an end."""

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, order=True)
class Range:
    """From `start` up to, not including, `end`."""

    start: datetime
    end: datetime

    def __post_init__(self):
        if self.end < self.start:
            raise ValueError("a range cannot end before it starts")

    @property
    def length(self):
        return self.end - self.start

    def __contains__(self, moment):
        return self.start <= moment < self.end

    def overlaps(self, other):
        return self.start < other.end and other.start < self.end


def merge(ranges):
    """The same stretches of time as sorted ranges that neither overlap nor touch."""
    merged = []
    for one in sorted(ranges):
        if merged and one.start <= merged[-1].end:
            merged[-1] = Range(merged[-1].start, max(merged[-1].end, one.end))
        else:
            merged.append(one)
    return merged


def total(ranges):
    """The time that `ranges` cover."""
    return sum((one.length for one in ranges), timedelta())
