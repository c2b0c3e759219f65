"""Rollouts: one agent at work on one task instance. Subject: rollout_id. Then its patch is graded.

    base commit ─► sealed to one commit ─► sandbox, offline ─► agent ─► diff, inside ─► model_patch, trajectory

One property: the agent sees the base commit and the problem statement, never the test_patch; the oracle alone is
handed the gold patch. No secret of the settings is stored with what it did.

What becomes of a run that did not go to its end:

    submitted without a change            empty_patch, graded as unresolved
    turn, cost, token or time limit,      stored as such and graded: what the agent did by then may be right
    stuck, sandbox_violation (it broke a limit of its sandbox, and that ended it)
    model_error, infrastructure_error,    stored with what there is, not graded: `resolved` stays empty and no rate
    cancelled                             counts it. Not retried by itself: each retry would cost as much again
    the sandbox fails                     the job fails and is retried
"""

from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

from sqlmodel import Session, col, delete

from db.enums import AgentKind, ExitStatus, StageName
from db.models import AgentConfig, Rollout, RolloutFlag, TaskInstance, utc_now
from swefactory.agent_checkouts import prepare
from swefactory.agent_configs import spec_of
from swefactory.cheat_flags import CheatFlag, flags
from swefactory.checkpoints import Checkpointing, restore
from swefactory.errors import InfrastructureError, Rejected
from swefactory.instance_runs import EvaluatedInstance, base_evaluation, load_instance, save_artifacts
from swefactory.journals import RolloutJournal, StopOrder
from swefactory.protocols import Agent, AgentResult, AgentSpec, ArtifactRef, Problem
from swefactory.rollout_journals import finish, stop_order
from swefactory.sandbox_protocols import Sandbox, SandboxSpec
from swefactory.stage import NextJob, Saved, Services, Stage
from swefactory.trajectories import read
from swefactory.tree_diffs import TreeDiff, take

_EVENTS_MEDIA_TYPE = "application/jsonl"
_MESSAGES_MEDIA_TYPE = "application/json"
_NOT_GRADED = frozenset((ExitStatus.MODEL_ERROR, ExitStatus.INFRASTRUCTURE_ERROR, ExitStatus.CANCELLED))
_COUNTED = (
    "n_turns", "n_prompt_tokens", "n_completion_tokens", "n_cached_tokens", "n_reasoning_tokens", "n_truncations",
    "cost_usd", "model_s", "tools_s", "overhead_s",
)  # fmt: skip


@dataclass(frozen=True)
class RolloutInput:
    """Who solves what."""

    rollout_id: int
    agent: AgentSpec
    problem: Problem
    instance: EvaluatedInstance
    order: StopOrder | None = None  # it was called off before it began


@dataclass(frozen=True)
class RolloutOutput:
    """What the agent did, free of secrets; `result` holds neither events nor messages, they are stored."""

    result: AgentResult
    model_patch: str
    events: ArtifactRef | None
    messages: ArtifactRef | None
    started_at: datetime
    finished_at: datetime
    duration_s: float
    flags: tuple[CheatFlag, ...] = ()


def load(session: Session, rollout_id: int) -> RolloutInput:
    """Raises InfrastructureError when the instance has no environment."""
    rollout = session.get_one(Rollout, rollout_id)
    instance = session.get_one(TaskInstance, rollout.task_instance_id)
    agent = spec_of(session.get_one(AgentConfig, rollout.agent_config_id))
    gold_patch = instance.patch if agent.kind is AgentKind.ORACLE else ""
    problem = Problem(instance.instance_id, instance.problem_statement, gold_patch)
    order = stop_order(session, rollout)
    return RolloutInput(rollout_id, agent, problem, load_instance(session, rollout.task_instance_id), order)


# ---------------------------------------------------------------- work


def work(services: Services, task: RolloutInput) -> RolloutOutput:
    """Raises InfrastructureError when the sandbox fails, UsageError when the agent cannot be made as asked."""
    started_at = utc_now()
    if task.order:
        return _output(services, AgentResult(task.order.exit_status, task.order.detail), TreeDiff(""), started_at)
    agent = services.agent(task.agent)
    spec, _ = base_evaluation(services, task.instance)
    journal = services.journals(task.rollout_id, services.label)
    with services.checkouts.scratch() as name:
        sandbox_spec, tree_id = prepare(services, Path(name), spec)
        result, diff = _solved(services, task.problem, agent, journal, sandbox_spec, tree_id)
    return _output(services, _judged(result, diff), diff, started_at)


def _solved(
    services: Services,
    problem: Problem,
    agent: Agent,
    journal: RolloutJournal,
    spec: SandboxSpec,
    tree_id: str,
) -> tuple[AgentResult, TreeDiff]:
    """From the checkpoint that an attempt which broke off has left, where it can be restored; else from the start."""
    if journal.checkpoint:
        with services.sandboxes.open(spec) as sandbox:
            why_not = restore(sandbox, tree_id, journal.checkpoint)
            if not why_not:
                journal.resume(f"from step {journal.checkpoint.n_steps}")
                return _run(services, problem, agent, journal, sandbox, tree_id)
        journal.restart(why_not)
    with services.sandboxes.open(spec) as sandbox:
        return _run(services, problem, agent, journal, sandbox, tree_id)


def _run(
    services: Services, problem: Problem, agent: Agent, journal: RolloutJournal, sandbox: Sandbox, tree_id: str
) -> tuple[AgentResult, TreeDiff]:
    kept = Checkpointing(journal, sandbox, tree_id, services.settings.checkpoint_share)
    result = agent.solve(problem, sandbox, kept)
    try:
        return result, take(sandbox, tree_id)
    except InfrastructureError as error:
        if not (why := sandbox.violation()):
            raise
        status = result.exit_status if result.exit_status in _NOT_GRADED else ExitStatus.SANDBOX_VIOLATION
        diff = TreeDiff("", f"no diff could be taken: {error}")
        return replace(result, exit_status=status, exit_detail=result.exit_detail or why), diff


def _judged(result: AgentResult, diff: TreeDiff) -> AgentResult:
    """An agent that submits nothing has not submitted."""
    detail = "; ".join(part for part in (result.exit_detail, diff.note) if part)
    is_empty = result.exit_status is ExitStatus.SUBMITTED and not diff.text.strip()
    return replace(result, exit_status=ExitStatus.EMPTY_PATCH if is_empty else result.exit_status, exit_detail=detail)


def _output(services: Services, result: AgentResult, diff: TreeDiff, started_at: datetime) -> RolloutOutput:
    finished_at = utc_now()
    redact = services.settings.redact
    return RolloutOutput(
        result=replace(result, exit_detail=redact(result.exit_detail).replace("\0", ""), events=b"", messages=b""),
        model_patch=redact(diff.text),
        events=_stored(services, result.events, _EVENTS_MEDIA_TYPE),
        messages=_stored(services, result.messages, _MESSAGES_MEDIA_TYPE),
        started_at=started_at,
        finished_at=finished_at,
        duration_s=(finished_at - started_at).total_seconds(),
        flags=flags(read(redact(result.events.decode("utf-8", "replace")).splitlines())),
    )


def _stored(services: Services, content: bytes, media_type: str) -> ArtifactRef | None:
    if not content:
        return None
    text = services.settings.redact(content.decode("utf-8", "surrogateescape"))
    return services.artifacts.put(text.encode("utf-8", "surrogateescape"), media_type)


# ---------------------------------------------------------------- save


def save(session: Session, rollout_id: int, output: RolloutOutput | Rejected) -> Saved:
    """Writes the rollout and asks for its grading."""
    rollout = session.get_one(Rollout, rollout_id)
    if isinstance(output, Rejected):  # the instance was validated, so what failed now is on our side
        rollout.exit_status, rollout.exit_detail = ExitStatus.INFRASTRUCTURE_ERROR, str(output)
        rollout.finished_at = utc_now()
        session.add(rollout)
        return Saved(rejected=output)
    _write(rollout, output)
    finish(session, rollout)
    session.add(rollout)
    _save_flags(session, rollout_id, output.flags)
    save_artifacts(session, (ref for ref in (output.events, output.messages) if ref))
    if output.result.exit_status in _NOT_GRADED:
        return Saved()
    return Saved(next_jobs=(NextJob(StageName.GRADE, rollout_id, again=True),))


def _write(rollout: Rollout, output: RolloutOutput) -> None:
    result = output.result
    rollout.exit_status, rollout.exit_detail = result.exit_status, result.exit_detail
    rollout.model_patch, rollout.resolved = output.model_patch, None
    for name in _COUNTED:
        setattr(rollout, name, getattr(result, name))
    rollout.trajectory_digest = output.events.digest if output.events else None
    rollout.messages_digest = output.messages.digest if output.messages else None
    rollout.started_at, rollout.finished_at = output.started_at, output.finished_at
    rollout.duration_s = output.duration_s


def _save_flags(session: Session, rollout_id: int, found: tuple[CheatFlag, ...]) -> None:
    session.exec(delete(RolloutFlag).where(col(RolloutFlag.rollout_id) == rollout_id))
    for flag in found:
        session.add(RolloutFlag(rollout_id=rollout_id, **asdict(flag)))


STAGE = Stage(StageName.ROLLOUT, load, work, save)
