"""A trajectory in the forms of others: OpenAI's messages with tool calls, and ATIF of Harbor.

One property: both are made of the native form alone, so that they say the same; `trajectories` says where each comes
from. ATIF as in its version 1.8: steps from 1, an agent's step holds its calls and what they were answered.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swefactory.journals import Step
from swefactory.trajectories import Call, Entry, Trajectory

ATIF_VERSION = "ATIF-v1.8"


def to_messages(trajectory: Trajectory, *, arguments: str = "str") -> list[dict[str, Any]]:
    """OpenAI's chat messages. `arguments` of tool calls: `str` as on the wire, or `dict` as chat templates want them
    (a call whose arguments are no JSON object then has an empty one)."""
    return [_message(entry, arguments == "dict") for entry in trajectory.entries]


def _message(entry: Entry, as_dict: bool) -> dict[str, Any]:
    message: dict[str, Any] = {"role": entry.role}
    if entry.text or not entry.calls:  # as OpenHands sends it
        message["content"] = entry.text
    if entry.reasoning:
        message["reasoning_content"] = entry.reasoning
    if entry.calls:
        message["tool_calls"] = [_tool_call(call, as_dict) for call in entry.calls]
    if entry.role == "tool":
        message |= {"tool_call_id": entry.call_id, "name": entry.tool}
    return message


def _tool_call(call: Call, as_dict: bool) -> dict[str, Any]:
    arguments = dict(call.parsed() or {}) if as_dict else call.arguments
    return {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


@dataclass(frozen=True)
class AtifAgent:
    """Whom an ATIF file names."""

    name: str
    version: str
    model: str


def to_atif(
    trajectory: Trajectory,
    agent: AtifAgent,
    *,
    session_id: str,
    steps: Sequence[Step] = (),
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """An ATIF trajectory; `steps` give each answer its tokens and cost, found by the id of the response."""
    answers, by_response = trajectory.answers(), {step.response_id: step for step in steps}
    told = [
        _atif_step(entry, answers, agent, by_response.get(entry.response_id))
        for entry in trajectory.entries
        if entry.role != "tool"
    ]
    return {
        "schema_version": ATIF_VERSION,
        "session_id": session_id,
        "trajectory_id": session_id,
        "agent": {
            "name": agent.name,
            "version": agent.version,
            "model_name": agent.model,
            "tool_definitions": [dict(tool) for tool in trajectory.tools],
        },
        "steps": [{"step_id": number, **step} for number, step in enumerate(told, 1)],
        "final_metrics": _final_metrics(steps, len(told)),
        "extra": {"n_condensations": trajectory.n_condensations, **(extra or {})},
    }


def _atif_step(entry: Entry, answers: Mapping[str, Entry], agent: AtifAgent, step: Step | None) -> dict[str, Any]:
    told: dict[str, Any] = {"source": "agent" if entry.role == "assistant" else entry.role, "message": entry.text}
    if entry.at:
        told["timestamp"] = entry.at
    if entry.role != "assistant":
        return told
    told["model_name"] = agent.model
    if entry.reasoning:
        told["reasoning_content"] = entry.reasoning
    if entry.calls:
        told["tool_calls"] = [_atif_call(call) for call in entry.calls]
        results = [_atif_result(answers[call.call_id]) for call in entry.calls if call.call_id in answers]
        if results:
            told["observation"] = {"results": results}
    if step:
        told["metrics"] = {
            "prompt_tokens": step.n_prompt_tokens,
            "completion_tokens": step.n_completion_tokens,
            "cached_tokens": step.n_cached_tokens,
            "cost_usd": step.cost_usd,
            "extra": {"reasoning_tokens": step.n_reasoning_tokens, "model_s": step.model_s, "tools_s": step.tools_s},
        }
    return told


def _atif_call(call: Call) -> dict[str, Any]:
    """Arguments are an object there; what is none is kept beside it."""
    told: dict[str, Any] = {"tool_call_id": call.call_id, "function_name": call.name}
    parsed = call.parsed()
    if parsed is None:
        return told | {"arguments": {}, "extra": {"unreadable_arguments": call.arguments}}
    return told | {"arguments": dict(parsed)}


def _atif_result(entry: Entry) -> dict[str, Any]:
    told: dict[str, Any] = {"source_call_id": entry.call_id, "content": entry.text}
    return told | {"extra": {"is_error": True}} if entry.is_error else told


def _final_metrics(steps: Sequence[Step], n_steps: int) -> dict[str, Any]:
    return {
        "total_prompt_tokens": sum(step.n_prompt_tokens for step in steps),
        "total_completion_tokens": sum(step.n_completion_tokens for step in steps),
        "total_cached_tokens": sum(step.n_cached_tokens for step in steps),
        "total_cost_usd": sum(step.cost_usd for step in steps),
        "total_steps": n_steps,
    }


def as_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """Messages as one text, for counting where no chat template is at hand."""
    return json.dumps(messages, ensure_ascii=False, sort_keys=True)
