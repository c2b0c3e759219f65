"""What is asked of critics, and the choice made of their answers, as the catalog holds both.

One property: asking twice is asking once, and a choice is only made among tries that were all asked the same.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlmodel import Session, col, select

from db import jobs
from db.enums import CriticKind, ExitStatus, StageName
from db.models import AgentConfig, Rollout, RolloutScore, TaskInstance
from swefactory.agents.critics import check_name
from swefactory.choosing import REPRODUCTION, Order, Try
from swefactory.errors import UsageError

_MASKED = (ExitStatus.INFRASTRUCTURE_ERROR, ExitStatus.MODEL_ERROR, ExitStatus.CANCELLED)
BY_TESTS = (CriticKind.PASS_TO_PASS.value, CriticKind.REPRODUCTION.value)

type _Key = tuple[int, str, int]  # rollout, critic, evidence
type _Scores = dict[tuple[str, int], RolloutScore]  # of one rollout, by critic and evidence


@dataclass(frozen=True)
class Tries:
    """The tries of one agent at one instance that there is a choice among, by their replica."""

    agent: str
    instance_id: str
    rollouts: tuple[Rollout, ...]
    tries: tuple[Try, ...]  # in the same order
    critics: frozenset[str]  # those that have scored all of them

    @property
    def is_graded(self) -> bool:
        return all(each.resolved is not None for each in self.tries)


def ask(
    db: Session,
    critics: Collection[str],
    *,
    agents: Collection[int] = (),
    instance_ids: Collection[str] = (),
    max_attempts: int = 3,
) -> int:
    """Queues what these critics were not asked yet about ended rollouts; how many scores that is. Raises UsageError
    for a critic that is none, or when there is no such rollout."""
    for critic in critics:
        if critic not in BY_TESTS:
            check_name(critic)
    groups = _groups(db, agents, instance_ids)
    if not groups:
        raise UsageError("no rollout that counts has ended; see `swefactory rollout list`")
    known = {(row.rollout_id, row.critic, row.evidence_id) for row in db.exec(select(RolloutScore))}
    n_new = 0
    for instance, _, rollouts in groups:
        new = [key for key in _wanted(rollouts, critics) if key not in known]
        db.add_all(RolloutScore(rollout_id=key[0], critic=key[1], evidence_id=key[2]) for key in new)
        n_new += len(new)
        if new and instance.id is not None:
            options = {"repository_id": instance.repository_id, "max_attempts": max_attempts}
            jobs.enqueue(db, StageName.SCORE, instance.id, again=True, **options)
    return n_new


def _wanted(rollouts: Sequence[Rollout], critics: Iterable[str]) -> list[_Key]:
    ids = [each.id or 0 for each in rollouts]
    return [
        (rollout_id, critic, evidence_id)
        for critic in critics
        for rollout_id in ids
        for evidence_id in (ids if critic == REPRODUCTION else (rollout_id,))
    ]


def _groups(
    db: Session, agents: Collection[int], instance_ids: Collection[str]
) -> list[tuple[TaskInstance, AgentConfig, list[Rollout]]]:
    """Ended rollouts that count, by instance and agent."""
    statement = (
        select(Rollout, TaskInstance, AgentConfig)
        .join(TaskInstance, col(Rollout.task_instance_id) == col(TaskInstance.id))
        .join(AgentConfig, col(Rollout.agent_config_id) == col(AgentConfig.id))
        .where(col(Rollout.finished_at).is_not(None), col(Rollout.exit_status).not_in(_MASKED))
        .order_by(AgentConfig.name, col(AgentConfig.id), TaskInstance.instance_id, col(Rollout.replica))
    )
    if agents:
        statement = statement.where(col(AgentConfig.id).in_(agents))
    if instance_ids:
        statement = statement.where(col(TaskInstance.instance_id).in_(instance_ids))
    found: dict[tuple[int, int], tuple[TaskInstance, AgentConfig, list[Rollout]]] = {}
    for rollout, instance, config in db.exec(statement):
        group = found.setdefault((instance.id or 0, config.id or 0), (instance, config, []))
        if not rollout.suspicious:
            group[2].append(rollout)
    return [group for group in found.values() if group[2]]


# ---------------------------------------------------------------- answers


def tries(db: Session, *, agents: Collection[int] = (), instance_ids: Collection[str] = ()) -> list[Tries]:
    """The tries of each agent at each instance, with what was said of them."""
    scores: dict[int, _Scores] = {}
    for row in db.exec(select(RolloutScore)):
        scores.setdefault(row.rollout_id, {})[row.critic, row.evidence_id] = row
    return [
        _tries(instance.instance_id, config.name, rollouts, [scores.get(each.id or 0, {}) for each in rollouts])
        for instance, config, rollouts in _groups(db, agents, instance_ids)
    ]


def _tries(instance_id: str, agent: str, rollouts: Sequence[Rollout], scores: Sequence[_Scores]) -> Tries:
    ids = [each.id or 0 for each in rollouts]
    named = {critic for rows in scores for critic, _ in rows}
    whole = frozenset(critic for critic in named if _is_whole(ids, critic, scores))
    found = [
        Try(
            rollout.resolved,
            _known({critic: rows[critic, own] for critic in whole if critic != REPRODUCTION}),
            _known({at: rows[REPRODUCTION, author] for at, author in enumerate(ids) if REPRODUCTION in whole}),
        )
        for rollout, own, rows in zip(rollouts, ids, scores, strict=True)
    ]
    return Tries(agent, instance_id, tuple(rollouts), tuple(found), whole)


def _known[K](rows: Mapping[K, RolloutScore]) -> dict[K, float]:
    return {key: row.score for key, row in rows.items() if row.score is not None}


def _is_whole(ids: Sequence[int], critic: str, scores: Sequence[_Scores]) -> bool:
    """Whether this critic has spoken of all of these; of tests that an author did not write, that there are none."""
    if critic == REPRODUCTION:
        found = [rows.get((critic, author)) for rows in scores for author in ids]
        return all(row is not None and row.scored_at is not None for row in found)
    found = [rows.get((critic, own)) for own, rows in zip(ids, scores, strict=True)]
    return all(row is not None and row.score is not None for row in found)


def orders(given: Sequence[str], known: Collection[str]) -> list[Order]:
    """The orders that `given` names, "a,b" each; none given: each critic alone, and all of them, tests first. Raises
    UsageError for a critic that has said nothing."""
    places = {critic: at for at, critic in enumerate(BY_TESTS)}
    every: Order = tuple(sorted(known, key=lambda critic: (places.get(critic, len(places)), critic)))
    if not given:
        return [(critic,) for critic in every] + ([every] if len(every) > 1 else [])
    found = [tuple(part.strip() for part in text.split(",") if part.strip()) for text in given]
    for order in found:
        if strange := [critic for critic in order if critic not in known] or ([] if order else [""]):
            said = ", ".join(every) or "none"
            raise UsageError(f"no scores of {strange[0]!r} in the catalog, there are: {said}; see `rollout score`")
    return found
