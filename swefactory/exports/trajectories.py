"""Rollouts to learn from, one JSON object a line, or (atif) a file each.

    openai   {…, "messages": […], "tools": […]}    tool calls' arguments as text, or with `dict` as objects
    native   {…, "trajectory": {"format": "swefactory-trajectory/1", …}}
    atif     {…, "path": "atif/…json"}             ATIF-v1.8, which Harbor's validator reads

Each row says which tests confirmed it (`confirmed_by`), which of its messages are to be learned (`mask`), and, where
the filter finds it unfit, for which reason (`filter_reason`). Resolved ones leave by default; unfit and suspicious ones
only when told, and are else left out by name. One property: all forms are of the same trajectories.
"""

import enum
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Engine
from sqlmodel import Session, col, select

from db.engine import session
from db.enums import ExportFormat
from db.models import RolloutAttempt, RolloutStep
from swefactory.exports.folder import ExportFolder, Lines, Row
from swefactory.exports.frame import Card, card_text
from swefactory.exports.manifest import LeftOut, entry_of
from swefactory.exports.rollout_subjects import RolloutChoice, RolloutSubject, rollout_subjects
from swefactory.journals import Step
from swefactory.protocols import ArtifactStore
from swefactory.trajectory_forms import AtifAgent, to_atif, to_messages

_TEXT = """\
Trajectories of agents, one a line of `trajectories.jsonl`. `confirmed_by`: the tests of the instance that passed in the
run that graded it. `mask`: which messages are to be learned, an assistant's whose tool calls did not fail.
`filter_reason`: why it would be left out of training, empty when nothing speaks against it.
"""


class Form(enum.StrEnum):
    """How a trajectory is written."""

    OPENAI = "openai"
    NATIVE = "native"
    ATIF = "atif"


class ToolArgs(enum.StrEnum):
    """How the arguments of tool calls stand in OpenAI's messages: as on the wire, or as chat templates want them."""

    STR = "str"
    DICT = "dict"


@dataclass(frozen=True)
class Telling:
    """How trajectories are told; `unfit` ones, which the filter would drop, only where wanted."""

    form: Form = Form.OPENAI
    tool_args: ToolArgs = ToolArgs.STR
    unfit: bool = False

    def options(self) -> dict[str, object]:
        """As the manifest tells them."""
        return {"form": self.form.value, "tool_args": self.tool_args.value, "unfit": self.unfit}


_USUAL, _RESOLVED = Telling(), RolloutChoice()


def write(
    engine: Engine, artifacts: ArtifactStore, target: Path, choice: RolloutChoice = _RESOLVED, telling: Telling = _USUAL
) -> ExportFolder:
    """Writes the folder `target`. Raises UsageError, ArtifactError."""
    options = {**choice.options(), **telling.options()}
    licenses: Counter[str] = Counter()
    repositories: Counter[str] = Counter()
    with ExportFolder(target, ExportFormat.TRAJECTORIES.value, options) as folder:
        with session(engine, writing=False) as db, folder.lines("trajectories.jsonl") as lines:
            for subject in fit_subjects(db, artifacts, choice, telling):
                if isinstance(subject, LeftOut):
                    folder.leave_out(subject)
                    continue
                _write(db, folder, lines, subject, telling)
                licenses[subject.license or "unknown"] += 1
                repositories[subject.repository.name] += 1
        card = Card("Trajectories by swefactory", _TEXT, folder.n_rows, folder.n_left_out, licenses, repositories)
        folder.write("README.md", card_text(card, engine))
    return folder


def fit_subjects(
    db: Session, artifacts: ArtifactStore, choice: RolloutChoice, telling: Telling = _USUAL
) -> Iterator[RolloutSubject | LeftOut]:
    """Those that may leave; the others with why not."""
    for subject in rollout_subjects(db, artifacts, choice):
        if isinstance(subject, RolloutSubject) and subject.fitness.fault and not telling.unfit:
            yield LeftOut(subject.key, f"not fit to train on: {subject.fitness.fault.value}")
        else:
            yield subject


def _write(db: Session, folder: ExportFolder, lines: Lines, subject: RolloutSubject, telling: Telling) -> None:
    row = {**subject.facts(), "model_patch": subject.rollout.model_patch or ""}
    if telling.form is Form.ATIF:
        told = atif(db, subject)
        name = atif_path(subject)
        digest = folder.write(name, json.dumps(told, indent=1, sort_keys=True, ensure_ascii=True) + "\n")
        row |= {"path": name, "sha256": digest}
    else:
        row |= _told(subject, telling)
    lines.write(row)
    folder.row(entry_of(subject.key, row, license_=subject.license))


def _told(subject: RolloutSubject, telling: Telling) -> Row:
    if telling.form is Form.NATIVE:
        return {"trajectory": subject.trajectory.as_json()}
    return messages_of(subject, telling.tool_args)


def messages_of(subject: RolloutSubject, tool_args: ToolArgs) -> dict[str, Any]:
    """The conversation with OpenAI's names: messages, tools."""
    messages = to_messages(subject.trajectory, arguments=tool_args.value)
    return {"messages": messages, "tools": [dict(tool) for tool in subject.trajectory.tools]}


# ---------------------------------------------------------------- ATIF


def atif_path(subject: RolloutSubject) -> str:
    """Where a trajectory's file lies."""
    agent = subject.agent.digest.removeprefix("sha256:")[:12]
    return f"atif/{subject.instance.instance_id}/{agent}-{subject.rollout.replica:06}.json"


def atif(db: Session, subject: RolloutSubject) -> Mapping[str, Any]:
    """The trajectory as ATIF, with tokens and cost of each step of the attempt that ended the rollout."""
    version = str(subject.agent.parameters.get("version") or "unknown")
    agent = AtifAgent(subject.agent.kind.value, version, subject.agent.model)
    aside = ("mask",)  # by entries of the native form, which ATIF joins to steps
    extra = {name: value for name, value in subject.facts().items() if name not in aside}
    learned = {
        entry.event_number
        for entry, is_learned in zip(subject.trajectory.entries, subject.fitness.mask, strict=True)
        if is_learned
    }
    told = to_atif(subject.trajectory, agent, session_id=subject.key, steps=_steps(db, subject), extra=extra)
    entries = [entry for entry in subject.trajectory.entries if entry.role != "tool"]
    for step, entry in zip(told["steps"], entries, strict=True):
        if step["source"] == "agent":
            step["extra"] = {"is_learned": entry.event_number in learned}
    return told


def _steps(db: Session, subject: RolloutSubject) -> list[Step]:
    newest = (
        select(RolloutAttempt.number)
        .where(RolloutAttempt.rollout_id == subject.rollout.id)
        .order_by(col(RolloutAttempt.number).desc())
        .limit(1)
        .scalar_subquery()
    )
    rows = select(RolloutStep).where(RolloutStep.rollout_id == subject.rollout.id, RolloutStep.attempt == newest)
    names = Step.__dataclass_fields__.keys() - {"tools"}
    return [
        replace(Step(**{name: getattr(row, name) for name in names}), tools=tuple(row.tools))
        for row in db.exec(rows.order_by(col(RolloutStep.number)))
    ]
