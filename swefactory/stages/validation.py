"""Validation: proves a task instance, or disproves it. Subject: task_instance_id. The end of the automatic chain.

    run k   before, after     each in a fresh sandbox, offline; conditions by swefactory.stability
                              before = base + test_patch, after = base + the gold patch + test_patch
    probe                     one run after, with a network, where tests fail without one: names those that need it
    audit                     what an agent would see holds one commit and nothing of the fix (swefactory.leak_audit)

One property: a verdict rests on completed runs only. The gold patch passes the gate of model_patches first, as an
agent's will, so what is validated is what can be graded. After the first pair, more runs are left out when it already
proves a rejection that they could not take back; where tests are unstable after the last, some more tell by what.

A void run is no evidence; it is repeated once, or twice where its process was killed. Void again for another cause, or
for one that can be this machine's fault, the job fails and is retried. Void again for the same cause, the tests do it
themselves (they end the process, write into the record, hide failures): the verdict is TEST_RUN_VOID. A run with little
CPU or at another time that does not end in time is no evidence either; one in plain conditions takes its place.
"""

from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import func, insert
from sqlmodel import Session, select

from db.enums import Change, InstanceStatus, RejectReason, RunState, RunStatus, Stability, StageName, ValidationVerdict
from db.models import TaskInstance, Validation, utc_now
from db.models import TestVerdict as TestVerdictRow
from swefactory import __version__
from swefactory.artifacts import digest_of
from swefactory.certificates import Certificate, LeakReport, host_facts, subject_digest, tier_of
from swefactory.errors import Rejected
from swefactory.evaluation import restricted
from swefactory.grading import RunSummary, ValidationReport, grade, held_to
from swefactory.instance_runs import EvaluatedInstance, StoredRun, base_evaluation, load_instance, save_runs
from swefactory.leak_audit import audit
from swefactory.stability import (
    TestVerdict,
    upper_bound,
    verdicts,
)
from swefactory.stage import Saved, Services, Stage
from swefactory.validation_runs import online, probe_online, run_pairs, summaries

_STABLE = frozenset((Stability.STABLE_PASS, Stability.STABLE_FAIL, Stability.STABLE_SKIP))


@dataclass(frozen=True)
class ValidationOutput:
    """All runs in their order, what they prove, what they say of each test, and the certificate."""

    runs: tuple[StoredRun, ...]
    report: ValidationReport
    verdicts: tuple[TestVerdict, ...]
    certificate: Certificate | None  # None: nothing ran
    sandbox: str
    started_at: datetime
    finished_at: datetime


def load(session: Session, task_instance_id: int) -> EvaluatedInstance:
    """The instance and its environment."""
    return load_instance(session, task_instance_id)


# ---------------------------------------------------------------- work


def work(services: Services, instance: EvaluatedInstance) -> ValidationOutput:
    """Runs both states. Raises InfrastructureError, and Rejected where nothing could run."""
    started_at = utc_now()
    spec, lock = base_evaluation(services, instance)
    gold = restricted(instance.patch, instance.test_patch, spec.tree, lock, spec.test_command)
    patches = {RunState.BEFORE: (instance.test_patch,), RunState.AFTER: (gold.patch, instance.test_patch)}
    runs: list[StoredRun] = []
    report = run_pairs(services, instance, spec, patches, runs)
    if instance.published:
        report = held_to(report, instance.published.fail_to_pass, instance.published.pass_to_pass)
    unprobed = probe_online(services, spec, patches[RunState.AFTER], runs)
    leaks = audit(services, spec, gold.patch) if report.reason is None else None
    if leaks and leaks.findings:
        said = f"{len(leaks.findings)} findings: {'; '.join(leaks.findings[:3])}"
        report = replace(report, reason=RejectReason.CHECKOUT_LEAKS_FIX, detail=said)
    found = verdicts(summaries(runs, RunState.BEFORE), summaries(runs, RunState.AFTER), online(runs))
    finished_at = utc_now()
    certificate = _certificate(services, instance, runs, report, found, leaks, gold.dropped, (started_at, finished_at))
    certificate = certificate.model_copy(update={"not_run": (*certificate.not_run, *_unprobed(unprobed))})
    return ValidationOutput(tuple(runs), report, found, certificate, services.sandboxes.name, started_at, finished_at)


# ---------------------------------------------------------------- the certificate


def _certificate(
    services: Services,
    instance: EvaluatedInstance,
    runs: list[StoredRun],
    report: ValidationReport,
    found: tuple[TestVerdict, ...],
    leaks: LeakReport | None,
    left_out: tuple[str, ...],
    times: tuple[datetime, datetime],
) -> Certificate:
    before, after = summaries(runs, RunState.BEFORE), summaries(runs, RunState.AFTER)
    n_runs = min(len(before), len(after))
    versions = next((run.result.versions for run in runs if run.result.versions), {})
    unstable = Counter(v.value for verdict in found for v in {verdict.before, verdict.after} - _STABLE)
    return Certificate(
        instance_id=instance.instance_id,
        subject=subject_digest(instance.base_commit, instance.patch, instance.test_patch),
        gold=_share(after, report),
        empty=_share(before, report),
        tier=tier_of(n_runs),
        n_runs=n_runs,
        n_void=sum(run.result.status is RunStatus.VOID and not run.result.conditions.is_online for run in runs),
        orders=tuple(sorted({run.result.order for run in runs})),
        conditions=_conditions_held(runs),
        not_run=_not_run(runs),
        n_tests=len(found),
        n_fail_to_pass=len(report.fail_to_pass),
        n_error_to_pass=sum(verdict.change is Change.ERROR_TO_PASS for verdict in found),
        n_flaky=len(report.flaky),
        unstable=dict(sorted(unstable.items())),
        flip_rate_upper=round(upper_bound(0, n_runs), 6),
        leaks=leaks,
        environment_digest=instance.environment_digest,
        lock_digest=instance.lock_digest,
        python=versions.get("python", ""),
        pytest=versions.get("pytest", ""),
        plugin=versions.get("plugin", ""),
        runner=versions.get("runner") or "pytest",
        swefactory=__version__,
        host=host_facts(services.sandboxes.name),
        left_out=left_out,
        started_at=times[0],
        finished_at=times[1],
    )


def _conditions_held(runs: list[StoredRun]) -> dict[str, int]:
    """In how many completed runs each condition was measured."""
    completed = [run.result for run in runs if run.result.status is RunStatus.COMPLETED]
    done = [result for result in completed if not result.conditions.is_online]
    return {
        "network": sum(result.measured.get("network") == "out" for result in completed),
        "low_cpu": sum(result.conditions.is_slow for result in done),
        "shifted_zone": sum(result.measured.get("utc_offset") == "+1400" for result in done),
        "shifted_clock": sum(bool(result.measured.get("clock_shift_s")) for result in done),
        "hash_seeds": len({result.measured["hash_seed"] for result in done if "hash_seed" in result.measured}),
    }


def _not_run(runs: list[StoredRun]) -> tuple[str, ...]:
    """What the policy wants and did not happen, in words."""
    held = _conditions_held(runs)
    wanted = {
        "low_cpu": "a run with little CPU: no run had less than three quarters of one",
        "shifted_zone": "a run in another time zone",
        "shifted_clock": "a run at another time: the sandbox holds no C compiler to build the clock with",
    }
    return tuple(text for name, text in wanted.items() if not held[name])


def _unprobed(why: str | None) -> tuple[str, ...]:
    """That no run had a network, and why: tests that need one are then named by the texts of their failures."""
    return () if why is None else (f"a run with a network: {why}",)


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
    assert row.id is not None
    save_runs(session, output.runs, validation_id=row.id)
    _save_verdicts(session, row.id, output.verdicts)
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
    report = ValidationReport(reason=verdict.reason, detail=verdict.detail)
    return ValidationOutput((), report, (), None, "", now, now)


def _save_verdicts(session: Session, validation_id: int, found: tuple[TestVerdict, ...]) -> None:
    rows = [
        {
            "validation_id": validation_id,
            "test_id": verdict.test_id,
            "test_digest": digest_of(verdict.test_id.encode("utf-8", "surrogatepass")),
            "change": verdict.change,
            "before": verdict.before,
            "after": verdict.after,
            "n_runs": verdict.n_runs,
            "n_flips": verdict.n_flips,
            "flip_rate_upper": verdict.flip_rate_upper,
        }
        for verdict in found
    ]
    if rows:
        session.execute(insert(TestVerdictRow), rows)


def _validation_row(
    session: Session, task_instance_id: int, instance: TaskInstance, output: ValidationOutput
) -> Validation:
    assert instance.environment_id is not None, "load refuses an instance without an environment"
    query = select(func.max(Validation.number)).where(Validation.task_instance_id == task_instance_id)
    certificate = output.certificate
    return Validation(
        task_instance_id=task_instance_id,
        environment_id=instance.environment_id,
        number=(session.exec(query).one() or 0) + 1,
        verdict=ValidationVerdict.VALID if output.report.reason is None else ValidationVerdict.REJECTED,
        reason=output.report.reason,
        sandbox=output.sandbox,
        tier=certificate.tier if certificate else None,
        n_runs=certificate.n_runs if certificate else 0,
        n_flaky=len(output.report.flaky),
        certificate=certificate.model_dump(mode="json") if certificate else {},
        started_at=output.started_at,
        finished_at=output.finished_at,
    )


STAGE = Stage(StageName.VALIDATION, load, work, save)
