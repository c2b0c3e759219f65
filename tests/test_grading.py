"""Grading: what counts as passing, what is proved by which runs, and in which order reasons are given."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.enums import Outcome, RejectReason
from swefactory.grading import RunSummary, Standing, grade, held_to, is_hopeless, judge, standing

PASSED, FAILED, ERROR, SKIPPED, XFAILED, XPASSED = (
    Outcome.PASSED, Outcome.FAILED, Outcome.ERROR, Outcome.SKIPPED, Outcome.XFAILED, Outcome.XPASSED,
)  # fmt: skip
test_ids = st.sampled_from([f"tests/test_{n}.py::test_it[{n}]" for n in range(5)])
outcomes = st.dictionaries(test_ids, st.sampled_from(list(Outcome)))
runs = st.lists(outcomes.map(RunSummary), min_size=1, max_size=4)


def run(errors: tuple[str, ...] = (), timed_out: bool = False, /, **found: Outcome) -> RunSummary:
    return RunSummary(found, errors, timed_out)


def test_only_passed_holds() -> None:
    assert {o for o in Outcome if standing(o) is Standing.HOLDS} == {PASSED}
    assert {o for o in Outcome if standing(o) is Standing.FAILS} == {FAILED, ERROR}
    assert standing(None) is Standing.FAILS


def test_a_fix_is_fail_to_pass_and_what_always_held_is_pass_to_pass() -> None:
    report = judge(
        [run(a=FAILED, b=PASSED, c=ERROR, d=XFAILED)] * 2, [run(a=PASSED, b=PASSED, c=PASSED, d=XFAILED, e=PASSED)] * 2
    )
    assert (report.fail_to_pass, report.pass_to_pass, report.reason) == (("a", "c", "e"), ("b",), None)


@pytest.mark.parametrize("before", [SKIPPED, XPASSED, XFAILED])
def test_a_test_that_was_skipped_before_proves_no_fix(before: Outcome) -> None:
    report = judge([run(a=before, b=FAILED)], [run(a=PASSED, b=PASSED)])
    assert (report.fail_to_pass, report.pass_to_pass) == (("b",), ())


@pytest.mark.parametrize("after", [SKIPPED, XPASSED, XFAILED, FAILED, ERROR])
def test_a_test_that_does_not_pass_after_is_in_no_list(after: Outcome) -> None:
    report = judge([run(a=FAILED, b=FAILED, c=PASSED)], [run(a=after, b=PASSED, c=after)])
    assert (report.fail_to_pass, report.pass_to_pass) == (("b",), ())


def test_an_unstable_pass_to_pass_is_dropped_and_named() -> None:
    report = judge([run(a=FAILED, b=PASSED)] * 2, [run(a=PASSED, b=PASSED), run(a=PASSED, b=FAILED)])
    assert (report.reason, report.fail_to_pass, report.pass_to_pass, report.flaky) == (None, ("a",), (), ("b",))


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ([run((), True), run()], [run(a=PASSED)], RejectReason.TESTS_TIME_OUT),
        ([run()], [run((), True)], RejectReason.TESTS_TIME_OUT),
        ([run((), True)], [run(("t.py: no module",))], RejectReason.TESTS_TIME_OUT),
        ([run()], [run(("t.py: no module",), a=PASSED)], RejectReason.COLLECTION_ERROR),
        ([run(a=FAILED)], [run(a=PASSED), run(("t.py: no module",), a=PASSED)], RejectReason.COLLECTION_ERROR),
        ([run(a=FAILED)], [run()], RejectReason.NO_TESTS_COLLECTED),
        ([run()], [run()], RejectReason.NO_TESTS_COLLECTED),
        ([run(a=PASSED, b=SKIPPED)], [run(a=PASSED, b=SKIPPED)], RejectReason.TESTS_PASS_BEFORE),
        ([run(a=PASSED, b=FAILED)], [run(a=PASSED, b=FAILED)], RejectReason.NO_FAIL_TO_PASS),
        ([run(a=PASSED)], [run(a=FAILED)], RejectReason.TESTS_PASS_BEFORE),
        ([run(a=FAILED)] * 2, [run(a=PASSED), run(a=FAILED)], RejectReason.FLAKY_FAIL_TO_PASS),
        ([run(a=FAILED, b=FAILED)] * 2, [run(a=PASSED, b=PASSED), run(a=FAILED, b=PASSED)],
         RejectReason.FLAKY_FAIL_TO_PASS),
        ([run(a=FAILED), run(a=PASSED)], [run(a=PASSED)] * 2, RejectReason.FLAKY_FAIL_TO_PASS),
        ([run(b=PASSED)] * 2, [run(a1=PASSED, b=PASSED), run(a2=PASSED, b=PASSED)], RejectReason.FLAKY_FAIL_TO_PASS),
        ([run(a=FAILED, b=FAILED), run(a=PASSED, b=FAILED)], [run(a=PASSED, b=PASSED)] * 2, None),
        ([run(b=FAILED)] * 2, [run(a1=PASSED, b=PASSED), run(a2=PASSED, b=PASSED)], None),
        ([run(("t.py: no module",))], [run(a=PASSED)], None),
    ],
)  # fmt: skip
def test_reasons_are_given_in_their_order(
    before: list[RunSummary], after: list[RunSummary], reason: RejectReason | None
) -> None:
    report = judge(before, after)
    assert report.reason is reason
    assert bool(report.detail) is (reason is not None)


def test_what_makes_runs_unfit_is_said_in_words() -> None:
    some, late = run(a=PASSED), run((), True)
    assert judge([late], [some]).detail == "the tests before the patch did not end within the time limit"
    assert judge([some], [late]).detail == "the tests after the patch did not end within the time limit"
    errors = run(("d.py: no", "b.py: no")), run(("a.py: no", "c.py: no", "a.py: no"))
    assert judge([some], errors).detail == "after the patch: a.py: no; b.py: no; c.py: no"
    assert judge([some], [run()]).detail == "no test was collected after the patch"


@pytest.mark.parametrize(
    ("n", "named"), [(1, "t0"), (3, "t0, t1, t2"), (4, "t0, t1, t2 and 1 more"), (9, "t0, t1, t2 and 6 more")]
)
def test_a_detail_names_a_few_tests_and_counts_them(n: int, named: str) -> None:
    found = {f"t{i}": FAILED for i in range(n)}
    assert judge([RunSummary(found)], [RunSummary(found)]).detail == (
        f"{n} tests fail before the patch and do not pass after it: {named}"
    )


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ([PASSED, PASSED], [FAILED, FAILED], RejectReason.PASS_TO_FAIL),
        ([PASSED, PASSED], [FAILED, ERROR], RejectReason.PASS_TO_FAIL),
        ([PASSED, PASSED], [FAILED, PASSED], None),  # flaky, and dropped
        ([PASSED, FAILED], [FAILED, FAILED], None),
        ([PASSED, SKIPPED], [FAILED, FAILED], None),
        ([PASSED, PASSED], [SKIPPED, SKIPPED], None),
        ([PASSED, PASSED], [FAILED, None], None),
        ([PASSED, PASSED], [None, None], None),  # ids of parameters follow the source
    ],
)
def test_a_fix_that_breaks_what_always_held_is_rejected(
    before: list[Outcome], after: list[Outcome | None], reason: RejectReason | None
) -> None:
    report = judge(
        [run(fixed=FAILED, other=outcome) for outcome in before],
        [RunSummary({"fixed": PASSED, **({"other": outcome} if outcome else {})}) for outcome in after],
    )
    assert report.reason is reason
    assert report.detail == (
        "1 tests pass before the patch and fail after it: other" if reason is RejectReason.PASS_TO_FAIL else ""
    )


def test_the_fix_that_differs_from_run_to_run_is_named_and_what_differed_before_only_where_nothing_else_is() -> None:
    before = [run(a=FAILED, b=FAILED), run(a=FAILED, b=PASSED)]
    after = [run(a=PASSED, b=PASSED), run(a=FAILED, b=PASSED)]
    assert judge(before, after).detail == "1 tests differ from run to run: a"
    assert judge(before, [run(a=FAILED, b=PASSED)] * 2).detail == "1 tests differ from run to run: b"


def test_what_differs_from_run_to_run_but_is_no_fix_does_not_hide_that_nothing_was_fixed() -> None:
    before, after = [run(a=FAILED, b=PASSED), run(a=FAILED, b=SKIPPED)], [run(a=FAILED, b=PASSED)] * 2
    assert judge(before, after).reason is RejectReason.NO_FAIL_TO_PASS


def test_a_published_instance_keeps_its_own_lists_as_far_as_the_runs_confirm_them() -> None:
    before = run(fixed=FAILED, other=FAILED, kept=PASSED, more=PASSED)
    after = run(fixed=PASSED, other=PASSED, kept=PASSED, more=PASSED)
    report = held_to(judge([before] * 2, [after] * 2), ["fixed"], ["kept", "renamed"])
    assert (report.reason, report.fail_to_pass, report.pass_to_pass) == (None, ("fixed",), ("kept",))


def test_a_published_fail_to_pass_that_the_runs_do_not_confirm_rejects_the_instance_and_is_named() -> None:
    before, after = run(fixed=FAILED, kept=PASSED), run(fixed=PASSED, kept=PASSED)
    report = held_to(judge([before] * 2, [after] * 2), ["fixed", "kept", "gone"], [])
    assert report.reason is RejectReason.PUBLISHED_TESTS_DIFFER
    assert "gone" in report.detail
    assert "kept" in report.detail
    assert "fixed" not in report.detail


def test_what_is_rejected_anyway_keeps_its_reason_whatever_was_published() -> None:
    report = judge([run(kept=PASSED)] * 2, [run(kept=PASSED)] * 2)
    assert held_to(report, ["gone"], []) is report
    assert report.reason is RejectReason.TESTS_PASS_BEFORE


def test_a_verdict_without_runs_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^a verdict needs at least one run"):
        judge([], [run(a=PASSED)])


def test_one_pair_that_fixes_something_is_not_hopeless() -> None:
    assert is_hopeless(run(a=FAILED), run(a=PASSED)) is None
    assert is_hopeless(run(a=PASSED), run(a=PASSED)) is RejectReason.TESTS_PASS_BEFORE


@given(runs, runs)
def test_lists_are_sorted_and_never_share_a_test(before: list[RunSummary], after: list[RunSummary]) -> None:
    report = judge(before, after)
    for ids in (report.fail_to_pass, report.pass_to_pass, report.flaky):
        assert list(ids) == sorted(set(ids))
    assert not set(report.fail_to_pass) & set(report.pass_to_pass)
    assert not set(report.flaky) & {*report.fail_to_pass, *report.pass_to_pass}


@given(runs, runs)
def test_each_gold_run_of_a_valid_instance_is_resolved_and_no_empty_one(
    before: list[RunSummary], after: list[RunSummary]
) -> None:
    report = judge(before, after)
    if report.reason is None:
        assert all(grade(r.outcomes, report.fail_to_pass, report.pass_to_pass).resolved for r in after)
        assert not any(grade(r.outcomes, report.fail_to_pass, report.pass_to_pass).resolved for r in before)


@given(runs, runs, st.randoms())
def test_the_order_of_runs_does_not_change_the_verdict(
    before: list[RunSummary], after: list[RunSummary], random: object
) -> None:
    assert judge(before[::-1], after[::-1]) == judge(before, after)


@given(runs, runs, outcomes, outcomes)
def test_more_runs_never_add_a_test_to_a_list(
    before: list[RunSummary], after: list[RunSummary], one: dict[str, Outcome], other: dict[str, Outcome]
) -> None:
    few, many = judge(before, after), judge([*before, RunSummary(one)], [*after, RunSummary(other)])
    if few.reason is None and many.reason is None:
        assert set(many.fail_to_pass) <= set(few.fail_to_pass)
        assert set(many.pass_to_pass) <= set(few.pass_to_pass)


@given(runs, runs)
def test_what_the_first_pair_proves_hopeless_is_never_valid(before: list[RunSummary], after: list[RunSummary]) -> None:
    if is_hopeless(before[0], after[0]):
        assert judge(before, after).reason is not None


@given(outcomes, st.sets(test_ids), st.sets(test_ids))
def test_resolved_is_exactly_that_every_named_test_holds(
    found: dict[str, Outcome], fail_to_pass: set[str], pass_to_pass: set[str]
) -> None:
    report = grade(found, fail_to_pass, pass_to_pass)
    all_hold = all(found.get(i) is PASSED for i in fail_to_pass | pass_to_pass)
    assert report.resolved is (bool(fail_to_pass) and all_hold)
    assert (report.missed == ()) is all_hold


@given(outcomes, st.sets(test_ids, min_size=1), test_ids)
def test_no_worse_outcome_can_raise_a_grade(found: dict[str, Outcome], fail_to_pass: set[str], target: str) -> None:
    worse = {**found, target: FAILED}
    missing = {i: o for i, o in found.items() if i != target}
    for changed in (worse, missing):
        assert grade(changed, fail_to_pass, ()).resolved <= grade(found, fail_to_pass, ()).resolved


def test_a_grade_without_fail_to_pass_is_never_resolved() -> None:
    assert grade({"a": PASSED}, [], ["a"]).resolved is False


def test_what_was_missed_is_named() -> None:
    report = grade({"a": PASSED, "b": SKIPPED}, ["a", "c"], ["b"])
    assert (report.resolved, report.missed) == (False, ("b", "c"))


def test_what_fails_in_both_states_is_run_again_before_it_is_judged_as_it_may_be_flaky() -> None:
    failing = RunSummary({"t.py::fixed": Outcome.FAILED})
    passing = RunSummary({"t.py::fixed": Outcome.PASSED})
    assert is_hopeless(failing, failing) is None
    assert judge([failing] * 2, [failing, passing]).reason is RejectReason.FLAKY_FAIL_TO_PASS
    assert judge([failing] * 2, [failing] * 2).reason is RejectReason.NO_FAIL_TO_PASS
