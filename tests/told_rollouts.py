"""Graded rollouts with their events, as a run leaves them in the catalog."""

import json
from collections.abc import Sequence

from sqlmodel import Session, select

from db.enums import AgentKind, ExitStatus, Outcome, RunState, RunStatus
from db.models import AgentConfig, Rollout, TaskInstance, TestOutcome, TestRun
from swefactory.artifacts import LocalArtifacts, digest_of
from swefactory.trajectories import read
from swefactory.trajectory_forms import to_messages
from tests.trajectory_events import Events

TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
    for name in ("terminal", "file_editor", "finish")
]


def solved(statement: str = "x must be 2") -> Events:
    return (
        Events(statement).runs("ls", "a.py").calls("terminal", error="no such parameter", raw='{"nope": 1}').finishes()
    )


def failed(statement: str = "x must be 2") -> Events:
    """Begins otherwise."""
    return Events(statement).runs("pwd", "/testbed").finishes()


def add_told(
    db: Session,
    artifacts: LocalArtifacts,
    instance: TaskInstance,
    events: Events | None,
    *,
    passed: Sequence[str] | None = None,
    agent: str = "agent",
    replica: int = 1,
    exit_status: ExitStatus = ExitStatus.SUBMITTED,
    suspicious: Sequence[str] = (),
) -> Rollout:
    """A rollout by `agent` that ended with these events; `passed` are the tests that passed when it was graded, all of
    the instance's for a resolved one, None where it was not graded."""
    named = {*instance.fail_to_pass, *instance.pass_to_pass}
    rollout = Rollout(
        task_instance_id=instance.id or 0, agent_config_id=_agent(db, agent), replica=replica, exit_status=exit_status,
        resolved=None if passed is None else named <= {*passed}, model_patch="diff", suspicious=list(suspicious),
    )  # fmt: skip
    if events is not None:
        text = "\n".join(events.lines)
        rollout.trajectory_digest = artifacts.put(text.encode(), "application/jsonl").digest
        messages = {"messages": to_messages(read(events.lines)), "tools": TOOLS}
        rollout.messages_digest = artifacts.put(json.dumps(messages).encode(), "application/json").digest
    db.add(rollout)
    db.flush()
    if passed is not None:
        _graded(db, rollout, passed)
    return rollout


def _agent(db: Session, name: str) -> int:
    digest = digest_of(name.encode())
    row = db.exec(select(AgentConfig).where(AgentConfig.digest == digest)).first()
    row = row or AgentConfig(digest=digest, name=name, kind=AgentKind.OPENHANDS, model="m")
    db.add(row)
    db.flush()
    return row.id or 0


def _graded(db: Session, rollout: Rollout, passed: Sequence[str]) -> None:
    run = TestRun(rollout_id=rollout.id, state=RunState.MODEL, number=1, status=RunStatus.COMPLETED)
    db.add(run)
    db.flush()
    for test_id in passed:
        digest = digest_of(test_id.encode())
        db.add(TestOutcome(test_run_id=run.id or 0, test_id=test_id, test_digest=digest, outcome=Outcome.PASSED))
