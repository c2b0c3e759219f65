"""What may leave: validated task instances whose certificate holds and whose two ends of the scale held. One property:
an instance that was asked for leaves or is left out with a sentence; none is lost in between.

`where` is a condition in SQL over the columns of the named query `exportable`; it runs in a transaction that the
database lets write nothing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import batched
from typing import Any

from sqlalchemy import ColumnElement, ScalarSelect, Select, and_, func, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Mapped, aliased
from sqlmodel import Session, col, select

from db import queries
from db.enums import AgentKind, InstanceStatus, ValidationVerdict
from db.models import (
    AgentConfig,
    Environment,
    Issue,
    PullRequest,
    PullRequestIssue,
    Repository,
    Rollout,
    TaskInstance,
    Validation,
    utc_now,
)
from swefactory.certificates import problem, subject_digest
from swefactory.errors import UsageError
from swefactory.exports.manifest import LeftOut

_BATCH = 100


@dataclass(frozen=True)
class Gate:
    """How the oracle and nop did on an instance: resolved of graded rollouts."""

    n_oracle: int = 0
    n_oracle_resolved: int = 0
    n_nop: int = 0
    n_nop_resolved: int = 0

    @property
    def oracle(self) -> str:
        return f"{self.n_oracle_resolved}/{self.n_oracle}"

    @property
    def nop(self) -> str:
        return f"{self.n_nop_resolved}/{self.n_nop}"


@dataclass(frozen=True)
class Subject:
    """One task instance that leaves, with the rows around it."""

    instance: TaskInstance
    repository: Repository
    environment: Environment
    pull_request: PullRequest
    certificate: Mapping[str, Any]
    gate: Gate = Gate()
    issues: tuple[Issue, ...] = field(default=())  # that the pull request resolves, by number

    @property
    def license(self) -> str:
        """The SPDX id under which it was mined."""
        return self.instance.license or self.repository.license


@dataclass(frozen=True)
class Choice:
    """Which instances are asked for."""

    where: str = ""
    uncertified: bool = False
    max_age_days: float = 0
    for_training: bool = False  # then no instance of a benchmark leaves

    def options(self) -> dict[str, object]:
        """As the manifest tells them."""
        return {"where": self.where, "uncertified": self.uncertified, "max_age_days": self.max_age_days}


def subjects(db: Session, choice: Choice) -> Iterator[Subject | LeftOut]:
    """What is asked for, by instance_id in the order of its code points. Raises UsageError for a condition that the
    database does not understand."""
    now = utc_now()
    for batch in batched(db.execute(_statement(db, choice.where)), _BATCH):
        issues = _issues(db, [pull_request.id for _, _, _, pull_request, *_ in batch])
        for instance, repository, environment, pull_request, validation, *counts in batch:
            certificate = dict(validation.certificate) if validation else {}
            gate = Gate(*(int(count or 0) for count in counts))
            why: str | None = (contamination(instance) if choice.for_training else "") or _gate_problem(gate)
            if not why and not choice.uncertified:
                subject = subject_digest(instance.base_commit, instance.patch, instance.test_patch)
                why = problem(
                    certificate, subject=subject, environment_digest=environment.digest, now=now,
                    max_age_days=choice.max_age_days,
                )  # fmt: skip
            if why:
                yield LeftOut(instance.instance_id, why)
            else:
                found = tuple(issues.get(pull_request.id or 0, ()))
                yield Subject(instance, repository, environment, pull_request, certificate, gate, found)


def contamination(instance: TaskInstance) -> str:
    """Why nothing of an instance may be trained on; empty when it may."""
    matched = instance.decontamination.get("matched") or ()
    names = sorted({f"{each['instance_id'] or 'perhaps one'} of {each['benchmark']}" for each in matched})
    return f"never exported to train on: it counts as {', '.join(names)}" if names else ""


def _gate_problem(gate: Gate) -> str:
    if gate.n_nop_resolved:
        return f"an empty patch resolved it in {gate.nop} rollouts"
    if gate.n_oracle_resolved < gate.n_oracle:
        return f"its gold patch resolved it in only {gate.oracle} rollouts"
    return ""


def by_code_point(db: Session, column: Mapped[str]) -> ColumnElement[str]:
    """An order that is the same on every database: PostgreSQL's own follows its locale."""
    found: ColumnElement[str] = column.collate("C") if db.get_bind().dialect.name == "postgresql" else column  # type: ignore[assignment]
    return found


def chosen(db: Session, where: str) -> ColumnElement[bool]:
    """The instances that `where` chooses. Raises UsageError."""
    inner = f"({queries.sql_of('exportable').replace(':repository', 'NULL')}) AS subject"
    columns = list(db.execute(text(f"SELECT * FROM {inner} LIMIT 0")).keys())  # noqa: S608 - our own text
    condition = where.replace(":", "\\:")
    sql = f"task_instance.instance_id IN (SELECT subject.instance_id FROM {inner} WHERE (\n{condition}\n))"  # noqa: S608
    try:  # as a part of a whole, so that what would end it early is told, too
        db.execute(text(f"SELECT 1 FROM task_instance WHERE ({sql}) LIMIT 0"))  # noqa: S608
    except DBAPIError as error:
        raise UsageError(
            f"--where {where!r} is no condition: {str(error.orig).splitlines()[0]}; it may name {', '.join(columns)}"
        ) from error
    return text(sql)  # type: ignore[return-value]


def _statement(db: Session, where: str) -> Select[Any]:
    newest = aliased(Validation)
    number = (
        select(func.max(newest.number))
        .where(newest.task_instance_id == TaskInstance.id, newest.verdict == ValidationVerdict.VALID)
        .scalar_subquery()
    )
    counts = [_count(kind, resolved) for kind in (AgentKind.ORACLE, AgentKind.NOP) for resolved in (False, True)]
    statement = (
        select(TaskInstance, Repository, Environment, PullRequest, Validation, *counts)  # type: ignore[call-overload]
        .join(Repository, col(TaskInstance.repository_id) == col(Repository.id))
        .join(Environment, col(TaskInstance.environment_id) == col(Environment.id))
        .join(PullRequest, col(TaskInstance.pull_request_id) == col(PullRequest.id))
        .outerjoin(
            Validation, and_(col(Validation.task_instance_id) == col(TaskInstance.id), col(Validation.number) == number)
        )
        .where(TaskInstance.status == InstanceStatus.VALIDATED)
        .order_by(by_code_point(db, col(TaskInstance.instance_id)))
        .execution_options(yield_per=_BATCH)
    )
    found: Select[Any] = statement.where(chosen(db, where)) if where else statement
    return found


def _count(kind: AgentKind, resolved: bool) -> ScalarSelect[int]:
    """How many rollouts of a kind were graded, or resolved."""
    verdict = col(Rollout.resolved).is_(True) if resolved else col(Rollout.resolved).is_not(None)
    return (
        select(func.count())
        .select_from(Rollout)
        .join(AgentConfig, col(AgentConfig.id) == col(Rollout.agent_config_id))
        .where(col(Rollout.task_instance_id) == col(TaskInstance.id), AgentConfig.kind == kind, verdict)
        .correlate(TaskInstance)
        .scalar_subquery()
    )


def _issues(db: Session, pull_request_ids: list[int]) -> dict[int, list[Issue]]:
    statement = (
        select(PullRequestIssue.pull_request_id, Issue)
        .join(Issue, col(Issue.id) == col(PullRequestIssue.issue_id))
        .where(col(PullRequestIssue.pull_request_id).in_(pull_request_ids))
        .order_by(col(Issue.number))
    )
    found: dict[int, list[Issue]] = {}
    for pull_request_id, issue in db.exec(statement):
        found.setdefault(pull_request_id, []).append(issue)
    return found
