"""What a solver is told: issue texts, with what tells the solution stripped. Pure.

(Signatures; the insides follow.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


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


@dataclass(frozen=True)
class Solution:
    """The pull request that must not show through. `commits` are all its SHAs that are known: of its own commits,
    its head, its merge; the base is none of them."""

    repository: str
    number: int
    commits: tuple[str, ...]
    first_commit_at: datetime | None
    merged_at: datetime | None
    patch: str
    title: str = ""


@dataclass(frozen=True)
class Statement:
    """`stripped` names the rules that took something out, sorted, as `problem_statement:quoted_fix`."""

    problem_statement: str
    hints_text: str
    stripped: tuple[str, ...] = ()


def statement(issues: Sequence[IssueText], solution: Solution, *, min_words: int) -> Statement:
    """The texts of a task instance. Raises Rejected."""
    raise NotImplementedError
