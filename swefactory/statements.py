"""What a solver is told: issue texts, with what tells the solution stripped. Pure.

    title ┐                       whole lines and whole code blocks      ┌ problem_statement   title\\nbody\\n of each
    body  ├─► one document each ─► that a rule names are left out      ─►┤
    comments before the first commit                                     └ hints_text          comment\\n, oldest first

One property: a text that no rule names comes through byte for byte. A rule is one function of this module, its name
is what is recorded. Rejected for the first of: issue_without_text, issue_opened_after_merge, statement_images_only,
statement_leaks_fix (with its leaks it would have been long enough), statement_too_short.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from db.enums import RejectReason
from swefactory.errors import Rejected
from swefactory.leaks import FixingPatch, Leaks, strip
from swefactory.prose import n_words, shows_or_links


@dataclass(frozen=True)
class Comment:
    """`at` is the later of written and edited."""

    at: datetime
    body: str


@dataclass(frozen=True)
class IssueText:
    """One issue that the pull request resolves. `opened_at` is None where the source does not say."""

    number: int
    title: str
    body: str
    opened_at: datetime | None
    comments: tuple[Comment, ...] = ()

    @property
    def has_text(self) -> bool:
        return bool(self.title.strip() or self.body.strip())


@dataclass(frozen=True)
class Solution:
    """The pull request that must not show through. `commits` are all of its SHAs that are known (its own commits, its
    head, its merge), whole; the base commit is none of them, as the issue may well name it."""

    repository: str
    number: int
    commits: tuple[str, ...]
    first_commit_at: datetime | None
    merged_at: datetime | None
    patch: str


@dataclass(frozen=True)
class Statement:
    """`stripped` names the text and the rule that took something out of it, sorted: `problem_statement:quotes_fix`."""

    problem_statement: str
    hints_text: str
    stripped: tuple[str, ...] = ()


def statement(issues: Sequence[IssueText], solution: Solution, *, min_words: int) -> Statement:
    """The texts of a task instance. `min_words` counts over titles and bodies together. Raises Rejected."""
    known = _known_in_time(issues, solution)
    leaks = Leaks(solution.repository, solution.number, solution.commits, FixingPatch.of(solution.patch))
    cleaned, rules = [], set[str]()
    for issue in known:
        title, title_rules = strip(issue.title, leaks)
        body, body_rules = strip(issue.body, leaks)
        cleaned.append(replace(issue, title=title, body=body))
        rules |= {f"problem_statement:{rule}" for rule in title_rules | body_rules}
    _check_words(known, cleaned, solution, rules, min_words)
    hints, hint_rules = _hints(known, solution, leaks)
    return Statement(
        problem_statement="".join(f"{issue.title}\n{issue.body}\n" for issue in cleaned if issue.has_text),
        hints_text=hints,
        stripped=tuple(sorted(rules | {f"hints_text:{rule}" for rule in hint_rules})),
    )


def _known_in_time(issues: Sequence[IssueText], solution: Solution) -> list[IssueText]:
    """Those with text that were there before the merge: a later one was written with the fix at hand."""
    known = [issue for issue in issues if issue.has_text]
    numbers = ", ".join(f"#{issue.number}" for issue in issues)
    named = f"{solution.repository}#{solution.number}"
    if not known:
        raise Rejected(RejectReason.ISSUE_WITHOUT_TEXT, f"{named} resolves {numbers}, of which no text is known")
    merged_at = solution.merged_at
    timely = [i for i in known if i.opened_at is None or merged_at is None or i.opened_at < merged_at]
    if not timely:
        raise Rejected(
            RejectReason.ISSUE_OPENED_AFTER_MERGE, f"{numbers} were opened only after {named} had been merged"
        )
    return timely


def _check_words(
    before: Sequence[IssueText], after: Sequence[IssueText], solution: Solution, rules: set[str], min_words: int
) -> None:
    named = f"the issues of {solution.repository}#{solution.number}"
    bodies = "\n".join(issue.body for issue in after)
    if shows_or_links(bodies) and not n_words(bodies):
        raise Rejected(RejectReason.STATEMENT_IMAGES_ONLY, f"{named} are titles, images and links only")
    found = sum(n_words(issue.title) + n_words(issue.body) for issue in after)
    if found >= min_words:
        return
    was = sum(n_words(issue.title) + n_words(issue.body) for issue in before)
    if was >= min_words:
        raise Rejected(
            RejectReason.STATEMENT_LEAKS_FIX,
            f"{named} have {found} words left of {was}, fewer than {min_words}, without {', '.join(sorted(rules))}",
        )
    raise Rejected(RejectReason.STATEMENT_TOO_SHORT, f"{named} have {was} words, fewer than {min_words}")


def _hints(issues: Sequence[IssueText], solution: Solution, leaks: Leaks) -> tuple[str, frozenset[str]]:
    """Strictly before the first commit, edits too: later words may tell the solution."""
    if solution.first_commit_at is None:
        return "", frozenset()
    comments = [comment for issue in issues for comment in issue.comments]
    before = [comment for comment in comments if comment.at < solution.first_commit_at]
    texts, rules = [], frozenset[str]()
    for comment in sorted(before, key=lambda comment: comment.at):
        text, found = strip(comment.body, leaks)
        texts.append(text)
        rules |= found
    return "".join(f"{text}\n" for text in texts if text.strip()), rules
