"""Scores: what tests and critics say of the rollouts of one instance, to choose among them. Subject: task_instance_id.

    asked for (rows without scored_at) ─► agreement with tests, all at once ─► one critic's one question, and again

One property: nothing that decides is known here. The input holds neither gold patch nor test_patch nor FAIL_TO_PASS nor
verdicts, so no score can tell of them; see swefactory.agreements for what of PASS_TO_PASS is used. A critic is asked
one question a job, so that a worker that dies costs one answer at most.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sqlmodel import Session, col, select

from db.enums import CriticKind, StageName
from db.models import Rollout, RolloutScore, TaskInstance, utc_now
from swefactory.agreements import Candidate, agreements
from swefactory.errors import Rejected
from swefactory.instance_runs import EvaluatedInstance, load_instance
from swefactory.protocols import CriticAnswer, CriticQuestion
from swefactory.stage import NextJob, Saved, Services, Stage

_BY_TESTS = (CriticKind.PASS_TO_PASS, CriticKind.REPRODUCTION)
_EMPTY = CriticAnswer(0.0, {"flaw": "the patch is empty"})


@dataclass(frozen=True)
class Asked:
    """One score that is asked for."""

    row_id: int
    rollout_id: int
    critic: str
    evidence_id: int


@dataclass(frozen=True)
class ScoreInput:
    """What is asked of an instance's rollouts. `candidates` are by agent; `instance` holds nothing of the solution."""

    instance: EvaluatedInstance
    statement: str
    candidates: Mapping[int, tuple[Candidate, ...]]
    by_tests: tuple[Asked, ...]
    by_critics: tuple[Asked, ...]


type Answers = Mapping[int, CriticAnswer]  # by the row that asked


def load(session: Session, task_instance_id: int) -> ScoreInput:
    """Raises InfrastructureError when the instance has no environment."""
    instance = load_instance(session, task_instance_id)
    statement = session.get_one(TaskInstance, task_instance_id).problem_statement
    asked, rollout_ids = [], set()
    for row in _waiting(session, task_instance_id):
        asked.append(Asked(row.id or 0, row.rollout_id, row.critic, row.evidence_id))
        rollout_ids |= {row.rollout_id, row.evidence_id}
    by_agent: dict[int, tuple[Candidate, ...]] = {}
    for rollout in session.exec(select(Rollout).where(col(Rollout.id).in_(rollout_ids)).order_by(col(Rollout.replica))):
        candidate = Candidate(rollout.id or 0, rollout.model_patch or "")
        by_agent[rollout.agent_config_id] = (*by_agent.get(rollout.agent_config_id, ()), candidate)
    return ScoreInput(
        instance=replace(instance, patch="", test_patch="", fail_to_pass=()),
        statement=statement,
        candidates=by_agent,
        by_tests=tuple(each for each in asked if each.critic in _BY_TESTS),
        by_critics=tuple(each for each in asked if each.critic not in _BY_TESTS),
    )


def _waiting(session: Session, task_instance_id: int) -> Sequence[RolloutScore]:
    rows = select(RolloutScore).join(Rollout, col(RolloutScore.rollout_id) == col(Rollout.id))
    rows = rows.where(Rollout.task_instance_id == task_instance_id, col(RolloutScore.scored_at).is_(None))
    return session.exec(rows.order_by(col(RolloutScore.id))).all()


# ---------------------------------------------------------------- work


def work(services: Services, task: ScoreInput) -> Answers:
    """Raises InfrastructureError when the tests are no evidence here, and what Critic.score raises."""
    if task.by_tests:
        return _by_tests(services, task)
    return {each.row_id: _by_critic(services, task, each) for each in task.by_critics[:1]}


def _by_tests(services: Services, task: ScoreInput) -> dict[int, CriticAnswer]:
    kinds = {CriticKind(each.critic) for each in task.by_tests}
    found: dict[tuple[int, str, int], CriticAnswer] = {}
    for candidates in task.candidates.values():
        for each in agreements(services, task.instance, candidates, kinds):
            found[each.rollout_id, each.kind, each.evidence_id] = CriticAnswer(each.score, each.detail)
    return {each.row_id: found[each.rollout_id, each.critic, each.evidence_id] for each in task.by_tests}


def _by_critic(services: Services, task: ScoreInput, asked: Asked) -> CriticAnswer:
    every = (each for candidates in task.candidates.values() for each in candidates)
    patch = next(each.model_patch for each in every if each.rollout_id == asked.rollout_id)
    critic = services.critic(asked.critic)
    if not patch.strip():
        return _EMPTY
    return critic.score(CriticQuestion(task.instance.instance_id, task.statement, patch))


# ---------------------------------------------------------------- save


def save(session: Session, task_instance_id: int, output: Answers | Rejected) -> Saved:
    """Writes the scores; without the base commit they stay unknown."""
    if isinstance(output, Rejected):
        return Saved(rejected=output)
    for row_id, answer in output.items():
        row = session.get_one(RolloutScore, row_id)
        row.score, row.detail, row.cost_usd = answer.score, dict(answer.detail), answer.cost_usd
        row.scored_at = utc_now()
        session.add(row)
    session.flush()
    if not _waiting(session, task_instance_id):  # more may have been asked for meanwhile
        return Saved()
    return Saved(next_jobs=(NextJob(StageName.SCORE, task_instance_id, again=True),))


STAGE: Stage[ScoreInput, Answers] = Stage(StageName.SCORE, load, work, save)
