"""Writes a time span: for people, as a clock shows it, or as ISO 8601 wants it."""

from lapse import units

_NAMES = ("day", "hour", "minute", "second")


def humanize(span, parts=2):
    """`span` in words, its `parts` largest units: `1 day, 12 hours`."""
    rest = abs(span.total_seconds())
    words = []
    for name in _NAMES:
        size = units.SECONDS[name]
        last = name == _NAMES[-1] or len(words) == parts - 1
        count = round(rest / size) if last and rest >= size / 2 else int(rest // size)
        rest -= count * size
        if count:
            words.append(f"{count} {name}{'' if count == 1 else 's'}")
        if len(words) == parts or rest <= 0:
            break
    return ", ".join(words) or "0 seconds"


def clock(span):
    """`span` as a clock shows it: `1:30:00`; whole seconds, hours beyond 24 allowed."""
    seconds = int(span.total_seconds())
    hours, seconds = divmod(seconds, 3600)
    minutes, seconds = divmod(seconds, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


def iso(span):
    """`span` in ISO 8601's way: `P1DT12H`."""
    sign = "-" if span.total_seconds() < 0 else ""
    seconds = abs(span).total_seconds()
    days, seconds = divmod(int(seconds), 86400)
    hours, seconds = divmod(seconds, 3600)
    minutes, seconds = divmod(seconds, 60)
    date = f"{days}D" if days else ""
    time = "".join(f"{count}{letter}" for count, letter in ((hours, "H"), (minutes, "M"), (seconds, "S")) if count)
    return f"{sign}P{date}{'T' + time if time else ''}"
