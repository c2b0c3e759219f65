"""Graded rollouts as exports of trajectories and preferences see them. One property: what was asked for comes out whole
and judged, or is left out with a sentence.

`confirmed_by` are the instance's tests that passed in the run that graded the rollout, not those that should have: a
resolved rollout whose instance has other tests by now is left out until it is graded again.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select
from sqlmodel import Session, col, select

from db.enums import ExitStatus, FlagKind, Outcome, RunState, RunStatus
from db.models import AgentConfig, Repository, Rollout, RolloutFlag, TaskInstance, TestOutcome, TestRun
from swefactory.exports.manifest import LeftOut
from swefactory.exports.subjects import by_code_point, chosen, contamination
from swefactory.protocols import ArtifactStore
from swefactory.trajectories import Trajectory, read
from swefactory.trajectory_filters import DEFAULT_MAX_TOKENS, Fitness, judge, token_counter

# How a rollout ended where that says nothing of the agent: neither a success nor a failure of its.
NOT_THE_AGENTS = (ExitStatus.MODEL_ERROR, ExitStatus.INFRASTRUCTURE_ERROR, ExitStatus.CANCELLED)
_BATCH = 20


@dataclass(frozen=True)
class RolloutChoice:
    """Which rollouts are asked for: resolved ones, unless `unresolved` too; `suspicious` ones only where told."""

    where: str = ""
    unresolved: bool = False
    suspicious: bool = False
    max_tokens: int | None = DEFAULT_MAX_TOKENS
    tokenizer: str = "bytes"

    def options(self) -> dict[str, object]:
        """As the manifest tells them."""
        return dict(vars(self))


@dataclass(frozen=True)
class RolloutSubject:
    """One rollout with its trajectory, and what is thought of it."""

    rollout: Rollout
    instance: TaskInstance
    repository: Repository
    agent: AgentConfig
    trajectory: Trajectory
    fitness: Fitness
    confirmed_by: tuple[str, ...]
    flags: tuple[FlagKind, ...]

    @property
    def key(self) -> str:
        return key_of(self.instance, self.agent, self.rollout)

    @property
    def license(self) -> str:
        return self.instance.license or self.repository.license

    @property
    def is_clean(self) -> bool:
        """Whether nothing about it looks like cheating."""
        return not self.rollout.suspicious and not self.flags

    def facts(self) -> dict[str, Any]:
        """What every row that is made of it says."""
        return {
            "instance_id": self.instance.instance_id,
            "repo": self.repository.name,
            "license": self.license,
            "agent": self.agent.name,
            "agent_digest": self.agent.digest,
            "model": self.agent.model,
            "replica": self.rollout.replica,
            "run_id": self.key,
            "resolved": bool(self.rollout.resolved),
            "suspicious": list(self.rollout.suspicious),
            "flags": [kind.value for kind in self.flags],
            "exit_status": self.rollout.exit_status.value if self.rollout.exit_status else "",
            "n_turns": self.rollout.n_turns,
            "confirmed_by": list(self.confirmed_by),
            "filter_reason": self.fitness.fault.value if self.fitness.fault else "",
            "n_tokens": self.fitness.n_tokens,
            "mask": list(self.fitness.mask),
        }


def key_of(instance: TaskInstance, agent: AgentConfig, rollout: Rollout) -> str:
    """instance/agent/replica: the same for the same rollout in every export and every catalog."""
    return f"{instance.instance_id}/{agent.digest}/{rollout.replica:06}"


def rollout_subjects(
    db: Session, artifacts: ArtifactStore, choice: RolloutChoice
) -> Iterator[RolloutSubject | LeftOut]:
    """Graded rollouts with a conversation, in the order of their keys. Raises UsageError, ArtifactError."""
    count = token_counter(choice.tokenizer)
    for row in db.execute(_statement(db, choice)):
        rollout, instance, repository, agent = row
        key = key_of(instance, agent, rollout)
        if why := _problem(rollout, instance, choice):
            yield LeftOut(key, why)
            continue
        confirmed_by = confirmed(db, rollout, instance)
        if rollout.resolved and {*instance.fail_to_pass, *instance.pass_to_pass} - {*confirmed_by}:
            yield LeftOut(key, "it was graded against other tests than its instance has now; grade it again")
            continue
        trajectory = _trajectory(artifacts, rollout)
        fitness = judge(trajectory, count, max_tokens=choice.max_tokens)
        yield RolloutSubject(
            rollout, instance, repository, agent, trajectory, fitness, confirmed_by, _flags(db, rollout)
        )


def _problem(rollout: Rollout, instance: TaskInstance, choice: RolloutChoice) -> str:
    if why := contamination(instance):
        return why
    if rollout.suspicious and not choice.suspicious:
        return f"its patch may have fooled the tests: {', '.join(rollout.suspicious)}"
    return "" if rollout.trajectory_digest else "its events were not kept"


def _statement(db: Session, choice: RolloutChoice) -> Select[Any]:
    """Their order is that of keys: "/" is part of it, since ids hold characters on either side of it."""
    instance_id = by_code_point(db, col(TaskInstance.instance_id) + "/")  # type: ignore[arg-type]
    statement = (
        select(Rollout, TaskInstance, Repository, AgentConfig)
        .join(TaskInstance, col(Rollout.task_instance_id) == col(TaskInstance.id))
        .join(Repository, col(TaskInstance.repository_id) == col(Repository.id))
        .join(AgentConfig, col(Rollout.agent_config_id) == col(AgentConfig.id))
        .where(col(Rollout.messages_digest).is_not(None), col(Rollout.exit_status).not_in(NOT_THE_AGENTS))
        .where(col(Rollout.resolved).is_not(None) if choice.unresolved else col(Rollout.resolved).is_(True))
        .order_by(instance_id, by_code_point(db, col(AgentConfig.digest)), col(Rollout.replica))
        .execution_options(yield_per=_BATCH)
    )
    found: Select[Any] = statement.where(chosen(db, choice.where)) if choice.where else statement  # type: ignore[assignment]
    return found


def _trajectory(artifacts: ArtifactStore, rollout: Rollout) -> Trajectory:
    assert rollout.trajectory_digest is not None
    assert rollout.messages_digest is not None
    events = artifacts.get(rollout.trajectory_digest).decode().split("\n")
    conversation: Mapping[str, Any] = json.loads(artifacts.get(rollout.messages_digest))
    return read(events, conversation)


def confirmed(db: Session, rollout: Rollout, instance: TaskInstance) -> tuple[str, ...]:
    """Of the instance's tests those that passed in the last completed run of the rollout's patch, sorted."""
    last = (
        select(TestRun.id)
        .where(TestRun.rollout_id == rollout.id, TestRun.state == RunState.MODEL)
        .where(TestRun.status == RunStatus.COMPLETED)
        .order_by(col(TestRun.number).desc())
        .limit(1)
        .scalar_subquery()
    )
    passed = select(TestOutcome.test_id).where(TestOutcome.test_run_id == last, TestOutcome.outcome == Outcome.PASSED)
    named = {*instance.fail_to_pass, *instance.pass_to_pass}
    found: set[str] = set(db.exec(passed))
    return tuple(sorted(named & found))


def _flags(db: Session, rollout: Rollout) -> tuple[FlagKind, ...]:
    found = db.exec(select(RolloutFlag.kind).where(RolloutFlag.rollout_id == rollout.id).distinct())
    return tuple(sorted(FlagKind(kind) for kind in found))
