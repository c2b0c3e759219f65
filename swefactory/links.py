"""Which issues a pull request resolves, from its texts alone. One property: a mention is not a link.

GitHub's rule: close, fix or resolve in any of their forms, directly before `#12`, `GH-12`, `owner/name#12` or an
issue's address. Code, quotations, comments and struck-out words of Markdown do not count, nor does another
repository's issue, nor "does not fix #12". Pure.
"""

import math
import re
from collections.abc import Collection, Iterable, Mapping

from db.models import LinkSignal

# How often such a signal is right, as far as published comparisons tell; several strengthen each other.
_CONFIDENCE: Mapping[LinkSignal, float] = {
    LinkSignal.CLOSING_REFERENCE: 0.95,
    LinkSignal.CLOSER: 0.95,
    LinkSignal.CHANGELOG: 0.7,
    LinkSignal.KEYWORD_BODY: 0.9,
    LinkSignal.KEYWORD_TITLE: 0.85,
    LinkSignal.KEYWORD_COMMIT: 0.8,
}

_REFERENCE = re.compile(
    r"(?P<before>(?:\w{1,8}n['’]t|\bnot|\bnever|\bwithout|\bcannot)\s+(?:\w+\s+)?)?"
    r"(?<![\w-])(?:close[sd]?|fix(?:e[sd])?|resolve[sd]?)\b:?\s+(?:(?:issue|bug)\s+)?[\[*_(]{0,3}"
    r"(?:"
    r"(?:(?P<name>[A-Za-z0-9][\w-]*/[\w.-]+))?\#(?P<hash>[1-9]\d{0,8})"
    r"|GH-(?P<gh>[1-9]\d{0,8})"
    r"|https?://(?:www\.)?[\w.:-]+/(?P<url_name>[A-Za-z0-9][\w-]*/[\w.-]+)/issues/(?P<url>[1-9]\d{0,8})"
    r")(?!\w)",
    re.IGNORECASE,
)
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_BLOCKS = re.compile(r"<!--.*?(?:-->|\Z)|<(code|pre|del|s)\b[^>]*>.*?(?:</\1>|\Z)", re.DOTALL | re.IGNORECASE)
_STRUCK_OUT = re.compile(r"~~[^~\n]+~~")


def linked_issues(
    names: Collection[str], title: str, body: str, commit_messages: Iterable[str]
) -> dict[int, frozenset[LinkSignal]]:
    """The issues that a pull request says it resolves, by number, with what says so. `names` are the names of its
    repository, present and former."""
    found: dict[int, set[LinkSignal]] = {}
    for signal, text in (
        (LinkSignal.KEYWORD_TITLE, title),
        (LinkSignal.KEYWORD_BODY, body),
        *((LinkSignal.KEYWORD_COMMIT, message) for message in commit_messages),
    ):
        for number in closing_references(text, names):
            found.setdefault(number, set()).add(signal)
    return {number: frozenset(found[number]) for number in sorted(found)}


def closing_references(text: str, names: Collection[str]) -> tuple[int, ...]:
    """Numbers of this repository's issues that `text` says to close, in order, each once."""
    own = {name.lower() for name in names}
    numbers: dict[int, None] = {}
    for match in _REFERENCE.finditer(_spoken(text)):
        name = match["name"] or match["url_name"]
        if not match["before"] and (name is None or name.lower() in own):
            numbers[int(match["hash"] or match["gh"] or match["url"])] = None
    return tuple(numbers)


_MENTION = re.compile(
    r"(?:(?P<name>[A-Za-z0-9][\w-]*/[\w.-]+))?(?<![\w&])\#(?P<hash>[1-9]\d{0,8})(?!\w)"
    r"|\bGH-(?P<gh>[1-9]\d{0,8})(?!\w)"
    r"|https?://(?:www\.)?[\w.:-]+/(?P<url_name>[A-Za-z0-9][\w-]*/[\w.-]+)/issues/(?P<url>[1-9]\d{0,8})(?!\w)",
    re.IGNORECASE,
)


def mentioned_issues(text: str, names: Collection[str]) -> frozenset[int]:
    """Every number of this repository that `text` names in any form. A mention is not a link."""
    own = {name.lower() for name in names}
    found = set()
    for match in _MENTION.finditer(_spoken(text)):
        name = match["name"] or match["url_name"]
        if name is None or name.lower() in own:
            found.add(int(match["hash"] or match["gh"] or match["url"]))
    return frozenset(found)


def confidence(signals: Collection[LinkSignal]) -> float:
    """How sure the link is, 0 to 1: that not all of its signals are wrong at once."""
    return round(1 - math.prod(1 - _CONFIDENCE[signal] for signal in set(signals)), 4)


def _spoken(markdown: str) -> str:
    """What its author says with it: no code, quotation, comment or struck-out text."""
    lines: list[str] = []
    fence = ""
    for line in markdown.replace("\r\n", "\n").split("\n"):
        mark = _FENCE.match(line)
        if fence:
            if mark and mark[1].startswith(fence) and not line.strip(" `~"):
                fence = ""
        elif mark:
            fence = mark[1]
        elif not line.lstrip().startswith(">"):
            lines.append(line)
    text = _BLOCKS.sub(" ", _without_code_spans("\n".join(lines)))
    return _STRUCK_OUT.sub(" ", text)


def _without_code_spans(text: str) -> str:
    """Without `code`: a run of backticks ends at the next run of the same length."""
    runs = list(re.finditer(r"`+", text))
    kept, position, i = [], 0, 0
    while i < len(runs):
        length = len(runs[i].group())
        end = next((j for j in range(i + 1, len(runs)) if len(runs[j].group()) == length), None)
        if end is not None:
            kept.append(text[position : runs[i].start()])
            position, i = runs[end].end(), end
        i += 1
    return " ".join([*kept, text[position:]])
