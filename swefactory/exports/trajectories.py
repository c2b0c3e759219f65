"""Resolved rollouts as chat transcripts in OpenAI's messages format, one JSON object a line.

    {"instance_id", "repo", "agent", "model", "replica", "resolved": true, "exit_status", "n_turns",
     "confirmed_by": […test ids that hold…], "messages": […], "tools": […], "model_patch"}

Each row says which tests confirmed it. Tool-call arguments are JSON strings, as OpenAI's format wants.
A rollout whose patch is suspicious (swefactory.suspicion) does not leave unless told: the tests may have been fooled.
Rollouts without a conversation (oracle, nop) have nothing to learn from and do not leave.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Engine
from sqlmodel import Session, col, select

from db.engine import session
from db.enums import ExportFormat
from db.models import AgentConfig, Repository, Rollout, TaskInstance
from swefactory.exports.folder import ExportFolder, Row
from swefactory.exports.manifest import entry_of
from swefactory.exports.subjects import by_code_point
from swefactory.protocols import ArtifactStore


def write(engine: Engine, artifacts: ArtifactStore, target: Path, *, suspicious: bool = False) -> ExportFolder:
    """Writes the folder `target`: trajectories.jsonl and what every export has. Raises UsageError, ArtifactError."""
    with ExportFolder(target, ExportFormat.TRAJECTORIES.value, {"suspicious": suspicious}) as folder:
        with session(engine, writing=False) as db, folder.lines("trajectories.jsonl") as lines:
            for key, row in rows(db, artifacts, suspicious=suspicious):
                lines.write(row)
                folder.row(entry_of(key, row))
    return folder


def rows(db: Session, artifacts: ArtifactStore, *, suspicious: bool = False) -> Iterator[tuple[str, Row]]:
    """Every resolved rollout that has a conversation, by its key: instance, agent and replica."""
    statement = (
        select(Rollout, TaskInstance, Repository, AgentConfig)
        .join(TaskInstance, col(Rollout.task_instance_id) == col(TaskInstance.id))
        .join(Repository, col(TaskInstance.repository_id) == col(Repository.id))
        .join(AgentConfig, col(Rollout.agent_config_id) == col(AgentConfig.id))
        .where(col(Rollout.resolved).is_(True), col(Rollout.messages_digest).is_not(None))
        .order_by(by_code_point(db, col(TaskInstance.instance_id)), AgentConfig.digest, col(Rollout.replica))
        .execution_options(yield_per=100)
    )
    for rollout, instance, repository, agent in db.exec(statement):
        if rollout.suspicious and not suspicious:
            continue
        assert rollout.messages_digest is not None
        assert rollout.exit_status is not None
        conversation = json.loads(artifacts.get(rollout.messages_digest))
        yield (
            f"{instance.instance_id}/{agent.digest}/{rollout.replica:04}",
            {
                "instance_id": instance.instance_id,
                "repo": repository.name,
                "agent": agent.name,
                "model": agent.model,
                "replica": rollout.replica,
                "resolved": True,
                "exit_status": rollout.exit_status.value,
                "n_turns": rollout.n_turns,
                "confirmed_by": sorted([*instance.fail_to_pass, *instance.pass_to_pass]),
                "messages": conversation["messages"],
                "tools": conversation["tools"],
                "model_patch": rollout.model_patch or "",
            },
        )
