"""A rollout's trajectory in its one native form, read from the events that OpenHands left.

    events (JSON lines) ─► read() ─► Trajectory: system | user | assistant | tool entries, in order
                                     each says which line of the events it is from

One property: nothing the model said or was answered is lost or invented; what OpenHands only said to
itself is left out. The form is versioned; `swefactory.trajectory_forms` turns it into those of others.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

VERSION = "swefactory-trajectory/1"
_ROLES = frozenset(("user", "assistant", "system"))


@dataclass(frozen=True)
class Call:
    """A tool call as the model wrote it: `arguments` is its own text, which need not be JSON."""

    call_id: str
    name: str
    arguments: str
    event_number: int

    def parsed(self) -> Mapping[str, Any] | None:
        """The arguments, None where they are no JSON object."""
        try:
            value = json.loads(self.arguments)
        except ValueError:
            return None
        return value if isinstance(value, dict) else None


@dataclass(frozen=True)
class Entry:
    """One message. Of an assistant: `calls` and what it thought; of a tool: which call it answers, and whether it
    failed (`is_error`: the tool said so, too; `is_refused`: the call could not be carried out at all)."""

    role: str  # system | user | assistant | tool
    text: str
    event_number: int  # the line of the events, from 0
    event_id: str = ""
    at: str = ""  # as OpenHands writes times: naive, local
    reasoning: str = ""
    response_id: str = ""
    calls: tuple[Call, ...] = ()
    call_id: str = ""
    tool: str = ""
    is_error: bool = False
    is_refused: bool = False


@dataclass(frozen=True)
class Trajectory:
    """What the model saw and said. `tools` are OpenAI schemas; `n_condensations` above 0: the model saw less of it."""

    entries: tuple[Entry, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    n_condensations: int = 0
    errors: tuple[str, ...] = field(default=())  # codes of the errors that ended it

    def calls(self) -> Iterator[Call]:
        for entry in self.entries:
            yield from entry.calls

    def answers(self) -> Mapping[str, Entry]:
        """What each call was answered, by its id."""
        return {entry.call_id: entry for entry in self.entries if entry.role == "tool"}

    def as_json(self) -> dict[str, Any]:
        """The native form as it is exported."""
        return {
            "format": VERSION,
            "n_condensations": self.n_condensations,
            "errors": list(self.errors),
            "tools": list(self.tools),
            "entries": [_without_nothing(entry) for entry in self.entries],
        }


def read(events: Iterable[str], conversation: Mapping[str, Any] | None = None) -> Trajectory:
    """The trajectory of these events, one JSON object a line. `conversation` is what a rollout stores as messages: with
    it, texts are those on the wire, where tools add to what they observed. Raises ValueError on a line that is none."""
    parsed = [json.loads(line) for line in events if line.strip()]
    entries: list[Entry] = []
    for number, event in enumerate(parsed):
        entry = _entry(number, event)
        if entry is None:
            continue
        if entries and _same_answer(entries[-1], entry):  # several calls of one answer are several events
            last = entries[-1]
            joined = "\n".join(text for text in (last.text, entry.text) if text)
            entries[-1] = replace(last, text=joined, calls=(*last.calls, *entry.calls))
        else:
            entries.append(entry)
    kinds = [event.get("kind") for event in parsed]
    errors = tuple(str(event.get("code", "")) for event in parsed if event.get("kind") == "ConversationErrorEvent")
    told = conversation or {}
    as_sent = _as_sent(entries, told.get("messages", ()))
    return Trajectory(tuple(as_sent), tuple(told.get("tools", ())), kinds.count("Condensation"), errors)


def _as_sent(entries: list[Entry], messages: Sequence[Mapping[str, Any]]) -> list[Entry]:
    """The entries with the texts of the messages, where those are the same conversation."""
    if [entry.role for entry in entries] != [message["role"] for message in messages]:
        return entries
    return [replace(entry, text=_content(message)) for entry, message in zip(entries, messages, strict=True)]


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else _text(content)


def _same_answer(last: Entry, entry: Entry) -> bool:
    return bool(last.calls and entry.calls and entry.response_id) and last.response_id == entry.response_id


def _entry(number: int, event: Mapping[str, Any]) -> Entry | None:
    facts: Any = {
        "event_number": number,
        "event_id": str(event.get("id", "")),
        "at": str(event.get("timestamp", "")),
        "response_id": str(event.get("llm_response_id") or ""),
    }
    match event.get("kind"):
        case "SystemPromptEvent":
            parts = [event["system_prompt"], event.get("dynamic_context")]
            return Entry("system", _text([part for part in parts if part]), **facts)
        case "MessageEvent":
            message = event["llm_message"]
            role = message["role"] if message["role"] in _ROLES else "user"
            said = [*message.get("content", ()), *event.get("extended_content", ())]
            return Entry(role, _text(said), reasoning=message.get("reasoning_content") or "", **facts)
        case "ActionEvent":
            call = event["tool_call"]
            made = Call(str(call["id"]), str(call["name"]), str(call["arguments"]), number)
            facts["reasoning"] = event.get("reasoning_content") or ""
            return Entry("assistant", _text(event.get("thought", ())), calls=(made,), **facts)
        case "ObservationEvent":
            seen = event["observation"]
            facts = facts | _answered(event)
            return Entry("tool", _text(seen.get("content", ())), is_error=bool(seen.get("is_error")), **facts)
        case "AgentErrorEvent":
            facts = facts | _answered(event)
            return Entry("tool", str(event["error"]), is_error=True, is_refused=True, **facts)
        case _:
            return None


def _answered(event: Mapping[str, Any]) -> dict[str, Any]:
    return {"call_id": str(event["tool_call_id"]), "tool": str(event["tool_name"])}


def _text(parts: Iterable[Mapping[str, Any]]) -> str:
    """The texts of a content list; an image is a word."""
    return "\n".join(part["text"] if part.get("type", "text") == "text" else f"[{part.get('type')}]" for part in parts)


def _without_nothing(entry: Entry) -> dict[str, Any]:
    facts = {name: getattr(entry, name) for name in Entry.__dataclass_fields__ if name != "calls"}
    kept = {
        name: value for name, value in facts.items() if value not in ("", False) or name in ("text", "event_number")
    }
    if entry.calls:
        names = ("call_id", "name", "arguments", "event_number")
        kept["calls"] = [{name: getattr(call, name) for name in names} for call in entry.calls]
    return kept
