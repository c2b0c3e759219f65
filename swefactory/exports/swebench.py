"""Validated task instances as SWE-bench rows, one JSON object a line.

Field names and forms are those of the SWE-bench data sets (FAIL_TO_PASS and PASS_TO_PASS are JSON lists in a
string); `certificate`, `python_version` and `environment_digest` are ours. Only validated instances leave, and
only with a certificate that holds (swefactory.certificates), unless told otherwise.
"""

import json
from collections.abc import Collection, Iterator

from sqlmodel import Session, col, select

from db.models import Environment, InstanceStatus, Repository, TaskInstance, Validation, ValidationVerdict, utc_now
from swefactory.certificates import problem, subject_digest
from swefactory.exports.writer import Row


def uncertified(db: Session, max_age_days: float = 0) -> dict[str, str]:
    """Validated instances whose certificate does not hold now: instance_id -> why."""
    now, found = utc_now(), {}
    statement = (
        select(TaskInstance, Environment)
        .join(Environment, col(TaskInstance.environment_id) == col(Environment.id))
        .where(TaskInstance.status == InstanceStatus.VALIDATED)
        .order_by(TaskInstance.instance_id)
    )
    for instance, environment in db.exec(statement):
        subject = subject_digest(instance.base_commit, instance.patch, instance.test_patch)
        why = problem(
            _certificate(db, instance), subject=subject, environment_digest=environment.digest, now=now,
            max_age_days=max_age_days,
        )  # fmt: skip
        if why:
            found[instance.instance_id] = why
    return found


def rows(db: Session, left_out: Collection[str] = ()) -> Iterator[Row]:
    """Every validated instance but those `left_out`, by instance_id."""
    statement = (
        select(TaskInstance, Repository, Environment)
        .join(Repository, col(TaskInstance.repository_id) == col(Repository.id))
        .join(Environment, col(TaskInstance.environment_id) == col(Environment.id))
        .where(TaskInstance.status == InstanceStatus.VALIDATED)
        .order_by(TaskInstance.instance_id)
        .execution_options(yield_per=100)
    )
    for instance, repository, environment in db.exec(statement):
        if instance.instance_id in left_out:
            continue
        yield {
            "instance_id": instance.instance_id,
            "repo": repository.name,
            "version": instance.version,
            "base_commit": instance.base_commit,
            "environment_setup_commit": instance.environment_setup_commit,
            "patch": instance.patch,
            "test_patch": instance.test_patch,
            "problem_statement": instance.problem_statement,
            "hints_text": instance.hints_text,
            "created_at": instance.created_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "FAIL_TO_PASS": json.dumps(instance.fail_to_pass),
            "PASS_TO_PASS": json.dumps(instance.pass_to_pass),
            "license": instance.license or repository.license,
            "statement_strips": instance.statement_strips,
            "decontamination": instance.decontamination,
            "python_version": environment.python_version,
            "environment_digest": environment.digest,
            "certificate": _certificate(db, instance),
        }


def _certificate(db: Session, instance: TaskInstance) -> dict[str, object]:
    """The certificate of the newest validation that held."""
    newest = (
        select(Validation)
        .where(Validation.task_instance_id == instance.id, Validation.verdict == ValidationVerdict.VALID)
        .order_by(col(Validation.number).desc())
    )
    validation = db.exec(newest).first()
    return dict(validation.certificate) if validation else {}
