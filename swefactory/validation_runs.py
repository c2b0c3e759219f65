"""The runs of a validation: as many as its tier asks for, in the conditions of swefactory.stability.

One property: a verdict rests on completed runs only; what ran is kept, whatever the verdict. The runs of one state
share its files as they were before the first of them (see evaluation.prepared), and nothing that any of them can write.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace

from db.enums import RejectReason, RunState, RunStatus
from swefactory.errors import InfrastructureError
from swefactory.evaluation import EvaluationSpec, PreparedState, TestRunResult, evaluate, prepared
from swefactory.grading import RunSummary, Standing, ValidationReport, is_hopeless, judge, standing
from swefactory.instance_runs import EvaluatedInstance, RunServices, StoredRun, stored
from swefactory.run_record import VoidCause
from swefactory.sandbox_protocols import KILLED
from swefactory.stability import LAST_TELLING_RUN, N_RUNS, conditions_of, unstable_states

_MACHINE_CAN_CAUSE = frozenset((VoidCause.NO_RECORD, VoidCause.UNREADABLE))
_STATES = (RunState.BEFORE, RunState.AFTER)


def run_pairs(
    services: RunServices,
    instance: EvaluatedInstance,
    spec: EvaluationSpec,
    patches: Mapping[RunState, tuple[str, ...]],
    runs: list[StoredRun],
) -> ValidationReport:
    """Adds to `runs` until there is a verdict; what ran is kept, whatever the verdict."""
    with ExitStack() as stack:
        states: dict[RunState, PreparedState] = {}
        for number, state in _plan(services, instance, runs):
            asked = conditions_of(number)
            run = replace(
                spec, patches=patches[state], order=asked.order, hash_seed=asked.hash_seed, is_slow=asked.is_slow,
                is_shifted=asked.is_shifted,
            )  # fmt: skip
            if state not in states:
                states[state] = stack.enter_context(prepared(services, run))
            void = _evidence(services, instance.instance_id, run, state, states[state], runs)
            if void is not None:
                return void
    return judge(summaries(runs, RunState.BEFORE), summaries(runs, RunState.AFTER))


def _plan(services: RunServices, instance: EvaluatedInstance, runs: list[StoredRun]) -> Iterator[tuple[int, RunState]]:
    """Which runs are wanted, seen what those before them showed."""
    n_wanted = services.settings.n_validation_runs
    if n_wanted is None or instance.tier is not None:
        n_wanted = N_RUNS[instance.tier or services.settings.tier]
    for number in range(1, n_wanted + 1):
        yield from ((number, state) for state in _STATES)
        if number == 1 and is_hopeless(summaries(runs, RunState.BEFORE)[0], summaries(runs, RunState.AFTER)[0]):
            return
    unstable = unstable_states(summaries(runs, RunState.BEFORE), summaries(runs, RunState.AFTER))
    for number in range(n_wanted + 1, LAST_TELLING_RUN + 1):
        yield from ((number, state) for state, is_unstable in zip(_STATES, unstable, strict=True) if is_unstable)


def _evidence(
    services: RunServices,
    instance_id: str,
    spec: EvaluationSpec,
    state: RunState,
    files: PreparedState,
    runs: list[StoredRun],
) -> ValidationReport | None:
    """Adds one run that is evidence, and those before it that were none; a report when there is none."""
    results: list[TestRunResult] = []
    while not results or (results[-1].status is RunStatus.VOID and len(results) < _most_runs(results[-1])):
        results.append(evaluate(services, spec, files))
        runs.append(stored(services, state, results[-1]))
    last = results[-1]
    if last.status is RunStatus.TIMED_OUT and (spec.is_slow or spec.is_shifted):
        return _evidence(services, instance_id, replace(spec, is_slow=False, is_shifted=False), state, files, runs)
    if last.status is not RunStatus.VOID:
        return None
    if last.void_cause in _MACHINE_CAN_CAUSE or last.void_cause is not results[0].void_cause:
        raise InfrastructureError(
            f"{instance_id}: all runs of the tests {state.value} the patch are no evidence ({results[0].detail}; then "
            f"{last.detail}); look at the machine and the environment, then retry the job"
        )
    return ValidationReport(
        reason=RejectReason.TEST_RUN_VOID, detail=f"{state.value} the patch, each time: {last.detail}"
    )


def _most_runs(void: TestRunResult) -> int:
    """A run that was killed, by something outside or by itself, is repeated twice."""
    return 3 if void.exit_code == KILLED else 2


def probe_online(
    services: RunServices, spec: EvaluationSpec, patches: tuple[str, ...], runs: list[StoredRun]
) -> str | None:
    """Adds one run after the patch with a network, which tells what fails only without one and is never evidence. Says
    why it did not run; None when it did."""
    if not services.settings.network_probe:
        return "it is switched off"
    if all(_holds(run) for run in summaries(runs, RunState.AFTER)):
        return "no test fails without one"
    if why := services.sandboxes.no_network():
        return why
    try:
        result = evaluate(services, replace(spec, patches=patches, is_online=True))
    except InfrastructureError as error:
        return str(error)
    runs.append(stored(services, RunState.AFTER, result))
    return None if _had_network(result) else f"it was none: {result.detail or 'no route led out'}"


def online(runs: list[StoredRun]) -> RunSummary | None:
    """What the run with a network showed, if it had one and ended."""
    return next((summary_of(run.result) for run in runs if _had_network(run.result)), None)


def _had_network(result: TestRunResult) -> bool:
    return result.status is RunStatus.COMPLETED and result.measured.get("network") == "out"


def _holds(run: RunSummary) -> bool:
    return all(standing(outcome) is not Standing.FAILS for outcome in run.outcomes.values())


def summaries(runs: list[StoredRun], state: RunState) -> list[RunSummary]:
    return [summary_of(run.result) for run in runs if run.state is state and _is_evidence(run.result)]


def _is_evidence(result: TestRunResult) -> bool:
    """A time-out speaks only of tests that had their time: not with little CPU, not at another time. What ran with a
    network proves nothing, whatever it showed."""
    if result.conditions.is_online:
        return False
    is_plain = not result.conditions.is_slow and not result.conditions.is_shifted
    return result.status is RunStatus.COMPLETED or (result.status is RunStatus.TIMED_OUT and is_plain)


def summary_of(result: TestRunResult) -> RunSummary:
    """What grading needs of a run."""
    return RunSummary(
        outcomes={found.test_id: found.outcome for found in result.outcomes},
        collection_errors=tuple(
            f"{error.test_id}: {(error.message.strip().splitlines() or [''])[-1]}" for error in result.collection_errors
        ),
        timed_out=result.status is RunStatus.TIMED_OUT,
        conditions=result.conditions,
        messages={
            found.test_id: found.message for found in result.outcomes if standing(found.outcome) is Standing.FAILS
        },
    )
