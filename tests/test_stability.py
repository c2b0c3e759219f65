"""What the runs say of a test: the bound, the change, and the cause that is named only for conditions that held."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.enums import Change, Outcome, Stability, Tier
from swefactory.grading import Conditions, RunSummary
from swefactory.stability import (
    LAST_TELLING_RUN,
    N_RUNS,
    conditions_of,
    stability,
    unstable_states,
    upper_bound,
    verdicts,
)

PASSED, FAILED, ERROR, SKIPPED = Outcome.PASSED, Outcome.FAILED, Outcome.ERROR, Outcome.SKIPPED


def runs(*found: Outcome | None) -> list[RunSummary]:
    """Runs 1, 2, … with this outcome of the test "t"; None: it is missing."""
    return [
        RunSummary({} if outcome is None else {"t": outcome}, conditions=conditions_of(number))
        for number, outcome in enumerate(found, 1)
    ]


def failing_when(fails: object, n: int = LAST_TELLING_RUN, message: str = "") -> list[RunSummary]:
    return [
        RunSummary({"t": FAILED}, conditions=c, messages={"t": message})
        if fails(c)  # type: ignore[operator]
        else RunSummary({"t": PASSED}, conditions=c)
        for c in map(conditions_of, range(1, n + 1))
    ]


@pytest.mark.parametrize(("n", "bound"), [(3, 0.632), (10, 0.259), (20, 0.139), (30, 0.095), (100, 0.0295)])
def test_the_bound_without_a_flip_is_the_published_one(n: int, bound: float) -> None:
    assert upper_bound(0, n) == pytest.approx(bound, abs=0.001)
    assert upper_bound(0, n) == pytest.approx(1 - 0.05 ** (1 / n))


def test_the_bound_with_flips_is_clopper_and_pearsons() -> None:
    assert upper_bound(1, 10) == pytest.approx(0.3942, abs=1e-4)  # beta quantile 0.95 of (2, 9)
    assert upper_bound(2, 30) == pytest.approx(0.1953, abs=1e-4)  # of (3, 28)
    assert upper_bound(5, 5) == 1.0


@given(st.integers(1, 40), st.data())
def test_more_flips_raise_the_bound_and_it_is_never_below_the_rate_seen(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    assert k / n <= upper_bound(k, n) <= upper_bound(min(k + 1, n), n) <= 1


def test_each_tier_has_every_kind_of_condition() -> None:
    for n in N_RUNS.values():
        asked = [conditions_of(number) for number in range(1, n + 1)]
        assert asked[0].is_plain
        assert {c.order for c in asked} >= {"default", "reversed", "random:3"}
        assert any(c.is_slow for c in asked)
        assert any(c.is_shifted for c in asked)
        assert len({c.hash_seed for c in asked}) >= 3
    assert N_RUNS == {Tier.BRONZE: 3, Tier.SILVER: 10, Tier.GOLD: 30}


def test_the_runs_differ_as_the_table_says() -> None:
    slow, shifted = {"is_slow": True}, {"is_shifted": True}
    assert [conditions_of(number) for number in range(1, 9)] == [
        Conditions("default", 1), Conditions("reversed", 2, **slow), Conditions("random:3", 3, **shifted),
        Conditions("default", 4), Conditions("reversed", 1), Conditions("default", 1, **slow),
        Conditions("default", 1, **shifted), Conditions("random:3", 1),
    ]  # fmt: skip
    assert [conditions_of(number) for number in (9, 10, 14, 30, 35)] == [
        Conditions("random:9", 9), Conditions("random:10", 10, **slow), Conditions("random:14", 14, **shifted),
        Conditions("random:30", 30, **slow), Conditions("random:35", 35, **slow, **shifted),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        ([FAILED] * 3, [PASSED] * 3, Change.FAIL_TO_PASS),
        ([FAILED, ERROR, FAILED], [PASSED] * 3, Change.FAIL_TO_PASS),
        ([ERROR] * 3, [PASSED] * 3, Change.ERROR_TO_PASS),
        ([None] * 3, [PASSED] * 3, Change.ERROR_TO_PASS),
        ([PASSED] * 3, [PASSED] * 3, Change.PASS_TO_PASS),
        ([PASSED] * 3, [FAILED] * 3, Change.PASS_TO_FAIL),
        ([FAILED] * 3, [FAILED] * 3, Change.FAIL_TO_FAIL),
        ([SKIPPED] * 3, [PASSED] * 3, Change.NOTHING),
        ([FAILED] * 3, [PASSED, PASSED, FAILED], Change.UNSTABLE),
    ],
)
def test_what_the_patch_does_to_a_test(
    before: list[Outcome | None], after: list[Outcome | None], change: Change
) -> None:
    (found,) = verdicts(runs(*before), runs(*after))
    assert found.change is change


def test_a_verdict_counts_flips_and_bounds_their_rate() -> None:
    (found,) = verdicts(runs(FAILED, FAILED, FAILED), runs(PASSED, FAILED, PASSED))
    assert (found.n_runs, found.n_flips, found.before) == (3, 1, Stability.STABLE_FAIL)
    assert found.flip_rate_upper == round(upper_bound(1, 3), 6)
    assert unstable_states(runs(FAILED, FAILED), runs(PASSED, FAILED)) == (False, True)
    assert unstable_states(runs(FAILED, PASSED), runs(PASSED, PASSED)) == (True, False)


def test_each_test_has_its_own_verdict_on_each_state() -> None:
    before, after = RunSummary({"a": FAILED, "b": SKIPPED}), RunSummary({"a": PASSED, "b": PASSED, "c": PASSED})
    found = verdicts([before] * 2, [after] * 3)
    assert [(v.test_id, v.before, v.after) for v in found] == [
        ("a", Stability.STABLE_FAIL, Stability.STABLE_PASS),
        ("b", Stability.STABLE_SKIP, Stability.STABLE_PASS),
        ("c", Stability.STABLE_FAIL, Stability.STABLE_PASS),
    ]
    assert {(v.n_runs, v.n_flips, v.flip_rate_upper) for v in found} == {(2, 0, round(upper_bound(0, 2), 6))}


def test_a_run_that_timed_out_is_no_evidence() -> None:
    late = RunSummary({"t": FAILED}, timed_out=True)
    (found,) = verdicts(runs(FAILED, FAILED), [*runs(PASSED, PASSED), late])
    assert (found.change, found.n_flips) == (Change.FAIL_TO_PASS, 0)
    assert verdicts([late], runs(PASSED)) == ()


@pytest.mark.parametrize(
    ("fails", "cause"),
    [
        (lambda c: False, Stability.STABLE_PASS),
        (lambda c: True, Stability.STABLE_FAIL),
        (lambda c: c.order != "default", Stability.ORDER_DEPENDENT),
        (lambda c: c.order == "reversed", Stability.ORDER_DEPENDENT),
        (lambda c: c.order == "random:3", Stability.ORDER_DEPENDENT),
        (lambda c: c.is_slow, Stability.SLOW),
        (lambda c: c.is_shifted, Stability.TIME_DEPENDENT),
        (lambda c: c.hash_seed == 2, Stability.FLAKY),
        (lambda c: c.hash_seed == 4, Stability.FLAKY),  # two plain runs differ
        (lambda c: c.is_slow or c.is_shifted, Stability.FLAKY),  # two causes are no name
    ],
)
def test_the_one_condition_that_tells_the_runs_apart_is_named(fails: object, cause: Stability) -> None:
    assert stability("t", failing_when(fails)) is cause


def test_three_runs_name_no_cause_for_each_changes_more_than_one_thing() -> None:
    assert stability("t", failing_when(lambda c: c.is_slow, n=3)) is Stability.FLAKY


def test_a_condition_that_did_not_hold_names_nothing() -> None:
    unenforced = [
        RunSummary({"t": FAILED if n == 6 else PASSED}, conditions=Conditions(conditions_of(n).order))
        for n in range(1, 9)
    ]
    assert stability("t", unenforced) is Stability.FLAKY


@pytest.mark.parametrize("fails", [lambda c: True, lambda c: c.order == "reversed"])
def test_failures_that_all_speak_of_the_network_name_it(fails: object) -> None:
    said = "E   socket.gaierror: [Errno -3] Temporary failure in name resolution"
    assert stability("t", failing_when(fails, message=said)) is Stability.NETWORK_DEPENDENT
    assert stability("t", failing_when(fails, message="E   assert 1 == 2")) is not Stability.NETWORK_DEPENDENT


@pytest.mark.parametrize(("tier", "rate", "power"), [(Tier.BRONZE, 0.1, 0.27), (Tier.SILVER, 0.1, 0.65),
                                                     (Tier.GOLD, 0.1, 0.95), (Tier.GOLD, 0.05, 0.78)])  # fmt: skip
def test_a_test_that_fails_at_this_rate_is_caught_with_the_stated_power(tier: Tier, rate: float, power: float) -> None:
    dice = random.Random(7)
    n_trials = 2000
    n_caught = sum(
        stability("t", [RunSummary({"t": FAILED if dice.random() < rate else PASSED}, conditions=conditions_of(n))
                        for n in range(1, N_RUNS[tier] + 1)]) is not Stability.STABLE_PASS
        for _ in range(n_trials)
    )  # fmt: skip
    assert n_caught / n_trials == pytest.approx(power, abs=0.035)


def test_a_run_with_a_network_names_what_fails_only_without_and_counts_for_nothing() -> None:
    online = RunSummary({"t": PASSED}, conditions=Conditions(is_online=True))
    always, mended = runs(FAILED, ERROR, FAILED), runs(PASSED, PASSED, PASSED)

    def after(found: list[RunSummary], probe: RunSummary | None) -> Stability:
        (verdict,) = verdicts(always, found, probe)
        assert (verdict.n_runs, verdict.before) == (3, Stability.STABLE_FAIL)
        assert verdict == replace(verdicts(always, found)[0], after=verdict.after)
        return verdict.after

    assert after(always, online) is Stability.NETWORK_DEPENDENT
    assert after(runs(None, None, FAILED), online) is Stability.NETWORK_DEPENDENT
    assert after(always, None) is Stability.STABLE_FAIL
    assert after(always, replace(online, outcomes={"t": FAILED})) is Stability.STABLE_FAIL
    assert after(always, replace(online, outcomes={"t": SKIPPED})) is Stability.STABLE_FAIL
    assert after(always, replace(online, outcomes={})) is Stability.STABLE_FAIL
    assert after(mended, online) is Stability.STABLE_PASS
    assert after(runs(FAILED, PASSED, FAILED), online) is Stability.FLAKY
