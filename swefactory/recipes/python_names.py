"""How files spell a Python version. One property: what comes out is "3.9" and the like, or nothing.

"3.9", "3.9.1", "3.9.x", "python3.9", "py-3.9" (CI), "py39", "py3{8,9}" (tox), "cimg/python:3.9.1" (images). Previews
("3.14-dev"), free-threaded builds ("3.13t"), PyPy and ranges are none of ours.
"""

import re
from collections.abc import Iterable

_VERSION = re.compile(r"^(?:c?py(?:thon)?)?[-_:=]?(2\.7|3\.\d{1,2})(?:\.\d+|\.x)?$")
_FACTOR = re.compile(r"(?<![A-Za-z0-9])(?:c?py|python)(27|3\d{1,2}|3\.\d{1,2}|2\.7)(?![A-Za-z0-9.])")
_IMAGE = re.compile(r"(?:^|[/\s])python:(2\.7|3\.\d{1,2})(?![\d])")


def minor_key(version: str) -> tuple[int, ...]:
    """Sorts "3.9" below "3.10"."""
    return tuple(int(part) for part in version.split("."))


def versions(texts: Iterable[str]) -> list[str]:
    """Those of `texts` that are a version, sorted, each once."""
    matches = (_VERSION.match(text.strip()) for text in texts)
    return sorted({match.group(1) for match in matches if match}, key=minor_key)


def factors(text: str) -> list[str]:
    """The versions of all tox factors in `text`, braces expanded."""
    names = [name for part in split_names(text) for name in expanded(part)]
    digits = (found.replace(".", "") for name in names for found in _FACTOR.findall(name))
    return sorted({f"{digit[0]}.{digit[1:]}" for digit in digits}, key=minor_key)


def images(text: str) -> tuple[str, ...]:
    """The version of an image named python:3.9-slim or any/python:3.9."""
    return tuple(_IMAGE.findall(text))


def expanded(name: str, limit: int = 500) -> list[str]:
    """`py{38,39}-{a,b}` as the four names it stands for; an empty alternative leaves its dash out."""
    found = [name]
    while len(found) < limit and any("{" in text for text in found):
        step: list[str] = []
        for text in found:
            match = re.search(r"\{([^{}]*)\}", text)
            if not match:
                step.append(text)
                continue
            for part in match.group(1).split(","):
                step.append(f"{text[: match.start()]}{part.strip()}{text[match.end() :]}")
        if step == found or any("{" in text and "}" not in text for text in step):
            return [re.sub(r"[{}]", "", text) for text in step][:limit]
        found = step
    return [re.sub(r"-{2,}", "-", text).strip("-") for text in found][:limit]


def split_names(text: str) -> list[str]:
    """A list of names at its commas and blanks, but not at those within braces."""
    flat = re.sub(r"\{[^{}]*\}", lambda found: re.sub(r"\s", "", found.group()), text)
    return [part for part in re.split(r"[\s;:=\"']+|,(?![^{}]*\})", flat) if part]
