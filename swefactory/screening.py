"""What a candidate is told and whether it may be one. One property: nothing is judged unless every list was read.

    issues, patch ─► benchmark lists read ─► statement, leaks stripped ─► held against the lists ─► Screening

Raises Rejected for a statement that says too little and for a benchmark's instance (benchmark_contamination), and
UsageError, which ends the run, for a benchmark list that is missing or broken.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from db.enums import RejectReason
from swefactory.benchmark_lists import load_lists
from swefactory.config import Settings
from swefactory.decontamination import InstanceFacts, Verdict, check, patch_digest, signature
from swefactory.errors import Rejected
from swefactory.statements import IssueText, Solution, Statement, statement


@dataclass(frozen=True)
class Screening:
    """What is kept of a candidate that passed."""

    statement: Statement
    verdict: Verdict
    patch_digest: str
    issue_signature: str


def screen(
    issues: Sequence[IssueText], solution: Solution, *, base_commit: str, fork_root: str, settings: Settings
) -> Screening:
    """`fork_root` is the root of the repository's fork network, "" where it is no fork."""
    lists = load_lists(settings.benchmarks)
    told = statement(issues, solution, min_words=settings.min_statement_words)
    facts = InstanceFacts(
        repository=solution.repository,
        number=solution.number,
        base_commit=base_commit,
        patch_digest=patch_digest(solution.patch),
        issue_signature=signature(told.problem_statement),
        fork_root=fork_root,
    )
    verdict = check(facts, lists)
    if not verdict.is_clean:
        raise Rejected(
            RejectReason.BENCHMARK_CONTAMINATION, f"{solution.repository}#{solution.number} counts as {verdict}"
        )
    return Screening(told, verdict, facts.patch_digest, facts.issue_signature)
