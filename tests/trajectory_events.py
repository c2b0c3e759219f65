"""Events as OpenHands writes them, made by hand: what reading them takes, no more."""

import json
from typing import Any


class Events:
    """Collects the lines of a trajectory; each method is one turn."""

    def __init__(self, statement: str = "x must be 2") -> None:
        self.lines: list[str] = []
        self._n_answers = 0
        self._add("SystemPromptEvent", system_prompt=text("Be good."))
        self.says("user", statement)

    def says(self, role: str, said: str) -> "Events":
        self._n_answers += role == "assistant"
        message = {"role": role, "content": [text(said)]}
        self._add("MessageEvent", llm_message=message, llm_response_id=self._id if role == "assistant" else None)
        return self

    def calls(self, tool: str, seen: str | None = "", *, error: str = "", is_error: bool = False, raw: str = "",
              call_id: str = "", **arguments: Any) -> "Events":  # fmt: skip
        """One answer with one call, and what it was answered; `seen` None leaves it unanswered."""
        self._n_answers += 1
        made = call_id or f"call_{self._n_answers}"
        call = {"id": made, "name": tool, "arguments": raw or json.dumps(arguments)}
        self._add("ActionEvent", thought=[text("")], tool_call=call, tool_name=tool, llm_response_id=self._id)
        if error:
            self._add("AgentErrorEvent", tool_call_id=made, tool_name=tool, error=error)
        elif seen is not None:
            observation = {"content": [text(seen)], "is_error": is_error}
            self._add("ObservationEvent", tool_call_id=made, tool_name=tool, observation=observation)
        return self

    def runs(self, command: str, seen: str = "") -> "Events":
        return self.calls("terminal", seen, command=command)

    def edits(self, command: str, path: str) -> "Events":
        return self.calls("file_editor", "done", command=command, path=path)

    def finishes(self) -> "Events":
        return self.calls("finish", "done", message="done")

    def adds(self, kind: str, **facts: Any) -> "Events":
        self._add(kind, **facts)
        return self

    @property
    def _id(self) -> str:
        return f"reply-{self._n_answers}"

    def _add(self, kind: str, **facts: Any) -> None:
        self.lines.append(json.dumps({"kind": kind, "id": f"event-{len(self.lines)}", **facts}))


def text(said: str) -> dict[str, str]:
    return {"type": "text", "text": said}
