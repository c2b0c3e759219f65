"""Rollouts of one instance held against each other, as TRL reads them. One property: what says nothing of the agent
(infrastructure, the model's server, a cancellation) is on neither side, and both sides were asked the same.

    pairs.jsonl      {"prompt": […], "chosen": […], "rejected": […], "tools", "margin", …}     DPO, reward models
    kto.jsonl        {"prompt": […], "completion": […], "label": bool, "tools", …}             KTO
    stepwise.jsonl   {"prompt": text, "completions": [text, …], "labels": [bool, …], …}        process rewards

chosen, or labelled true, are resolved rollouts about which nothing looks like cheating; rejected are unresolved ones.
A pair has the same prompt and the same tools, and its sides did not do the same. `margin` is the chosen one's score
less the rejected one's, where a score is the share of FAIL_TO_PASS times the share of PASS_TO_PASS that passed when it
was graded: a resolved one has 1. A step's label says whether its tool calls worked, which is no judgement of whether
they helped.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from sqlalchemy import Engine
from sqlmodel import Session

from db.engine import session
from db.enums import ExportFormat
from swefactory.exports.folder import ExportFolder, Lines
from swefactory.exports.frame import Card, card_text
from swefactory.exports.manifest import LeftOut, entry_of
from swefactory.exports.rollout_subjects import RolloutChoice, RolloutSubject, rollout_subjects
from swefactory.exports.trajectories import ToolArgs, messages_of
from swefactory.protocols import ArtifactStore
from swefactory.trajectories import Entry
from swefactory.trajectory_filters import FormatFault

# Faults of how a rollout ended, which is what an unresolved one is held against others for.
_OF_FAILURE = frozenset((FormatFault.NOT_FINISHED, FormatFault.ONLY_ERRORS))
_KINDS = ("kto", "pairs", "stepwise")  # in the order of their keys
_TEXT = """\
Rollouts of the same instance held against each other, for TRL: `pairs.jsonl` (prompt, chosen, rejected; DPO and reward
models), `kto.jsonl` (prompt, completion, label) and `stepwise.jsonl` (prompt, completions, labels: whether the tool
calls of a step worked). Chosen rollouts are resolved and look clean, rejected ones are unresolved; none ended by a
fault of infrastructure.
"""


@dataclass(frozen=True)
class Pairing:
    """`most` pairs of one instance leave, so that an instance of many tries does not drown the others."""

    most: int = 4
    tool_args: ToolArgs = ToolArgs.DICT

    def options(self) -> dict[str, object]:
        """As the manifest tells them."""
        return {"pairs_per_instance": self.most, "tool_args": self.tool_args.value}


_USUAL = Pairing()


def write(
    engine: Engine, artifacts: ArtifactStore, target: Path, choice: RolloutChoice, pairing: Pairing = _USUAL
) -> ExportFolder:
    """Writes the folder `target`. Raises UsageError, ArtifactError."""
    licenses: Counter[str] = Counter()
    repositories: Counter[str] = Counter()
    with ExportFolder(target, ExportFormat.PREFERENCES.value, {**choice.options(), **pairing.options()}) as folder:
        with (
            session(engine, writing=False) as db,
            folder.lines("kto.jsonl") as kto,
            folder.lines("pairs.jsonl") as pairs,
            folder.lines("stepwise.jsonl") as stepwise,
        ):
            files = dict(zip(_KINDS, (kto, pairs, stepwise), strict=True))
            for _, group in groupby(_usable(db, artifacts, choice, folder), lambda s: s.instance.instance_id):
                tried = list(group)
                _write(folder, files, tried, pairing)
                licenses[tried[0].license or "unknown"] += 1
                repositories[tried[0].repository.name] += 1
        card = Card("Preferences by swefactory", _TEXT, folder.n_rows, folder.n_left_out, licenses, repositories)
        folder.write("README.md", card_text(card, engine))
    return folder


def _usable(
    db: Session, artifacts: ArtifactStore, choice: RolloutChoice, folder: ExportFolder
) -> Iterator[RolloutSubject]:
    """Those on either side; the others are noted with why they are on none."""
    for subject in rollout_subjects(db, artifacts, choice):
        if isinstance(subject, LeftOut):
            folder.leave_out(subject)
        elif why := unfit(subject):
            folder.leave_out(LeftOut(subject.key, why))
        else:
            yield subject


def unfit(subject: RolloutSubject) -> str:
    """Why a rollout is on neither side; empty when it is on one."""
    fault = subject.fitness.fault
    if subject.rollout.resolved and not subject.is_clean:
        return f"it is resolved but looks like cheating: {', '.join([*subject.rollout.suspicious, *subject.flags])}"
    if fault and (subject.rollout.resolved or fault not in _OF_FAILURE):
        return f"not fit to train on: {fault.value}"
    if not _completion(subject):
        return "its conversation does not begin with a system prompt and the problem"
    return ""


def _write(folder: ExportFolder, files: dict[str, Lines], tried: Sequence[RolloutSubject], pairing: Pairing) -> None:
    """The rows of one instance, in the order of their keys."""
    instance_id, license_ = tried[0].instance.instance_id, tried[0].license
    rows = {
        "kto": [(subject.key, _kto(subject, pairing)) for subject in tried],
        "pairs": list(_pairs(tried, pairing)),
        "stepwise": [(subject.key, _stepwise(subject)) for subject in tried],
    }
    for kind in _KINDS:
        for key, row in rows[kind]:
            files[kind].write(row)
            folder.row(entry_of(f"{instance_id}/{kind}{key.removeprefix(instance_id)}", row, license_=license_))


# ---------------------------------------------------------------- rows


def _pairs(tried: Sequence[RolloutSubject], pairing: Pairing) -> Iterator[tuple[str, dict[str, Any]]]:
    """Up to `most` pairs: each chosen one meets another rejected one before any meets a second."""
    chosen = [subject for subject in tried if subject.rollout.resolved]
    rejected = [subject for subject in tried if not subject.rollout.resolved]
    meetings = [
        (one, rejected[(n + turn) % len(rejected)]) for turn in range(len(rejected)) for n, one in enumerate(chosen)
    ]
    found = [pair for pair in meetings if _asked(pair[0]) == _asked(pair[1]) and _did(pair[0]) != _did(pair[1])]
    for one, other in sorted(found[: pairing.most], key=lambda pair: (pair[0].key, pair[1].key)):
        yield f"{one.key}{other.key.removeprefix(other.instance.instance_id)}", _pair(one, other, pairing)


def _asked(subject: RolloutSubject) -> tuple[list[str], str]:
    """What it was asked, and with which tools."""
    entries = subject.trajectory.entries[: _n_prompt(subject)]
    return [entry.text for entry in entries], json.dumps(subject.trajectory.tools, sort_keys=True)


def _did(subject: RolloutSubject) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """What it said and called. Two that did the same teach nothing, however their tests ended."""
    said = [entry for entry in subject.trajectory.entries if entry.role == "assistant"]
    return [(e.text, e.reasoning, [(call.name, call.arguments) for call in e.calls]) for e in said]


def _n_prompt(subject: RolloutSubject) -> int:
    """How many messages come before the first of the assistant's."""
    roles = [entry.role for entry in subject.trajectory.entries]
    return roles.index("assistant") if "assistant" in roles else len(roles)


def _completion(subject: RolloutSubject) -> bool:
    n = _n_prompt(subject)
    return 0 < n < len(subject.trajectory.entries)


def _pair(one: RolloutSubject, other: RolloutSubject, pairing: Pairing) -> dict[str, Any]:
    told, others = messages_of(one, pairing.tool_args), messages_of(other, pairing.tool_args)
    n = _n_prompt(one)
    return {
        "prompt": told["messages"][:n],
        "chosen": told["messages"][n:],
        "rejected": others["messages"][n:],
        "tools": told["tools"],
        "instance_id": one.instance.instance_id,
        "chosen_run_id": one.key,
        "rejected_run_id": other.key,
        "chosen_model": one.agent.model,
        "rejected_model": other.agent.model,
        "margin": round(score(one) - score(other), 6),
        "chosen_mask": list(one.fitness.mask[n:]),
        "rejected_exit_status": other.facts()["exit_status"],
        "confirmed_by": list(one.confirmed_by),
    }


def score(subject: RolloutSubject) -> float:
    """The share of FAIL_TO_PASS times that of PASS_TO_PASS which passed."""
    passed, product = set(subject.confirmed_by), 1.0
    for named in (subject.instance.fail_to_pass, subject.instance.pass_to_pass):
        product *= len(passed.intersection(named)) / len(named) if named else 1.0
    return product


def _kto(subject: RolloutSubject, pairing: Pairing) -> dict[str, Any]:
    told, n = messages_of(subject, pairing.tool_args), _n_prompt(subject)
    return {
        "prompt": told["messages"][:n],
        "completion": told["messages"][n:],
        "label": bool(subject.rollout.resolved),
        "tools": told["tools"],
        "score": round(score(subject), 6),
        **{name: subject.facts()[name] for name in ("instance_id", "run_id", "model", "exit_status", "confirmed_by")},
    }


def _stepwise(subject: RolloutSubject) -> dict[str, Any]:
    n = _n_prompt(subject)
    steps = [
        (entry, is_right)
        for entry, is_right in zip(subject.trajectory.entries, subject.fitness.mask, strict=True)
        if entry.role == "assistant"
    ]
    return {
        "prompt": "\n\n".join(entry.text for entry in subject.trajectory.entries[:n]),
        "completions": [_step(entry) for entry, _ in steps],
        "labels": [is_right for _, is_right in steps],
        "resolved": bool(subject.rollout.resolved),
        "instance_id": subject.instance.instance_id,
        "run_id": subject.key,
        "model": subject.agent.model,
    }


def _step(entry: Entry) -> str:
    """What the model wrote in one turn: its thoughts, its words, its calls."""
    calls = [json.dumps({"name": call.name, "arguments": call.parsed() or call.arguments}) for call in entry.calls]
    return "\n".join(text for text in (entry.reasoning, entry.text, *calls) if text)
