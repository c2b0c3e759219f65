"""Grading: whether a rollout's patch resolves its task instance. Subject: rollout_id.

Only the patch's text crosses from the rollout. What may be graded of it (model_patches) is applied to the base commit
in a fresh sandbox of the pristine environment, the test_patch on top. One property: no signal from inside a sandbox
can raise a verdict; it takes a completed run in which every FAIL_TO_PASS and PASS_TO_PASS holds.

    empty, unreadable or not applying      unresolved, nothing runs
    completed                              resolved or not
    void                                   once more; then as below
    void twice, or timed out               a control run with the gold patch: when it is resolved, the patch is at
                                           fault and unresolved; otherwise this machine is, and the job is retried

So a patch that breaks its own grading gets a verdict after three runs at most, and a broken machine none.
The control run is kept as a run of state `after` of the rollout. What in the patch is suspicious, by the rules of
swefactory.suspicion, is written beside the verdict, which stays what the tests said; no rate and no export counts it.
"""

from dataclasses import dataclass, replace

from sqlmodel import Session

from db.enums import RejectReason, RunState, RunStatus, StageName
from db.models import Rollout
from swefactory.errors import InfrastructureError, Rejected
from swefactory.evaluation import EvaluationSpec, TestRunResult, evaluate, reader, restricted
from swefactory.grading import GradeReport, grade
from swefactory.instance_runs import EvaluatedInstance, StoredRun, base_evaluation, load_instance, save_runs, stored
from swefactory.stage import Saved, Services, Stage
from swefactory.suspicion import suspicions


@dataclass(frozen=True)
class GradeInput:
    """A rollout's patch and the instance it is for."""

    rollout_id: int
    model_patch: str
    instance: EvaluatedInstance


@dataclass(frozen=True)
class GradeOutput:
    """The verdict and the runs it rests on; the last run of state `model` says why in its detail."""

    runs: tuple[StoredRun, ...]
    resolved: bool
    suspicious: tuple[str, ...] = ()  # rules of swefactory.suspicion that the patch meets


def load(session: Session, rollout_id: int) -> GradeInput:
    """Raises InfrastructureError when the instance has no FAIL_TO_PASS to grade against."""
    rollout = session.get_one(Rollout, rollout_id)
    instance = load_instance(session, rollout.task_instance_id)
    if not instance.fail_to_pass:
        raise InfrastructureError(
            f"rollout {rollout_id}: {instance.instance_id} is not validated, so there is nothing to grade it against; "
            "validate the instance, then retry the job"
        )
    return GradeInput(rollout_id, rollout.model_patch or "", instance)


# ---------------------------------------------------------------- work


def work(services: Services, task: GradeInput) -> GradeOutput:
    """The verdict on the patch. Raises InfrastructureError when the control run fails, too."""
    spec, lock = base_evaluation(services, task.instance)
    output = _verdict(services, task, spec, lock)
    rules = suspicions(task.model_patch, task.instance.patch, reader(spec.tree))
    return replace(output, suspicious=rules)


def _verdict(services: Services, task: GradeInput, spec: EvaluationSpec, lock: str) -> GradeOutput:
    instance = task.instance
    try:
        allowed = restricted(task.model_patch, instance.test_patch, spec.tree, lock, spec.test_command)
        note = f"left out of the patch: {', '.join(allowed.dropped)}" if allowed.dropped else ""
        if not allowed.patch.strip():
            return _not_run("the patch is empty", note)
        runs = _model_runs(services, replace(spec, patches=(allowed.patch, instance.test_patch)))
    except Rejected as verdict:
        if verdict.reason is not RejectReason.PATCH_DOES_NOT_APPLY:
            raise
        return _not_run(verdict.detail)
    last = runs[-1].result
    if last.status is RunStatus.COMPLETED:
        report = _grade(last, instance)
        return GradeOutput((*runs[:-1], _explained(runs[-1], _said(report), note)), report.resolved)
    control = _control_run(services, task, spec, lock, last)
    said = f"{last.detail}; the gold patch is resolved in the same environment, so the patch is at fault"
    return GradeOutput((*runs[:-1], _explained(runs[-1], said, note), control), False)


def _model_runs(services: Services, spec: EvaluationSpec) -> list[StoredRun]:
    """One run, or two when the first is void."""
    runs = [stored(services, RunState.MODEL, evaluate(services, spec))]
    if runs[0].result.status is RunStatus.VOID:
        runs.append(stored(services, RunState.MODEL, evaluate(services, spec)))
    return runs


def _control_run(
    services: Services, task: GradeInput, spec: EvaluationSpec, lock: str, model: TestRunResult
) -> StoredRun:
    """The same run with the gold patch. Raises InfrastructureError when it is not resolved."""
    instance = task.instance
    gold = restricted(instance.patch, instance.test_patch, spec.tree, lock, spec.test_command)
    result = evaluate(services, replace(spec, patches=(gold.patch, instance.test_patch)))
    if result.status is not RunStatus.COMPLETED or not _grade(result, instance).resolved:
        raise InfrastructureError(
            f"rollout {task.rollout_id}: the grading run is no evidence ({model.detail}), and {instance.instance_id} "
            f"is not resolved by its own gold patch here either ({result.detail or result.status.value}); look at the "
            "machine and the environment, then retry the job"
        )
    return stored(services, RunState.AFTER, replace(result, detail="control run with the gold patch: resolved"))


def _grade(result: TestRunResult, instance: EvaluatedInstance) -> GradeReport:
    outcomes = {found.test_id: found.outcome for found in result.outcomes}
    return grade(outcomes, instance.fail_to_pass, instance.pass_to_pass)


def _said(report: GradeReport) -> str:
    """Why, in one sentence."""
    if report.resolved:
        return "resolved"
    n_fixed, n_kept = sum(report.fail_to_pass.values()), sum(report.pass_to_pass.values())
    return (
        f"{n_fixed} of {len(report.fail_to_pass)} FAIL_TO_PASS and {n_kept} of {len(report.pass_to_pass)} PASS_TO_PASS "
        f"hold; not {', '.join(report.missed[:3])}{' and more' if len(report.missed) > 3 else ''}"
    )


def _explained(run: StoredRun, said: str, note: str) -> StoredRun:
    notes = (said, note, run.result.detail if run.result.status is RunStatus.COMPLETED else "")
    return replace(run, result=replace(run.result, detail="; ".join(text for text in notes if text)))


def _not_run(*said: str) -> GradeOutput:
    """Unresolved without a run; a void run without a log carries the reason."""
    detail = "; ".join(text for text in said if text)
    return GradeOutput((StoredRun(RunState.MODEL, TestRunResult(RunStatus.VOID, "default", detail), None),), False)


# ---------------------------------------------------------------- save


def save(session: Session, rollout_id: int, output: GradeOutput | Rejected) -> Saved:
    """Writes the runs and `resolved`; without a verdict (the base commit is gone) `resolved` stays unknown."""
    if isinstance(output, Rejected):
        return Saved(rejected=output)
    save_runs(session, output.runs, rollout_id=rollout_id)
    rollout = session.get_one(Rollout, rollout_id)
    rollout.resolved, rollout.suspicious = output.resolved, list(output.suspicious)
    session.add(rollout)
    return Saved()


STAGE = Stage(StageName.GRADE, load, work, save)
