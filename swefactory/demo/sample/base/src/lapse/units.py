"""The units of time and the words people use for them."""

SECONDS = {
    "day": 86400.0,
    "hour": 3600.0,
    "minute": 60.0,
    "second": 1.0,
    "millisecond": 0.001,
}

_SHORT = {
    "d": "day",
    "h": "hour",
    "hr": "hour",
    "m": "minute",
    "min": "minute",
    "s": "second",
    "sec": "second",
    "ms": "millisecond",
}


def find(word):
    """The unit that `word` names, in any case, short, singular or plural; None for no unit."""
    word = word.lower()
    if word in _SHORT:
        return _SHORT[word]
    if word.endswith("s") and word[:-1] in _SHORT:
        return _SHORT[word[:-1]]
    singular = word[:-1] if word.endswith("s") else word
    return singular if singular in SECONDS else None
