"""Which trajectories are fit to learn from, and which of their steps: a verdict with an enumerated reason each.

One property: a trajectory passes, or is dropped for the first reason in the order of FormatFault; nothing is mended.
"""

import enum
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swefactory.errors import UsageError
from swefactory.trajectories import Entry, Trajectory
from swefactory.trajectory_forms import as_text, to_messages

type CountTokens = Callable[[Sequence[Mapping[str, Any]]], int]
"""How many tokens a list of OpenAI messages has."""

DEFAULT_MAX_TOKENS = 32_768
_BYTES_PER_TOKEN = 4


class FormatFault(enum.StrEnum):
    """Why a trajectory is dropped, in the order of looking."""

    NO_ANSWER = "no_answer"  # the model said nothing
    CONDENSED = "condensed"  # what is here is not what the model saw
    WRONG_START = "wrong_start"  # not a system prompt and then the problem
    UNANSWERED_CALL = "unanswered_call"
    ANSWER_WITHOUT_CALL = "answer_without_call"
    REPEATED_CALL_ID = "repeated_call_id"
    UNKNOWN_TOOL = "unknown_tool"
    UNREADABLE_ARGUMENTS = "unreadable_arguments"
    NOT_FINISHED = "not_finished"  # the last thing the model did is no call of finish
    ONLY_ERRORS = "only_errors"  # no tool call of its but finish worked
    REDACTED = "redacted"  # the model wrote a secret, which is no longer there
    TOO_LONG = "too_long"


@dataclass(frozen=True)
class Fitness:
    """`fault` None: fit. `mask` says of each entry whether its text is to be learned: an assistant's, unless what it
    called failed."""

    fault: FormatFault | None
    n_tokens: int
    mask: tuple[bool, ...]


def judge(trajectory: Trajectory, count: CountTokens, *, max_tokens: int | None = DEFAULT_MAX_TOKENS) -> Fitness:
    """The verdict on one trajectory; with `max_tokens` None none is too long."""
    n_tokens = count(to_messages(trajectory))
    fault = _fault(trajectory)
    if fault is None and max_tokens is not None and n_tokens > max_tokens:
        fault = FormatFault.TOO_LONG
    return Fitness(fault, n_tokens, mask(trajectory))


def mask(trajectory: Trajectory) -> tuple[bool, ...]:
    """Of each entry whether it is to be learned: an assistant's whose calls none failed."""
    answers = trajectory.answers()
    return tuple(
        entry.role == "assistant"
        and not any(answers[call.call_id].is_error for call in entry.calls if call.call_id in answers)
        for entry in trajectory.entries
    )


def _fault(trajectory: Trajectory) -> FormatFault | None:
    faults = ((FormatFault.NO_ANSWER, not _assistants(trajectory)), *_faults(trajectory))
    return next((fault for fault, is_so in faults if is_so), None)


def _faults(trajectory: Trajectory) -> list[tuple[FormatFault, bool]]:
    calls, entries = list(trajectory.calls()), trajectory.entries
    made, answered = [call.call_id for call in calls], [e.call_id for e in entries if e.role == "tool"]
    known = {tool["function"]["name"] for tool in trajectory.tools} if trajectory.tools else {c.name for c in calls}
    said = _assistants(trajectory)
    return [
        (FormatFault.CONDENSED, trajectory.n_condensations > 0),
        (FormatFault.WRONG_START, [entry.role for entry in entries[:2]] != ["system", "user"]),
        (FormatFault.UNANSWERED_CALL, bool({c.call_id for c in calls if c.name != "finish"} - set(answered))),
        (FormatFault.ANSWER_WITHOUT_CALL, bool(set(answered) - set(made))),
        (FormatFault.REPEATED_CALL_ID, len(set(made)) < len(made)),
        (FormatFault.UNKNOWN_TOOL, any(call.name not in known for call in calls)),
        (FormatFault.UNREADABLE_ARGUMENTS, any(call.parsed() is None for call in calls)),
        (FormatFault.NOT_FINISHED, not said or "finish" not in {call.name for call in said[-1].calls}),
        (FormatFault.ONLY_ERRORS, not _any_worked(trajectory)),
        (FormatFault.REDACTED, any("[redacted]" in entry.text for entry in said)),
    ]


def _assistants(trajectory: Trajectory) -> list[Entry]:
    return [entry for entry in trajectory.entries if entry.role == "assistant"]


def _any_worked(trajectory: Trajectory) -> bool:
    names = {call.call_id: call.name for call in trajectory.calls()}
    return any(
        not e.is_error and names.get(e.call_id) not in ("finish", "think") for e in trajectory.entries if e.call_id
    )


def token_counter(name: str = "bytes") -> CountTokens:
    """`bytes`: a quarter of the UTF-8 bytes, needs nothing. Otherwise a model's name as LiteLLM knows it, or the
    path of a tokenizer.json of Hugging Face's `tokenizers`. Raises UsageError when what it needs is not installed."""
    if name == "bytes":
        return lambda messages: -(-len(as_text(messages).encode("utf-8", "replace")) // _BYTES_PER_TOKEN)
    if name.endswith(".json"):
        return _of_tokenizers(name)
    return _of_litellm(name)


def _of_tokenizers(path: str) -> CountTokens:
    try:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(path)
    except ImportError as error:
        raise UsageError(f"counting with {path} needs the package tokenizers: pip install tokenizers") from error
    except Exception as error:  # its own errors are bare exceptions
        raise UsageError(f"the tokenizer {path} cannot be read: {error}") from error
    return lambda messages: len(tokenizer.encode(as_text(messages)).ids)


def _of_litellm(model: str) -> CountTokens:
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it fetches a price list when it is loaded
    try:
        import litellm
    except ImportError as error:
        raise UsageError(f"counting as {model} does needs LiteLLM: pip install 'swefactory[agent]'") from error
    return lambda messages: int(litellm.token_counter(model=model, messages=list(messages)))
