"""Which issues a pull request resolves, from its texts alone. One property: a mention is not a link.

GitHub's rule: close, fix or resolve in any of their forms, directly before `#12`, `GH-12`, `owner/name#12` or an
issue's address. Code, quotations, comments and struck-out words of Markdown do not count, nor does another
repository's issue, nor "does not fix #12". Pure.

Beyond GitHub's rule: "fixes #1, #2 and #3" links all three where nothing but the sentence's end follows. GitHub closes
only the first and leaves its maintainers to close the others by hand, but the author says of all that they are fixed.
"Fixes #1, #2 comes later" links the first alone.
"""

import math
import re
from collections.abc import Collection, Iterable, Mapping

from db.enums import LinkSignal

# How often such a signal is right, as far as published comparisons tell; several strengthen each other.
_CONFIDENCE: Mapping[LinkSignal, float] = {
    LinkSignal.CLOSING_REFERENCE: 0.95,
    LinkSignal.CLOSER: 0.95,  # GitHub itself says that this pull request, or its commit, closed the issue
    LinkSignal.KEYWORD_BODY: 0.9,
    LinkSignal.KEYWORD_TITLE: 0.85,
    LinkSignal.KEYWORD_COMMIT: 0.8,
    # The entry is the project's own word, but may cite an older issue for context, or a pull request by `#12`.
    LinkSignal.CHANGELOG: 0.7,
}

_NAME = r"[A-Za-z0-9][\w-]*/[\w.-]+"
_ADDRESS = rf"https?://(?:www\.)?[\w.:-]+/(?P<url_name>{_NAME})/issues/(?P<url>[1-9]\d{{0,8}})"
_TARGET = rf"(?:(?:(?P<name>{_NAME}))?\#(?P<hash>[1-9]\d{{0,8}})|GH-(?P<gh>[1-9]\d{{0,8}})|{_ADDRESS})(?!\w)"
_REFERENCE = re.compile(
    r"(?P<before>(?:\w{1,8}n['’]t|\bnot|\bnever|\bwithout|\bcannot)\s+(?:\w+\s+)?)?"
    r"(?<![\w-])(?:close[sd]?|fix(?:e[sd])?|resolve[sd]?)\b:?\s+(?:(?:issues?|bugs?)\s+)?[\[*_(]{0,3}" + _TARGET,
    re.IGNORECASE,
)
_AFTER = r"(?:\]\([^()\s]*\))?(?:\#[\w-]+)?[\]*_)]{0,3}"  # the rest of a Markdown link and of emphasis
_NEXT = re.compile(rf"{_AFTER}(?:\s*(?:,|/|&|\+)\s*|\s+)(?:(?:and|or)\s+)?[\[*_(]{{0,3}}{_TARGET}", re.IGNORECASE)
_END = re.compile(rf"{_AFTER}[ \t]*(?:[.;!)\n]|\Z)")
_MENTION = re.compile(rf"(?<![\w#&/.-]){_TARGET}", re.IGNORECASE)
_FENCE = re.compile(r"\s*(?:[-*+]\s+|\d{1,9}[.)]\s+)?(`{3,}|~{3,})")
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
    spoken = _spoken(text)
    numbers: dict[int, None] = {}
    for match in _REFERENCE.finditer(spoken):
        if not match["before"]:
            for target in (match, *_listed_after(spoken, match.end())):
                if (number := _number(target, own)) is not None:
                    numbers[number] = None
    return tuple(numbers)


def mentioned_issues(text: str, names: Collection[str]) -> frozenset[int]:
    """Every number of this repository that `text` names in any form. No link: whether the issue was closed by this
    pull request is GitHub's to say; some are pull requests."""
    own = {name.lower() for name in names}
    return frozenset(n for match in _MENTION.finditer(_spoken(text)) if (n := _number(match, own)) is not None)


def _listed_after(text: str, position: int) -> list[re.Match[str]]:
    """The further members of a list that goes on at `position`, if the sentence ends with it."""
    found = []
    while match := _NEXT.match(text, position):
        found.append(match)
        position = match.end()
    return found if _END.match(text, position) else []


def _number(target: re.Match[str], own: Collection[str]) -> int | None:
    """The issue it names, if it is one of this repository."""
    name = target["name"] or target["url_name"]
    is_own = name is None or name.lower() in own
    return int(target["hash"] or target["gh"] or target["url"]) if is_own else None


def confidence(signals: Collection[LinkSignal]) -> float:
    """How sure the link is, 0 to 1: that not all of its signals are wrong at once. GitHub's two are one witness, and
    nothing is certain."""
    told = set(signals)
    if LinkSignal.CLOSER in told:
        told.discard(LinkSignal.CLOSING_REFERENCE)
    return min(0.999, round(1 - math.prod(1 - _CONFIDENCE[signal] for signal in told), 4))


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
