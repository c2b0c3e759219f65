"""How long to wait between attempts."""

from datetime import timedelta


def delays(first, attempts, factor=2.0, longest=None):
    """The waits before each of `attempts` retries: `first`, then `factor` times as long, up to `longest`."""
    waits = []
    for attempt in range(attempts):
        wait = first * factor**attempt
        waits.append(min(wait, longest) if longest is not None else wait)
    return waits


def budget(waits):
    """The time all waits take together."""
    return sum(waits, timedelta())
