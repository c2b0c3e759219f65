"""Reads a time span from text: `1h 30m`, `90 minutes`, `1:30:00` or ISO 8601's `PT1H30M`."""

import re
from datetime import timedelta

from lapse import units

_PART = re.compile(r"\s*(?P<number>\d+(?:\.\d+)?)\s*(?P<word>[A-Za-z]+)\s*,?\s*")
_CLOCK = re.compile(r"(?:(?P<hours>\d+):)?(?P<minutes>\d{1,2}):(?P<seconds>\d{2}(?:\.\d+)?)")
_ISO = re.compile(
    r"P(?:(?P<day>\d+(?:\.\d+)?)D)?"
    r"(?:T(?:(?P<hour>\d+(?:\.\d+)?)H)?(?:(?P<minute>\d+(?:\.\d+)?)M)?(?:(?P<second>\d+(?:\.\d+)?)S)?)?"
)


class ParseError(ValueError):
    """The text is no time span."""


def parse(text):
    """The time span that `text` says. Raises ParseError."""
    text = text.strip()
    sign = -1 if text.startswith("-") else 1
    text = text.lstrip("+-")
    if not text:
        raise ParseError("not a time span")
    for read in (_read_clock, _read_iso, _read_words):
        span = read(text)
        if span is not None:
            return sign * span
    raise ParseError("not a time span")


def _read_clock(text):
    match = _CLOCK.fullmatch(text)
    if match is None:
        return None
    return timedelta(
        hours=int(match["hours"] or 0), minutes=int(match["minutes"]), seconds=float(match["seconds"])
    )


def _read_iso(text):
    match = _ISO.fullmatch(text)
    if match is None or not any(match.groupdict().values()):
        return None
    found = match.groupdict(default="0")
    return timedelta(seconds=sum(float(number) * units.SECONDS[unit] for unit, number in found.items()))


def _read_words(text):
    seconds, position = 0.0, 0
    while position < len(text):
        match = _PART.match(text, position)
        unit = units.find(match["word"]) if match else None
        if unit is None:
            return None
        seconds += float(match["number"]) * units.SECONDS[unit]
        position = match.end()
    return timedelta(seconds=seconds)
