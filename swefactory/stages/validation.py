"""Validation: proves a task instance, or disproves it. Subject: task_instance_id. The end of the automatic chain.

    run 1   before, after   default order          each in a fresh sandbox, offline
    run 2   before, after   reversed               before = base + test_patch
    run k   before, after   random, seed k         after  = base + the gold patch + test_patch

One property: a verdict rests on completed runs only. The gold patch passes the gate of model_patches first, as an
agent's will, so what is validated is what can be graded. After the first pair, more runs are left out when it already
proves a rejection that they could not take back.

A void run is no evidence; it is repeated once. Void again for another cause, or for one that can be this machine's
fault, the job fails and is retried. Void again for the same cause, the subject's tests do it themselves (they end the
process, write into the record, hide failures): the verdict is TEST_RUN_VOID.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import func
from sqlmodel import Session, select

from db.models import (
    InstanceStatus,
    RejectReason,
    RunState,
    RunStatus,
    StageName,
    TaskInstance,
    Validation,
    ValidationVerdict,
    utc_now,
)
from swefactory import __version__
from swefactory.errors import InfrastructureError, Rejected
from swefactory.evaluation import EvaluationSpec, TestRunResult, evaluate, restricted
from swefactory.grading import RunSummary, ValidationReport, grade, is_hopeless, judge
from swefactory.instance_runs import EvaluatedInstance, StoredRun, base_evaluation, load_instance, save_runs, stored
from swefactory.run_record import VoidCause
from swefactory.stage import Saved, Services, Stage

_CERTIFICATE_FORMAT = 1
_MACHINE_CAN_CAUSE = frozenset((VoidCause.NO_RECORD, VoidCause.UNREADABLE))


@dataclass(frozen=True)
class ValidationOutput:
    """All runs in their order, what they prove, and the certificate."""

    runs: tuple[StoredRun, ...]
    report: ValidationReport
    certificate: Mapping[str, Any]
    sandbox: str
    n_runs: int
    started_at: datetime
    finished_at: datetime


def load(session: Session, task_instance_id: int) -> EvaluatedInstance:
    """The instance and its environment."""
    return load_instance(session, task_instance_id)


# ---------------------------------------------------------------- work


def order_of(number: int) -> str:
    """The order of the tests in run `number`, from 1."""
    return {1: "default", 2: "reversed"}.get(number, f"random:{number}")


def work(services: Services, instance: EvaluatedInstance) -> ValidationOutput:
    """Runs both states. Raises InfrastructureError, and Rejected where nothing could run."""
    started_at = utc_now()
    spec, lock = base_evaluation(services, instance)
    gold = restricted(instance.patch, instance.test_patch, spec.tree, lock)
    patches = {RunState.BEFORE: (instance.test_patch,), RunState.AFTER: (gold.patch, instance.test_patch)}
    runs: list[StoredRun] = []
    report = _run_pairs(services, instance.instance_id, spec, patches, runs)
    finished_at = utc_now()
    certificate = {
        **_certificate(services, instance, runs, report),
        "left_out": list(gold.dropped),
        "started_at": started_at.isoformat(),
        "finished_at": finished_at.isoformat(),
    }
    return ValidationOutput(
        tuple(runs), report, certificate, services.sandboxes.name, certificate["n_runs"], started_at, finished_at
    )


def _run_pairs(
    services: Services,
    instance_id: str,
    spec: EvaluationSpec,
    patches: Mapping[RunState, tuple[str, ...]],
    runs: list[StoredRun],
) -> ValidationReport:
    """Adds to `runs` until there is a verdict; what ran is kept, whatever the verdict."""
    for number in range(1, services.settings.n_validation_runs + 1):
        for state in (RunState.BEFORE, RunState.AFTER):
            run = replace(spec, patches=patches[state], order=order_of(number), hash_seed=number)
            void = _evidence(services, instance_id, run, state, runs)
            if void is not None:
                return void
        if number == 1 and is_hopeless(_summaries(runs, RunState.BEFORE)[0], _summaries(runs, RunState.AFTER)[0]):
            break
    return judge(_summaries(runs, RunState.BEFORE), _summaries(runs, RunState.AFTER))


def _evidence(
    services: Services, instance_id: str, spec: EvaluationSpec, state: RunState, runs: list[StoredRun]
) -> ValidationReport | None:
    """Adds one run that is evidence, and the void one before it if there was one; a report when there is none."""
    results: list[TestRunResult] = []
    while len(results) < 2 and (not results or results[-1].status is RunStatus.VOID):
        results.append(evaluate(services, spec))
        runs.append(stored(services, state, results[-1]))
    last = results[-1]
    if last.status is not RunStatus.VOID:
        return None
    if last.void_cause in _MACHINE_CAN_CAUSE or last.void_cause is not results[0].void_cause:
        raise InfrastructureError(
            f"{instance_id}: two runs of the tests {state.value} the patch are no evidence ({results[0].detail}; then "
            f"{last.detail}); look at the machine and the environment, then retry the job"
        )
    return ValidationReport(reason=RejectReason.TEST_RUN_VOID, detail=f"{state.value} the patch, twice: {last.detail}")


def _summaries(runs: list[StoredRun], state: RunState) -> list[RunSummary]:
    return [summary_of(run.result) for run in runs if run.state is state and run.result.status is not RunStatus.VOID]


def summary_of(result: TestRunResult) -> RunSummary:
    """What grading needs of a run."""
    return RunSummary(
        outcomes={found.test_id: found.outcome for found in result.outcomes},
        collection_errors=tuple(
            f"{error.test_id}: {(error.message.strip().splitlines() or [''])[-1]}" for error in result.collection_errors
        ),
        timed_out=result.status is RunStatus.TIMED_OUT,
    )


def _certificate(
    services: Services, instance: EvaluatedInstance, runs: list[StoredRun], report: ValidationReport
) -> dict[str, Any]:
    before, after = _summaries(runs, RunState.BEFORE), _summaries(runs, RunState.AFTER)
    versions = next((run.result.versions for run in runs if run.result.versions), {})
    return {
        "format": _CERTIFICATE_FORMAT,
        "gold": _share(after, report),
        "empty": _share(before, report),
        "n_runs": min(len(before), len(after)),
        "n_void": sum(run.result.status is RunStatus.VOID for run in runs),
        "n_flaky": len(report.flaky),
        "orders": sorted({run.result.order for run in runs}),
        "offline": True,  # no sandbox of ours has a network
        "sandbox": services.sandboxes.name,
        "environment_digest": instance.environment_digest,
        "lock_digest": instance.lock_digest,
        "python": versions.get("python", ""),
        "pytest": versions.get("pytest", ""),
        "plugin": versions.get("plugin", ""),
        "swefactory": __version__,
    }


def _share(runs: list[RunSummary], report: ValidationReport) -> str:
    """In how many of the runs everything held, as "k/n"."""
    n_resolved = sum(grade(run.outcomes, report.fail_to_pass, report.pass_to_pass).resolved for run in runs)
    return f"{n_resolved}/{len(runs)}"


# ---------------------------------------------------------------- save


def save(session: Session, task_instance_id: int, output: ValidationOutput | Rejected) -> Saved:
    """Writes the validation, its runs and the instance's verdict."""
    instance = session.get_one(TaskInstance, task_instance_id)
    if isinstance(output, Rejected):
        output = _nothing_ran(output)
    report = output.report
    row = _validation_row(session, task_instance_id, instance, output)
    session.add(row)
    session.flush()
    save_runs(session, output.runs, validation_id=row.id)
    is_valid = report.reason is None
    instance.status = InstanceStatus.VALIDATED if is_valid else InstanceStatus.REJECTED
    instance.reject_reason, instance.reject_detail = report.reason, report.detail
    instance.fail_to_pass = list(report.fail_to_pass) if is_valid else []
    instance.pass_to_pass = list(report.pass_to_pass) if is_valid else []
    instance.validated_at = output.finished_at if is_valid else None
    session.add(instance)
    return Saved() if report.reason is None else Saved(rejected=Rejected(report.reason, report.detail))


def _nothing_ran(verdict: Rejected) -> ValidationOutput:
    now = utc_now()
    return ValidationOutput((), ValidationReport(reason=verdict.reason, detail=verdict.detail), {}, "", 0, now, now)


def _validation_row(
    session: Session, task_instance_id: int, instance: TaskInstance, output: ValidationOutput
) -> Validation:
    assert instance.environment_id is not None, "load refuses an instance without an environment"
    query = select(func.max(Validation.number)).where(Validation.task_instance_id == task_instance_id)
    return Validation(
        task_instance_id=task_instance_id,
        environment_id=instance.environment_id,
        number=(session.exec(query).one() or 0) + 1,
        verdict=ValidationVerdict.VALID if output.report.reason is None else ValidationVerdict.REJECTED,
        reason=output.report.reason,
        sandbox=output.sandbox,
        n_runs=output.n_runs,
        n_flaky=len(output.report.flaky),
        certificate=dict(output.certificate),
        started_at=output.started_at,
        finished_at=output.finished_at,
    )


STAGE = Stage(StageName.VALIDATION, load, work, save)
