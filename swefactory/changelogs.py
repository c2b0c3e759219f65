"""Which issues a change's own changelog entry says it resolves. One property: what a release collects is no evidence.

    newsfragments/123.bugfix.rst  changelog.d/123.change.md  news/123.fix     a new fragment named after its issue
    CHANGES.rst   + Fix the parser. :issue:`123`                              an added line that cites it
    HISTORY.md    + Fix the parser ([#123](https://…/issues/123), GH-124)

The number after `#` may be a pull request's: one that `:pr:`, a pull address or the words "PR", "pull request", "by
@ada in" mark as such is left out here; the rest is the caller's to tell, who knows which numbers are pull requests.

A release moves entries: numbers on removed lines or of deleted fragments are not new, and a diff that cites more than
six issues is a release or a collection, of which none is believed. Pure.
"""

import re
from collections.abc import Collection, Iterator
from pathlib import PurePosixPath

_STEMS = frozenset((
    "changelog", "changelogs", "changes", "change-log", "change_log", "history", "news", "release-notes",
    "release_notes", "releasenotes", "releases", "whatsnew", "whats_new", "whats-new",
))  # fmt: skip
_SUFFIXES = frozenset(("", ".md", ".rst", ".txt", ".markdown", ".adoc"))
_PAGE_FOLDERS = frozenset(("whatsnew", "release_notes", "release-notes", "releasenotes", "releases"))
_FRAGMENT_FOLDERS = frozenset((
    "newsfragments", "news_fragments", "newsfragment", "changelog.d", "changelog", "changelogs", "changes", "changes.d",
    "changelog_fragments", "changelog-fragments", "news", "news.d", "upcoming_changes", "fragments",
))  # fmt: skip
# A type stands after the number ("123.bugfix", "123.bugfix.2.rst"): "2.7.rst" and "2023.md" are pages of a release.
_FRAGMENT = re.compile(
    r"(?:gh|issue)?-?(?P<number>[1-9]\d{0,8})\.(?!(?:md|rst|txt)\b)[a-z][a-z_-]*(?:\.\d+)?(?:\.(?:md|rst|txt))?", re.I
)
_MAX_ISSUES = 6
_SECTION = re.compile(r"^(?=diff --git )", re.MULTILINE)
_PATH = re.compile(r'^(?:\+\+\+ "?b/|--- "?a/)(.+?)"?\t?$', re.MULTILINE)
_HEADER_PATH = re.compile(r'diff --git "?a/.* "?b/(.+?)"?$', re.MULTILINE)
_NUMBER = r"([1-9]\d{0,8})(?![\w.]\d|\w)"
_ROLE = re.compile(r"(?:\:(?P<rst>[\w-]+):|\{(?P<myst>[\w-]+)\})`(?P<text>[^`\n]*)`")
_ISSUE_ROLES = frozenset(("issue", "issues", "gh", "gh-issue", "github", "ghissue", "bug"))
_PULL = re.compile(
    rf"\[?\#\d+\]?\s*[(<]\s*https?://\S+?/pulls?/\d+|https?://\S+?/pulls?/\d+"
    rf"|(?:\bPRs?|\bpull(?:[ -]requests?)?|\bin)[:\s]+\[?\#{_NUMBER}",
    re.IGNORECASE,
)
_URL = re.compile(rf"https?://(?:www\.)?[\w.:-]+/(?P<name>[A-Za-z0-9][\w-]*/[\w.-]+)/issues/{_NUMBER}", re.IGNORECASE)
_CITED = re.compile(
    rf"(?:(?<![\w./-])(?P<name>[A-Za-z0-9][\w-]*/[\w.-]+)\#|(?<![\w#&/.-])\#|(?<![\w-])GH-?\#?|(?<![\w-])issue\s+\#?)"
    rf"{_NUMBER}",
    re.IGNORECASE,
)


def is_changelog(path: str) -> bool:
    """Whether `path` is a changelog, or a fragment of one."""
    file = PurePosixPath(path)
    stem, folder = file.stem.lower(), file.parent.name.lower()
    if file.suffix.lower() in _SUFFIXES and (stem in _STEMS or folder in _PAGE_FOLDERS):
        return True
    return folder in _FRAGMENT_FOLDERS and (file.suffix.lower() in _SUFFIXES or bool(_FRAGMENT.fullmatch(file.name)))


def changelog_issues(diff: str, names: Collection[str]) -> frozenset[int]:
    """The issues that a diff restricted to changelog files says are resolved. `names` are the names of its
    repository, present and former. The pull request's own number is the caller's to leave out."""
    own = {name.lower() for name in names}
    new: set[int] = set()
    old: set[int] = set()
    for section in _SECTION.split(diff):
        path = _path_of(section)
        if path is None or not is_changelog(path):
            continue
        header, _, hunks = section.partition("\n@@")
        number = _fragment_number(path)
        if number and re.search(r"^deleted file mode", header, re.MULTILINE):
            old.add(number)
        elif number and re.search(r"^new file mode", header, re.MULTILINE):
            new.add(number)
        new |= _cited(_lines(hunks, "+"), own)
        old |= _cited(_lines(hunks, "-"), own)
    found = new - old
    return frozenset(found) if len(found) <= _MAX_ISSUES else frozenset()


def _path_of(section: str) -> str | None:
    found = [path for path in _PATH.findall(section.partition("\n@@")[0]) if path != "/dev/null"]
    if found:
        return str(found[-1])
    bare = _HEADER_PATH.match(section)  # an empty file has no other line
    return bare[1] if bare else None


def _fragment_number(path: str) -> int | None:
    file = PurePosixPath(path)
    found = _FRAGMENT.fullmatch(file.name) if file.parent.name.lower() in _FRAGMENT_FOLDERS else None
    return int(found["number"]) if found else None


def _lines(hunks: str, sign: str) -> str:
    return "\n".join(line[1:] for line in hunks.split("\n") if line.startswith(sign))


def _cited(text: str, own: Collection[str]) -> set[int]:
    """Issues that lines of a changelog name, pull requests left out."""
    roles = list(_ROLE.finditer(text))
    found = {
        int(number)
        for role in roles
        if (role["rst"] or role["myst"]).lower() in _ISSUE_ROLES
        for number in _numbers(role["text"], own)
    }
    rest = _PULL.sub(" ", _ROLE.sub(" ", text))
    found |= {int(url[2]) for url in _URL.finditer(rest) if url["name"].lower() in own}
    rest = re.sub(r"\[?\#\d+\]?\s*[(<]\s*https?://\S+|https?://\S+", " ", rest)
    return found | {int(hit[2]) for hit in _CITED.finditer(rest) if hit["name"] is None or hit["name"].lower() in own}


def _numbers(role: str, own: Collection[str]) -> Iterator[str]:
    """Of `123`, `#123`, `12, 13`, `text <123>`; `other/tool#5` is another repository's."""
    target = re.search(r"<([^<>]*)>\s*\Z", role)
    for part in re.split(r"[,\s]+", (target[1] if target else role).strip()):
        match = re.fullmatch(r"(?:([\w.-]+/[\w.-]+)?\#)?([1-9]\d{0,8})", part)
        if match and (match[1] is None or match[1].lower() in own):
            yield match[2]
