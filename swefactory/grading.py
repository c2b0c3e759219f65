"""From the outcomes of test runs to FAIL_TO_PASS, PASS_TO_PASS and resolved. Pure.

One property: what was not seen to pass never counts as passed. An outcome is one of

    HOLDS      passed
    FAILS      failed, error, and a test that was collected elsewhere but is missing here
    NEITHER    skipped, xfailed, xpassed: they prove nothing, in either direction

(SWE-bench's grading lets xfailed hold, too. But code under test can call pytest.xfail() itself, and then a patch that
does nothing else would resolve every task. The lists here are within those that SWE-bench's rule would make.)

    FAIL_TO_PASS   FAILS in every run before and HOLDS in every run after the patch
    PASS_TO_PASS   HOLDS in every run before and after
    flaky          two runs of one state differ; dropped from PASS_TO_PASS

and the task instance is rejected for the first of these that is true:

    1 TESTS_TIME_OUT        a run, before or after, hit its time limit
    2 COLLECTION_ERROR      after the patch something cannot be collected
    3 NO_TESTS_COLLECTED    after the patch there is no test
    4 FLAKY_FAIL_TO_PASS    a test that always fails before passes after only sometimes, or, where nothing else is
                            fixed, fails before only sometimes or has an id of its own in each run
    5 TESTS_PASS_BEFORE     no FAIL_TO_PASS, and nothing fails before
    6 NO_FAIL_TO_PASS       no FAIL_TO_PASS, although something fails before
    7 PASS_TO_FAIL          a test that holds in every run before is collected and fails in every run after
    8 PUBLISHED_TESTS_DIFFER  of an imported instance: a FAIL_TO_PASS it came with is none here (`held_to`)

(PATCH_DOES_NOT_APPLY comes before any run, and runs that are no evidence never come here.)
"""

import enum
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from db.enums import Outcome, RejectReason


class Standing(enum.Enum):
    """What an outcome is worth."""

    HOLDS = "holds"
    FAILS = "fails"
    NEITHER = "neither"


Outcomes = Mapping[str, Outcome]
_STANDING = {
    Outcome.PASSED: Standing.HOLDS,
    Outcome.FAILED: Standing.FAILS,
    Outcome.ERROR: Standing.FAILS,
    Outcome.SKIPPED: Standing.NEITHER,
    Outcome.XFAILED: Standing.NEITHER,
    Outcome.XPASSED: Standing.NEITHER,
}


def standing(outcome: Outcome | None) -> Standing:
    """What an outcome is worth; None is a test that is missing."""
    return Standing.FAILS if outcome is None else _STANDING[outcome]


@dataclass(frozen=True)
class Conditions:
    """What one run differs in from the others of its state: little CPU, a shifted clock or time zone, a network."""

    order: str = "default"
    hash_seed: int = 1
    is_slow: bool = False
    is_shifted: bool = False
    is_online: bool = False  # with a network: no evidence, see swefactory.validation_runs

    @property
    def is_plain(self) -> bool:
        """Whether only the hash seed may differ."""
        return self.order == "default" and not self.is_slow and not self.is_shifted


@dataclass(frozen=True)
class RunSummary:
    """What grading needs of one completed or timed-out run; `messages` explain what failed."""

    outcomes: Outcomes
    collection_errors: tuple[str, ...] = ()
    timed_out: bool = False
    conditions: Conditions = Conditions()
    messages: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ValidationReport:
    """What the runs prove. Lists are sorted; `reason` None means the task instance is valid."""

    fail_to_pass: tuple[str, ...] = ()
    pass_to_pass: tuple[str, ...] = ()
    flaky: tuple[str, ...] = ()
    reason: RejectReason | None = None
    detail: str = ""


def judge(before: Sequence[RunSummary], after: Sequence[RunSummary]) -> ValidationReport:
    """The verdict over all runs of both states; at least one run of each."""
    if not before or not after:
        raise ValueError("a verdict needs at least one run before and one after the patch")
    if reason := _unfit(before, after):
        return ValidationReport(reason=reason[0], detail=reason[1])
    return _classify([run.outcomes for run in before], [run.outcomes for run in after])


def held_to(report: ValidationReport, fail_to_pass: Collection[str], pass_to_pass: Collection[str]) -> ValidationReport:
    """The verdict on an instance that was published with these lists: every FAIL_TO_PASS must be confirmed, else it is
    rejected; a PASS_TO_PASS that is not is left out, and what only our runs found is not taken in."""
    if report.reason is not None:
        return report
    if missing := sorted(set(fail_to_pass) - set(report.fail_to_pass)):
        said = _some("of its FAIL_TO_PASS were not seen to fail before and pass after the patch", missing)
        return replace(report, reason=RejectReason.PUBLISHED_TESTS_DIFFER, detail=said)
    named = set(pass_to_pass)
    kept = tuple(test_id for test_id in report.pass_to_pass if test_id in named)
    return replace(report, fail_to_pass=tuple(sorted(set(fail_to_pass))), pass_to_pass=kept)


def is_hopeless(before: RunSummary, after: RunSummary) -> RejectReason | None:
    """Whether one pair of runs already proves a rejection that more runs cannot take back. What fails in both states
    may turn out to be flaky, which is another reason: that takes more runs to tell."""
    reason = judge([before], [after]).reason
    open_reasons = (RejectReason.FLAKY_FAIL_TO_PASS, RejectReason.NO_FAIL_TO_PASS, RejectReason.PASS_TO_FAIL)
    return None if reason in open_reasons else reason


def _unfit(before: Sequence[RunSummary], after: Sequence[RunSummary]) -> tuple[RejectReason, str] | None:
    for name, runs in (("before", before), ("after", after)):
        if any(run.timed_out for run in runs):
            return RejectReason.TESTS_TIME_OUT, f"the tests {name} the patch did not end within the time limit"
    if errors := sorted({error for run in after for error in run.collection_errors}):
        return RejectReason.COLLECTION_ERROR, f"after the patch: {'; '.join(errors[:3])}"
    if not any(run.outcomes for run in after):
        return RejectReason.NO_TESTS_COLLECTED, "no test was collected after the patch"
    return None


def _classify(before: Sequence[Outcomes], after: Sequence[Outcomes]) -> ValidationReport:
    ids = sorted({test_id for run in (*before, *after) for test_id in run})
    stood_before = {test_id: _standings(test_id, before) for test_id in ids}
    stood_after = {test_id: _standings(test_id, after) for test_id in ids}
    fails, holds = {Standing.FAILS}, {Standing.HOLDS}
    flaky = tuple(i for i in ids if len(stood_before[i]) > 1 or len(stood_after[i]) > 1)
    fixed = tuple(i for i in ids if stood_before[i] == fails and stood_after[i] == holds)
    kept = tuple(i for i in ids if stood_before[i] == holds and stood_after[i] == holds)
    reason, detail = _reason(fixed, flaky, stood_before, stood_after, after)
    return ValidationReport(fixed, kept, flaky, reason, detail)


def _standings(test_id: str, runs: Sequence[Outcomes]) -> set[Standing]:
    return {standing(run.get(test_id)) for run in runs}


def _reason(
    fixed: Sequence[str],
    flaky: Sequence[str],
    before: Mapping[str, set[Standing]],
    after: Mapping[str, set[Standing]],
    runs_after: Sequence[Outcomes],
) -> tuple[RejectReason | None, str]:
    sometimes = [i for i in flaky if Standing.FAILS in before[i] and Standing.HOLDS in after[i]]
    unstable = [i for i in sometimes if before[i] == {Standing.FAILS} and all(i in run for run in runs_after)]
    if unstable or (sometimes and not fixed):
        return RejectReason.FLAKY_FAIL_TO_PASS, _some("differ from run to run", unstable or sometimes)
    if fixed:
        holds = {Standing.HOLDS}
        broken = [i for i in before if before[i] == holds and all(_is_failure(run.get(i)) for run in runs_after)]
        return (
            (RejectReason.PASS_TO_FAIL, _some("pass before the patch and fail after it", broken))
            if broken
            else (None, "")
        )
    failing = [i for i in before if Standing.FAILS in before[i]]
    if not failing:
        return RejectReason.TESTS_PASS_BEFORE, f"none of {len(before)} tests fails before the patch"
    return RejectReason.NO_FAIL_TO_PASS, _some("fail before the patch and do not pass after it", failing)


def _is_failure(outcome: Outcome | None) -> bool:
    """A test that is gone after the patch is no failure of it: ids of parameters follow the source."""
    return outcome is not None and standing(outcome) is Standing.FAILS


def _some(what: str, test_ids: Sequence[str]) -> str:
    more = f" and {len(test_ids) - 3} more" if len(test_ids) > 3 else ""
    return f"{len(test_ids)} tests {what}: {', '.join(test_ids[:3])}{more}"


@dataclass(frozen=True)
class GradeReport:
    """How a patch did. Only `resolved` when every named test holds, and there is at least one FAIL_TO_PASS."""

    resolved: bool
    fail_to_pass: Mapping[str, bool]
    pass_to_pass: Mapping[str, bool]

    @property
    def missed(self) -> tuple[str, ...]:
        """The tests that do not hold, sorted."""
        return tuple(sorted(i for i, holds in {**self.fail_to_pass, **self.pass_to_pass}.items() if not holds))


def grade(outcomes: Outcomes, fail_to_pass: Iterable[str], pass_to_pass: Iterable[str]) -> GradeReport:
    """How the outcomes of one run meet what validation proved. A missing or skipped test does not hold."""
    fixed = {i: standing(outcomes.get(i)) is Standing.HOLDS for i in fail_to_pass}
    kept = {i: standing(outcomes.get(i)) is Standing.HOLDS for i in pass_to_pass}
    return GradeReport(bool(fixed) and all((*fixed.values(), *kept.values())), fixed, kept)
