"""What in an issue tells its solution, and taking it out. One property: only whole lines and whole code blocks go.

    rule                  takes out    that
    names_pull_request    a line       holds the pull request's address, `owner/name#N`, `#N` or `GH-N`
    names_fixing_commit   a line       holds one of its SHAs, whole or from seven digits on, alone or in an address
    says_where_fixed      a line       says "fixed in #12", "resolved by 0a1b2c3", "EDIT: landed on main in 2.1.0"
    quotes_fix            a block      of code that holds the gold patch's own new lines, or a line of prose with one

Pure. A doubt is decided for the text: "I thought this was fixed in #12" says that it is not, and "#3" may count steps.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self

from swefactory.file_kinds import FileKind, kind_of
from swefactory.patch_lines import patch_lines

_SMALLEST_BARE_NUMBER = 10  # below, "#3" is more often a step or a rank than a pull request
_SHORTEST_LINE = 16  # characters without whitespace: shorter ones ("returnNone") are found in any text
_SHORTEST_QUOTE = 24  # the same for a line within a sentence, where there is no line's end to agree as well
_ENOUGH_LINES = 2  # distinctive lines of the patch that make a code block a quotation; or half of all there are

_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_FENCE = re.compile(r"[ \t>]*(`{3,}|~{3,})[ \t]*(\w*)")
_CODE_SPAN = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)")
_SHA = re.compile(r"(?<![0-9A-Za-z])[0-9a-f]{7,40}(?![0-9A-Za-z])", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z_][A-Za-z_]+")
_TRIVIAL = re.compile(r"\s*(?:>>>|\.\.\. |import\b|from\b.*\bimport\b|#!|# type:|# noqa)")

_REFERENCE = (
    r"(?:\[?(?:[\w.-]+/[\w.-]+)?\#\d+|GH-\d+|\[?`?[0-9a-f]{7,40}\b|<?\[?https?://\S+/(?:pull|commit|compare|releases)/\S+"
    r"|v?\d+\.\d+(?:\.\d+|\.x)?(?:rc|a|b)?\d*\b|`?(?:main|master|develop|dev|trunk|HEAD)\b)"
)
_WHERE_FIXED = re.compile(
    r"(?:^|(?<=[.!?] ))[\W_]*(?:(?:edit|update|note|fyi|ps|ok(?:ay)?|yes|yep|hi|hey|good news)\b[\W_]*)*"
    r"(?:@[\w-]+[\W_]*)?"
    r"(?:(?:this|it|that|the (?:bug|issue|problem|fix))?(?:['’]?s|\s+is|\s+was|\s+has\s+been|\s+should\s+(?:now\s+)?be"
    r"|\s+should\s+have\s+been|\s+will\s+be)?\s*(?:now\s+|already\s+|also\s+|just\s+)*)"
    r"(?:fixed|resolved|closed|addressed|solved|implemented|done|merged|landed|released)\s+(?:now\s+)?"
    r"(?:in|by|via|with|on|as of|since|through)\s+(?:the\s+)?(?:latest\s+|upcoming\s+|next\s+)?"
    r"(?:(?:pr|pull request|pull|commit|version|release|branch)\s*:?\s*)?" + _REFERENCE,
    re.IGNORECASE,
)
_IN_DOUBT = re.compile(
    r"\b(?:not|never|still|again|but|however|regress\w*|supposed\w*|thought|claim\w*|should have|back|only|although|"
    r"reappear\w*|persist\w*|if|unless|why|whether)\b|n['’]t\b|\?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class FixingPatch:
    """The gold patch's distinctive new lines, without whitespace: of source files, long enough, with two names at
    least, and nowhere among the lines that it removes or keeps, as those can be quoted from before the fix."""

    lines: frozenset[str] = frozenset()

    @classmethod
    def of(cls, patch: str) -> Self:
        parsed = [line for line in patch_lines(patch) if kind_of(line.path) is FileKind.SOURCE]
        old = {_bare(line.text) for line in parsed if line.sign != "+"}
        new = {_bare(line.text) for line in parsed if line.sign == "+" and _is_distinctive(line.text)}
        return cls(frozenset(new - old))


@dataclass(frozen=True)
class Leaks:
    """What is looked for."""

    repository: str
    number: int
    commits: tuple[str, ...]
    patch: FixingPatch = FixingPatch()
    _own: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _bare: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        name, number = re.escape(self.repository), self.number
        address = rf"/{name}/(?:pull|pulls|issues)/{number}(?!\d)|(?<![\w./-]){name}\#{number}(?!\w)"
        bare = rf"(?<![\w/&#])(?:\#{number}|GH-{number})(?!\w|[.,]\d)"
        object.__setattr__(self, "_own", re.compile(address, re.IGNORECASE))
        object.__setattr__(self, "_bare", re.compile(bare, re.IGNORECASE))

    def is_own_address(self, line: str) -> bool:
        return self._own.search(line) is not None

    def is_own_number(self, prose: str) -> bool:
        return self.number >= _SMALLEST_BARE_NUMBER and self._bare.search(prose) is not None


@dataclass(frozen=True)
class _Block:
    """A fenced block of code with its fences, or one line of anything else."""

    lines: tuple[str, ...]
    language: str | None = None  # of the fence; None outside code

    @property
    def is_code(self) -> bool:
        return self.language is not None


# ---------------------------------------------------------------- the rules


def names_pull_request(line: str, is_code: bool, leaks: Leaks) -> bool:
    """In code a bare number is no reference to GitHub, and none here."""
    return leaks.is_own_address(line) or (not is_code and leaks.is_own_number(_CODE_SPAN.sub(" ", line)))


def names_fixing_commit(line: str, is_code: bool, leaks: Leaks) -> bool:
    """In code too: logs and version strings name commits."""
    found = [match.group().lower() for match in _SHA.finditer(line)]
    return any(commit.lower().startswith(sha) for sha in found for commit in leaks.commits)


def says_where_fixed(line: str, is_code: bool, leaks: Leaks) -> bool:
    """Whatever it names: it need not be this pull request for the reader to look the solution up."""
    return not is_code and _WHERE_FIXED.search(line) is not None and not _IN_DOUBT.search(line)


def quotes_fix(block: _Block, leaks: Leaks) -> bool:
    """One distinctive line is enough in a diff or a suggestion, in a sentence, or where the patch has two at most."""
    lines = leaks.patch.lines
    if not lines:
        return False
    if not block.is_code:
        bare = _bare(block.lines[0])
        return any(len(line) >= _SHORTEST_QUOTE and line in bare for line in lines)
    n_found = len(lines & {form for line in block.lines[1:] for form in _forms(line)})
    is_proposal = block.language in ("diff", "suggestion", "patch")
    return n_found >= (1 if is_proposal else min(_ENOUGH_LINES, -(-len(lines) // 2)))


_LINE_RULES: Mapping[str, Callable[[str, bool, Leaks], bool]] = {
    rule.__name__: rule for rule in (names_pull_request, names_fixing_commit, says_where_fixed)
}


def strip(text: str, leaks: Leaks) -> tuple[str, frozenset[str]]:
    """The text without what the rules name, and the names of those that took something out."""
    kept: list[str] = []
    rules = set[str]()
    for block in _blocks(text):
        if quotes_fix(block, leaks):
            rules.add(quotes_fix.__name__)
            continue
        for line in block.lines:
            found = [name for name, rule in _LINE_RULES.items() if rule(line, block.is_code, leaks)]
            rules.update(found)
            kept += [] if found else [line]
    return "".join(kept), frozenset(rules)


# ---------------------------------------------------------------- reading


def _blocks(text: str) -> Iterator[_Block]:
    """An open fence runs to the end of the text, as GitHub shows it."""
    fence, language, block = "", "", list[str]()
    for line in _LINE.findall(text):
        match = _FENCE.match(line)
        if not fence and match:
            fence, language, block = match[1], match[2].lower(), [line]
        elif not fence:
            yield _Block((line,))
        else:
            block.append(line)
            if match and match[1].startswith(fence) and not line[match.end() :].strip() and not match[2]:
                yield _Block(tuple(block), language)
                fence = ""
    if fence:
        yield _Block(tuple(block), language)


def _bare(line: str) -> str:
    """Without whitespace and with one kind of quotation mark: people retype and reformat what they quote."""
    return "".join(line.split()).replace('"', "'")


def _forms(line: str) -> tuple[str, str]:
    """A line of code as it stands, and without a diff's or a quotation's sign."""
    bare = _bare(line)
    return bare, bare.lstrip("+>")


def _is_distinctive(line: str) -> bool:
    return len(_bare(line)) >= _SHORTEST_LINE and len(set(_NAME.findall(line))) >= 2 and not _TRIVIAL.match(line)
